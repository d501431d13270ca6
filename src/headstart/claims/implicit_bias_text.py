"""Implicit bias on real text (Liu et al., ICML 2023, arXiv 2210.14199), beside the claim on languages of a known optimum: of language models whose
validation loss is equal, has the flatter one the better features?

A GPT-2 learns general English by the recipe of re-warming's upstream model, at its peak rate (`high-rate`) and at a quarter of it (`low-rate`). The
lower rate gets as many steps as it takes to the same validation loss, within .03 nats: of several lengths the first that fits all seeds.

- The probe reads from the mean state of a window which source its text is of: an encyclopaedia, or one of two novels.
- The trace is that of the next-token loss on windows of validation text. Both networks are of one size, so it is measured in one space.
- Nobody knows the optimum of real text, so this says nothing of the paper's claim, which `claim implicit_bias` tests; it shows what a user sees who
  compares two checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.claims import _continual
from headstart.claims._claim import Claim, Comparison, Correlation, Data, Guard, Model, Scale, Score, Task, Use
from headstart.claims._continual import SMOKE_PIECE, Network
from headstart.claims._data import data_folder
from headstart.claims.implicit_bias import CLAIM as OF_LANGUAGES
from headstart.data.text.store import TextStore, open_text_store
from headstart.data.text.windows import windows
from headstart.engine import sharpness
from headstart.interop.transformers_io import load_decoder
from headstart.objectives.token_loss import token_nll
from headstart.tasks.data import records
from headstart.tasks.language_probe import linear_probe

HIGH, LOW = "high-rate", "low-rate"
LOWER = 0.25
"""Of the peak rate."""
EQUAL = 0.03
"""Nats of validation loss within which two models are equal: what a seed moves it."""
UNEQUAL = "the rates need different numbers of steps to the same loss: equal losses are compared, not equal costs"


def open_data(scale: Scale, folder: Path) -> Data:
    """General English, its validation text as a store, and windows of train and test text with their sources."""
    network: Network = scale.options["network"]
    place = _continual.shared_data(folder)
    made = _continual.tokenizer(network, place)
    store = _continual.measured_store(_continual.text(_continual.GENERAL, network, "val", place), made, folder / "val")
    labelled = {split: list(islice(sources(network, split), 10_000)) for split in ("train", "test")}
    classes = sorted({source for source, _ in labelled["train"]})
    return Data(
        facts={
            "name": _continual.GENERAL,
            "source": "Wikipedia and Gutenberg (its SOURCE.md)",
            "train": len(labelled["train"]),
            "test": len(labelled["test"]),
            "split": "by document; the probe learns on windows of training text",
        },
        corpora={"train": _continual.upstream_corpus(network, place)},
        tasks=(Task("probe", probe_task(labelled, classes, store, scale)), Task("flatness", flatness_task(store, scale))),
        files=tuple(data_folder(_continual.GENERAL, fixture=network.documents is not None).glob("*.jsonl.zst")),
        settings={"text.tokenizer": str(made)},
    )


def sources(network: Network, split: str) -> Iterator[tuple[str, str]]:
    """(source, text) of the documents of a split; of a smoke preset's few documents every other piece."""
    folder = data_folder(_continual.GENERAL, fixture=network.documents is not None)
    if network.documents is None:
        yield from ((str(record["src"]), str(record["text"])) for _, record in records(folder / f"{split}.jsonl.zst"))
        return
    for _, record in islice(records(folder / "train.jsonl.zst"), network.documents):
        text = str(record["text"])
        for number, start in enumerate(range(0, len(text), SMOKE_PIECE)):
            if (number % 2 == 0) == (split == "train"):
                yield str(record.get("src", "")), text[start : start + SMOKE_PIECE]


# --- measuring ------------------------------------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def validation_loss(export: Path, store: Path, context: int, device: str) -> float:
    """Nats a token of the whole validation text."""
    opened = open_text_store(store).as_held_out()
    return float(_continual.token_losses(export, opened, context, torch.device(device)).mean())


def probe_task(labelled: Mapping[str, list[tuple[str, str]]], classes: list[str], store: TextStore, scale: Scale) -> Callable[[Use], Score]:
    """Accuracy of the source of a window, from its mean state.

    Args:
        store: whose tokenizer all models have.
    """
    network: Network = scale.options["network"]
    split_windows = [cut(labelled[split], classes, store, network.context, limit)
                     for split, limit in zip(("train", "test"), scale.options["probed"], strict=True)]  # fmt: skip

    def measure(use: Use) -> Score:
        device = torch.device(use.device)
        decoder: Any = load_decoder(use.model.export)[0]
        decoder = decoder.to(device).eval()
        parts = [(mean_states(decoder, ids, device), torch.from_numpy(labels).to(device)) for ids, labels in split_windows]
        (features, labels), (scored, truth) = parts
        spread = features.std(0).clamp(min=1e-6)
        guessed = linear_probe(features / spread, labels, scored / spread, len(classes), use.seed)
        right = (guessed == truth).double().cpu().numpy()
        majority = float(np.bincount(truth.cpu().numpy()).max() / len(truth))
        return Score(float(right.mean()), np.stack([right, np.ones_like(right)], 1), beside={"majority": majority})

    return measure


