"""BIOptimus (BioNLP 2023, arXiv 2308.08625): do rows for new tokens that are read from contexts learn a domain faster than other beginnings?

A BERT trained here on general English (`general_en`, one a seed) gets a vocabulary of biomedical text and goes on with masked language modelling
there. The arms differ in what the rows of new tokens begin with. What is measured is the held-out loss per character of hidden words after a tenth of
each arm's steps, by one mask for all: per token, vocabularies cannot be compared.

- The passes that read contexts are training FLOPs of their arm, whose steps are fewer for it.
- Guard: a base on the unigram plateau knows no contexts to read.
- `claims/bioptimus_entities.py` measures the same arms, and the curriculum of masks, by entities found after fine-tuning.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch

from headstart.claims._claim import Arm, Claim, Comparison, Data, Guard, Model, Paper, Scale, Score, Task, Use
from headstart.claims._continual import upstream_of
from headstart.claims._data import data_folder
from headstart.core.figures import COLOURS, svg
from headstart.core.files import atomic_write
from headstart.core.run import PART_LOSS, read_lines, read_run
from headstart.data.text.config import TextConfig
from headstart.data.text.store import open_text_store, prepare_text
from headstart.engine.evaluation import evaluate
from headstart.methods.bioptimus.config import BioptimusConfig
from headstart.methods.bioptimus.method import Bioptimus

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOMAIN = "biomed"
HELD_OUT = (20, 7)
"""Of so many documents the one of this number is held out."""
BELOW_ENTROPY = 0.3
"""Nats that the base must lie below the unigram entropy of its corpus."""
EVALUATED_ROWS = 64
EARLY = 0.1
"""Share of the steps after which arms are compared."""


def open_data(scale: Scale, folder: Path) -> Data:
    """General English for the base; biomedical text and its held-out documents."""
    options = scale.options
    fixture = options.get("fixture", False)
    general_files = [data_folder("general_en", fixture) / f"{name}.txt.zst" for name in ("wiki", "addresses")]
    domain_file = data_folder("biomed", fixture) / "corpus.txt.zst"
    general = write_text(folder / "general.txt", (document.replace("[UNK]", " ") for file in general_files for document in blocks(file)))
    documents = list(blocks(domain_file))[: options.get("documents")]
    every, kept = HELD_OUT
    held_out = write_text(folder / "held-out.txt", (text for i, text in enumerate(documents) if i % every == kept))
    domain = write_text(folder / "domain.txt", (text for i, text in enumerate(documents) if i % every != kept))
    in_old = prepare_text([general], folder / "general-store", TextConfig(vocab_size=scale.settings["text.vocab_size"]))
    measured = Task("held-out", early_loss)
    return Data(
        facts={
            "name": "biomed",
            "source": "CRAFT, LINNAEUS and AnatEM (MTL-Bioinformatics-2016); WikiText-2 and State of the Union addresses for the base",
            "train": {"documents": len(documents) - len(documents[kept::every]), "general bytes": general.stat().st_size},
            "test": len(documents[kept::every]),
            "split": f"of {every} biomedical documents the one of number {kept} held out",
        },
        corpora={
            "general": [general],
            "train": [f"{DOMAIN}={domain}", f"{DOMAIN}:held-out={held_out}"],
        },
        tasks=(measured,),
        files=(*general_files, domain_file),
        of_arms={"old_vocabulary": {"text.tokenizer": str(in_old.folder / "tokenizer.json")}},
    )


def blocks(path: Path) -> Iterable[str]:
    """The documents of a text file: what stands between blank lines, a sentence or paragraph a line."""
    with pa.input_stream(str(path)) as file:  # .zst by its name
        text = file.read().decode()
    return (block.strip("\n") for block in re.split(r"\n\s*\n", text) if block.strip())


def write_text(path: Path, documents: Iterable[str]) -> Path:
    """Documents with a blank line between them; a file that holds just these is left as it is."""
    data = ("\n\n".join(documents) + "\n").encode()
    if not path.exists() or path.read_bytes() != data:
        with atomic_write(path) as file:
            file.write(data)
    return path


def curve(run: Path) -> tuple[list[int], list[float]]:
    """(steps, held-out nats per character of hidden words)."""
    found = {line["step"]: line["value"] for line in read_lines(run / "probes.jsonl") if line["probe"] == PART_LOSS + DOMAIN}
    return sorted(found), [found[step] for step in sorted(found)]


def early_loss(use: Use) -> Score:
    """After a tenth of the run's steps; beside it before the first and after the last, and where the arm `random` of the same seed was overtaken."""
    steps, losses = curve(use.model.folder)
    at = max(i for i, step in enumerate(steps) if step <= EARLY * steps[-1])
    beside = {"before step 1": losses[0], "at the end": losses[-1], "steps": float(steps[-1])}
    beside["FLOPs before step 1"] = float(next(read_lines(use.model.folder / "metrics.jsonl"))["flops"] - first_window(use.model.folder))
    if others := sorted(use.model.folder.parent.glob(f"random-rate-*-seed-{use.model.seed}")):
        end = curve(others[0])[1][-1]
        reached = [step for step, loss in zip(steps, losses, strict=True) if loss <= end]
        beside["steps to the end of random"] = float(reached[0]) if reached else float("nan")
    return Score(losses[at], beside={name: value for name, value in beside.items() if np.isfinite(value)})


