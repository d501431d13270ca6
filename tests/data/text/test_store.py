import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from headstart.core.errors import BadInput, UsageError
from headstart.data.text.config import TextConfig
from headstart.data.text.prepare import unigram_entropy
from headstart.data.text.store import TextStore, open_text_store, prepare_text
from tests.data.text.conftest import folder_bytes, many_documents, write_jsonl
from tests.running import environment

SMALL = TextConfig(vocab_size=300, held_out_share=0.1)


def test_documents_and_sentences_come_back(store: TextStore, documents: list[str]) -> None:
    """Lower-cased words are what WordPiece keeps of a text; white space and splitting of punctuation aside."""
    assert store.manifest["counts"]["documents"] == len(documents)
    for index in (0, 17, len(documents) - 1):
        lines = [line for line in documents[index].split("\n") if line.strip()]
        sentences = store.sentences(index)
        assert len(sentences) == len(lines)
        assert (np.concatenate(sentences) == store.document(index)).all()
        for ids, line in zip(sentences, lines, strict=True):
            assert "".join(store.decode(ids).split()) == "".join(line.lower().split())


def test_tokens_are_those_of_the_plain_tokenizer(store: TextStore, documents: list[str]) -> None:
    lines = [line for text in documents for line in text.split("\n") if line.strip()]
    plain = [index for encoding in store.tokenizer.encode_batch(lines, add_special_tokens=False) for index in encoding.ids]
    assert store.tokens.tolist() == plain
    assert store.tokens.dtype == np.uint16


def test_counts_in_the_manifest(store: TextStore, documents: list[str]) -> None:
    counts = store.manifest["counts"]
    assert counts["words"] == sum(len(text.split()) for text in documents)
    assert counts["text_bytes"] == sum(len(text.encode()) for text in documents)
    assert counts["tokens"] == len(store.tokens) == counts["training_tokens"] + counts["held_out_tokens"] + counts["near_duplicate_tokens"]
    assert store.manifest["tokens_per_word"] == counts["tokens"] / counts["words"]
    assert store.manifest["unknown_share"] == (store.tokens == store.special_ids["unk"]).mean()
    lengths = np.diff(store.sentence_offsets)
    assert store.manifest["sentences_longer_than"]["64"] == (lengths > 64).mean()


def test_unigram_entropy_is_of_the_training_tokens(store: TextStore) -> None:
    training = np.concatenate([store.document(index) for index in store.documents("train")])
    shares = np.bincount(training) / len(training)
    shares = shares[shares > 0]
    assert store.unigram_entropy == pytest.approx(-(shares * np.log(shares)).sum(), rel=1e-12)
    assert unigram_entropy(np.array([5, 5, 5, 5, 0])) == pytest.approx(np.log(4))


def test_the_tokenizer_never_sees_held_out_documents(tmp_path: Path) -> None:
    """Every document has a frequent word of its own: words of training documents become tokens, those of held-out ones do not."""
    words = ["".join(chr(97 + int(digit)) * 2 for digit in f"{index:03d}") for index in range(60)]
    texts = [f"{word} is here {word} and there {word}.\n" * 20 for word in words]
    store = prepare_text([write_jsonl(tmp_path / "a.jsonl", texts)], tmp_path / "store", TextConfig(vocab_size=400, held_out_share=0.2))
    whole = np.array([store.tokenizer.token_to_id(word) is not None for word in words])
    assert 5 <= store.held_out.sum() <= 25
    assert not whole[store.held_out].any()
    assert whole[~store.held_out].all()


def test_a_second_preparation_opens_the_store(store: TextStore, corpus: Path) -> None:
    before = (store.folder / "manifest.json").stat().st_mtime_ns
    again = prepare_text([corpus], store.folder, TextConfig(vocab_size=1000, held_out_share=0.1, workers=3, on_bad_input="quarantine"))
    assert again.manifest == store.manifest
    assert (store.folder / "manifest.json").stat().st_mtime_ns == before


