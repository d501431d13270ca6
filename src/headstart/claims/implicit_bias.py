"""Implicit bias (Liu et al., ICML 2023, arXiv 2210.14199): among masked language models of the same, optimal loss, are the flatter ones better?

Models are trained on a language whose optimum is known, so that "the same loss" is a number and no estimate from drawn labels: every arm must come
within .02 nats of it. Three ways lead there: train on after the loss is flat (`steps-x4`), a wider network (`width-x2`), another algorithm (`lookup`,
the table of true conditionals; `adversarial`, which hides the task from linear probes).

- At a constant rate the noise of mini-batches alone keeps the loss above the tolerance. So every checkpoint of the trunk is measured on a branch: a
  copy of weights and moments, trained on fresh sentences for 1,000 more steps with the rate falling to 0. The trunk goes on undisturbed.
- The theory is of SGD, which by its noise alone should drift along the optima towards the flat ones. `sgd` goes on from the trunk's first checkpoint
  without momentum and decay; it stands beside and decides nothing.
- Equal compute is impossible by construction for the first two ways, which is the claim's point: FLOPs are shown.
- Traces are of 4 x 512 fixed sentences with one place of each hidden, 25 probes each. For the correlation every network is first embedded into the
  shape of the widest one, without changing what it computes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForMaskedLM

from headstart.backbones.text import encode, encoder_config, mlm_logits
from headstart.claims._bias import AdversarialMLM
from headstart.claims._claim import Arm, Claim, Comparison, Correlation, Data, Guard, Model, Paper, Scale, Score, Task, Use
from headstart.data.languages.language import PAD, Ints, Language, find_language
from headstart.data.text.config import TextConfig
from headstart.data.text.tokenizer import load_tokenizer, special_ids
from headstart.engine import sharpness
from headstart.interop.enlarge import enlarge
from headstart.interop.transformers_io import load_model
from headstart.tasks.exact_loss import ExactLoss, Words, masked_loss, token_rows, words_of
from headstart.tasks.language_probe import Pool, draw_pool, linear_probe, probe_features

TOLERANCE = 0.02
"""Nats above the optimum up to which a loss counts as optimal."""
TEST_SENTENCES = 300
TRACE = (4, 512, 25)
"""Batches, sentences of each, and probes of each, of a trace."""
OF_LANGUAGE = {"tiny": "builtin:pcfg-tiny", "mini": "builtin:pcfg-mini", "hmm": "builtin:hmm"}
POOLS = {"tiny": (2000, 2000, 3), "mini": (4000, 4000, 5), "hmm": (4000, 4000, 16)}
"""Probe sentences to train and to test on, and the words of the shortest."""
LABEL = {"tiny": "A", "mini": "A", "hmm": "state-6"}
SGD_RATE = 0.3
"""With it 4,000 steps end .013 nats above the optimum (pilot, seed 0)."""
UNEQUAL = "the ways to an equal loss differ in compute: that is what is compared"


def language_of(arm: Arm) -> str:
    """tiny, mini or hmm."""
    return arm.name.split()[0] if " " in arm.name else "tiny"


@cache
def opened(name: str) -> Language:
    return find_language(OF_LANGUAGE[name])


@cache
def pool_of(name: str, size: tuple[int, int, int], task: str) -> Pool:
    return draw_pool(opened(name), task, *size)


def open_data(scale: Scale, folder: Path) -> Data:
    """Generated sentences: nothing is read."""
    options = scale.options
    names = options["languages"]
    pools = {name: pool_of(name, options.get("pool", POOLS[name]), LABEL[name]) for name in names}
    networks = [arm.name for arm in scale.arms if arm.trained]
    tasks: list[Task] = []
    for name in names:
        of_language = tuple(arm.name for arm in scale.arms if language_of(arm) == name)
        task = Task("probe" if name == "tiny" else f"{name} probe", probe_task(name, options), arms=of_language)
        tasks.append(task)
        longer = tuple(arm for arm in networks if arm in of_language and "steps" in arm)
        if longer:
            tasks.append(Task("flatness" if name == "tiny" else f"{name} flatness", flatness_task(name, None, options), arms=longer))
    in_one = tuple(arm for arm in networks if " " not in arm)
    tasks.append(Task("flatness in one space", flatness_task("tiny", options["largest"], options), arms=in_one))
    corpora = {}
    for name in names:
        corpora[f"{name} trunk"] = [f"{OF_LANGUAGE[name]}?sentences={options['sentences'][name]}"]
        corpora[f"{name} branch"] = [f"{OF_LANGUAGE[name]}?sentences={options['branch_sentences']}&draw=1"]
    return Data(
        facts={
            "name": ", ".join(OF_LANGUAGE[name].removeprefix("builtin:") for name in names),
            "source": "generated: random grammars and a hidden chain of fixed seeds (docs/methods/implicit_bias.md)",
            "train": {name: len(pool.train) for name, pool in pools.items()},
            "test": {name: len(pool.test) for name, pool in pools.items()},
            "split": f"distinct sentences; the loss on {TEST_SENTENCES} sentences against the true conditionals",
        },
        corpora=corpora,
        tasks=tuple(tasks),
        anchors={
            "majority class": {name: pool.majority for name, pool in pools.items()},
            "optimal loss": {name: opened(name).optimal_loss(opened(name).test_sentences(TEST_SENTENCES))[0] for name in names},
        },
    )


# --- measuring ------------------------------------------------------------------------------------------------------------------------------------


def model_and_words(export: Path, name: str, device: str) -> tuple[Any, Words]:
    """The exported network, and how it writes the words of its language."""
    tokenizer, names = load_tokenizer(export, TextConfig())
    network: Any = load_model(export, AutoModelForMaskedLM)
    return network.to(device).eval(), words_of(opened(name), tokenizer, special_ids(tokenizer, names))


def exact(export: Path, name: str, device: str) -> ExactLoss:
    """On the test sentences."""
    model, words = model_and_words(export, name, device)
    return masked_loss(model, opened(name), opened(name).test_sentences(TEST_SENTENCES), words, torch.device(device))


def guards(model: Model, data: Data, device: str) -> list[Guard]:
    """Whether its loss is the optimal one."""
    found = exact(model.export, language_of(model.arm), device).excess
    return [Guard("nats above the optimal loss", found, TOLERANCE, found <= TOLERANCE)]


def probe_task(name: str, options: Mapping[str, Any]) -> Any:
    """Linear probes on all labels of a language; the first one counts, the others stand beside."""
    size = options.get("pool", POOLS[name])

    def measure(use: Use) -> Score:
        device = torch.device(use.device)
        found: dict[str, np.ndarray] = {}
        others = [task for task in opened(name).tasks if task not in (LABEL[name], "B")]
        for task in (LABEL[name], *others):
            pool = pool_of(name, size, task)
            train, test = (features_of(use, name, sentences, device) for sentences in (pool.train, pool.test))
            labels = torch.from_numpy(pool.train_labels).to(device)
            guessed = linear_probe(train, labels, test, len(pool.classes), use.seed).cpu().numpy()
            found[task] = guessed == pool.test_labels
        beside = {f"probe {task}": float(right.mean()) for task, right in found.items() if task != LABEL[name]}
        beside["excess"] = 0.0 if is_table(use.model.arm) else exact(use.model.export, name, use.device).excess
        right = found[LABEL[name]].astype(np.float64)
        return Score(float(right.mean()), np.stack([right, np.ones_like(right)], 1), beside=beside)

    return measure


def is_table(arm: Arm) -> bool:
    """No network, but the table of true conditionals."""
    return arm.name.endswith("lookup")


def features_of(use: Use, name: str, sentences: Ints, device: torch.device) -> Tensor:
    """float32 [n, dim]: hidden states of all places, or their true conditionals."""
    if is_table(use.model.arm):
        return torch.from_numpy(opened(name).conditionals(sentences)).float().flatten(1).to(device)
    model, words = model_and_words(use.model.export, name, use.device)
    return probe_features(model, sentences, words, opened(name).longest, device)


def flatness_task(name: str, largest: Mapping[str, int] | None, options: Mapping[str, Any]) -> Any:
    """-ln Tr H of the loss with one hidden place a sentence; with `largest` in the shape of such a network."""
    batches, rows, probes = options.get("trace", TRACE)

    def measure(use: Use) -> Score:
        model, words = model_and_words(use.model.export, name, use.device)
        if largest is not None:
            ids = {"pad": words.pad, "cls": words.begin, "sep": words.end}
            sizes = {"vocab_size": model.config.vocab_size, "max_length": opened(name).longest + 2, **largest}
            shape = encoder_config("roberta-prelayernorm", dropout=0.0, special_ids=ids, **sizes)
            larger: Any = enlarge(model, shape)
            model = larger.to(use.device)
        parameters = sharpness.measured_parameters(model)
        with sharpness.still(model):
            losses = [hidden_place_loss(model, words, name, at, rows, torch.device(use.device)) for at in range(batches)]
            trace = sharpness.hessian_trace(losses, parameters, probes=probes, relative_error=0.0, seed=use.seed)
        beside = {"trace": trace.mean, "standard error of the trace": trace.standard_error}
        return Score(-math.log(trace.mean), None, f"its trace is unreliable: {trace.unreliable}" if trace.unreliable else None, beside)

    return measure


def hidden_place_loss(model: Any, words: Words, name: str, at: int, count: int, device: torch.device) -> sharpness.Loss:
    """The mean loss of fixed sentences, one place of each hidden: the same for every arm and seed."""
    rng = np.random.default_rng([at, 3])
    sentences = opened(name).sample(count, rng)
    places = torch.from_numpy(rng.integers(0, (sentences != PAD).sum(1)) + 1).to(device)
    ids, mask = (tensor.to(device) for tensor in token_rows(sentences, words))
    rows = torch.arange(len(ids), device=device)
    targets = ids[rows, places]
    hidden = ids.clone()
    hidden[rows, places] = words.mask or 0

    def loss() -> Tensor:
        states = encode(model.base_model, {"input_ids": hidden, "attention_mask": mask})
        return F.cross_entropy(mlm_logits(model, states[rows, places]), targets)

    return loss


def remarks(figures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Excess and trace of every arm, and which of the three ways held."""
    above = [f"{arm} {found[key]:.4f}" for arm, found in figures.items() for key in found if key.endswith(": excess")]
    lines = [f"Nats above the optimum: {', '.join(above)}."]
    traces = {arm: found[key] for arm, found in figures.items() for key in found if key.endswith("one space: trace")}
    if traces:
        lines.append(f"Trace in the shape of the widest network: {', '.join(f'{arm} {value:.3g}' for arm, value in traces.items())}.")
    if any(is_table(Arm(arm, "mlm")) for arm in figures):
        lines.append("The lookup table has no parameters, so it has no trace.")
    base = figures.get("steps-x1", {})
    ways = (("longer", "steps-x4"), ("larger", "width-x2"), ("another algorithm", "adversarial"), ("plain SGD", "sgd"))
    for way, arm in ways:
        if arm in figures and {"probe", "flatness in one space"} <= figures[arm].keys() & base.keys():
            better, flatter = (figures[arm][task] > base[task] for task in ("probe", "flatness in one space"))
            lines.append(f"{way.capitalize()} ({arm} against steps-x1): {'better' if better else 'worse'} and {'flatter' if flatter else 'sharper'}.")
    return lines