def first_window(run: Path) -> float:
    """FLOPs of the steps before the first line of metrics.jsonl."""
    line = next(read_lines(run / "metrics.jsonl"))
    return float(line["step"] * read_run(run)["decisions"]["flops_per_step"][line["phase"]])


def guards(model: Model, data: Data, device: str) -> list[Guard]:
    """The base's held-out loss by the mask of the claim (whole words, all shown as [MASK]), against the entropy of its tokens."""
    base = upstream_of(model)
    if base is None:
        return []
    info = read_run(base)
    store, length = open_text_store(info["data"][0]["store"]), int(info["config"]["method"]["sequence_length"])
    method = Bioptimus(BioptimusConfig(sequence_length=length), store, init=base / "export").to(device)
    rows = Bioptimus.rows(store, method.config, "held_out")
    numbers = np.array_split(np.arange(len(rows)), max(1, len(rows) // EVALUATED_ROWS))
    batches = [{name: torch.as_tensor(value) for name, value in rows.batch(part).items()} for part in numbers]
    loss = evaluate(method, batches, method.names()[0], "fp32", torch.device(device), seed=0, total_steps=1)["held_out/mlm_loss"]
    limit = store.unigram_entropy - BELOW_ENTROPY
    return [Guard("held-out loss of the base (nats)", loss, limit, loss <= limit)]


def draw_curves(models: Sequence[Model]) -> bytes | None:
    """Held-out nats per character over the steps, a line an arm, the mean of its seeds. What lies far above all ends is cut off: rows that were not
    matched begin there."""
    lines: dict[str, list[tuple[list[int], list[float]]]] = {}
    for model in models:
        if model.arm.trained and not model.arm.shared and (found := curve(model.folder))[0]:
            lines.setdefault(model.arm.name, []).append(found)
    if not lines:
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for colour, (name, found) in zip(COLOURS, lines.items(), strict=False):
            axes.plot(found[0][0], np.mean([losses for _, losses in found], axis=0), color=colour, linewidth=1.6, label=name)
        ends = [losses[-1] for found in lines.values() for _, losses in found]
        axes.set_ylim(0.99 * min(ends), 1.25 * max(ends))
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.set_xlabel("step on biomedical text")
        axes.set_ylabel("held-out nats per character of hidden words")
        axes.grid()
        axes.legend(frameon=False)

    return svg(paint, (9, 5), "The curves of a claim", "BIOptimus: held-out loss over the steps, by how new rows begin")


def remarks(figures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """What the reading of contexts cost and gave, in the figures beside the metric."""
    found = []
    for name, of_arm in figures.items():
        beside = {key.removeprefix("held-out: "): value for key, value in of_arm.items()}
        reached = f", as good as random ends after {beside['steps to the end of random']:.0f}" if "steps to the end of random" in beside else ""
        cost = f" after {beside['FLOPs before step 1']:.2g} FLOPs of reading" if beside.get("FLOPs before step 1") else ""
        if "steps" in beside:
            found.append(
                f"{name}: {beside['before step 1']:.3f} before step 1{cost}, {beside['at the end']:.3f} after {beside['steps']:.0f} steps{reached}."
            )
    return found


@dataclasses.dataclass(frozen=True)
class Size:
    """A network of the claim, and how it is trained on both texts."""

    layers: int
    width: int
    heads: int
    inner: int
    vocabulary: int
    length: int
    batch: int
    base_flops: float
    domain_flops: float
    base_rate: float
    domain_rate: float
    contexts: int
    causal_start: int
    precision: str = "fp32"

    def settings(self) -> dict[str, Any]:
        """Of every pre-training."""
        return {
            "preset": "tiny",
            "batch": self.batch,
            "precision": self.precision,
            "method.num_layers": self.layers,
            "method.hidden_size": self.width,
            "method.num_heads": self.heads,
            "method.intermediate_size": self.inner,
            "method.sequence_length": self.length,
            "text.vocab_size": self.vocabulary,
            "budget.flops": self.domain_flops,
            "trainer.part_rows": 4096,
        }


SINGLE: dict[str, Any] = {
    "method.units": ("token",),
    "method.mask_ratios": (0.15,),
    "method.mask_shares": (0.8,),
    "method.lengths": (1.0,),
    "method.rates": (1.0,),
}
"""One phase, the first of the curriculum."""
SMOKE = Size(2, 64, 2, 128, 1000, 32, 8, 2e9, 8e9, 2e-3, 1e-3, 1, 4)
CPU = Size(2, 128, 2, 512, 4000, 64, 32, 1.5e13, 1.9e12, 2e-3, 1e-3, 5, 400)
GPU = Size(6, 384, 6, 1536, 8000, 128, 128, 1.15e15, 6.9e14, 5e-4, 2.5e-4, 20, 200, "bf16")


def base_of(size: Size) -> Arm:
    """What all arms begin with: random weights, trained on general text, for the first steps as a causal language model (docs/plateau.md); one a
    seed."""
    settings = {"method.architecture": "bert", "method.mask_ratio": 0.15, "method.causal_start": size.causal_start, "budget.flops": size.base_flops}
    return Arm("base", "mlm", settings, corpus="general", learning_rate=size.base_rate, shared=True)


def beginnings(size: Size) -> dict[str, Arm]:
    """The arms of claim A: name -> arm."""
    base = base_of(size)

    def begun(name: str, rows: str, **method: Any) -> Arm:
        chosen = {"method.contexts": size.contexts, **{f"method.{key}": value for key, value in method.items()}}
        return Arm(name, "bioptimus", {**SINGLE, "method.new_rows": rows, **chosen}, start=base, learning_rate=size.domain_rate)

    both = {**SINGLE, "budget.flops": size.base_flops + size.domain_flops}
    found = (
        begun("random", "random"),
        begun("subword_mean", "subword-mean"),
        begun("contextual", "contextual"),
        begun("contextual_raw", "contextual", match_norm=False),
        Arm("old_vocabulary", "bioptimus", SINGLE, start=base, learning_rate=size.domain_rate),
        Arm("scratch", "bioptimus", both, learning_rate=size.base_rate),
    )
    return {arm.name: arm for arm in found}


def scale_of(size: Size, names: Sequence[str], seeds: int, **options: Any) -> Scale:
    return Scale(
        arms=tuple(beginnings(size)[name] for name in names),
        seeds=seeds,
        learning_rates=(size.domain_rate,),
        settings=size.settings(),
        options=options,
    )


_FEW = ("random", "subword_mean", "contextual", "contextual_raw")

CLAIM = Claim(
    slug="bioptimus",
    statement="After a change of vocabulary, rows for new tokens that are read from the old model's contexts give a lower held-out loss after a tenth"
    " of the steps than random rows and than the mean of the sub-words' rows.",
    paper=Paper(
        statement="Contextualized weight distillation begins new tokens better than other initialisations.",
        value="its table has entity F1 of the four phases alone: 93.52 to 94.10 (BC5CDR-chemical)",
        where="abstract; official repository, tab5.png",
    ),
    metric="held-out nats per character of hidden words after a tenth of the steps",
    comparisons=(
        Comparison("contextual", "random"),
        Comparison("contextual", "subword_mean", meaning={"inconclusive": "no gain over sub-word means is told by these seeds"}),
        Comparison("contextual", "contextual_raw", decides=False),
        Comparison("subword_mean", "random", decides=False),
        Comparison("contextual", "old_vocabulary", decides=False),
        Comparison("contextual", "scratch", decides=False),
    ),
    presets={
        "smoke": scale_of(SMOKE, ("random", "contextual", "old_vocabulary"), 1, fixture=True, documents=40),
        "cpu": scale_of(CPU, _FEW, 3),
        "gpu": scale_of(GPU, (*_FEW, "old_vocabulary", "scratch"), 3),
    },
    open_data=open_data,
    guards=guards,
    curves=draw_curves,
    remarks=remarks,
    higher_is_better=False,
    percent=False,
)
