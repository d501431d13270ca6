"""The stability gap (Guo et al. 2025, arXiv 2406.14833): at equal tokens, do several epochs over the best part of a pool, with the old mixture kept,
teach more of a domain and cost less of what was known than one epoch over the whole pool?

A GPT-2 that is finished on general English (`old`) goes on with a pool of medical text and, as noise, program code (`new`). A trigram of forty good
medical documents, which are never trained on, says what of the pool is best.

- `random-x4` is strategy I (a random quarter, four times), `hq-x4` I and II (the best quarter), `hq-mix-fixed` and `hq-mix-dynamic` all three: 82 %
  of each epoch from the best quarter, the rest old text; drawn once, or anew each epoch. The paper gives its method 0.4 of the tokens; equal tokens
  are stricter. 0.82 is the paper's share of web text, not that of our old text.
- `replay10` and `replay18` are the whole pool with old text mixed in: the mixing arms see old text and `full` sees none.
- Cloze items decide: which of four words completes a sentence of held-out medical (medterm) or general (genterm) text. Items of which 13 words stand
  in training text are left out; the bootstrap is over documents.
- Forgetting is larger in small models on narrow data than in large ones (EleutherAI/project-menu#10): the size of these differences says nothing of
  billions of parameters.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.claims import _continual
from headstart.claims._claim import Arm, Claim, Comparison, Data, Guard, Model, Paper, Scale, Score, Task, Use
from headstart.claims._continual import CPU, GPU, SMOKE, Network
from headstart.claims._data import data_folder
from headstart.claims.rewarm import draw_curves
from headstart.core.errors import BadInput
from headstart.core.files import atomic_write
from headstart.core.run import read_lines
from headstart.data.text.config import TextConfig
from headstart.data.text.tokenizer import load_tokenizer
from headstart.tasks.data import records
from headstart.tasks.gap import gap
from headstart.tasks.generation import Decoder
from headstart.tasks.multiple_choice import Item, Scored, contaminated, metric_of, read_items, score_items
from headstart.verbs._parts import OLD
from headstart.verbs.forgetting import Curve
from headstart.verbs.forgetting import curves as curves_of
from headstart.verbs.select import select

NEW = "new"
MARGIN = 0.01
"""Accuracy of no interest."""
GENERAL_FLOOR = 0.40
"""Genterm accuracy that the upstream model needs: at chance (.25) it has nothing to forget."""
PIECE = 2_000
"""Characters of a document of the pool at most."""
NOISE = 0.4
"""Share of code in the pool."""
QUARTER = 0.25
"""Share of T that an epoch has; four epochs make T."""
F_PAPER, F_OWN = 0.82, 0.44
"""Domain share of an epoch: the web share of the paper's Llama mixture; the wikipedia share of our old text by bytes."""
SLACK = 1.01
"""Text beyond a quota, because a store counts its tokens line by line."""
GOOD = ("niddk", "nhlbi", "seniorhealth", "cdc", "ninds")
"""Sources of medical text that read as prose."""
REFERENCES = 40

PAPER_TABLE: Mapping[str, tuple[float, float, float, float, float]] = {
    "base": (25.6, 68.4, 25.4, 25.4, 36.2),
    "full": (26.1, 70.4, 26.1, 27.1, 37.4),
    "re-warm": (26.5, 70.3, 27.1, 27.1, 37.7),
    "replay": (26.3, 69.2, 27.6, 26.9, 37.5),
    "strategies with replay": (29.3, 71.0, 30.4, 27.6, 38.5),
    "freeze top": (26.2, 69.9, 27.1, 27.3, 37.6),
    "freeze bottom": (26.0, 69.1, 25.4, 25.7, 36.5),
    "all three strategies": (30.0, 71.2, 34.0, 27.8, 40.7),
}
"""Table 1 of the paper: accuracy on MMLU-medical, PubMedQA, MedMCQA and MedQA, and the mean as it is printed."""


def paper_mean(row: str) -> float:
    """The mean of a row of table 1; that of "strategies with replay" is printed a point too low."""
    return float(np.mean(PAPER_TABLE[row][:4]))


# --- data -----------------------------------------------------------------------------------------------------------------------------------------