# --- arms -----------------------------------------------------------------------------------------------------------------------------------------


def network(width: int, layers: int = 2, heads: int = 4) -> dict[str, int]:
    return {"hidden_size": width, "num_layers": layers, "num_heads": heads, "intermediate_size": 4 * width}


def trunk(name: str, language: str, shape: Mapping[str, int], steps: int, every: int, method: str = "mlm", **settings: Any) -> Arm:
    """A run at a constant rate without warm-up whose checkpoints are kept."""
    own = {f"method.{key}": value for key, value in shape.items()} | settings
    own |= {"budget.steps": steps, "schedule.name": "constant", "schedule.warmup_share": 0.0, "method.sequence_length": opened(language).longest + 2}
    own |= {"trainer.checkpoint_every": every, "trainer.keep_every": every}
    return Arm(name, method, own, corpus=f"{language} trunk")


def branch(name: str, of: Arm, step: int, steps: int) -> Arm:
    """A copy of the trunk at this step, with its moments, whose rate falls to 0 on fresh sentences."""
    rates: dict[str, Any] = {"rewarm.preset": "relative", "rewarm.optimizer_state": "keep", "rewarm.shape": "linear"}
    rates |= {"rewarm.warmup_steps": 0, "rewarm.min_ratio": 0.0}
    kept = {key: value for key, value in of.settings.items() if key.startswith("method.")}
    settings = kept | rates | {"budget.steps": steps}
    return Arm(name, of.method, settings, start=of, start_step=step, corpus=of.corpus.replace("trunk", "branch"), unequal=UNEQUAL, tag=f"from-{step}")


