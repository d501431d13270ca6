"""`measure`: figures of a finished model that its loss does not say.

sharpness   trace of the Hessian (or Fisher matrix) by layer and matrix, largest eigenvalue, SAM's rise, average rise; of a run of any method
loss-exact  loss minus the optimum on a language with known statistics, against the true probabilities
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

from headstart import methods
from headstart.core.errors import BadInput, UsageError
from headstart.core.progress import Reporter
from headstart.core.rng import Rng
from headstart.core.run import read_run
from headstart.core.words import duration
from headstart.data.languages.grammar import read_grammar
from headstart.data.languages.language import Language, find_language, is_language
from headstart.data.languages.pcfg import PCFG
from headstart.data.listing import is_store
from headstart.data.permute import draw
from headstart.data.text.config import TextConfig
from headstart.data.text.tokenizer import load_tokenizer, special_ids
from headstart.engine import sharpness
from headstart.engine.device import use_device
from headstart.engine.method import Batch, Context, Method, Predictions
from headstart.engine.optim import count_layers, layer_depth
from headstart.engine.text_method import model_folder
from headstart.interop.enlarge import enlarge
from headstart.interop.model_folder import read_config
from headstart.interop.transformers_io import learned_positions, load_model
from headstart.tasks.exact_loss import ExactLoss, causal_loss, masked_loss, words_of
from headstart.verbs._exports import resolve_init
from headstart.verbs._measure_settings import SETTINGS, ExactLossSettings, SharpnessSettings, check, check_measure
from headstart.verbs.config import preset_config
from headstart.verbs.sample import load_run

MOST_PROBES, MOST_ITERATIONS = 200, 30
"""Where --minutes allow as many."""
FEWEST_ITERATIONS = 5
QUIET_S = 2.0
"""What takes no longer is done before anyone asks how long it takes."""


@dataclass
class Sharpness:
    """What was measured of a model. All figures are of the mean loss over the batches, in float32, without dropout."""

    model: str
    method: str
    loss: float
    trace: sharpness.Trace
    labels: str
    parameters: int
    largest_eigenvalue: float | None
    sam: float
    adaptive_sam: float
    average: float
    layers: list[sharpness.Part]
    matrices: list[sharpness.Part]
    notes: list[str]
    settings: SharpnessSettings
    stopped: bool = False
    """Whether Ctrl-C ended it; what was measured by then is here."""

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        found = {name: getattr(self, name) for name in ("model", "method", "loss", "labels", "parameters", "largest_eigenvalue", "notes", "stopped")}
        found |= {"sam_sharpness": self.sam, "adaptive_sam_sharpness": self.adaptive_sam, "average_sharpness": self.average}
        trace = {
            "mean": self.trace.mean,
            "standard_error": self.trace.standard_error,
            "estimates": self.trace.estimates,
            "of_batch": list(self.trace.of_batch),
            "unreliable": self.trace.unreliable,
        }
        parts = {name: [dataclasses.asdict(part) for part in getattr(self, name)] for name in ("layers", "matrices")}
        settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(self.settings).items()}
        return found | {"trace": trace, "settings": settings} | parts


@dataclass
class Optimality:
    """How far a model is from the optimum of a language."""

    model: str
    language: str
    kind: str
    loss: ExactLoss
    unigram_entropy: float
    sentences: int

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "model": self.model,
            "language": self.language,
            "kind": self.kind,
            "sentences": self.sentences,
            "places": self.loss.places,
            "loss": self.loss.loss,
            "optimum": self.loss.optimum,
            "excess": self.loss.excess,
            "excess_standard_error": self.loss.standard_error,
            "unigram_entropy": self.unigram_entropy,
        }


def measure(name: str, target: str | Path, *, say: Callable[[str], None] = print, **settings: Any) -> Sharpness | Optimality:
    """Measures a model.

    Args:
        name: sharpness or loss-exact.
        target: a run, or a folder of transformers.
        say: gets each line for the person.
        settings: fields of `SharpnessSettings` or `ExactLossSettings`.

    Raises:
        UsageError: a setting is wrong, or the measure has no sense for this model. BadInput: the model or its data cannot be used.
    """
    kind = SETTINGS[check_measure(name)]
    if unknown := sorted(set(settings) - {field.name for field in dataclasses.fields(kind)}):
        raise UsageError(f"measure {name} has no setting '{unknown[0]}'.", f"Its settings: {', '.join(f.name for f in dataclasses.fields(kind))}.")
    places: dict[str, Any] = {key: Path(value) if key in ("data", "enlarge_to") and value is not None else value for key, value in settings.items()}
    chosen = kind(target=Path(target), **places)
    check(chosen)
    return measure_with(chosen, say=say)


def measure_with(settings: SharpnessSettings | ExactLossSettings, *, say: Callable[[str], None] = print) -> Sharpness | Optimality:
    """As `measure`, with the settings in one piece."""
    assert settings.target is not None
    found = measure_sharpness(settings, say) if isinstance(settings, SharpnessSettings) else measure_exact_loss(settings)
    for line in sharpness_lines(found) if isinstance(found, Sharpness) else optimality_lines(found):
        say(line)
    return found


# --- sharpness ------------------------------------------------------------------------------------------------------------------------------------


def measure_sharpness(settings: SharpnessSettings, say: Callable[[str], None] = print) -> Sharpness:
    """Of a run or a folder, as the settings say."""
    assert settings.target is not None
    method, store = open_method(settings.target, settings.data)
    device = use_device(settings.device)
    notes = []
    if settings.enlarge_to is not None:
        notes.append(enlarge_method(method, settings.enlarge_to))
    dropouts = {part.p for part in method.modules() if isinstance(part, torch.nn.Dropout) and part.p}
    if dropouts:
        notes.append(f"dropout ({', '.join(f'{p:g}' for p in sorted(dropouts))}) was switched off")
    notes += in_float32(method)
    method = method.to(device)
    batches = rows_of(method, store, settings)
    return sharpness_of(method, batches, settings, device, notes, say)


def in_float32(method: Method) -> list[str]:
    """Turns the weights into float32, in place; says so where they were not."""
    others = {str(p.dtype).removeprefix("torch.") for p in method.parameters() if p.dtype != torch.float32}
    method.float()
    return [f"weights in {', '.join(sorted(others))} were turned into float32"] if others else []


def sharpness_of(
    method: Method,
    batches: Sequence[Batch],
    settings: SharpnessSettings,
    device: torch.device,
    notes: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> Sharpness:
    """Of a live method on its device; it is the same to the bit afterwards. What is quick comes first, so that Ctrl-C keeps most."""
    notes = list(notes)
    parameters = sharpness.measured_parameters(method, settings.leave_out)
    with sharpness.still(method):
        losses = [loss_of(method, batch, at, settings, device) for at, batch in enumerate(batches)]
        value = float(np.mean([float(loss().detach()) for loss in losses]))
        if not math.isfinite(value):
            raise BadInput("has a loss that is no finite number on these rows.", "Look at the run: headstart replay.", file=settings.target)
        predictions = None
        if settings.labels == "model":
            predictions = [predictions_of(method, batch, at, settings, device) for at, batch in enumerate(batches)]
        probes, iterations = work(settings, len(losses), sharpness.seconds_a_product(losses[0], parameters), say)
        sam = sharpness.sam_sharpness(losses, parameters, settings.rho)
        adaptive = sharpness.sam_sharpness(losses, parameters, settings.adaptive_rho, adaptive=True)
        average = sharpness.average_sharpness(losses, parameters, settings.sigma, seed=settings.seed)
        trace = trace_of(losses, predictions, parameters, settings, probes)
        eigenvalue, stopped = None, trace.stopped
        if iterations and not stopped:
            try:
                with Reporter("largest eigenvalue", iterations * len(losses), "products") as reporter:
                    eigenvalue = sharpness.largest_eigenvalue(
                        losses, parameters, iterations=iterations, seed=settings.seed, made=reporter.advance
                    )
            except KeyboardInterrupt:
                stopped = True
    if trace.unreliable:
        notes.append(f"UNRELIABLE: {trace.unreliable}. Give more --probes, or more --minutes.")
    if eigenvalue is not None and not eigenvalue.settled:
        notes.append(f"The largest eigenvalue still moved after {iterations} iterations: it is at least about as large. Give more --iterations.")
    if stopped:
        notes.append("Stopped: what was measured by then is above.")
    n_layers = count_layers(parameters)
    layers, matrices = sharpness.parts_of(trace, parameters, lambda name: layer_name(name, n_layers))
    return Sharpness(
        model=str(settings.target),
        method=method.card.slug,
        loss=value,
        trace=trace,
        labels=settings.labels,
        parameters=sum(parameter.numel() for parameter in parameters.values()),
        largest_eigenvalue=None if eigenvalue is None else eigenvalue.value,
        sam=sam,
        adaptive_sam=adaptive,
        average=average,
        layers=layers,
        matrices=matrices,
        notes=notes,
        settings=settings,
        stopped=stopped,
    )


def work(settings: SharpnessSettings, n_batches: int, seconds: float, say: Callable[[str], None]) -> tuple[int, int]:
    """(probes on each batch, iterations): as they are asked for, or as many as --minutes allow; said where it takes a while.

    Args:
        seconds: of one Hessian-vector product; a draw of the Fisher matrix takes less.
    """
    room = 60 * settings.minutes / max(seconds, 1e-9) / n_batches  # products on each batch
    probes, iterations = settings.probes, settings.iterations
    if iterations is None:
        iterations = int(min(max(room / 4, FEWEST_ITERATIONS), MOST_ITERATIONS))
    if probes is None:
        probes = int(min(max(room - iterations, math.ceil(sharpness.FEWEST / n_batches)), MOST_PROBES))
    if settings.exact:
        return probes, iterations
    if (total := n_batches * (probes + iterations)) * seconds > QUIET_S:
        ends = f", fewer where {settings.relative_error:.0%} of standard error are reached sooner" if settings.relative_error else ""
        eigenvalue = f" and {iterations} x {n_batches} for the largest eigenvalue" if iterations else ""
        say(
            f"At most {total:,} Hessian-vector products of {seconds:.2g} s, about {duration(total * seconds)}: {probes} x {n_batches} for the"
            f" trace{ends}{eigenvalue}. Ctrl-C keeps what is measured by then."
        )
    return probes, iterations


def trace_of(
    losses: Sequence[sharpness.Loss],
    predictions: Sequence[Callable[[], Predictions]] | None,
    parameters: sharpness.Parameters,
    settings: SharpnessSettings,
    probes: int,
) -> sharpness.Trace:
    """The trace that the settings ask for, with its progress.

    Args:
        predictions: of each batch, for the Fisher matrix; None: of the Hessian.
    """
    limits: dict[str, Any] = {"relative_error": settings.relative_error, "seed": settings.seed}
    total = len(losses) * (sum(parameter.numel() for parameter in parameters.values()) if settings.exact else probes)
    with Reporter("trace", total, "products" if predictions is None else "draws") as reporter:
        if settings.exact:
            return sharpness.exact_trace(losses, parameters, reporter.advance)
        if predictions is not None:
            return sharpness.fisher_trace(predictions, parameters, draws=probes, made=reporter.advance, **limits)
        return sharpness.hessian_trace(losses, parameters, probes=probes, kind=settings.probe, made=reporter.advance, **limits)


def layer_name(name: str, n_layers: int) -> str:
    """embeddings, layer 1 .., after the layers, heads."""
    depth = layer_depth(name, n_layers)
    if depth == 0:
        return "embeddings"
    return f"layer {depth}" if 1 <= depth <= n_layers else "heads"


def open_method(target: Path, data: Path | None) -> tuple[Method, Any]:
    """(method on the CPU, the store to measure on) of a run, or of a folder of transformers with a store.

    Raises:
        UsageError: a folder without --data, or of a model that is no language model. BadInput: as `load_run`.
    """
    if (target / "run.json").is_file():
        method, store, info = load_run(target)
        return method, measured_store(method, store, info) if data is None else type(method).open_store(data)
    if data is None:
        raise UsageError(f"{target} is a model folder, and its loss needs data.", "Give --data STORE, which `headstart prepare` makes.")
    folder = resolve_init(target)
    assert folder is not None
    kinds = " ".join(getattr(read_config(model_folder(folder)), "architectures", None) or [])
    slug = "mlm" if "MaskedLM" in kinds else "causal-lm" if "CausalLM" in kinds or "LMHead" in kinds else None
    if slug is None:
        raise UsageError(f"{target} holds {kinds or 'no model with a head'}.", "Give a run, or a folder of a masked or causal language model.")
    method_class = methods.load(slug)
    store = method_class.open_store(data)
    method_class.refuse_init(store, folder)
    preset = preset_config(method_class, "tiny")[1].method
    settings = method_class.settings_of(folder, preset)
    limit = learned_positions(load_model(model_folder(folder), AutoModelForMaskedLM if slug == "mlm" else AutoModelForCausalLM))
    if limit is not None:
        settings["sequence_length"] = min(limit, preset.sequence_length)
    return method_class(dataclasses.replace(preset, **settings), store, init=folder), store


def measured_store(method: Method, store: Any, info: dict[str, Any]) -> Any:
    """The store of a run, or where all of it was trained on (--data new=FILE new:held-out=FILE) that of the held-out text of its first part."""
    entries = [entry for entry in info.get("measured", []) if is_store(entry["store"])]
    if not entries or len(type(method).rows(store, method.config, "held_out")):
        return store
    found = type(method).open_store(Path(entries[0]["store"]))
    return found.as_held_out() if entries[0].get("all_held_out") else found


def enlarge_method(method: Method, larger: Path) -> str:
    """Puts the method's network into the shape of that of a larger run, in place; says what was done."""
    other, _, _ = load_run(larger)
    small, large = getattr(method, "model", None), getattr(other, "model", None)
    if small is None or large is None:
        raise UsageError(f"{method.card.slug} has no network that can be embedded into a larger one.", "Leave out --enlarge-to.")
    before = sum(parameter.numel() for parameter in small.parameters())
    method.model = enlarge(small, large.config)
    after = sum(parameter.numel() for parameter in method.model.parameters())
    return f"embedded into the shape of {larger}: {before:,} parameters became {after:,}; what it computes is the same"


