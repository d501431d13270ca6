"""The pipeline as a person uses it: killed and continued, on Ray, with hostile input; everything that went in came out or is counted."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from headstart.core.errors import BadInput, UsageError
from headstart.core.files import open_lock
from headstart.curate.config import CurateConfig, PrefilterConfig, ReadConfig, defaults
from headstart.curate.counts import StageCounts
from headstart.curate.pipeline import LEAVES_NOTHING, Curation, curate, nothing_kept
from headstart.curate.stages import ABOUT
from headstart.data.interleaved.config import InterleavedConfig
from headstart.data.interleaved.store import prepare_interleaved
from tests.curate.crawl import HTML, crawl, page, record, zipped
from tests.faithfulness.test_webmath_pipeline import digest
from tests.running import quiet

SRC = str(Path(__file__).parents[2] / "src")


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
    (out / "documents" / ".shard-00000.parquet.1.tmp").write_bytes(b"half of a file")  # as a kill leaves it that comes while a shard is written
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
        record("https://b.example.org/large", b"<p>" + b"x" * (50 * 2**20)),
        record("https://b.example.org/number", page(52, True).replace("</p>", f" &#{'9' * 5000};</p>")),
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
    assert read.entered == 50
    assert read.dropped == {
        "mime type": 1, "status 404": 1, "unreadable: no HTTP response": 1, "unreadable: record without length": 1,
        "unreadable: truncated gzip member": 1,
    }  # fmt: skip
    assert extract.dropped == {"too deep": 1, "charset": 1, "too large": 1}
    done = curate("prefilter", [str(crawled)], tmp_path / "pre", config, say=quiet, keep_work=True)
    assert done.stages[1].dropped["too large"] == 1
    assert done.stages[1].dropped["URL is no web address"] == 1
    (tmp_path / "whole.warc").write_bytes(good[0])
    both = [str(tmp_path / "whole.warc"), str(crawled)]
    done = curate("language", [str(crawled)], tmp_path / "language", config, say=quiet)
    assert done.stages[1].kept == 42, "the page with a number of thousands of digits among them"
    with pytest.raises(BadInput, match=r"3 of 51 records cannot be read \(.*truncated gzip member 1.*more than 5 %; 3 of them in .*CC-MAIN-2023-50"):
        curate("prefilter", both, tmp_path / "strict", CurateConfig(), say=quiet)
    assert curate("prefilter", both, tmp_path / "strict", config, say=quiet).stages[0].entered == 51  # as the message says, in the same folder


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
    with pytest.raises(BadInput, match=r"the stage near-duplicates works on documents\.\nExtract them first: headstart curate extract DATA"):
        curate("near-duplicates", files, tmp_path / "wrong", CurateConfig(), say=quiet)
    curate("extract", files, tmp_path / "pages", CurateConfig(), say=quiet)
    done = curate("rules", [str(tmp_path / "pages" / "documents")], tmp_path / "rules", CurateConfig(), say=quiet)
    assert [stage.stage for stage in done.stages] == ["read", "rules"]


@pytest.mark.slow
@pytest.mark.parametrize("slug", ["causal-lm", "interleaved-lm"])
def test_the_folder_is_prepared_for_training_with_defaults(undisturbed: tuple[list[Path], Path], slug: str, tmp_path: Path) -> None:
    from headstart.verbs.prepare import prepare

    _, out = undisturbed
    store = prepare(slug, out, tmp_path / "store", say=quiet)
    assert store.manifest["counts"]["documents"] == len(documents(out))
    assert store.manifest["counts"]["quarantined"] == 0


@pytest.mark.slow
def test_json_lines_hold_what_parquet_holds_and_train(tmp_path: Path) -> None:
    """Also a shard of which nothing is left; bytes they cannot hold."""
    rows = [{"text": f"One text in {seed} words, and a bit more.", "url": f"https://x.org/{seed}"} for seed in range(8)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "b.jsonl").write_text('{"text": "lorem ipsum", "url": "https://x.org/l"}\n')
    data = [str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")]
    done = curate("rules", data, tmp_path / "lines", CurateConfig(form="jsonl"), say=quiet)
    assert [file.name for file in done.files] == ["shard-00000.jsonl", "shard-00001.jsonl"]
    lines = [json.loads(line) for file in done.files for line in file.read_text().splitlines() if line]
    assert [(line["URL"], line["text_list"], line["image_list"]) for line in lines] == [(row["url"], [row["text"]], [None]) for row in rows]
    store = prepare_interleaved([tmp_path / "lines"], tmp_path / "store", InterleavedConfig(vocab_size=300, held_out_share=0.0))
    assert store.manifest["counts"]["documents"] == 8
    (tmp_path / "pages.jsonl").write_text(json.dumps({"url": "https://x.org/", "html": page(1, True)}) + "\n")
    with pytest.raises(BadInput, match="which JSON cannot hold"):
        curate("language", [str(tmp_path / "pages.jsonl")], tmp_path / "bytes", CurateConfig(form="jsonl"), say=quiet)


@pytest.mark.slow
def test_galleries_are_thinned_until_training_takes_them(tmp_path: Path) -> None:
    """Pages with more images than texts; the counts say how many images left, and a page of images alone goes."""
    texts = ["Page one in some words.", "Page two in more words.", "Page three in other words.", "Page four in few words.", ""]
    two = '<img src="https://x.org/a.png"><img src="https://x.org/b.png">'
    html = [f"<main>{two * number}<p>{text}</p></main>" for number, text in enumerate(texts)]
    (tmp_path / "pages.jsonl").write_text("".join(json.dumps({"url": f"https://a.org/{n}", "html": one}) + "\n" for n, one in enumerate(html)))
    config = CurateConfig(prefilter=PrefilterConfig(min_bytes=10))
    curate("extract", [str(tmp_path / "pages.jsonl")], tmp_path / "pages", config, say=quiet)
    with pytest.raises(BadInput, match=r"images for 1 texts\.\nLeave out galleries: .*`headstart curate galleries"):
        prepare_interleaved([tmp_path / "pages"], tmp_path / "refused", InterleavedConfig(vocab_size=300, held_out_share=0.0))
    done = curate("galleries", [str(tmp_path / "pages")], tmp_path / "thin", config, say=quiet)
    assert done.stages[-1].dropped == {"images without a text": 1}
    assert done.stages[-1].items["image: more images than texts"] == 1 + 3 + 5 + 8
    store = prepare_interleaved([tmp_path / "thin"], tmp_path / "store", InterleavedConfig(vocab_size=300, held_out_share=0.0))
    assert store.manifest["counts"]["documents"] == 4
    assert store.manifest["counts"]["missing_images"] == 3, "one of each page that has some"


@pytest.mark.slow
def test_an_empty_corpus_is_an_error_with_the_page_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Also the second time, and as JSON; what nothing comes to is not run, so a classifier does not complain of too few documents."""
    from headstart.cli.main import main
    from headstart.verbs.curate import curate as curate_verb

    (tmp_path / "pages.jsonl").write_text("".join(json.dumps({"url": f"https://x.org/{n}", "html": page(n, True)}) + "\n" for n in range(6)))
    out = tmp_path / "out"
    words = ["curate", "webmath", str(tmp_path / "pages.jsonl"), "--out", str(out), "--language.keep", "de"]
    assert main([*words[:-1], "de", "english", "--out", str(tmp_path / "unknown")]) == 2
    assert "--language.keep names no language: english.\nThere are: ace, af, " in capsys.readouterr().err
    assert not (tmp_path / "unknown").exists()
    says = (
        f"{out}: no document is left of 6 records: language dropped 6 of 6, language en 6.\n"
        "Name the languages that you want: --language.keep en de, or --language.keep with none for all. Then curate into another folder."
    )
    for _ in range(2):
        assert main(words) == 3
        told = capsys.readouterr()
        assert says in told.err
        assert f"{out / 'report.html'}: what each stage kept" in told.out
    assert main([*words, "--json"]) == 3
    told = capsys.readouterr()
    assert json.loads(told.out)["stages"][2]["dropped"] == {"language en": 6}
    assert says in told.err
    assert "0 documents of mathematical pages" in (out / "report.html").read_text()
    assert "is not finished" not in (out / "report.html").read_text()
    with pytest.raises(BadInput, match="no document is left"):
        curate_verb("webmath", str(tmp_path / "pages.jsonl"), out, say=quiet, **{"language.keep": ("de",)})
    (tmp_path / "none.jsonl").write_text("\n")
    assert main(["curate", "rules", str(tmp_path / "none.jsonl"), "--out", str(tmp_path / "none")]) == 3
    assert "no document: there is no record in the input.\nGive files of Common Crawl" in capsys.readouterr().err