def cut(labelled: list[tuple[str, str]], classes: list[str], store: TextStore, context: int, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """(int64 [n, context], int64 [n]): whole windows of the documents and their classes, evenly over them, at most `limit`."""
    rows, labels = [], []
    for source, text in labelled:
        ids = np.asarray(store.tokenizer.encode(text, add_special_tokens=False).ids, np.int64)
        for start in range(0, len(ids) - context + 1, context):
            rows.append(ids[start : start + context])
            labels.append(classes.index(source))
    kept = np.unique(np.linspace(0, len(rows) - 1, min(limit, len(rows))).round().astype(np.int64))
    return np.stack(rows)[kept], np.array(labels, np.int64)[kept]


@torch.no_grad()
def mean_states(decoder: Any, ids: np.ndarray, device: torch.device) -> torch.Tensor:
    """float32 [n, width]: the mean over a window of the last hidden states."""
    found = [decoder.base_model(input_ids=torch.from_numpy(part).to(device)).last_hidden_state.float().mean(1)
             for part in np.array_split(ids, -(-len(ids) // _continual.EVALUATED))]  # fmt: skip
    return torch.cat(found)


def flatness_task(store: TextStore, scale: Scale) -> Callable[[Use], Score]:
    """-ln Tr H of the next-token loss on windows of validation text; the validation loss beside."""
    network: Network = scale.options["network"]
    batches, rows_of_each, probes = scale.options["trace"]

    def measure(use: Use) -> Score:
        device = torch.device(use.device)
        decoder: Any = load_decoder(use.model.export)[0]
        decoder = decoder.to(device)
        rows = windows(store, network.context, "held_out", [store.special_ids["eos"]])
        whole = len(rows) - 1  # the last one is padded
        chosen = np.linspace(0, whole - 1, min(whole, batches * rows_of_each)).astype(np.int64)
        parameters = sharpness.measured_parameters(decoder)
        with sharpness.still(decoder):
            losses = [next_token_loss(decoder, rows.batch(part), device) for part in np.array_split(chosen, batches)]
            trace = sharpness.hessian_trace(losses, parameters, probes=probes, relative_error=0.0, seed=use.seed)
        beside = {"trace": trace.mean, "standard error of the trace": trace.standard_error}
        beside["validation loss"] = validation_loss(use.model.export, store.folder, network.context, use.device)
        return Score(-math.log(trace.mean), None, f"its trace is unreliable: {trace.unreliable}" if trace.unreliable else None, beside)

    return measure


def next_token_loss(decoder: Any, batch: Mapping[str, np.ndarray], device: torch.device) -> sharpness.Loss:
    """The mean loss of fixed windows."""
    ids, following = (torch.as_tensor(batch[name]).to(device) for name in ("input_ids", "next_ids"))
    return lambda: token_nll(decoder(input_ids=ids).logits, following).mean()


def guards(model: Model, data: Data, device: str) -> list[Guard]:
    """Whether a model has learned without over-fitting, and whether the losses are equal: of the lower rate beside the higher one of its seed."""
    learned = _continual.upstream_guards(model.folder)
    others = sorted(model.folder.parent.glob(f"{HIGH}-rate-*-seed-{model.seed}"))
    if model.arm.name != LOW or not others:
        return learned
    context = int(model.arm.settings["method.sequence_length"])
    store = model.folder.parent.parent / "data" / "val"
    here, there = (validation_loss(folder / "export", store, context, device) for folder in (model.folder, others[0]))
    return [*learned, Guard("validation loss beside that of the higher rate, nats", here - there, EQUAL, abs(here - there) <= EQUAL)]


def remarks(figures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Losses and traces of both."""
    found = []
    for name, key in (("Validation loss, nats a token", "flatness: validation loss"), ("Trace", "flatness: trace")):
        if known := {arm: row[key] for arm, row in figures.items() if key in row}:
            found.append(f"{name}: {', '.join(f'{arm} {value:.4g}' for arm, value in known.items())}.")
    return found


# --- arms -----------------------------------------------------------------------------------------------------------------------------------------


def scale(network: Network, seeds: int, lengths: tuple[float, ...], trace: tuple[int, int, int], probed: tuple[int, int]) -> Scale:
    """Both rates.

    Args:
        lengths: of the lower rate, in lengths of the higher one.
        trace: batches, windows of each, and probes of each. probed: windows that the probe learns and is tested on.
    """
    high = replace(_continual.upstream_arm(network, name=HIGH), corpus="train", shared=False, unequal=UNEQUAL)
    variants = tuple(
        replace(high, name=LOW, tag=f"x{length:g}", learning_rate=LOWER * network.peak,
                settings={**high.settings, "budget.steps": round(length * network.steps)})
        for length in lengths
    )  # fmt: skip
    return Scale(
        arms=(high, replace(variants[0], tag="", variants=variants, variants_by="every seed")),
        seeds=seeds,
        learning_rates=(network.peak,),
        options={"network": network, "trace": trace, "probed": probed},
    )


CLAIM = Claim(
    slug="implicit_bias_text",
    of=("implicit_bias",),
    statement="Of language models on real text with equal validation loss, the one with the smaller trace of the Hessian has the higher accuracy of"
    " a linear probe.",
    paper=OF_LANGUAGES.paper,
    metric="accuracy of a linear probe on the source of a window; flatness is -ln of the trace",
    percent=False,
    comparisons=(Comparison(HIGH, LOW, False, tasks=("probe",)), Comparison(HIGH, LOW, False, tasks=("flatness",))),
    correlations=(Correlation("flatness", "probe", (HIGH, LOW)),),
    presets={
        "smoke": scale(Network(1, 32, 2, 32, 512, 8, 10, 4e-3, documents=8), 1, (1.0,), (2, 4, 25), (60, 60)),
        "cpu": scale(Network(2, 64, 4, 64, 1024, 16, 830, 4e-3), 3, (0.83, 0.87, 0.79, 0.91, 0.75), (4, 64, 16), (2000, 1000)),
        "gpu": scale(_continual.GPU, 5, (1.0, 1.25, 0.85, 1.5), (4, 500, 25), (2000, 400)),
    },
    open_data=open_data,
    guards=guards,
    remarks=remarks,
)