def by_sgd(name: str, of: Arm, step: int, steps: int, annealed: int) -> Arm:
    """Plain SGD from a checkpoint of the trunk on, on fresh sentences: no momentum, no decay, a constant rate that falls to 0 over the last steps."""
    kept = {key: value for key, value in of.settings.items() if key.startswith("method.")}
    settings = kept | {"budget.steps": steps, "optimizer.name": "sgd", "optimizer.beta1": 0.0, "optimizer.weight_decay": 0.0}
    settings |= {"schedule.name": "wsd", "schedule.warmup_share": 0.0, "schedule.decay_share": annealed / steps}
    tag = f"from-{step}"
    return Arm(name, of.method, settings, start=of, start_step=step, corpus=of.corpus, unequal=UNEQUAL, tag=tag, learning_rate=SGD_RATE)


def first_within(name: str, of: Arm, at: range, steps: int, by: Any = "seed 0") -> Arm:
    """The branch of the first of these steps of the trunk that is within the tolerance."""
    variants = tuple(branch(name, of, step, steps) for step in at)
    return replace(variants[0], tag="", variants=variants, variants_by=by)


def adversarial(of: Mapping[str, int], steps: int, annealed: int, weights: tuple[float, ...], pool: tuple[int, int, int]) -> Arm:
    """The largest weight of the term whose branch is within the tolerance."""
    variants = []
    for weight in weights:
        extra = {"method.adversarial_weight": weight, "method.pool": pool, "method.language": OF_LANGUAGE["tiny"]}
        start = trunk(f"adversarial-trunk-{weight:g}", "tiny", of, steps, steps, "adversarial-mlm", **extra)
        variants.append(replace(branch("adversarial", start, steps, annealed), tag=f"weight-{weight:g}"))
    return replace(variants[0], tag="", variants=tuple(variants))