def open_data(scale: Scale, folder: Path) -> Data:
    """The pool, its best quarter, old text in pieces, and the items."""
    network, steps = scale.options["network"], scale.options["steps"]
    tokens = steps * network.batch * network.context  # T
    place = _continual.shared_data(folder)
    made = _continual.tokenizer(network, place)
    count = token_counter(made)
    medical, code, general = (list(documents(name, network)) for name in (_continual.MEDICAL, _continual.CODE, _continual.GENERAL))
    good, rest = split_reference(medical)
    pools = {"pool": [*until(pieces(rest), (1 - NOISE) * tokens, count), *until(pieces(code), NOISE * tokens, count)]}
    if scale.options.get("clean"):
        pools["clean"] = list(until(pieces(rest), tokens, count))
    reference = write_records(folder / "reference.jsonl", good)
    files: dict[str, Path] = {name: write_records(folder / f"{name}.jsonl", pool) for name, pool in pools.items()}
    kept: dict[str, float] = {}
    for name in pools:
        best, report = best_quarter(files[name], reference, made, tokens, folder / f"{name}-best")
        files[f"{name}-best"] = best
        kept[name] = report["chosen"]["tokens_by_source"].get(_continual.CODE, 0) / report["chosen"]["tokens"]
    files["old"] = write_records(folder / "old.jsonl", pieces(general))
    files["books"] = write_records(folder / "books.jsonl", pieces(record for record in general if not record["src"].startswith("wiki")))
    domains = {NEW: _continual.MEDICAL, OLD: _continual.GENERAL}
    held_out = {f"{part}_held_out": _continual.text(name, network, "val", place) for part, name in domains.items()}
    items, left_out = read_all_items(scale, [record["text"] for name in (*pools, "old") for record in _records(files[name])], count)
    tests = {part: _continual.text(name, network, "test", place) for part, name in domains.items()}
    stores = {part: _continual.measured_store(paths, made, folder / f"{part}-test") for part, paths in tests.items()}
    beside = {part: [of_task for task, of_task in items.items() if task in scale.options["beside"].get(part, ())] for part in (NEW, OLD)}
    corpora = {
        "pool": {NEW: "pool"}, "pool+old": {NEW: "pool", OLD: "old"}, "best": {NEW: "pool-best"}, "best+old": {NEW: "pool-best", OLD: "old"},
        "best+books": {NEW: "pool-best", OLD: "books"}, "clean": {NEW: "clean"}, "clean-best": {NEW: "clean-best"},
    }  # fmt: skip
    return Data(
        facts={
            "name": "textgen, then textmed with textcode as noise",
            "source": "Wikipedia and Gutenberg; medical texts of public agencies; CPython's library (their SOURCE.md)",
            "train": {name: len(pool) for name, pool in pools.items()} | {"reference": len(good)},
            "test": {task: len(of_task) for task, of_task in items.items()},
            "noise among the best quarter": kept,
            "items left out, which stand in training text or have no room": left_out,
            "split": "by document",
        },
        corpora={"upstream": _continual.upstream_corpus(network, place)}
        | {name: _continual.named(**{part: [files[file]] for part, file in parts.items()}, **held_out)
           for name, parts in corpora.items() if set(parts.values()) <= files.keys()},
        tasks=tuple(Task(task, measure(items[task], beside[part], stores[part], network)) for task, part in (("medterm", NEW), ("genterm", OLD))),
        files=tuple(data_folder(name, fixture=network.documents is not None) / "train.jsonl.zst"
                    for name in (_continual.MEDICAL, _continual.CODE, _continual.GENERAL)),
        settings={"text.tokenizer": str(made)},
    )  # fmt: skip


def documents(name: str, network: Network) -> Iterator[dict[str, str]]:
    """Training documents with id, src and text."""
    source = data_folder(name, fixture=network.documents is not None)
    extra = source / "extra.jsonl.zst"
    for path in [source / "train.jsonl.zst", *([extra] if network.extra and extra.is_file() else [])]:
        for number, (_, record) in enumerate(records(path)):
            if network.documents is None or number < network.documents:
                yield {"id": str(record["id"]), "src": str(record.get("src", "")), "source": name, "text": str(record["text"])}


def by_hash(name: str) -> str:
    return hashlib.sha1(name.encode()).hexdigest()