def test_changed_settings_and_files_are_named(tmp_path: Path, documents: list[str]) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for index in range(10):
        (data / f"{index}.md").write_text(documents[index])
    out = tmp_path / "store"
    prepare_text([data], out, SMALL)
    with pytest.raises(UsageError, match="vocab_size 300 -> 400"):
        prepare_text([data], out, TextConfig(vocab_size=400, held_out_share=0.1))
    with pytest.raises(UsageError, match=r"tokenizer_kind 'wordpiece' -> 'bpe'"):
        prepare_text([data], out, TextConfig(vocab_size=300, held_out_share=0.1, tokenizer_kind="bpe"))
    os.utime(data / "3.md")  # touched, but the same
    prepare_text([data], out, SMALL)
    (data / "3.md").write_text(documents[3][:-1] + "#")  # same size, other content
    with pytest.raises(UsageError, match=r"1 changed input files \(.*3\.md\)"):
        prepare_text([data], out, SMALL)
    (data / "3.md").unlink()
    (data / "new.md").write_text("x")
    (data / "new2.md").write_text("x")
    with pytest.raises(UsageError, match=r"10 -> 11 input files \(new .*new\.md, new .*new2\.md, missing .*3\.md\)"):
        prepare_text([data], out, SMALL)


@pytest.mark.promise("Nothing is ever written into the user's data.")
def test_nothing_is_written_into_the_data(tmp_path: Path, documents: list[str]) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for index in range(5):
        (data / f"{index}.txt").write_text(documents[index])
    before = folder_bytes(data)
    for out in (data, data / "store"):
        with pytest.raises(UsageError, match="inside the data folder"):
            prepare_text([data], out, SMALL)
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.docx").write_text("mine")
    with pytest.raises(UsageError, match="holds other files"):
        prepare_text([data], other, SMALL)
    prepare_text([data], tmp_path / "store", SMALL)
    assert folder_bytes(data) == before


@pytest.mark.promise("A store has the same bytes whatever the number of workers that made it.")
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_bytes_do_not_depend_on_workers(tmp_path: Path, kind: Any) -> None:
    """1, 2 and 4 workers, several files and formats, more than one part."""
    texts = many_documents(900)
    data = tmp_path / "data"
    data.mkdir()
    for index in range(3):
        write_jsonl(data / f"{index}.jsonl", texts[index * 300 : (index + 1) * 300])
    stores = []
    for workers in (1, 2, 4):
        prepare_text([data], tmp_path / f"{workers}", TextConfig(vocab_size=600, tokenizer_kind=kind, workers=workers))
        stores.append(folder_bytes(tmp_path / f"{workers}"))
    assert stores[0] == stores[1] == stores[2]
    assert not any(".work" in name for name in stores[0])


PREPARE = """
import sys
from headstart.data.text.config import TextConfig
from headstart.data.text.store import prepare_text
from tests.at import At, watch
watch(At((9,), "0*.tmp", int(sys.argv[3]), "os.rename"))
prepare_text([sys.argv[1]], sys.argv[2], TextConfig(vocab_size=600, workers=1))
"""


def start_and_kill(data: Path, out: Path, parts: int) -> None:
    """Prepare in another process, which SIGKILL ends when so many parts are there, just before it would name the next one."""
    before = len(list((out / ".work" / "parts").glob("*.safetensors")))
    done = subprocess.run([sys.executable, "-c", PREPARE, str(data), str(out), str(parts - before + 1)], env=environment(), check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list((out / ".work" / "parts").glob("*.safetensors"))) == parts
    assert not (out / "manifest.json").exists()


