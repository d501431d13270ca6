"""Whole words hidden for a masked language model: our masks, made of whole batches on the device, against the collator of transformers, which goes
over words and tokens in Python. And how fast the places of new tokens are found in a corpus (bioptimus).

python -m benchmarks.whole_words [--rows 256] [--length 128] [--out benchmarks/results/whole_words.json]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast

from benchmarks.result import write_result
from headstart.claims._data import data_folder
from headstart.claims.bioptimus import blocks, write_text
from headstart.core.rng import Rng
from headstart.data.text.config import TextConfig
from headstart.data.text.store import TextStore, prepare_text
from headstart.engine.method import Context
from headstart.methods.bioptimus.config import BioptimusConfig
from headstart.methods.bioptimus.contexts import count_tokens, find_places
from headstart.methods.bioptimus.method import Bioptimus

REPEATS = 9


def median_s(ways: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each way, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(REPEATS + 1):
        for name, work in ways.items():
            start = time.perf_counter()
            work()
            if repeat:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def examples(store: TextStore, ids: np.ndarray) -> list[dict[str, Any]]:
    """Rows as the collator takes them: its words are runs of adjacent offsets."""
    specials = set(store.special_ids.values())
    names = store.tokenizer.id_to_token
    found = []
    for row in ids.tolist():
        offsets, at = [], 0
        for index in row:
            special = index in specials
            at += 0 if special or store.continues_word[index] else 1  # a blank before a word
            length = 0 if special else len(names(index).removeprefix("##"))
            offsets.append((at, at + length))
            at += length
        found.append({"input_ids": row, "offset_mapping": offsets, "special_tokens_mask": [int(index in specials) for index in row]})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/whole_words.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Random token replacement")
    with tempfile.TemporaryDirectory() as scratch:
        text = write_text(Path(scratch) / "text.txt", blocks(data_folder("biomed") / "corpus.txt.zst"))
        store = prepare_text([text], Path(scratch) / "store", TextConfig(vocab_size=8000, held_out_share=0.0))
        phase: dict[str, Any] = {"units": ("whole-word",), "mask_ratios": (0.15,), "mask_shares": (1.0,), "lengths": (1.0,), "rates": (1.0,)}
        config = BioptimusConfig(sequence_length=arguments.length, **phase)
        method = Bioptimus(config, store)
        rows = Bioptimus.rows(store, config)
        numbers = np.arange(min(arguments.rows, len(rows)))
        ready = examples(store, np.asarray(rows.batch(numbers)["input_ids"]))
        collator = DataCollatorForLanguageModeling(
            PreTrainedTokenizerFast(
                tokenizer_object=store.tokenizer, pad_token="[PAD]", mask_token="[MASK]", cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]"
            ),
            whole_word_mask=True,
            mlm_probability=0.15,
        )

        def ours() -> None:
            batch = {name: torch.as_tensor(value) for name, value in rows.batch(numbers).items()}
            ctx = Context(0, 1, method.names()[0], Rng.at(0, 0, torch.arange(len(numbers))), torch.device("cpu"))
            method.hide(batch, ctx, *method.choose(batch, ctx))

        seconds = median_s({"ours": ours, "peer": lambda: collator([dict(row) for row in ready])})
        wanted = count_tokens(store) > 0
        finding = median_s({"find": lambda: find_places(store, wanted, 20)})["find"]
        megabytes = text.stat().st_size / 1e6
    write_result(
        arguments.out,
        name="whole_words",
        what=f"rows a second whose whole words are hidden, {len(numbers)} rows of {arguments.length} tokens, one thread of a CPU",
        ours={"rows_per_second": round(len(numbers) / seconds["ours"])},
        peer={"name": "transformers DataCollatorForLanguageModeling, whole_word_mask", "rows_per_second": round(len(numbers) / seconds["peer"])},
        ratio=seconds["peer"] / seconds["ours"],
        must=1.0,
        command=f"python -m benchmarks.whole_words --rows {arguments.rows} --length {arguments.length}",
        find_places={"megabytes_per_second": round(megabytes / finding, 1), "text_megabytes": round(megabytes, 2), "tokens": int(wanted.sum())},
    )


if __name__ == "__main__":
    main()
