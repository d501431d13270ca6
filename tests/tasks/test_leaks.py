"""Test records in the training data."""

import json
import shutil
from pathlib import Path

from headstart.data.text.config import TextConfig
from headstart.data.text.prepare import prepare_text
from headstart.tasks.leaks import find_overlap, normalise, training_leaks


def test_exact_and_normalised_duplicates() -> None:
    train = ["A fine film.", "dull", "unrelated"]
    found = find_overlap(["A fine film.", "a fine  FILM!", "Dull?", "new", "fine"], iter(train))
    assert (found.n_test, found.exact, found.normalised, found.examples) == (5, 1, 3, [1, 2, 3])
    assert found.sentence("the training file") == "3 of 5 test records (60.0 %) stand in the training file, 1 of them exactly: records 1, 2, 3."


def test_no_overlap_is_said() -> None:
    assert find_overlap(["a"], ["b"]).sentence("the corpus") == "None of the 1 test record stands in the corpus."


def test_texts_without_letters_match_only_exactly() -> None:
    assert find_overlap(["!!!"], ["???"]).normalised == 0
    assert find_overlap(["!!!"], ["!!!"]).normalised == 1


def test_only_the_first_examples_are_named() -> None:
    found = find_overlap([str(i) for i in range(9)], [str(i) for i in range(9)])
    assert found.examples == [1, 2, 3, 4, 5]
    assert "records 1, 2, 3, 4, 5 and more." in found.sentence("x")


def test_normalise() -> None:
    assert normalise("  The_Mill—(old): STRASSE ") == "the mill old strasse"


LONG = "the old mill on the hill was sold to a baker from the town below in spring"


def test_nearly_repeated_records_are_found() -> None:
    edited = LONG.replace("sold", "given")  # 10 spans of 17 words, 8 of them without the new word: each span has 8 words
    found = find_overlap([LONG.upper(), edited, "an old mill stood there and was never sold to anybody at all"], [LONG + " and then it burned"])
    assert (found.exact, found.normalised, found.near, found.examples) == (0, 0, 1, [1])
    assert find_overlap([LONG], [LONG]).near == 0
    start = " ".join(LONG.split()[:13])  # 6 spans, all of them there: contained in it
    assert (find_overlap([start], [LONG]).normalised, find_overlap([start], [LONG]).near) == (0, 1)
    assert find_overlap([LONG], [start]).near == 1  # 6 of its 10 spans
    assert find_overlap(["the old mill"], [LONG]).near == 0  # too short to say anything


def pretrained(folder: Path, documents: list[str], init: Path | None = None) -> Path:
    """A run folder with what the leak check reads: run.json and the store that it names."""
    source = folder / "documents.jsonl"
    folder.mkdir()
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in documents))
    store = prepare_text([source], folder / "store", TextConfig(vocab_size=300, held_out_share=0.0, text_field="text"))
    run = folder / "run"
    (run / "export" / "discriminator").mkdir(parents=True)
    data = [{"kind": "text", "store": str(store.folder), "counts": {}, "tokenizer_sha256": store.manifest["tokenizer_sha256"]}]
    info = {"format_version": 1, "status": "stopped", "data": data, "config": {"init": None if init is None else str(init)}}
    (run / "run.json").write_text(json.dumps(info))
    return run


def test_test_records_are_looked_for_in_the_pre_training_text(tmp_path: Path) -> None:
    filler = [f"number {i} of the many pages that tell of weather, grain and the price of bread in the year {1800 + i}" for i in range(40)]
    run = pretrained(tmp_path / "a", [*filler, f"Before it.\n{LONG.capitalize()}.\nWell done.\nAfter it."])
    texts = [LONG, "well done.", "done.", "a sentence that nobody has ever written in any of these pages, I think"]
    assert training_leaks(texts, run / "export" / "discriminator") == [
        f"2 of 4 test records (50.0 %) stand in the pre-training text of {run}: records 1, 2."
    ]
    assert training_leaks(texts[3:], run) == [f"None of the 1 test record stands in the pre-training text of {run}."]
    assert training_leaks(texts, tmp_path) == []  # no run of ours
    second = pretrained(tmp_path / "b", filler, init=run / "export")
    assert training_leaks(texts[:1], second, "the model") == [
        "None of the 1 test record stands in the pre-training text of the model.",
        f"1 of 1 test record (100.0 %) stands in the pre-training text of {run}, which it began with: record 1.",
    ]
    shutil.rmtree(tmp_path / "a" / "store")
    (found,) = training_leaks(texts, run)
    assert found == f"Whether test records stand in the pre-training text of {run} cannot be checked: its store is gone or made anew."


def test_the_stores_of_one_run_are_one_text(tmp_path: Path) -> None:
    """A run of named parts has a store for each: "none stands there" of one would contradict what another says."""
    filler = [f"number {i} of the many pages that tell of weather, grain and the price of bread in the year {1800 + i}" for i in range(40)]
    run, other = pretrained(tmp_path / "a", filler), pretrained(tmp_path / "b", [*filler, LONG])
    info, more = (json.loads((folder / "run.json").read_text()) for folder in (run, other))
    (run / "run.json").write_text(json.dumps(info | {"data": info["data"] + more["data"]}))
    assert training_leaks([LONG, filler[3]], run) == [f"2 of 2 test records (100.0 %) stand in the pre-training text of {run}: records 1, 2."]


def test_a_large_corpus_is_read_in_blocks(tmp_path: Path) -> None:
    words = [f"word{i % 89} item{i % 97} thing{i % 83}" for i in range(3000)]
    run = pretrained(tmp_path / "a", [" ".join(words[i : i + 30]) for i in range(0, 3000, 30)])
    assert training_leaks([" ".join(words[2500:2506])], run)[0].startswith("1 of 1 test record ")
