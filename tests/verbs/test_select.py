"""`select`: the best part of a pool, from files to files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headstart.cli.main import main
from headstart.core.errors import BadInput, UsageError
from headstart.data.text.ngram import Trigram
from headstart.verbs.select import select

RANDOM = np.random.default_rng(0)
GOOD = [f"word{i}" for i in range(80)]
ODD = [f"odd{i}" for i in range(80)]


def text(words: list[str], length: int = 80) -> str:
    return " ".join(RANDOM.choice(words, length))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of 20 good and 20 odd documents, and a reference of good ones, one of which is in the pool too."""
    folder = tmp_path_factory.mktemp("select")
    good = [{"id": f"good{i:02}", "source": "a", "text": text(GOOD)} for i in range(20)]
    odd = [{"id": f"odd{i:02}", "source": "b", "text": text(ODD)} for i in range(20)]
    write(folder / "pool.jsonl", good + odd)
    write(folder / "reference.jsonl", [{"text": text(GOOD)} for _ in range(30)] + [good[3]])
    return folder


def write(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def quietly(folder: Path, **settings: Any) -> Any:
    settings = {"reference": folder / "reference.jsonl"} | settings
    return select(folder / "pool.jsonl", say=lambda line: None, **{name: value for name, value in settings.items() if value is not None})


def test_it_takes_the_most_probable_documents(folder: Path, tmp_path: Path) -> None:
    found = quietly(folder, quota=800, out=tmp_path)
    assert len(found.ids) == 10  # 81 words each, the end counted; the one that crosses 800 is taken
    assert all(name.startswith("good") for name in found.ids)
    assert "good03" not in found.ids
    assert found.report["fates"] == {"kept": 39, "in the reference": 1}
    written = [json.loads(line) for line in (tmp_path / "selected.jsonl").read_text().splitlines()]
    assert [record["id"] for record in written] == found.ids
    assert [record["perplexity"] for record in written] == sorted(record["perplexity"] for record in written)
    pool = {record["id"]: record["text"] for record in map(json.loads, (folder / "pool.jsonl").read_text().splitlines())}
    assert all(record["text"] == pool[record["id"]] for record in written)
    assert found.tokens == found.report["chosen"]["tokens"] == 810


def test_another_selection_does_not_replace_it(folder: Path, tmp_path: Path) -> None:
    quietly(folder, quota=800, out=tmp_path)
    kept = (tmp_path / "selected.jsonl").read_bytes()
    with pytest.raises(UsageError, match=r"holds a selection with other settings \(quota: 800\.0 -> 400\.0\)"):
        quietly(folder, quota=400, out=tmp_path)
    quietly(folder, quota=800, out=tmp_path)
    assert (tmp_path / "selected.jsonl").read_bytes() == kept
    assert (tmp_path / ".lock").is_file()  # two at once do not mix their files


def test_a_quota_of_one_or_less_is_a_share(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--quota 25 is 25 tokens, and the shortest document has 81\.\n.* 0\.25 is a quarter"):
        quietly(folder, quota=25, out=tmp_path)
    assert quietly(folder, quota=0.25, out=tmp_path).tokens == 810


def test_scores_of_parts_choose_the_same(folder: Path, tmp_path: Path) -> None:
    whole = quietly(folder, quota=0.25, out=tmp_path / "whole")
    records = [json.loads(line) for line in (folder / "pool.jsonl").read_text().splitlines()]
    for number in range(2):
        write(tmp_path / f"part{number}.jsonl", records[number::2])
        select(tmp_path / f"part{number}.jsonl", scorer=tmp_path / "whole" / "scorer", out=tmp_path / str(number), say=lambda line: None)
        assert not (tmp_path / str(number) / "selected.jsonl").exists()  # without a quota nothing is chosen
    scores = [tmp_path / str(number) / "scores.parquet" for number in range(2)]
    assert quietly(folder, scores=scores, quota=0.25, out=tmp_path / "parts").ids == whole.ids


def test_scores_of_another_tool_are_taken(folder: Path, tmp_path: Path) -> None:
    names = [json.loads(line)["id"] for line in (folder / "pool.jsonl").read_text().splitlines()]
    table = {"id": names, "perplexity": [float(i) for i in range(40, 0, -1)], "words": [80] * 40, "tokens": [100] * 40}
    pq.write_table(pa.table(table), tmp_path / "kenlm.parquet")
    found = quietly(folder, reference=None, scores=tmp_path / "kenlm.parquet", quota=300, out=tmp_path)
    assert found.ids == ["odd19", "odd18", "odd17"]


@pytest.mark.parametrize("normalisation", ["lower-cased", r"split at blanks"])
def test_scores_of_different_scorers_are_not_compared(folder: Path, tmp_path: Path, normalisation: str) -> None:
    quietly(folder, out=tmp_path)
    table = pq.read_table(tmp_path / "scores.parquet")
    identity = json.loads(table.schema.metadata[b"headstart"])
    assert identity["identity"] == Trigram.open(tmp_path / "scorer").identity
    other = {b"headstart": json.dumps({"identity": identity["identity"], "normalisation": normalisation}).encode()}
    pq.write_table(table.slice(0, 20), tmp_path / "one.parquet")
    pq.write_table(table.slice(20).replace_schema_metadata(other), tmp_path / "two.parquet")
    with pytest.raises(BadInput, match=f"another scorer.*{normalisation}"):
        quietly(folder, scores=[tmp_path / "one.parquet", tmp_path / "two.parquet"], quota=100, out=tmp_path / "chosen")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda table: table.slice(1), "'good00' has no score"),
        (lambda table: pa.concat_tables([table, table.slice(0, 1)]), "comes twice"),
        (lambda table: table.drop_columns(["words"]), "no column 'words'"),
        (lambda table: table.set_column(1, "perplexity", pa.array([None, *[1.0] * 39])), "no number"),
    ],
    ids=["missing", "twice", "column", "null"],
)
def test_bad_scores_are_named(folder: Path, tmp_path: Path, change: Any, why: str) -> None:
    quietly(folder, out=tmp_path)
    pq.write_table(change(pq.read_table(tmp_path / "scores.parquet")), tmp_path / "changed.parquet")
    with pytest.raises(BadInput, match=why):
        quietly(folder, scores=tmp_path / "changed.parquet", quota=100, out=tmp_path / "chosen")