def rows_of(method: Method, store: Any, settings: SharpnessSettings) -> list[Batch]:
    """The fixed batches, drawn by the seed.

    Raises:
        UsageError: the split has no rows.
    """
    rows = type(method).rows(store, method.config, "held_out" if settings.split == "held-out" else "train")
    if len(rows) == 0:
        raise UsageError("The store has no held-out rows.", "Give --split train.")
    chosen = draw(len(rows), min(len(rows), settings.batches * settings.batch), settings.seed)
    parts = np.array_split(chosen, min(settings.batches, len(chosen)))
    return [{name: torch.as_tensor(value) for name, value in rows.batch(np.sort(part)).items()} for part in parts]


def context_of(method: Method, batch: Batch, at: int, settings: SharpnessSettings, device: torch.device) -> tuple[Batch, Context]:
    """A batch on the device, and a context whose draws are the same at every call: those of the phase that takes most of a run."""
    moved = {name: value.to(device) for name, value in batch.items()}
    count = len(next(iter(batch.values())))
    phase = next(phase.name for phase in method.phases(1 << 30) if phase.steps is None)
    first = at * settings.batch
    return moved, Context(0, 1, phase, Rng.at(settings.seed, 0, torch.arange(first, first + count, device=device)), device)


def loss_of(method: Method, batch: Batch, at: int, settings: SharpnessSettings, device: torch.device) -> sharpness.Loss:
    """The method's loss of a batch, or that of one hidden place a row; the same at every call."""
    moved, context = context_of(method, batch, at, settings, device)
    if settings.objective == "method":
        return lambda: method.loss(moved, context)["loss"].float()

    def single() -> Tensor:
        found = asked_predictions(method, moved, context, settings)
        return (F.cross_entropy(found.logits.float(), found.targets, reduction="none") * found.shares).sum()

    return single


