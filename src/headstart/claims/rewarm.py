"""Re-warming (Gupta et al. 2023, arXiv 2308.04014): does raising the rate to the old peak and letting it decay again learn new text better than going
on at the old floor, and than starting anew?

A GPT-2 that is finished on general English (`old`) goes on with medical text (`new`). All continued arms see the same batches; the rate differs.

- Two arms start anew, with a warm-up of 5 % and of 20 %; both must lose, so that no badly chosen rate decides. `scratch-total` spends upstream and
  continued tokens on the new text: the arm of equal cost.
- `rewarm-1x-keep` keeps the moments of the upstream run. It has one seed, stands beside and decides nothing.
- The figure is the paper's: both losses over the run, one line an arm, seed 0.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.claims import _continual
from headstart.claims._claim import Arm, Claim, Comparison, Data, Guard, Model, Paper, Scale, Score, Task, Use
from headstart.claims._continual import CPU, GPU, SMOKE, Network
from headstart.claims._data import data_folder
from headstart.core.errors import MissingDependency
from headstart.tasks.generation import Decoder
from headstart.tasks.multiple_choice import Item, read_items, score_items
from headstart.verbs._parts import OLD
from headstart.verbs.forgetting import curves as curves_of
from headstart.verbs.forgetting import pay_back_step, transient

NEW = "new"
MARGIN = 0.005
"""Bits a byte of no interest."""
CONSTANT = "constant"
PEAKS: Mapping[str, float] = {CONSTANT: 0.1, "rewarm-0.5x": 0.5, "rewarm-1x": 1.0, "rewarm-2x": 2.0}
"""Arm -> its highest rate in upstream peaks."""
NAMED_ARM = "{}-rate-*-seed-{}"


def open_data(scale: Scale, folder: Path) -> Data:
    """Old and new text, each with its own val and test; a tokenizer of the old text alone."""
    network: Network = scale.options["network"]
    new, place = scale.options["new"], _continual.shared_data(folder)
    made = _continual.tokenizer(network, place)
    files = {
        (part, split): _continual.text(name, network, split, place)
        for part, name in ((OLD, _continual.GENERAL), (NEW, new)) for split in ("train", "val", "test")
    }  # fmt: skip
    held_out = {"new_held_out": files[NEW, "val"], "old_held_out": files[OLD, "val"]}
    items = {part: read_items(data_folder("mcq") / f"{name}.jsonl.zst") for part, name in scale.options["items"].items()}
    stores = {part: _continual.measured_store(files[part, "test"], made, folder / f"{part}-test") for part in (NEW, OLD)}
    return Data(
        facts={
            "name": f"{_continual.GENERAL}, then {new}",
            "source": "Wikipedia and Gutenberg; medical texts of public agencies (their SOURCE.md)",
            "train": {part: counted(files[part, "train"]) for part in (OLD, NEW)},
            "test": {part: len(store.held_out) for part, store in stores.items()},
            "split": "by document",
        },
        corpora={
            "upstream": _continual.upstream_corpus(network, place),
            "new": _continual.named(new=files[NEW, "train"], **held_out),
            "same": _continual.named(old=files[OLD, "train"], **held_out),
        },
        tasks=tuple(Task(part, measure(store, network, items.get(part, []))) for part, store in stores.items()),
        files=tuple(sorted({path for paths in files.values() for path in paths})),
        settings={"text.tokenizer": str(made)},
    )


def counted(files: Sequence[Path]) -> int:
    """Documents of some files."""
    return sum(1 for _ in _continual.texts_of(files))


def measure(store: Any, network: Network, items: Sequence[Item]) -> Callable[[Use], Score]:
    """Bits a byte of the test text; beside it the share of items (terms in their sentence) that are right, and what the curve over the run says."""

    def of(use: Use) -> Score:
        device = torch.device(use.device)
        score = _continual.bits_per_byte(use.model.export, store, network.context, device)
        part = store.folder.name.removesuffix("-test")
        beside = dict(score.beside)
        if items:
            scored = score_items(Decoder.load(use.model.export), items, device)
            beside[f"{items[0].task} accuracy"] = float(scored.right("acc").mean())
        found = curves_of(use.model.folder).get(part)
        if found is None:  # an arm that is not trained
            return Score(score.value, score.items, beside=beside)
        beside = {**beside, "val loss, change (nats)": found.last - found.first}
        if part == OLD:
            rise = transient(found.steps, found.losses)
            beside |= {"transient (nats)": rise.height, "transient at step": float(rise.step)}
        elif (paid := paid_back(use.model, found)) is not None:
            beside["pays back at step"] = float(paid)
        return Score(score.value, score.items, beside=beside)

    return of


def paid_back(model: Model, curve: Any) -> int | None:
    """The step at which an arm's new-text loss first is below that of the constant arm of its seed."""
    others = sorted(model.folder.parent.glob(NAMED_ARM.format(CONSTANT, model.seed)))
    return None if not others or others[0] == model.folder else pay_back_step(curve, curves_of(others[0])[NEW])