@pytest.mark.promise("A preparation that is killed goes on where it was, and ends with the same bytes.")
@pytest.mark.slow
def test_a_killed_preparation_continues_and_gives_the_same_bytes(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "a.jsonl", many_documents(4000))
    out = tmp_path / "killed"
    start_and_kill(data, out, 2)
    with pytest.raises(BadInput, match="preparation was interrupted"):
        open_text_store(out)
    start_and_kill(data, out, 3)
    prepare_text([data], out, TextConfig(vocab_size=600, workers=2))
    prepare_text([data], tmp_path / "undisturbed", TextConfig(vocab_size=600, workers=1))
    assert folder_bytes(out) == folder_bytes(tmp_path / "undisturbed")


@pytest.mark.promise("A preparation that is killed goes on where it was, and ends with the same bytes.")
@pytest.mark.slow
def test_a_restart_reuses_the_parts_and_other_settings_do_not(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "a.jsonl", many_documents(3000))
    out = tmp_path / "store"
    start_and_kill(data, out, 2)
    part = out / ".work/parts/000000.safetensors"
    with safe_open(part, framework="numpy") as file:
        metadata = file.metadata()
    arrays = load_file(part)
    arrays["tokens"][:] = 7  # a mark that only reuse can carry into the store
    save_file(arrays, part, metadata=metadata)
    shutil.copytree(out, tmp_path / "copy")
    tokens = prepare_text([data], out, TextConfig(vocab_size=600)).tokens
    assert (tokens[: len(arrays["tokens"])] == 7).all()
    assert not (tokens[len(arrays["tokens"]) :] == 7).all()
    tokens = prepare_text([data], tmp_path / "copy", TextConfig(vocab_size=600, strip_accents=False)).tokens
    assert not (tokens[: len(arrays["tokens"])] == 7).all()