def predictions_of(method: Method, batch: Batch, at: int, settings: SharpnessSettings, device: torch.device) -> Callable[[], Predictions]:
    moved, context = context_of(method, batch, at, settings, device)
    return lambda: asked_predictions(method, moved, context, settings)


def asked_predictions(method: Method, batch: Batch, context: Context, settings: SharpnessSettings) -> Predictions:
    """Raises UsageError where the method has none of this kind."""
    found = method.predictions(batch, context, one=settings.objective == "single")
    if found is None:
        what = "hides no single places" if settings.objective == "single" else "has a loss that is no mean of token predictions"
        raise UsageError(f"{method.card.slug} {what}.", "mlm and causal-lm have such a mean, mlm hides places; leave out --labels and --objective.")
    return found


def sharpness_lines(found: Sharpness) -> list[str]:
    """For a person."""
    trace, settings = found.trace, found.settings
    error = "exact"
    if trace.standard_error:
        error = f"standard error {trace.standard_error:.2g}, {trace.relative_error:.1%}, {trace.estimates} estimates"
    what = "Fisher matrix" if found.labels == "model" else "Hessian"
    rows = f"{len(trace.of_batch)} x {settings.batch} rows ({settings.split})"
    lines = [
        f"{found.model}: {found.method}, loss {found.loss:.4f} on {rows}, {found.parameters:,} parameters",
        f"trace of the {what}  {trace.mean:.4g}  ({error})",
    ]
    if found.largest_eigenvalue is not None:
        lines.append(f"largest eigenvalue  {found.largest_eigenvalue:.4g}")
    lines += [
        f"SAM sharpness  {found.sam:.4g}  (rise of the loss {settings.rho:g} up its gradient)",
        f"adaptive SAM sharpness  {found.adaptive_sam:.4g}  (the same relative to each weight, {settings.adaptive_rho:g})",
        f"average rise  {found.average:.4g}  (random steps of {settings.sigma:g} of each weight)",
        "",
        f"{'part':<14}{'parameters':>12}{'trace':>12}{'trace x ||w||^2':>18}",
        *(f"{part.name:<14}{part.parameters:>12,}{part.trace:>12.4g}{part.scale_free:>18.4g}" for part in found.layers),
        *found.notes,
    ]
    return lines