def test_what_emptied_a_corpus_and_where_most_went_are_named() -> None:
    def stage(name: str, entered: int, **dropped: int) -> StageCounts:
        return StageCounts(name, entered, entered - sum(dropped.values()), Counter(dropped))

    lost = [stage("read", 100, request=90), stage("rules", 10, punctuation=10), stage("images", 0)]
    error = nothing_kept(Curation(Path("out"), lost, []))
    assert error is not None
    most = "(before that read dropped 90 of 100, request 90)"
    assert error.reason == f"no document is left of 100 records: rules dropped 10 of 10, punctuation 10 {most}."
    assert "--rules.max-punctuation 1" in error.mend
    assert nothing_kept(Curation(Path("out"), lost[:1], [])) is None
    assert set(LEAVES_NOTHING) == set(ABOUT) - {"private", "signatures"}, "each stage that may drop the last document says what to change"


def test_a_second_process_is_refused_while_the_first_one_writes(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_text('{"text": "a b c", "url": "https://x.org"}\n')
    (tmp_path / "out").mkdir()
    with open_lock(tmp_path / "out" / ".lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match=r"Another process is writing to the curation .*out\.\nWait for it, or choose another --out\."):
            curate("rules", [str(tmp_path / "t.jsonl")], tmp_path / "out", CurateConfig(), say=quiet)
        assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
    (tmp_path / "link").mkdir()
    (tmp_path / "link" / ".lock").symlink_to(tmp_path / "t.jsonl")
    with pytest.raises(BadInput, match="is a link"):
        curate("rules", [str(tmp_path / "t.jsonl")], tmp_path / "link", CurateConfig(), say=quiet)


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


def test_a_curation_of_an_earlier_version_goes_on_with_what_it_began_with(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Settings that its version did not know had one value: the flags for it continue. What a kill left half written goes."""
    from headstart.cli.main import main

    (tmp_path / "t.jsonl").write_text('{"text": "a b c", "url": "https://x.org"}\n')
    words = ["curate", "images", str(tmp_path / "t.jsonl"), "--out", str(tmp_path / "out"), "--workers", "1"]
    before = ("--images.min-side", "0", "--images.no-ads")
    assert main([*words, *before]) == 0
    about = json.loads((tmp_path / "out" / "curate.json").read_text())
    for name in ("min_side", "ads"):
        del about["settings"]["images"][name]
    (tmp_path / "out" / "curate.json").write_text(json.dumps(about))
    (tmp_path / "out" / "counts.json").unlink()
    half = tmp_path / "out" / "images" / "0a" / ".0a.png.1.tmp"
    half.parent.mkdir(parents=True)
    half.write_bytes(b"half of an image")
    capsys.readouterr()
    assert main(words) == 2
    assert "holds a curation with other --images.ads (False -> True), --images.min-side (0 -> 32)." in capsys.readouterr().err
    assert main([*words, *before]) == 0
    assert not half.exists()
    half.write_bytes(b"half of an image")
    assert main([*words, *before]) == 0
    assert half.exists(), "a finished curation's images are not walked through"


def test_wrong_flags_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    from headstart.cli.main import main

    wrong = (["wbmath", "x"], ["webmath", "x"], ["webmath", "x.warc", "--out", "o", "--recall.at-least", "2"], ["webmath", "--langauge.keep", "en"])
    for words in wrong:
        assert main(["curate", *words]) == 2
    for stage, *flags in (("decontaminate",), ("private", "--private.no-mask"), ("galleries", "--images.galleries", "keep")):
        assert main(["curate", stage, "x.jsonl", "--out", str(tmp_path / "out"), *flags]) == 2, f"{stage} would do nothing"
    for flag, value in (("--page-seconds", "inf"), ("--read.timeout-s", "nan"), ("--images.max-image-mb", "inf"), ("--images.delay-s", "inf"),
                        ("--precision.positive-from", "11"), ("--decontaminate.n-gram", "2")):  # fmt: skip
        assert main(["curate", "rules", "x.jsonl", "--out", str(tmp_path / "out"), flag, value]) == 2, flag
    assert main(["curate", "precision", "x.jsonl", "--out", "o", "--precision.endpoint-model", "m", "--precision.endpoint", "localhost:8000"]) == 2
    assert defaults("private").private.mask
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