def test_a_short_reference_and_strange_documents_are_said(folder: Path, tmp_path: Path) -> None:
    first, strange, tokens = quietly(folder, quota=0.1, out=tmp_path).warnings
    assert first.startswith("The reference has 2,480 words, fewer than 20,000")
    assert re.search(r"correlation of 0\.[89]\d\.", first)
    assert strange.startswith("20 documents have more than 30% unknown words")
    assert "odd00" in strange
    assert "--tokenizer" in tokens


def test_a_pool_smaller_than_the_quota_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="3,159 tokens after the guards, the quota is 100,000"):
        quietly(folder, quota=100_000, out=tmp_path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"min_words": 1000}, r"0 tokens after .*mostly short: 39 of 40 documents, 3,159 tokens. Lower --min-words"),
        ({"lower": 1e9}, r"mostly beyond a bound: 39 of 40 documents, .* Widen --lower and --upper"),
        ({"pool": "reference.jsonl"}, r"mostly in the reference: 31 of 31 .* Give a pool of other text"),
    ],
    ids=["short", "bound", "reference"],
)
def test_a_guard_that_took_the_quota_is_named(folder: Path, tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    pool = folder / settings.pop("pool", "pool.jsonl")
    with pytest.raises(UsageError, match=re.compile(words, re.DOTALL)):
        select(pool, reference=folder / "reference.jsonl", quota=0.5, out=tmp_path, say=lambda line: None, **settings)


@pytest.mark.parametrize(
    "settings",
    [{"quota": 0.0}, {"quota": 3.5}, {"reference": None}, {"min_count": 0}, {"scores": ["a"], "scorer": Path("b")}, {"drop_lowest": 1.5}],
    ids=["zero", "fraction", "nothing", "count", "both", "share"],
)
def test_impossible_settings_are_refused(folder: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        quietly(folder, out=tmp_path, **settings)


def test_ids_that_come_twice_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "pool.jsonl", [{"id": "x", "text": "one"}, {"id": "x", "text": "two"}])
    write(tmp_path / "reference.jsonl", [{"text": "one"}])
    with pytest.raises(BadInput, match="the id 'x'"):
        quietly(tmp_path, out=tmp_path)


def test_the_command_line_says_the_same(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--pool", str(folder / "pool.jsonl"), "--reference", str(folder / "reference.jsonl"), "--quota", "0.25", "--out", str(tmp_path)]
    assert main(["select", *flags, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "report.json").read_text())
    assert main(["select", "--quota", "1"]) == 2
