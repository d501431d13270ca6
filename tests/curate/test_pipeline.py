"""The pipeline as a person uses it: killed and continued, on Ray, with hostile input; everything that went in came out or is counted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from headstart.core.errors import BadInput, UsageError
from headstart.curate.config import CurateConfig, ReadConfig, defaults
from headstart.curate.pipeline import curate
from tests.curate.crawl import HTML, crawl, page, record, zipped
from tests.faithfulness.test_webmath_pipeline import digest

SRC = str(Path(__file__).parents[2] / "src")


def quiet(line: str) -> None:
    pass


def documents(folder: Path) -> list[str]:
    """The documents of an output, sorted."""
    return sorted(json.dumps(row, sort_keys=True) for file in sorted(folder.glob("documents/*.parquet")) for row in pq.read_table(file).to_pylist())


def command(files: list[Path], out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "headstart", "curate", "webmath", *map(str, files), "--out", str(out), "--workers", "2", *more]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": SRC, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], Path]:
    """A crawl of four files and its corpus."""
    folder = tmp_path_factory.mktemp("pipeline")
    files = crawl(folder / "crawl", files=4, pages_each=24)
    done = subprocess.run(command(files, folder / "out"), env=environment(), capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "documents" in done.stdout
    return files, folder / "out"


@pytest.mark.slow
def test_documents_have_the_released_columns_and_interleave(undisturbed: tuple[list[Path], Path]) -> None:
    _, out = undisturbed
    found = documents(out)
    assert len(found) > 20
    for row in map(json.loads, found):
        assert list(row) == ["URL", "image_list", "metadata", "text_list"]
        assert len(row["text_list"]) == len(row["image_list"]) in (2, 3)
        assert all((text is None) != (image is None) for text, image in zip(row["text_list"], row["image_list"], strict=True))
        about = json.loads(row["metadata"])
        assert about["ft_lang_label"] == "en"
        assert about["formulas"] == 10
        assert about["math_prob"] >= 0.4


@pytest.mark.slow
def test_the_page_tells_every_stage(undisturbed: tuple[list[Path], Path]) -> None:
    page_ = (undisturbed[1] / "report.html").read_text()
    for stage in ("read", "prefilter", "language", "extract", "recall", "near-duplicates", "urls", "rules", "precision", "images"):
        assert f">{stage}<" in page_, stage
    assert "record type warcinfo" in page_
    assert "<script" not in page_


@pytest.mark.slow
@pytest.mark.promise("a killed curation goes on with the shards that are missing, and ends with the same bytes")
def test_killed_anywhere_it_ends_with_the_same_bytes(undisturbed: tuple[list[Path], Path], tmp_path: Path) -> None:
    """Killed as soon as a first shard is done, between two passes, and in the last pass."""
    files, whole = undisturbed
    out = tmp_path / "out"
    for sign in ("work/0/counts/*.json", "answers/near-duplicates.parquet", "documents/counts/*.json"):
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        process = subprocess.Popen(command(files, out), env=environment(), start_new_session=True, **silent)  # a group of its own
        while process.poll() is None and not list(out.glob(sign)):
            time.sleep(0.005)
        assert process.poll() is None, "it was not killed in its work"
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    assert not (out / "counts.json").exists()
    done = subprocess.run(command(files, out), env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert digest(out) == digest(whole)


@pytest.mark.slow
def test_two_ray_workers_give_the_same_documents(undisturbed: tuple[list[Path], Path], tmp_path: Path) -> None:
    files, whole = undisturbed
    words = command(files, tmp_path / "out", "--engine", "ray")
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert documents(tmp_path / "out") == documents(whole)
    assert json.loads((tmp_path / "out" / "counts.json").read_text()) == json.loads((whole / "counts.json").read_text())


@pytest.mark.slow
def test_hostile_input_ends_in_the_output_or_in_a_count(tmp_path: Path) -> None:
    """One file with everything that strangers send."""
    good = [record(f"https://a.example.org/{seed}", page(seed, True)) for seed in range(40)]
    bad = [
        record("https://b.example.org/deep", "<div>" * 300_000),
        record("https://b.example.org/binary", bytes(range(256)) * 40),
        record("https://b.example.org/large", b"<p>" + b"x" * (17 * 2**20)),
        record("javascript:alert(1)", page(50, True)),
        record("https://b.example.org/image", b"\x89PNG" * 100, http=HTML.replace(b"text/html", b"image/png")),
        record("https://b.example.org/404", page(51, True), http=HTML.replace(b"200 OK", b"404 Not Found")),
        record("https://b.example.org/broken", b"no header", http=b""),
        record("https://b.example.org/none", length=False),
    ]
    crawled = tmp_path / "CC-MAIN-2023-50.warc.gz"
    crawled.write_bytes(b"".join(map(zipped, [*good, *bad])) + zipped(good[0])[:-100])
    config = CurateConfig(read=ReadConfig(max_bad_share=0.2))
    done = curate("extract", [str(crawled)], tmp_path / "out", config, say=quiet)
    read, extract = done.stages
    assert read.entered == 49
    assert read.dropped == {
        "mime type": 1, "status 404": 1, "unreadable: no HTTP response": 1, "unreadable: record without length": 1,
        "unreadable: truncated gzip member": 1,
    }  # fmt: skip
    assert extract.kept >= 40
    done = curate("prefilter", [str(crawled)], tmp_path / "pre", config, say=quiet, keep_work=True)
    assert done.stages[1].dropped["too large"] == 1
    assert done.stages[1].dropped["URL is no web address"] == 1
    (tmp_path / "whole.warc").write_bytes(good[0])
    both = [str(tmp_path / "whole.warc"), str(crawled)]
    with pytest.raises(BadInput, match=r"3 of 50 records cannot be read \(.*truncated gzip member 1.*more than 5 %; 3 of them in .*CC-MAIN-2023-50"):
        curate("prefilter", both, tmp_path / "strict", CurateConfig(), say=quiet)
    assert curate("prefilter", both, tmp_path / "strict", config, say=quiet).stages[0].entered == 50  # as the message says, in the same folder


@pytest.mark.slow
def test_a_recipe_of_texts_reads_texts(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"id": str(seed), "text": f"{seed} " + page(seed, False), "url": f"https://x.org/{seed}"} for seed in range(6)]
    rows += [rows[0] | {"id": "copy", "url": "https://x.org/copy"}, {"no": "text"}, {"text": "write to me@example.org, thanks", "url": "https://x.org/m"}]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = defaults("text")
    config.read = ReadConfig(max_bad_share=0.2)
    done = curate("text", [str(tmp_path / "texts.jsonl")], tmp_path / "out", config, say=quiet)
    texts = [json.loads(row)["text_list"][0] for row in documents(tmp_path / "out")]
    assert len(texts) == 7
    assert "write to <EMAIL>, thanks" in texts
    by_name = {stage.stage: stage for stage in done.stages}
    assert by_name["read"].dropped == {"unreadable: no text": 1}
    assert by_name["near-duplicates"].dropped == {"near-duplicate in its snapshot": 1}


@pytest.mark.slow
def test_a_stage_alone_and_the_wrong_kind_of_input(tmp_path: Path) -> None:
    files = [str(path) for path in crawl(tmp_path / "crawl", files=1, pages_each=4)]
    with pytest.raises(BadInput, match="works on documents"):
        curate("near-duplicates", files, tmp_path / "wrong", CurateConfig(), say=quiet)
    curate("extract", files, tmp_path / "pages", CurateConfig(), say=quiet)
    done = curate("rules", [str(tmp_path / "pages" / "documents")], tmp_path / "rules", CurateConfig(), say=quiet)
    assert [stage.stage for stage in done.stages] == ["read", "rules"]


def test_a_folder_keeps_what_it_began_with(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "a b c", "url": "https://x.org"}\n')
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "file").write_text("x")
    with pytest.raises(UsageError, match="holds something else"):
        curate("rules", [str(tmp_path / "t.jsonl")], tmp_path / "else", CurateConfig(), say=quiet)
    with pytest.raises(UsageError, match="holds something else"):
        curate("rules", [str(tmp_path / "t.jsonl")], tmp_path / "else" / "file", CurateConfig(), say=quiet)
    with pytest.raises(BadInput, match="names no file"):
        curate("rules", [str(tmp_path / "none.jsonl")], tmp_path / "out", CurateConfig(), say=quiet)
    with pytest.raises(UsageError, match="lies in the data"):
        curate("rules", [str(tmp_path)], tmp_path / "out", CurateConfig(), say=quiet)
    assert not (tmp_path / "out").exists()


def test_wrong_flags_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    from headstart.cli.main import main

    wrong = (["wbmath", "x"], ["webmath", "x"], ["webmath", "x.warc", "--out", "o", "--recall.at-least", "2"], ["webmath", "--langauge.keep", "en"])
    for words in wrong:
        assert main(["curate", *words]) == 2
    assert main(["curate", "--report", str(tmp_path)]) == 3


@pytest.mark.slow
def test_interrupted_it_stops_and_says_how_to_go_on(undisturbed: tuple[list[Path], Path], tmp_path: Path) -> None:
    files, _ = undisturbed
    process = subprocess.Popen(command(files, tmp_path / "out"), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(tmp_path.glob("out/work/0/counts/*.json")):
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "The same command continues." in errors