@pytest.mark.promise("Two processes that need the same store: one prepares it, the other waits and says so, both get it.")
@pytest.mark.slow
def test_two_processes_prepare_one_store(tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "a.jsonl", many_documents(800))
    command = [sys.executable, "-c", PREPARE, str(data), str(tmp_path / "store"), "1000"]  # no kill
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment()) for _ in range(2)]
    outputs = [process.communicate(timeout=240)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum("waiting for another process that prepares this store" in output for output in outputs) == 1
    open_text_store(tmp_path / "store").verify()


# --- bad input ----------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.promise(
    "No record is lost silently: a bad one stops the run before training, or goes to quarantine.jsonl with file, number and reason, and is "
    "counted."
)
def test_the_first_bad_record_stops_before_anything_is_trained(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n{"text": "broken\n')
    with pytest.raises(BadInput) as caught:
        prepare_text([path], tmp_path / "store", SMALL)
    error = caught.value
    assert (error.file, error.record, error.exit_code) == (str(path), 2, 3)
    assert "not valid JSON" in error.reason
    assert "quarantine" in error.mend


@pytest.mark.promise(
    "No record is lost silently: a bad one stops the run before training, or goes to quarantine.jsonl with file, number and reason, and is "
    "counted."
)
def test_quarantine_keeps_the_bad_records_and_goes_on(tmp_path: Path, documents: list[str]) -> None:
    data = tmp_path / "data"
    data.mkdir()
    write_jsonl(data / "a.jsonl", documents[:60])
    with (data / "a.jsonl").open("ab") as file:
        file.write(b'{"text": 7}\n{"text": "caf\xe9"}\n')
    (data / "b.txt").touch()
    store = prepare_text([data], tmp_path / "store", TextConfig(vocab_size=300, on_bad_input="quarantine"))
    entries = [json.loads(line) for line in (store.folder / "quarantine.jsonl").read_text().splitlines()]
    assert [(Path(entry["file"]).name, entry["record"]) for entry in entries] == [("a.jsonl", 61), ("a.jsonl", 62), ("b.txt", 0)]
    assert all(entry["what"] and entry["mend"] for entry in entries)
    assert store.manifest["counts"]["quarantined"] == 3
    assert store.manifest["counts"]["documents"] == 60
    assert any("3 bad records" in line for line in store.report())


def test_too_many_bad_records_stop_after_all(tmp_path: Path, documents: list[str]) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", documents[:18])
    with path.open("a") as file:
        file.write("{}\n{}\n")
    config = TextConfig(vocab_size=300, on_bad_input="quarantine")
    with pytest.raises(BadInput, match=r"2 of 20 records are bad \(10\.0%\)"):
        prepare_text([path], tmp_path / "store", config)
    assert len((tmp_path / "store/quarantine.jsonl").read_text().splitlines()) == 2
    config.max_bad_share = 0.1
    assert prepare_text([path], tmp_path / "store", config).manifest["counts"]["quarantined"] == 2


def test_documents_without_text_are_counted(tmp_path: Path, documents: list[str]) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", ["", " \n\t", "\x07", *documents[:20]])
    counts = prepare_text([path], tmp_path / "store", SMALL).manifest["counts"]
    assert (counts["empty_documents"], counts["documents"]) == (3, 20)


def test_an_empty_corpus(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no document with text"):
        prepare_text([write_jsonl(tmp_path / "a.jsonl", ["", "  "])], tmp_path / "store", SMALL)
    (tmp_path / "b.jsonl").write_text("\n\n")
    with pytest.raises(BadInput, match="no document with text"):
        prepare_text([tmp_path / "b.jsonl"], tmp_path / "store", SMALL)


def test_leftovers_of_a_run_on_other_input_are_replaced(tmp_path: Path, documents: list[str]) -> None:
    path = write_jsonl(tmp_path / "a.jsonl", documents[:20])
    out = tmp_path / "store"
    (out / ".work").mkdir(parents=True)
    (out / ".work/plan.json").write_text("{}")
    (out / ".work/tokenizer.json").write_text("not even JSON")
    assert prepare_text([path], out, SMALL).manifest["counts"]["documents"] == 20


# --- small corpora ------------------------------------------------------------------------------------------------------------------------------


def test_two_documents_give_one_for_each_side(tmp_path: Path, documents: list[str]) -> None:
    store = prepare_text([write_jsonl(tmp_path / "a.jsonl", documents[:2])], tmp_path / "store", TextConfig(vocab_size=300, held_out_share=0.001))
    assert sorted(store.held_out.tolist()) == [False, True]


def test_an_only_document_is_cut_at_the_end_of_a_sentence(tmp_path: Path, documents: list[str]) -> None:
    store = prepare_text([write_jsonl(tmp_path / "a.jsonl", documents[:1])], tmp_path / "store", TextConfig(vocab_size=300, held_out_share=0.2))
    assert store.held_out.tolist() == [False, True]
    assert len(store.document(1)) / len(store.tokens) == pytest.approx(0.2, abs=0.05)
    assert store.document_offsets[1] in store.sentence_offsets
    assert store.file_offsets.tolist() == [0, 2]


def test_nothing_to_hold_out_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="one document of one line"):
        prepare_text([write_jsonl(tmp_path / "a.jsonl", ["only one line of text here"])], tmp_path / "store", SMALL)
    with pytest.raises(BadInput, match="all documents are equal"):
        prepare_text([write_jsonl(tmp_path / "b.jsonl", ["the same text"] * 4)], tmp_path / "store2", SMALL)
    texts = [f"the same long text of more than eight words for everybody number {i}" for i in range(4)]
    with pytest.raises(BadInput, match="nearly repeats a held-out one"):
        prepare_text([write_jsonl(tmp_path / "c.jsonl", texts)], tmp_path / "store3", SMALL)
    store = prepare_text([tmp_path / "b.jsonl"], tmp_path / "store4", TextConfig(vocab_size=300, held_out_share=0))
    assert not store.held_out.any()


# --- damaged and hostile stores -----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(store: TextStore, tmp_path: Path) -> Path:
    shutil.copytree(store.folder, tmp_path / "copy", ignore=shutil.ignore_patterns("rows"))
    return tmp_path / "copy"


def edit(folder: Path, **changes: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | changes))


def test_a_copied_store_opens(copy: Path, store: TextStore) -> None:
    opened = open_text_store(copy)
    opened.verify()
    assert (opened.tokens == store.tokens).all()


@pytest.mark.parametrize("name", ["tokens", "document_offsets", "sentence_offsets", "file_offsets", "held_out", "dropped"])
def test_missing_truncated_and_foreign_arrays(copy: Path, name: str) -> None:
    path = copy / f"{name}.npy"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    with pytest.raises(BadInput, match=f"{name}.npy"):
        open_text_store(copy)
    path.write_bytes(b"")
    with pytest.raises(BadInput, match=f"{name}.npy"):
        open_text_store(copy)
    np.save(path, np.zeros(3))
    with pytest.raises(BadInput, match=f"{name}.npy"):
        open_text_store(copy)
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(BadInput, match=f"{name}.npy"):
        open_text_store(copy)
    path.write_bytes(b"\x93NUMPY\x02\x00" + (2**31).to_bytes(4, "little") + b"{" * 100)  # a header of 2 GiB, it says
    with pytest.raises(BadInput, match=f"{name}.npy"):
        open_text_store(copy)
    path.unlink()
    with pytest.raises(BadInput, match=f"{name}.npy"):
        open_text_store(copy)


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [("document_offsets", 3, 0), ("document_offsets", -1, 10**9), ("sentence_offsets", 5, 2**62), ("file_offsets", 0, 1)],
)
def test_offsets_that_do_not_rise_to_the_end(copy: Path, name: str, place: int, value: int) -> None:
    array = np.load(copy / f"{name}.npy")
    array[place] = value
    np.save(copy / f"{name}.npy", array)
    with pytest.raises(BadInput, match="does not fit the other arrays"):
        open_text_store(copy)


