"""What a kill leaves, wherever it comes: the same command goes on, and ends with the same files."""

from __future__ import annotations

import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from headstart.core.errors import BadInput, MachineError, UsageError
from headstart.curate.config import CurateConfig, DecontaminateConfig, NearConfig, ReadConfig, RecallConfig, RulesConfig, defaults
from headstart.curate.given import input_again, settings_given
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
def test_what_finished_passes_used_may_be_gone(whole: Path, tmp_path: Path) -> None:
    """A crawl need not be kept until the last pass is done; another setting is refused all the same, and what is needed again is asked for."""
    data, out = tmp_path / "texts.jsonl", tmp_path / "out"
    shutil.copy(whole / "texts.jsonl", data)
    again(tmp_path, out, keep_work=True)
    before = digest(out)
    (out / "counts.json").unlink()
    data.unlink()
    assert set(again(tmp_path, out, keep_work=True).seconds) <= {"asked: near-duplicates"}
    assert digest(out) == before
    for config, address, error in (
        (CurateConfig(near=NearConfig(keep="older")), data, "other --near.keep"),
        (defaults("near-duplicates"), tmp_path / "other.jsonl", "names no file"),
    ):
        with pytest.raises((BadInput, UsageError), match=error):
            curate("near-duplicates", [str(address)], out, config, say=quiet)
    (out / "counts.json").unlink()
    (out / "work" / "0" / "counts" / "shard-00000.json").unlink()
    with pytest.raises(BadInput, match="names no file"):
        again(tmp_path, out)


def test_a_file_of_a_stage_that_is_over_counts_as_what_it_was(tmp_path: Path) -> None:
    words, items = tmp_path / "words.txt", tmp_path / "items.txt"
    for file in (words, items):
        file.write_text("some words")
    config = CurateConfig(rules=RulesConfig(nsfw_words=words), decontaminate=DecontaminateConfig(benchmarks=(items,)))
    known, gone = settings_given(config, {}, lambda stage: False)
    assert (known["rules"]["nsfw_words"], known["decontaminate"]["benchmarks"], gone) == ([str(words), 10], [[str(items), 10]], set())
    words.unlink()
    assert settings_given(config, known, lambda stage: stage == "rules") == (known, {"rules"})
    for over, was in ((lambda stage: False, known), (lambda stage: True, {}), (lambda stage: True, {"rules": {"nsfw_words": ["other.txt", 10]}})):
        with pytest.raises(BadInput, match=r"words\.txt: is not there"):
            settings_given(config, was, over)
    items.write_text("other words")
    assert settings_given(config, known, lambda stage: True)[0] != known, "a file that is there and another one is another setting"


def test_the_input_that_is_gone_must_be_what_the_addresses_name(tmp_path: Path) -> None:
    files = [write_texts(tmp_path / f"{name}.jsonl", ["words"]) for name in ("a", "b")]
    known = [[str(file.resolve()), file.stat().st_size] for file in files]
    files[1].unlink()

    def found(*addresses: str) -> list[str]:
        there = input_again([str(tmp_path / one) for one in addresses], known, ReadConfig(), lambda stage: True)
        return [Path(source.address).stem for source in there]

    assert found("*.jsonl") == found("a.jsonl", "b.jsonl") == found("") == ["a", "b"]
    assert found("a.jsonl") == ["a"], "b was not given again: another input"
    with pytest.raises(BadInput, match="names no file"):
        found("a.jsonl", "c.jsonl")
    with pytest.raises(BadInput, match="names no file"):
        input_again([str(files[1])], known, ReadConfig(), lambda stage: False)


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


def test_a_worker_that_ends_before_it_begins_ends_the_curation_with_what_it_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Daft alone waits for it for ever."""
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\nif 'daft.execution.udf_worker' in sys.orig_argv:\n    os.write(1, b'a line\\nno such library\\n')\n    os._exit(7)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    data, out = [str(write_texts(tmp_path / "texts.jsonl", ["Some words."]))], tmp_path / "out"
    with pytest.raises(MachineError, match=r"did not begin \(exit code 7\): no such library\n"):
        curate("rules", data, out, CurateConfig(), say=quiet)
    (tmp_path / "sitecustomize.py").unlink()
    assert curate("rules", data, out, CurateConfig(), say=quiet).stages[-1].kept == 1


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