# --- loss-exact -----------------------------------------------------------------------------------------------------------------------------------


def measure_exact_loss(settings: ExactLossSettings) -> Optimality:
    """Of a run or a folder, as the settings say."""
    assert settings.target is not None
    folder = resolve_init(settings.target)
    assert folder is not None
    model_place = model_folder(folder) if (model_folder(folder) / "config.json").is_file() else folder
    source, language = language_of(settings)
    tokenizer, names = load_tokenizer(model_place, TextConfig())
    words = words_of(language, tokenizer, special_ids(tokenizer, names))
    kinds = " ".join(getattr(read_config(model_place), "architectures", None) or [])
    sentences = language.test_sentences(settings.sentences, settings.seed)
    device = use_device(settings.device)
    if "MaskedLM" in kinds:
        masked: Any = load_model(model_place, AutoModelForMaskedLM)
        kind, loss = "masked", masked_loss(masked.to(device), language, sentences, words, device)
    elif "CausalLM" in kinds or "LMHead" in kinds:
        causal: Any = load_model(model_place, AutoModelForCausalLM)
        kind, loss = "causal", causal_loss(causal.to(device), language, sentences, words, device)
    else:
        raise UsageError(f"{model_place} holds {kinds or 'no model with a head'}.", "Give a masked or causal language model.")
    return Optimality(str(settings.target), source, kind, loss, language.unigram_entropy, settings.sentences)


