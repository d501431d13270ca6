"""What a kill leaves, wherever it comes: the same command goes on, and ends with the same files."""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from headstart.core.errors import BadInput, UsageError
from headstart.curate.config import CurateConfig, RecallConfig, defaults
from headstart.curate.pipeline import Curation, curate
from tests.curate.crawl import crawl, page, record, write_texts, zipped
from tests.curate.test_pipeline import command, environment
from tests.faithfulness.test_webmath_pipeline import digest
from tests.running import quiet


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of texts, `texts.jsonl`, and what came of them, `out`: two passes."""
    folder = tmp_path_factory.mktemp("texts")
    write_texts(folder / "texts.jsonl", [page(seed // 2, False) for seed in range(12)])
    again(folder, folder / "out")
    return folder


def again(folder: Path, out: Path, keep_work: bool = False) -> Curation:
    config = defaults("near-duplicates")
    return curate("near-duplicates", [str(folder / "texts.jsonl")], out, config, keep_work=keep_work, say=quiet)


@pytest.mark.slow
def test_killed_before_the_folder_says_what_it_is(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".curate.json.4711.tmp").write_text("{")
    again(whole, out)
    assert digest(out) == digest(whole / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".config.json.4711.tmp").write_text("{")
    with pytest.raises(UsageError, match="holds something else"):
        again(whole, tmp_path / "other")


@pytest.mark.slow
def test_killed_between_the_last_pass_and_the_counts_no_pass_is_done_again(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    again(whole, out, keep_work=True)
    (out / "work").rename(out / ".work.tmp")
    (out / "counts.json").unlink()
    (out / ".counts.json.4711.tmp").write_text("{")
    assert set(again(whole, out).seconds) <= {"asked: near-duplicates"}
    assert digest(out) == digest(whole / "out")


@pytest.mark.slow
def test_killed_while_the_work_was_removed_the_rest_of_it_goes(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole / "out", out)
    (out / ".work.tmp" / "0").mkdir(parents=True)
    (out / ".work.tmp" / "0" / "shard-00000.parquet").write_bytes(b"x")
    again(whole, out)
    assert digest(out) == digest(whole / "out")


@pytest.mark.slow
def test_a_worker_that_is_killed_ends_the_curation_with_a_message(tmp_path: Path) -> None:
    """As the system does to a process that takes too much memory; nothing waits for it for ever, and the same command goes on."""
    files = crawl(tmp_path / "crawl", files=4, pages_each=24)
    out = tmp_path / "out"
    process = subprocess.Popen(command(files, out), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    killed = False
    while process.poll() is None and not killed:
        with suppress(psutil.NoSuchProcess):  # ended while it was looked at
            for child in psutil.Process(process.pid).children(recursive=True):
                if "udf_worker" in " ".join(child.cmdline()) and list(out.glob("work/0/.shard-*")):
                    child.kill()
                    killed = True
        time.sleep(0.002)
    _, errors = process.communicate(timeout=120)
    assert killed
    assert process.returncode == 4, errors
    assert "worker" in errors
    done = subprocess.run(command(files, out), env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_file_beside_the_data_is_read_before_the_first_page(tmp_path: Path) -> None:
    """A fault in it would show hours later, and the curation that went so far would not take the mended file."""
    data = [str(write_texts(tmp_path / "texts.jsonl", [page(seed, seed % 2 == 0) for seed in range(12)]))]
    given, out = tmp_path / "given.jsonl", tmp_path / "out"
    for bad, says in (('{"txt": "a"}', r"given\.jsonl, record 1: cannot be used"), ('{"text": "a"}', "has 1 documents; a classifier needs 5")):
        given.write_text(bad)
        with pytest.raises(BadInput, match=says):
            curate("recall", data, out, CurateConfig(recall=RecallConfig(positives=given)), say=quiet)
    assert [path.name for path in out.iterdir()] == [".lock"]
    write_texts(given, [page(seed, True) for seed in range(20, 30)])
    assert curate("recall", data, out, CurateConfig(recall=RecallConfig(positives=given)), say=quiet).stages[-1].entered == 12


def test_examples_without_an_address_say_file_and_record(tmp_path: Path) -> None:
    crawled = tmp_path / "a.warc.gz"
    crawled.write_bytes(b"".join(map(zipped, [record("https://x.org/"), record("", length=False), record("")])) + b"JUNK" * 9)
    config = CurateConfig()
    config.read = type(config.read)(max_bad_share=1)
    read = curate("prefilter", [str(crawled)], tmp_path / "out", config, say=quiet).stages[0]
    places = {reason: [url for url, _ in samples] for reason, samples in read.samples.items()}
    assert places["unreadable: record without length"] == [f"{crawled}, record 2"]
    assert places["unreadable: damaged gzip member"] == [f"{crawled}, record 4"]
    assert read.samples["unreadable: damaged gzip member"][0][1] == f"{crawled}, record 4"
