"""Pairs for next-sentence prediction: ours, written as training rows, against create_pretraining_data.py of NVIDIA/DeepLearningExamples
(PyTorch/LanguageModeling/BERT), whose functions are run as they are on the same tokens with the same draws. It also masks, which we do on the device
at every step; a second figure leaves that out. It writes no file here, ours does.

python -m benchmarks.pairs --official create_pretraining_data.py [--length 128] [--out benchmarks/results/pairs.json]
"""

from __future__ import annotations

import argparse
import random
import shutil
import statistics
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

from benchmarks.result import write_result
from headstart.claims._data import data_folder
from headstart.claims.bioptimus import blocks, write_text
from headstart.data.text.config import TextConfig
from headstart.data.text.store import TextStore, prepare_text
from headstart.methods.medical_bert.config import MedicalBertConfig
from headstart.methods.medical_bert.rows import medical_bert_rows, pairs_of_pool

REPEATS = 5
PACKAGES = ("h5py", "tqdm", "tokenization")
"""What the official file imports and its builder does not use."""


def official_module(path: Path) -> types.ModuleType:
    """The official file as a module."""
    for name in PACKAGES:
        stand_in = types.ModuleType(name)
        for used in ("tqdm", "trange", "BertTokenizer", "convert_to_unicode"):
            setattr(stand_in, used, None)
        sys.modules.setdefault(name, stand_in)
    module = types.ModuleType("create_pretraining_data")
    exec(compile(path.read_text(), str(path), "exec"), module.__dict__)
    return module


def documents_of(store: TextStore) -> list[list[list[str]]]:
    """Documents as the official builder has them: sentences of tokens."""
    names = [store.tokenizer.id_to_token(index) for index in range(store.vocab_size)]
    return [[[names[index] for index in sentence.tolist()] for sentence in store.sentences(number)] for number in store.documents("train").tolist()]


def theirs(module: Any, documents: list[list[list[str]]], words: list[str], length: int) -> list[Any]:
    rng = random.Random("12:0")
    order = list(documents)
    rng.shuffle(order)
    instances: list[Any] = []
    for number in range(len(order)):
        instances.extend(module.create_instances_from_document(order, number, length, 0.1, 0.15, 20, words, rng))
    return instances


def seconds(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--official", type=Path, required=True, help="create_pretraining_data.py of NVIDIA/DeepLearningExamples")
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/pairs.json"))
    arguments = parser.parse_args()
    module = official_module(arguments.official)
    masked = module.create_masked_lm_predictions
    config = MedicalBertConfig(sequence_length=arguments.length, composition="union")
    times: dict[str, list[float]] = {"ours": [], "peer": [], "peer without masks": []}
    with tempfile.TemporaryDirectory() as scratch:
        text = write_text(Path(scratch) / "text.txt", blocks(data_folder("biomed") / "corpus.txt.zst"))
        store = prepare_text([text], Path(scratch) / "store", TextConfig(vocab_size=8000, held_out_share=0.0))
        documents, words = documents_of(store), list(store.tokenizer.get_vocab())
        module.create_masked_lm_predictions = lambda tokens, *rest: (tokens, [], [])
        pairs = [pair for pair, _, _ in pairs_of_pool(store, config, store.documents("train"), 0)]
        same = [instance.is_random_next for instance in theirs(module, documents, words, arguments.length)]
        assert same == [pair.is_random for pair in pairs], "the same draws give the same labels"
        for repeat in range(REPEATS + 1):
            shutil.rmtree(store.folder / "rows", ignore_errors=True)
            found = {"ours": seconds(lambda: medical_bert_rows(store, config))}
            found["peer without masks"] = seconds(lambda: theirs(module, documents, words, arguments.length))
            module.create_masked_lm_predictions = masked
            found["peer"] = seconds(lambda: theirs(module, documents, words, arguments.length))
            module.create_masked_lm_predictions = lambda tokens, *rest: (tokens, [], [])
            for name, value in found.items() if repeat else ():
                times[name].append(value)
    rates = {name: round(len(pairs) / statistics.median(found)) for name, found in times.items()}
    write_result(
        arguments.out,
        name="pairs",
        what=f"pairs a second for next-sentence prediction, rows of {arguments.length} tokens, {len(pairs):,} pairs, one core",
        ours={"pairs_per_second": rates["ours"]},
        peer={
            "name": "create_pretraining_data.py, NVIDIA/DeepLearningExamples",
            "pairs_per_second": rates["peer"],
            "pairs_per_second_without_masks": rates["peer without masks"],
        },
        ratio=rates["ours"] / rates["peer"],
        must=1.0,
        command=f"python -m benchmarks.pairs --official create_pretraining_data.py --length {arguments.length}",
        ratio_without_their_masks=round(rates["ours"] / rates["peer without masks"], 3),
    )


if __name__ == "__main__":
    main()