def untrained(name: str, shape: Mapping[str, int]) -> Arm:
    sizes = {f"method.{key}": value for key, value in shape.items()} | {"method.sequence_length": opened("tiny").longest + 2}
    return Arm(name, "mlm", sizes, trained=False, corpus="tiny branch")


SETTINGS: dict[str, Any] = {
    "preset": "tiny",
    "batch": 128,
    "trainer.micro_batch": 128,
    "trainer.log_every": 100,
    "trainer.evaluate_rows": 256,
    "precision": "fp32",
    "text.held_out_share": 0.002,
    "method.architecture": "roberta-prelayernorm",
    "method.packing": "single",
    "method.causal_start": 0,
    "method.mask_ratio": 0.15,
    "method.most_masked": 5,
    "method.random_from": "words",
    "optimizer.beta2": 0.98,
    "optimizer.epsilon": 1e-6,
    "optimizer.weight_decay": 0.01,
    "optimizer.clip_norm": None,
}


def scale(
    shape: Mapping[str, int], arms: tuple[Arm, ...], largest: Mapping[str, int], seeds: int, sentences: Mapping[str, int], **options: Any
) -> Scale:
    arms = (*arms, untrained("lookup", shape), untrained("none", shape))
    names = {arm.name for arm in arms}
    longest = next(name for name in ("steps-x16", "steps-x4") if name in names)
    return Scale(
        arms=arms,
        comparisons=tuple(comparison for comparison in comparisons(longest) if {comparison.a, comparison.b} <= names),
        seeds=seeds,
        learning_rates=(3e-3,),
        settings=SETTINGS,
        options={"languages": tuple(sentences), "sentences": dict(sentences), "largest": dict(largest), **options},
    )


def smoke() -> Scale:
    shape = network(32, layers=1)
    of = trunk("trunk", "tiny", shape, 30, 10)
    branches = branch("steps-x1", of, 10, 20), branch("steps-x4", of, 30, 20), by_sgd("sgd", of, 10, 20, 10)
    arms = (*branches, adversarial(shape, 10, 20, (0.3,), (64, 64, 3)))
    return scale(shape, arms, network(64, layers=1, heads=8), 1, {"tiny": 4000}, branch_sentences=3000, pool=(64, 64, 3), trace=(2, 32, 25))