def language_of(settings: ExactLossSettings) -> tuple[str, Language]:
    """(its name, the language): the one asked for, or that of the run's data.

    Raises:
        UsageError: the run was not trained on a language with known statistics, and none is given.
    """
    if settings.language is not None:
        if is_language(settings.language):
            return settings.language, find_language(settings.language)
        return settings.language, PCFG(read_grammar(Path(settings.language)), f"the grammar {settings.language}")
    assert settings.target is not None
    if not (settings.target / "run.json").is_file():
        what = "Of a model folder it is not known which language it was trained on."
        raise UsageError(what, "Give --language builtin:pcfg-mini, or a grammar file.")
    inputs = [entry["name"] for part in read_run(settings.target).get("data", []) for entry in part.get("inputs", [])]
    if len(inputs) != 1 or not is_language(inputs[0]):
        raise UsageError("The run was not trained on one language with known statistics.", "Give --language builtin:pcfg-mini, or a grammar file.")
    return inputs[0], find_language(inputs[0])


def optimality_lines(found: Optimality) -> list[str]:
    """For a person."""
    loss = found.loss
    before = found.unigram_entropy - loss.optimum
    learned = f"; of the {before:.3f} nats below the shares of single words it has {1 - loss.excess / before:.0%}" if before > 0 else ""
    return [
        f"{found.model} on {found.language}, {found.sentences} sentences, {loss.places:,} places, {found.kind}",
        f"loss {loss.loss:.4f}, optimum {loss.optimum:.4f}: excess {loss.excess:.4f} nats (standard error {loss.standard_error:.4f}){learned}",
    ]
