"""What a narrow cross-encoder needs to learn to look words up (prop): its random start, and rows that show the document.

- start: a network of width 64 learns to tell a document's set of words from another document's, alone, from BERT's random weights and from those of
  `--method.initial matching`: pairs in the right order over the last steps, and how much of the first state of [CLS] differs between rows.
- visible: the share of pairs that counting a set's tokens in its row orders rightly, by the length of the row, for whole passages and for parts.
- draw: milliseconds of one core for drawing the sets of a batch, beside the loss and its gradient.

python -m benchmarks.matching_start [--steps 100] [--out benchmarks/results/matching_start.json]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.result import write_result
from headstart.backbones.kernels import use_fast_kernels
from headstart.backbones.text import encode
from headstart.claims._data import data_folder
from headstart.claims._text import write_documents
from headstart.claims.prop import parts_of, read_collection
from headstart.core.rng import Rng
from headstart.data.text.config import TextConfig
from headstart.data.text.store import TextStore, prepare_text
from headstart.engine.method import Context
from headstart.methods.prop.config import PropConfig
from headstart.methods.prop.method import Prop, text_of
from headstart.objectives.pairwise import pair_accuracies, pair_losses

BATCH = 32
LENGTHS = (80, 128, 256)
DRAWN = 1000
CPU = torch.device("cpu")


def context(step: int, rows: int) -> Context:
    return Context(step, 1, "train", Rng.at(0, step, torch.arange(rows)), CPU)


def batch_of(method: Prop, numbers: np.ndarray) -> dict[str, Tensor]:
    return {name: torch.as_tensor(value) for name, value in Prop.rows(method.store, method.config).batch(numbers).items()}


def start(store: TextStore, initial: Any, steps: int) -> dict[str, float]:
    """Set of the document against that of the next one; 1 is learnt, 0.5 chance."""
    torch.manual_seed(0)
    method = Prop(PropConfig(initial=initial, short_doc_tokens=0, min_doc_words=5, sequence_length=48), store)
    use_fast_kernels(method)
    rate = 1e-3 if initial == "bert" else 3e-4  # each at the better of both
    optimizer = torch.optim.AdamW(method.parameters(), lr=rate)
    random, rows, right = np.random.default_rng(0), len(Prop.rows(store, method.config)), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / 40)
        batch = batch_of(method, random.choice(rows, BATCH, replace=False))
        sets = method.sets.draw(context(step, BATCH).rng, batch["words"], batch["counts"])
        there = torch.arange(sets.words.shape[2]) < sets.lengths[:, None]
        mine = torch.where(there, sets.words[:, 0], method.sets.nothing)
        words = torch.stack([mine, mine.roll(1, 0)], 1).flatten(0, 1)
        laid = method.lay(*method.written(words, 44), *(values.repeat_interleave(2, 0) for values in text_of(batch)))
        hidden = encode(method.encoder, laid)
        scores = method.model.score(hidden)
        optimizer.zero_grad()
        pair_losses(scores).mean().backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        optimizer.step()
        right.append(float(pair_accuracies(scores.detach()).mean()))
    with torch.no_grad():
        torch.manual_seed(0)
        first = Prop(method.config, store)
        state = encode(first.encoder, laid)[:, 0]  # of [CLS], before the first step
        spread = float((state - state.mean(0)).norm(dim=1).mean() / state.norm(dim=1).mean())
    return {"in_order": round(float(np.mean(right[-25:])), 3), "spread": round(spread, 5), "learning_rate": rate}


def visible(store: TextStore, length: int) -> float:
    """Counting the tokens of a set that its row shows of the document; equal shares count one half."""
    method = Prop(PropConfig(short_doc_tokens=0, min_doc_words=5, least_count=2, sequence_length=length), store)
    pairs = method.pairs(batch_of(method, np.arange(DRAWN)), context(0, DRAWN))
    shares = []
    for ids, kind, mask in zip(*(pairs.rows[name] for name in ("input_ids", "token_type_ids", "attention_mask")), strict=True):
        begin = int(kind.nonzero()[0, 0])
        document = set(ids[begin:][mask[begin:]].tolist())
        shares.append(float(np.mean([token in document for token in ids[1 : begin - 1].tolist()])))
    values = torch.tensor(shares).view(-1, 2)
    right = (values[:, 0] > values[:, 1]).float() + 0.5 * (values[:, 0] == values[:, 1]).float()
    return round(float(right[pairs.counts > 0].mean()), 3)


def milliseconds(work: Callable[[], object]) -> float:
    times = []
    for _ in range(7):
        begun = time.process_time()
        work()
        times.append(time.process_time() - begun)
    return round(1000 * min(times), 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/matching_start.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = read_collection(data_folder("wiki_xquad"))
    with tempfile.TemporaryDirectory() as scratch:

        def stored(name: str, words: int | None, vocabulary: int) -> TextStore:
            cut = [[text] for text in found.texts]
            if words is not None:
                cut = [parts_of(title, text, words) for title, text in zip(found.titles, found.plain, strict=True)]
            docs = write_documents(Path(scratch) / f"{name}.jsonl", (part for of_one in cut for part in of_one))
            return prepare_text([docs], Path(scratch) / name, TextConfig(vocab_size=vocabulary, held_out_share=0.0))

        passages, parts, short = stored("passages", None, 4000), stored("parts", 40, 4000), stored("short", 20, 2000)
        starts = {initial: start(short, initial, arguments.steps) for initial in ("bert", "matching")}
        shares = {"passages": {str(length): visible(passages, length) for length in LENGTHS}, "parts of 40 words": {"80": visible(parts, 80)}}
        times: dict[str, float] = {}
        for size in (500, 5000):
            method = Prop(PropConfig(short_doc_tokens=0, set_vocabulary=size), parts)
            batch = batch_of(method, np.arange(BATCH))
            times[f"draw, K = {size}"] = milliseconds(lambda method=method, batch=batch: method.pairs(batch, context(0, BATCH)))  # type: ignore[misc]
        times["loss and gradient"] = milliseconds(lambda: method.loss(batch, context(0, BATCH))["loss"].backward())
    write_result(
        arguments.out,
        name="matching_start",
        what=f"share of pairs, a set of the document and one of another, in the right order after {arguments.steps} steps of {BATCH} pairs, width 64",
        ours={"name": "--method.initial matching", **starts["matching"]},
        peer={"name": "--method.initial bert", **starts["bert"]},
        ratio=round(starts["matching"]["in_order"] / starts["bert"]["in_order"], 2),
        must=1.2,
        command=f"python -m benchmarks.matching_start --steps {arguments.steps}",
        visible=shares,
        milliseconds=times,
    )


if __name__ == "__main__":
    main()