def cpu() -> Scale:
    shape, wide = network(64), network(128, heads=8)
    of, of_wide = trunk("trunk", "tiny", shape, 16_000, 1000), trunk("wide-trunk", "tiny", wide, 5000, 1000)
    arms = (
        first_within("steps-x1", of, range(4000, 9000, 1000), 1000, "every seed"),
        branch("steps-x4", of, 16_000, 1000),
        first_within("width-x2", of_wide, range(2000, 6000, 1000), 1000),
        by_sgd("sgd", of, 4000, 4000, 1000),
        adversarial(shape, 4000, 1000, (1.0, 0.3, 0.1), POOLS["tiny"]),
    )
    return scale(shape, arms, wide, 5, {"tiny": 2_060_000}, branch_sentences=130_000)


def gpu() -> Scale:
    """Longer, wider and deeper; `mini` and the hidden chain are shown where they come within the tolerance. The long trunks see their sentences more
    than once: preparing so many takes longer than training on them."""
    shape = network(64)
    of = trunk("trunk", "tiny", shape, 64_000, 1000)
    arms: list[Arm] = [
        first_within("steps-x1", of, range(4000, 9000, 1000), 1000, "every seed"),
        branch("steps-x4", of, 16_000, 1000),
        branch("steps-x16", of, 64_000, 1000),
        by_sgd("sgd", of, 4000, 16_000, 1000),
    ]
    for name, larger in (("width-x2", network(128, heads=8)), ("width-x4", network(256, heads=16)), ("depth-x2", network(256, 4, 16))):
        arms.append(first_within(name, trunk(f"{name}-trunk", "tiny", larger, 16_000, 1000), range(2000, 17_000, 1000), 1000))
    arms.append(adversarial(shape, 4000, 1000, (1.0, 0.3, 0.1), POOLS["tiny"]))
    for language in ("mini", "hmm"):
        more: dict[str, Any] = {"batch": 512, "trainer.micro_batch": 512}
        longer = trunk(f"{language}-trunk", language, shape, 60_000, 2000, **more)
        arms.append(first_within(f"{language} steps-x1", longer, range(6000, 60_000, 6000), 1000))
        arms.append(branch(f"{language} steps-end", longer, 60_000, 1000))
    sentences = {"tiny": 4_200_000, "mini": 4_200_000, "hmm": 2_100_000}
    return scale(shape, tuple(arms), network(256, 4, 16), 5, sentences, branch_sentences=520_000)


def comparisons(longest: str) -> tuple[Comparison, ...]:
    """(i) better, (ii) flatter; and what stands beside."""
    return (
        Comparison(longest, "steps-x1", margin=0.005, tasks=("probe",)),
        Comparison(longest, "steps-x1", tasks=("flatness",)),
        Comparison("width-x2", "steps-x1", False, tasks=("probe",)),
        Comparison("width-x2", "steps-x1", False, tasks=("flatness in one space",)),
        Comparison("sgd", "steps-x1", False, tasks=("probe",)),
        Comparison("sgd", "steps-x1", False, tasks=("flatness in one space",)),
        Comparison("steps-x1", "adversarial", False, tasks=("probe",)),
        Comparison("steps-x4", "adversarial", False, tasks=("probe",)),
        Comparison("steps-x1", "lookup", False, tasks=("probe",)),
        Comparison("steps-x1", "none", False, tasks=("probe",)),
    )


NETWORKS = ("steps-x1", "steps-x4", "steps-x16", "width-x2", "width-x4", "depth-x2", "adversarial")

CLAIM = Claim(
    slug="implicit_bias",
    statement="Among masked language models whose exact loss is equal and optimal within a tolerance (0.02 nat), the one with the smaller trace of"
    " the Hessian has the higher probe accuracy, and training longer lowers the trace.",
    paper=Paper(
        statement="Validation loss does not decide downstream quality: after it has converged, longer training, larger models and another algorithm"
        " differ downstream, and the flatter model is the better one.",
        value="no exact table could be read; the direction alone",
        where="abstract",
    ),
    metric="accuracy of linear probes on the class of the sentence; flatness is -ln of the trace",
    percent=False,
    comparisons=comparisons("steps-x4"),
    correlations=(Correlation("flatness in one space", "probe", NETWORKS),),
    presets={"smoke": smoke(), "cpu": cpu(), "gpu": gpu()},
    open_data=open_data,
    guards=guards,
    remarks=remarks,
    methods={"adversarial-mlm": AdversarialMLM},
)