def split_reference(medical: Sequence[dict[str, str]]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """(the reference, all other documents). Of a smoke preset's few documents, none of which may be of a good source, two are the reference."""
    candidates = sorted((record for record in medical if record["src"] in GOOD), key=lambda record: by_hash(record["id"]))
    good = candidates[:REFERENCES] if len(candidates) >= REFERENCES else sorted(medical, key=lambda record: by_hash(record["id"]))[:2]
    names = {record["id"] for record in good}
    return good, [record for record in medical if record["id"] not in names]


def pieces(found: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """Documents cut into pieces, id "DOCUMENT#NUMBER", in the order of the hash of that."""
    cut = [{**record, "id": f"{record['id']}#{number}", "text": text} for record in found for number, text in enumerate(chunks(record["text"]))]
    return sorted(cut, key=lambda record: by_hash(record["id"]))


def chunks(text: str, limit: int = PIECE) -> list[str]:
    """A text cut at line ends into chunks of at most `limit` characters; a longer line at its last blank before the limit."""
    found: list[str] = []
    held = ""
    for line in text.splitlines(keepends=True):
        while len(line) > limit:
            at = line.rfind(" ", 1, limit) + 1 or limit
            if len(held) + at > limit and held:
                found.append(held)
                held = ""
            found.append(held + line[:at])
            held, line = "", line[at:]
        if len(held) + len(line) > limit:
            found.append(held)
            held = ""
        held += line
    return [stripped for chunk in (*found, held) if (stripped := chunk.strip())]


def token_counter(tokenizer: Path) -> Callable[[str], int]:
    """Training tokens of a text, its end counted."""
    loaded, _ = load_tokenizer(tokenizer, TextConfig())
    return lambda text: len(loaded.encode(text, add_special_tokens=False).ids) + 1


def until(found: Iterable[dict[str, str]], quota: float, count: Callable[[str], int]) -> Iterator[dict[str, str]]:
    """The first pieces, until `quota` tokens are reached.

    Raises:
        BadInput: there are fewer.
    """
    total = 0
    for record in found:
        yield record
        total += count(record["text"])
        if total >= SLACK * quota:
            return
    raise BadInput(f"the data has {total:,} tokens, the claim needs {SLACK * quota:,.0f}.", "Take a smaller preset.")


def write_records(path: Path, found: Iterable[dict[str, str]]) -> Path:
    """A .jsonl; a file that holds just these stays as it is."""
    data = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in found).encode()
    if not path.exists() or path.read_bytes() != data:
        with atomic_write(path) as file:
            file.write(data)
    return path


def _records(path: Path) -> Iterator[dict[str, Any]]:
    return (record for _, record in records(path))


def best_quarter(pool: Path, reference: Path, tokenizer: Path, tokens: int, folder: Path) -> tuple[Path, dict[str, Any]]:
    """The pieces of lowest perplexity until a quarter of T, in an order that says nothing, and what `select` reports."""
    quota = math.ceil(SLACK * QUARTER * tokens)
    found = select(pool, reference=reference, tokenizer=tokenizer, quota=float(quota), out=folder, say=lambda line: None)
    chosen = sorted(_records(folder / "selected.jsonl"), key=lambda record: by_hash(record["id"]))
    return write_records(folder / "best.jsonl", chosen), found.report


def read_all_items(scale: Scale, training: Sequence[str], count: Callable[[str], int]) -> tuple[dict[str, list[Item]], dict[str, int]]:
    """(task -> items, task -> how many were left out because they stand in training text, or a choice is longer than the network)."""
    network = scale.options["network"]
    folder = data_folder("mcq", fixture=network.documents is not None)
    names = ["medterm", "genterm", *(name for of_part in scale.options["beside"].values() for name in of_part)]
    items: dict[str, list[Item]] = {}
    left_out: dict[str, int] = {}
    for name in names:
        path = data_folder("pubmedqa") / "test.jsonl.zst" if name == "pubmedqa" else folder / f"{name}.jsonl.zst"
        found = read_items(path)
        gone = contaminated(found, training) | np.array([max(map(count, item.choices)) > network.context for item in found], bool)
        items[name] = [item for item, is_gone in zip(found, gone, strict=True) if not is_gone]
        left_out[name] = int(gone.sum())
    return items, left_out


# --- measuring ------------------------------------------------------------------------------------------------------------------------------------


def measure(items: Sequence[Item], others: Sequence[Sequence[Item]], store: Any, network: Network) -> Callable[[Use], Score]:
    """Accuracy on the items, by document. Beside it: other items, bits a byte of the test text, and the gap of the held-out curve."""
    part = store.folder.name.removesuffix("-test")

    def of(use: Use) -> Score:
        device = torch.device(use.device)
        decoder = Decoder.load(use.model.export)
        scored = score_items(decoder, items, device)
        text = _continual.bits_per_byte(use.model.export, store, network.context, device)
        beside = {"test bits a byte": text.value, "test nats a token": text.beside["nats a token"]}
        for more in others:
            by = metric_of(more[0].task)
            beside[f"{more[0].task} accuracy"] = float(score_items(decoder, more, device).right(by).mean())
        found = curves_of(use.model.folder).get(part)
        if found is not None:  # an arm that is trained
            beside |= gap_figures(found)
            if part == NEW:
                beside["val above train loss (nats)"] = found.last - last_training_loss(use.model.folder)
        return Score(float(scored.right("acc").mean()), right_by_document(scored), beside=beside)

    return of


def right_by_document(scored: Scored) -> np.ndarray:
    """float [documents, 2]: right items and items of each; those of one document are alike, so the bootstrap draws documents."""
    _, owner = np.unique([item.group for item in scored.items], return_inverse=True)
    return np.stack([np.bincount(owner, scored.right("acc")), np.bincount(owner)], 1).astype(np.float64)


def gap_figures(curve: Curve) -> dict[str, float]:
    """Depth, recovery and area of minus bits a byte on the sample of held-out text, measured densely at first."""
    factor = curve.bits_per_byte[0] / curve.first if 0 in curve.bits_per_byte else 1 / math.log(2)
    found = gap(curve.steps, [-factor * loss for loss in curve.losses])
    figures = {"gap depth (bits a byte)": found.depth, "gap area (bits a byte)": found.area, "gain (bits a byte)": found.gain}
    return figures if found.recovery is None else {**figures, "recovered at step": found.recovery}


def last_training_loss(run: Path) -> float:
    """The mean of the last twentieth of what was logged, in nats."""
    logged = [float(line["loss"]) for line in read_lines(run / "metrics.jsonl") if "loss" in line]
    return float(np.mean(logged[-max(1, len(logged) // 20) :]))


def guards(model: Model, data: Data, device: str) -> list[Guard]:
    upstream = _continual.upstream_of(model)
    return [] if upstream is None else _continual.upstream_guards(upstream)


def validity(scores: Mapping[str, Mapping[str, float]], data: Data) -> list[str]:
    general = scores.get("none", {}).get("genterm")
    if general is None or general >= GENERAL_FLOOR:
        return []
    return [f"the model that is continued is right on {100 * general:.0f} % of genterm (limit {100 * GENERAL_FLOOR:.0f} %): it has little to forget"]


def remarks(figures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """The strategies one by one, and what is forgotten."""
    found = []
    steps = (("random-x4", "full", "I"), ("hq-x4", "random-x4", "II, on top of I"), ("hq-mix-dynamic", "hq-x4", "III, on top of I and II"))
    for arm, before, name in steps:
        if {arm, before} <= figures.keys():
            gains = ", ".join(f"{task} {100 * (figures[arm][task] - figures[before][task]):+.1f} points" for task in ("medterm", "genterm"))
            found.append(f"Strategy {name}: {gains}.")
    depth = "genterm: gap depth (bits a byte)"
    depths = {arm: row[depth] for arm, row in figures.items() if depth in row}
    if len(depths) > 1:
        rises = ", ".join(f"{value:.2f} ({arm})" for arm, value in depths.items())
        found.append(f"The loss on old text rises, at its highest, by so many bits a byte: {rises}.")
    return found


# --- arms -----------------------------------------------------------------------------------------------------------------------------------------


def arms(network: Network, steps: int, others: int | None, few: bool = False, more: bool = False) -> tuple[Arm, ...]:
    """All arms of a scale.

    Args:
        others: seeds of all but the two that decide; None: as many.
        few: those of the smoke preset. more: those of the gpu preset too.
    """
    upstream, tokens = _continual.upstream_arm(network), steps * network.batch * network.context
    quarter, schedule = int(QUARTER * tokens), {"schedule.name": "cosine", "schedule.warmup_share": 0.1, "schedule.minimum_share": 0.0}

    def arm(name: str, corpus: str, epoch: int = tokens, f: float | None = None, seeds: int | None = others, peak: float = 1.0,
            unequal: str = "", **settings: Any) -> Arm:  # fmt: skip
        mix = {} if f is None else {"mix": f"new={f:g},old={1 - f:g}"}
        given = {**schedule, "epochs.tokens": epoch, **mix, **{name.replace("__", "."): value for name, value in settings.items()}}
        return Arm(name, "causal-lm", given, start=upstream, corpus=corpus, seeds=seeds, learning_rate=peak * network.peak, unequal=unequal)

    deciding = arm("full", "pool", seeds=None), arm("hq-mix-dynamic", "best+old", quarter, F_PAPER, seeds=None)
    if few:
        return deciding
    frozen = max(1, round(5 * network.layers / 24))
    found = (
        Arm("none", "causal-lm", trained=False, start=upstream),
        deciding[0],
        arm("full-rewarm-high", "pool", peak=2.0),
        arm("random-x4", "pool", quarter, epochs__draw="fixed"),
        arm("hq-x4", "best", quarter, epochs__draw="fixed"),
        arm("hq-mix-fixed", "best+old", quarter, F_PAPER, epochs__draw="fixed"),
        deciding[1],
        arm("replay10", "pool+old", f=0.9),
        arm("freeze-top", "pool", layers__freeze_top=frozen, unequal=f"{frozen} frozen layers take no gradient of their weights"),
    )
    if not more:
        return found
    less = {"budget.steps": round(0.4 * steps)}
    return (
        *found,
        arm("replay18", "pool+old", f=F_PAPER),
        arm("hq-mix-own", "best+books", quarter, F_OWN),
        arm("full-clean", "clean"),
        arm("hq-x4-clean", "clean-best", quarter, epochs__draw="fixed"),
        arm("hq-mix-0.4", "best+old", int(0.1 * tokens), F_PAPER, unequal="0.4 of the tokens, as the paper gives its method",
            **{name.replace(".", "__"): value for name, value in less.items()}),
    )  # fmt: skip


def comparisons() -> tuple[Comparison, ...]:
    """The claim on both tasks; the strategies one by one and the other baselines beside."""
    beside = (
        ("random-x4", "full"), ("hq-x4", "random-x4"), ("hq-x4", "full"), ("hq-mix-dynamic", "hq-x4"), ("hq-mix-dynamic", "hq-mix-fixed"),
        ("hq-mix-dynamic", "replay10"), ("hq-mix-dynamic", "replay18"), ("hq-mix-dynamic", "full-rewarm-high"), ("hq-mix-dynamic", "freeze-top"),
        ("hq-mix-dynamic", "hq-mix-own"), ("hq-mix-0.4", "full"), ("hq-x4-clean", "full-clean"), ("hq-mix-dynamic", "none"), ("full", "none"),
    )  # fmt: skip
    tasks = ("medterm", "genterm")
    return (
        *(Comparison("hq-mix-dynamic", "full", margin=MARGIN, tasks=(task,)) for task in tasks),
        *(Comparison(a, b, False, tasks=(task,)) for a, b in beside for task in tasks),
    )


def scale(network: Network, steps: int, seeds: int, others: int | None = None, few: bool = False, more: bool = False) -> Scale:
    beside = {} if few else {NEW: ("mmlu_med", "pubmedqa") if more else (), OLD: ("blimp",)}
    return Scale(
        arms=arms(network, steps, others, few, more),
        seeds=seeds,
        learning_rates=(network.peak,),
        settings=_continual.continual(network, steps),
        options={"network": network, "steps": steps, "clean": more, "beside": beside},
    )


CLAIM = Claim(
    slug="stability_gap",
    statement="At equal tokens, several epochs over the highest-quality subset with the old mixture kept give higher domain accuracy and a smaller"
    " loss of general ability than one epoch over the whole pool.",
    paper=Paper(
        statement="OpenLlama-3B on 50 billion medical tokens reaches a mean of four medical tests a point above the base model; with the three"
        " strategies and 20 billion tokens it gains more than four. Single runs.",
        value=", ".join(f"{row} {paper_mean(row):.1f}" for row in PAPER_TABLE) + " % (means of its four columns; 39.6 is printed as 38.5)",
        where="table 1",
    ),
    metric="accuracy on cloze items",
    comparisons=comparisons(),
    presets={
        "smoke": scale(SMOKE, 6, 1, few=True),
        "cpu": scale(CPU, 293, 5, others=3),
        "gpu": scale(GPU, 586, 5, more=True),
    },
    open_data=open_data,
    guards=guards,
    validity=validity,
    remarks=remarks,
    curves=draw_curves,
)