def test_a_document_that_begins_within_a_sentence(copy: Path) -> None:
    offsets = np.load(copy / "document_offsets.npy")
    offsets[1] += 1
    np.save(copy / "document_offsets.npy", offsets)
    with pytest.raises(BadInput, match="does not fit the other arrays"):
        open_text_store(copy)


def test_changed_tokens_are_found_by_verify(copy: Path, store: TextStore) -> None:
    tokens = np.load(copy / "tokens.npy")
    tokens[100] += 1
    np.save(copy / "tokens.npy", tokens)
    with pytest.raises(BadInput, match="differs from its hash"):
        open_text_store(copy).verify()


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "image"},
        {"format_version": 99},
        {"arrays": {"../../etc/passwd": {"dtype": "uint16", "shape": [1], "sha256": ""}}},
        {"arrays": []},
        {"tokenizer": {"vocab_size": 10, "model": "x", "special_ids": {"pad": 10}}},
        {"tokenizer": {"vocab_size": "10", "model": "x", "special_ids": {}}},
        {"unigram_entropy": "7"},
        {"inputs": None},
        {"counts": {"documents": "many"}},
    ],
)
def test_a_spoilt_manifest(copy: Path, changes: dict[str, Any]) -> None:
    edit(copy, **changes)
    with pytest.raises(BadInput, match=r"manifest\.json"):
        open_text_store(copy)


def test_manifests_that_are_no_json_or_no_store(copy: Path, tmp_path: Path) -> None:
    (copy / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(BadInput, match="not valid JSON"):
        open_text_store(copy)
    with (copy / "manifest.json").open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(BadInput, match="a JSON file of ours has at most"):
        open_text_store(copy)
    with pytest.raises(BadInput, match=r"no manifest\.json"):
        open_text_store(tmp_path / "nowhere")


def test_a_spoilt_tokenizer(copy: Path) -> None:
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(BadInput, match="is no tokenizer"):
        open_text_store(copy)