def guards(model: Model, data: Data, device: str) -> list[Guard]:
    upstream = _continual.upstream_of(model)
    return [] if upstream is None else _continual.upstream_guards(upstream)


def remarks(figures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Whether a higher peak learns more and forgets more, and whether the length of the warm-up matters."""
    found = []
    known = [arm for arm in PEAKS if arm in figures]
    if len(known) > 2:
        peaks = [PEAKS[arm] for arm in known]
        orders = {part: rank_correlation(peaks, [figures[arm][part] for arm in known]) for part in (NEW, OLD)}
        found.append(
            f"Rank correlation of the peak with bits a byte: {orders[NEW]:+.2f} on new text (the paper: -1), {orders[OLD]:+.2f} on old (+1);"
            f" {len(known)} peaks."
        )
    if {CONSTANT, "rewarm-1x"} <= figures.keys():
        gain = figures[CONSTANT][NEW] - figures["rewarm-1x"][NEW]
        for arm in ("rewarm-1x-w0", "rewarm-1x-w20"):
            if arm in figures:
                apart = abs(figures[arm][NEW] - figures["rewarm-1x"][NEW])
                small = apart < 0.02 and apart < gain / 5
                found.append(
                    f"{arm} and a warm-up of 5 % differ by {apart:.4f} bits a byte on new text: {'no more than' if small else 'more than'} 0.02 and"
                    " a fifth of what re-warming gains."
                )
    return found


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Spearman's, for values that are all different."""
    first, second = (np.argsort(np.argsort(values)).astype(np.float64) for values in (a, b))
    return float(np.corrcoef(first, second)[0, 1])


def draw_curves(models: Sequence[Model]) -> bytes | None:
    """The paper's figure: loss on new and on old held-out text over the steps, a line an arm, seed 0.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    lines = {model.arm.name: found for model in models if model.seed == 0 and model.arm.trained and not model.arm.shared
             and set(found := curves_of(model.folder)) >= {NEW, OLD}}  # fmt: skip
    if not lines:
        return None
    try:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependency("matplotlib", "report", "The figure of a claim") from None
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "headstart", "font.family": "sans-serif", "font.size": 12}):
        figure = Figure(figsize=(9, 8), layout="constrained", facecolor="white")
        FigureCanvasSVG(figure)
        for axes, part in zip(figure.subplots(2, 1, sharex=True), (NEW, OLD), strict=True):
            for number, (name, found) in enumerate(lines.items()):
                style = ("-", "--", ":", "-.")[number // 10 % 4]
                axes.plot(found[part].steps, found[part].losses, style, color=f"C{number % 10}", linewidth=1.6, label=name)
            axes.set_ylabel(f"loss on {part} text (nats a token)")
            axes.set_xscale("symlog", linthresh=1)
            axes.grid(color="#d0d7de", linewidth=0.8)
            axes.spines[["top", "right"]].set_visible(False)
        axes.set_xlabel("step of the continued run")
        figure.axes[0].legend(fontsize=10, ncols=2, frameon=False)
        held = io.BytesIO()
        figure.savefig(held, format="svg", metadata={"Date": None, "Creator": "headstart", "Title": "Re-warming: loss on new and on old text"})
    return held.getvalue()


def arms(network: Network, steps: int, few: bool = False) -> tuple[Arm, ...]:
    """All arms of a scale; `few`: those of the smoke preset."""
    upstream, peak = _continual.upstream_arm(network), network.peak
    anew = "begins with random weights, without the upstream FLOPs that the others' models had"

    def continued(name: str, share: float, preset: str = "relative", corpus: str = "new", seeds: int | None = None, **rewarm: Any) -> Arm:
        length = {} if preset == "constant" or "warmup_steps" in rewarm else {"rewarm.warmup_fraction": 0.05}
        settings = {"rewarm.preset": preset, **length, **{f"rewarm.{key}": value for key, value in rewarm.items()}}
        return Arm(name, "causal-lm", settings, start=upstream, corpus=corpus, seeds=seeds, learning_rate=share * peak)

    def fresh(name: str, warmup: float, total: int = steps, why: str = anew) -> Arm:
        settings = {"rewarm.preset": "relative", "rewarm.warmup_fraction": warmup, "budget.steps": total}
        return Arm(name, "causal-lm", settings, corpus="new", learning_rate=peak, unequal=why)

    main = (continued(CONSTANT, PEAKS[CONSTANT], "constant"), continued("rewarm-1x", 1.0), fresh("scratch-w5", 0.05))
    if few:
        return main
    return (
        Arm("none", "causal-lm", trained=False, start=upstream),
        main[0],
        continued("rewarm-0.5x", 0.5),
        main[1],
        continued("rewarm-2x", 2.0),
        continued("rewarm-1x-w0", 1.0, warmup_steps=0),
        continued("rewarm-1x-w20", 1.0, warmup_fraction=0.2),
        continued("rewarm-1x-keep", 1.0, seeds=1, optimizer_state="keep"),
        continued("same-data", 1.0, corpus="same"),
        main[2],
        fresh("scratch-w20", 0.2),
        fresh("scratch-total", 0.05, network.steps + steps, "spends the tokens of upstream and continued training on the new text: equal cost"),
    )


def comparisons() -> tuple[Comparison, ...]:
    """The paper's statement on new text; what it costs on old text, and the other arms, beside."""
    deciding = tuple(Comparison("rewarm-1x", other, margin=MARGIN, tasks=(NEW,)) for other in (CONSTANT, "scratch-w5", "scratch-w20"))
    return (
        *deciding,
        *(Comparison("rewarm-1x", other, False, tasks=(NEW,)) for other in ("scratch-total", "rewarm-1x-w0", "rewarm-1x-w20", "none")),
        Comparison("rewarm-2x", "rewarm-1x", False, tasks=(NEW,)),
        Comparison("rewarm-1x", "rewarm-0.5x", False, tasks=(NEW,)),
        Comparison("rewarm-0.5x", CONSTANT, False, tasks=(NEW,)),
        *(Comparison(CONSTANT, other, False, tasks=(OLD,)) for other in ("rewarm-0.5x", "rewarm-1x", "rewarm-2x")),
        Comparison("none", CONSTANT, False, tasks=(OLD,)),
    )


def scale(network: Network, steps: int, seeds: int, new: str = _continual.MEDICAL, few: bool = False) -> Scale:
    return Scale(
        arms=arms(network, steps, few),
        seeds=seeds,
        learning_rates=(network.peak,),
        settings=_continual.continual(network, steps),
        options={"network": network, "new": new, "items": {} if few else {NEW: "medterm", OLD: "genterm"}},
    )


CLAIM = Claim(
    slug="rewarm",
    statement="At equal tokens, re-warming to the upstream peak and decaying again gives a lower loss on new text than going on at the old floor and"
    " than training from a random start; a higher peak trades more old-text loss for it, and the length of the warm-up does not matter.",
    paper=Paper(
        statement="Every re-warmed run beats training from scratch, the constant rate is worst on new text and best on old, warm-ups of 0.5 to 2 %"
        " are nearly equal.",
        value="Pile to SlimPajama, 405 M parameters (the sequel's table): constant 2.55 nats on new text, re-warmed 2.50, scratch 2.53",
        where="figures 2 to 5; arXiv 2403.08763 for the figures",
    ),
    metric="test bits a byte",
    higher_is_better=False,
    percent=False,
    comparisons=comparisons(),
    presets={"smoke": scale(SMOKE, 20, 1, few=True), "cpu": scale(CPU, 293, 3), "gpu": scale(GPU, 610, 5)},
    open_data=open_data,
    guards=guards,
    remarks=remarks,
    curves=draw_curves,
)
