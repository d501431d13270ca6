"""The numbered checks of the InfiMM-WebMath specification that concern the pipeline: 6 to 12, 15 and 16. Checks 1 to 5 are in test_webmath.py."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import string
from functools import cache
from pathlib import Path
from typing import Literal

import daft
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headstart.curate import duplicates, minhash
from headstart.curate.classify import scored
from headstart.curate.config import CurateConfig, DecontaminateConfig, ImagesConfig, NearConfig, PrecisionConfig, RecallConfig, RulesConfig, UrlConfig
from headstart.curate.decontaminate import decontaminate
from headstart.curate.extract import extract
from headstart.curate.fasttext import NEGATIVE, POSITIVE, Classifier, FastTextConfig, ngram_ids, word_hash
from headstart.curate.images import address_reason, frequent_images, image_filter
from headstart.curate.passes import BETWEEN
from headstart.curate.pipeline import curate
from headstart.curate.rules import prose, punctuation_share, rules
from headstart.curate.tables import DOCUMENTS
from tests.curate import pages
from tests.curate.crawl import crawl


@cache
def texts() -> dict[str, str]:
    """The text of every shared page."""
    return {number: extract(page["html"], page["url"]).text() for number, page in pages.shared_pages().items()}


def documents(rows: list[dict[str, object]]) -> pa.Table:
    return pa.Table.from_pylist([{"order": place} | row for place, row in enumerate(rows)], schema=DOCUMENTS)


def jaccard(a: str, b: str) -> float:
    first, second = set(minhash.shingles(a)), set(minhash.shingles(b))
    return len(first & second) / max(len(first | second), 1)


def test_06_the_curve_of_minhash() -> None:
    wanted = {0.5: 0.0533, 0.6: 0.2111, 0.7: 0.5645, 0.75: 0.7716, 0.8: 0.9235, 0.85: 0.9884, 0.9: 0.9996}
    assert {s: round(minhash.found_with(s), 4) for s in wanted} == wanted
    assert minhash.threshold() == pytest.approx(0.7190, abs=5e-5)


@pytest.mark.parametrize("similarity", [0.6, 0.7, 0.8])
def test_06_synthetic_pairs_are_found_as_often(similarity: float) -> None:
    random, n, shared = np.random.default_rng(0), 400, round(300 * 2 * similarity / (1 + similarity))
    found = 0
    for _ in range(n):
        both, a, b = np.split(random.integers(0, 2**63, 2 * 300 - shared, dtype=np.uint64), [shared, 300])
        first, second = (minhash.bands(minhash.signature(np.concatenate([both, own]))[None])[0] for own in (a, b))
        found += (first == second).all(axis=1).any()
    expected = minhash.found_with(shared / (600 - shared))
    assert abs(found / n - expected) < 3 * np.sqrt(expected * (1 - expected) / n)


def test_07_hashes_and_permutations() -> None:
    hashes = minhash.hash_shingles(["a b c d e"])
    assert hashes.tolist() == [1214900226509477255]
    a, b = minhash.permutations()
    assert (a[0], b[0]) == (775169054918279404, 1062448801025099917)
    assert len(a) == len(b) == 112
    assert minhash.permuted(hashes, a, b)[0, :3].tolist() == [1579576027991400705, 4472124569112051, 889064944675421779]
    other = np.random.default_rng(0).integers(0, 2**64, 5000, dtype=np.uint64)
    with np.errstate(over="ignore"):
        assert (minhash.permuted(other, a[:3], b[:3]) == (other[:, None] * a[:3] + b[:3]) % np.uint64(minhash.PRIME)).all()


def test_08_near_duplicates_of_the_shared_pages() -> None:
    text = texts()
    assert jaccard(text["p007"], text["p011"]) >= 0.9
    assert jaccard(text["p004"], text["p010"]) >= 0.9
    assert jaccard(text["p003"], text["p012"]) >= 0.75
    of_characters = {number: page["lang"] in duplicates.CHARACTER_LANGUAGES for number, page in pages.shared_pages().items()}
    mathematics = [number for number, page in pages.shared_pages().items() if page["math"]]
    assert len({page["lang"] for page in pages.shared_pages().values() if page["math"]} & {"en", "zh"}) == 2
    near = {frozenset(pair) for pair in (("p007", "p011"), ("p004", "p010"), ("p003", "p012"))}
    grams = {number: set(minhash.shingles(text[number], characters=of_characters[number])) for number in mathematics}
    for place, a in enumerate(mathematics):
        for b in mathematics[place + 1 :]:
            if {a, b} not in near and grams[a] and grams[b]:
                assert len(grams[a] & grams[b]) / len(grams[a] | grams[b]) < 0.2, (a, b)


def test_08_minhash_finds_them_and_the_older_snapshot_goes() -> None:
    numbers = list(texts())
    rows = [{"url": "", "snapshot": pages.shared_pages()[n]["snapshot"], "language": pages.shared_pages()[n]["lang"]} for n in numbers]
    table = duplicates.signed(documents([row | {"text_list": [texts()[n]]} for row, n in zip(rows, numbers, strict=True)]))
    gone = duplicates.near_duplicates(daft.from_arrow(table), NearConfig()).to_pylist()
    pairs = {(numbers[row["order"]], numbers[row["other"]]) for row in gone}
    assert {("p010", "p004"), ("p011", "p007"), ("p012", "p003")} <= pairs
    assert {("p107", "p099"), ("p105", "p098")} <= pairs
    assert pairs <= {("p010", "p004"), ("p011", "p007"), ("p012", "p003"), ("p107", "p099"), ("p105", "p098"), ("p106", "p100")}


@pytest.mark.parametrize(("scope", "gone"), [("year", set()), ("all", {"p010", "p011", "p012"})])
def test_09_the_same_address_in_two_snapshots(scope: str, gone: set[str]) -> None:
    rows = [{"id": n, "url": page["url"], "snapshot": page["snapshot"], "words": 1} for n, page in pages.shared_pages().items()]
    found = duplicates.equal_urls(daft.from_arrow(documents(rows)), UrlConfig(scope=scope))
    assert {rows[order]["id"] for order in found["order"].to_pylist()} == gone
    assert all(rows[other]["snapshot"] == "CC-MAIN-2023-50" for other in found["other"].to_pylist())


def test_10_the_hashes_of_fasttext() -> None:
    assert [word_hash(word) for word in ("math", "</s>", "<NUM>")] == [4001929615, 3617362777, 628415237]
    hashes = np.array([word_hash("the"), word_hash("math")], dtype=np.uint32)
    assert ngram_ids(hashes, 2, 2_000_000).tolist() == [957699]


def test_10_a_document_at_the_threshold_stays() -> None:
    def model(probability: float) -> Classifier:
        """Gives every text with the word x this probability."""
        output = np.array([[np.log(probability)], [np.log(1 - probability)]], dtype=np.float32)
        return Classifier({"x": 0}, [POSITIVE, NEGATIVE], np.ones((1, 1), np.float32), output, FastTextConfig(dim=1, word_ngrams=1, bucket=0))

    table = documents([{"text_list": ["x"]}])
    probability = float(model(0.4).positive(["x"])[0])
    assert probability == pytest.approx(0.4)
    for threshold, kept in ((probability, True), (np.nextafter(np.float32(probability), np.float32(1)), False)):
        after = scored(model(0.4), str, "math_prob", float(threshold))(table)
        assert (after["dropped"].to_pylist() == [None]) is kept


def test_11_punctuation() -> None:
    assert punctuation_share("a+b=c, (x*y)/z!") == 8 / 15
    assert len(string.punctuation) == 32


def test_11_the_share_of_the_shared_pages_with_and_without_formulas() -> None:
    for number, with_them, without in (("p040", 0.32, 0.02), ("p037", 0.28, 0.03), ("p015", 0.31, 0.01)):
        assert punctuation_share(texts()[number]) == pytest.approx(with_them, abs=0.02)
        assert punctuation_share(prose(texts()[number])) == pytest.approx(without, abs=0.02)


@pytest.mark.parametrize(("counted", "reason"), [("paper", "punctuation"), ("text", None)])
def test_11_the_rule_as_written_drops_p040(counted: Literal["paper", "text"], reason: str | None) -> None:
    table = documents([{"text_list": [texts()["p040"]], "language": "en", "words": 99}])
    assert rules(RulesConfig(punctuation=counted))(table)["dropped"].to_pylist() == [reason]


def test_11_the_rule_as_written_drops_a_page_of_formulas_and_ours_does_not() -> None:
    formulas = "Let $a_{1}+b_{2}=\\frac{(x+y)^2}{z}$ and $f(x)=x^{2}$ hold. " * 5
    table = documents([{"text_list": [formulas], "language": language, "words": 50} for language in ("en", "zh")] + [
        {"text_list": ["?!?!?! word ,.,.,., word ;;;;;"], "language": "en", "words": 2}
    ])  # fmt: skip
    assert rules(RulesConfig())(table)["dropped"].to_pylist() == [None, None, "punctuation"]
    assert rules(RulesConfig(punctuation="paper"))(table)["dropped"].to_pylist() == ["punctuation", None, "punctuation"]


def test_12_addresses_in_too_many_documents_and_documents_of_too_many_images() -> None:
    often, often_enough = "https://x.org/eleven.png", "https://x.org/ten.png"
    others = [often_enough] * 10 + ["https://x.org/other.png"]
    rows = [{"text_list": ["t", None, None], "image_list": [None, often, other]} for other in others]
    many = [[f"https://y.org/{size}/{place}.png" for place in range(size)] for size in (101, 100)]
    rows += [{"text_list": ["t", *([None] * len(urls))], "image_list": [None, *urls]} for urls in many]
    table = documents(rows)
    frequent = frequent_images(daft.from_arrow(table), 10)["url"].to_pylist()
    assert frequent == [often]
    after = image_filter(ImagesConfig(), frozenset(frequent))(table)
    kept = [[image for image in images if image] for images in after["image_list"].to_pylist()]
    assert all(often not in images for images in kept)
    assert sum(often_enough in images for images in kept) == 10
    assert [len(images) for images in kept[-2:]] == [0, 100]


_SOURCE = re.compile(r"""<img\b[^>]*\ssrc\s*=\s*["']?([^"'\s>]+)""", re.IGNORECASE)


def test_12_only_resolved_addresses_are_asked_for_https() -> None:
    """Of 897 images with a source 83 have one that begins with https; resolved, all of every shared page have, and none falls to the rule."""
    written = [source for page in pages.shared_pages().values() for source in _SOURCE.findall(page["html"])]
    assert (len(written), sum(source.startswith("https://") for source in written)) == (897, 83)
    found = [image for page in pages.shared_pages().values() for image in extract(page["html"], page["url"]).images]
    assert sum(not image.raw.startswith("https://") for image in found) > len(found) / 2, "most would fall to it unresolved"
    assert {address_reason(image.url, ImagesConfig()) == "not https" for image in found} == {False}


def test_12_keywords_in_the_name_or_anywhere() -> None:
    inside = "https://logos.example.org/pictures/2020/icons/graph.png"
    assert address_reason("https://example.org/a/Site-LOGO.svg", ImagesConfig()) == "keyword in its name"
    assert address_reason("https://example.org/coddy-logo.svg", ImagesConfig()) == "keyword in its name"
    assert address_reason(inside.replace("icons", "deep/er"), ImagesConfig()) is None
    assert address_reason(inside.replace("icons", "deep/er"), ImagesConfig(keywords="paper")) == "keyword in its name"
    assert address_reason("http://example.org/graph.png", ImagesConfig()) == "not https"


def test_15_a_quotation_of_ten_words_goes_nine_stay(tmp_path: Path) -> None:
    item = "If Natalia sold 48 clips to her friends in April and half as many in May how many did she sell"
    items = [{"question": item, "answer": "It was in May"}, {"question": "Seventy two clips in all", "answer": "No"}]
    (tmp_path / "gsm.jsonl").write_text("".join(json.dumps(one) + "\n" for one in items))
    stage = decontaminate(DecontaminateConfig(benchmarks=(tmp_path / "gsm.jsonl",)))
    words = item.split()
    cases = {
        "ten": ("before " + " ".join(words[3:13]) + " after", "quotes gsm"),
        "nine": ("before " + " ".join(words[3:12]) + " after", None),
        "case, punctuation and digits changed": ("before: " + " - ".join(words[3:13]).upper().replace("48", "17.5") + "!", "quotes gsm"),
        "short item whole": ("he said: seventy-two CLIPS, in all, and left", "quotes gsm"),
        "short item cut": ("he said: seventy-two clips, in, and left", None),
        "short text beside a longer one": ("he left, as it was in May", None),
    }
    after = stage(documents([{"text_list": [text]} for text, _ in cases.values()]))
    assert dict(zip(cases, after["dropped"].to_pylist(), strict=True)) == {name: reason for name, (_, reason) in cases.items()}


def digest(folder: Path, *addresses: object) -> dict[str, str]:
    """Every file of a folder by its content.

    Args:
        addresses: where the sources lie, which examples of what was dropped name; they do not count.
    """
    found = {}
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        data = path.read_bytes()
        for address in addresses:
            data = data.replace(str(address).encode(), b"")
        found[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return found


@pytest.mark.slow
def test_16_counts_add_up_at_every_stage_and_a_second_run_changes_no_byte(tmp_path: Path) -> None:
    files = [str(path) for path in crawl(tmp_path / "crawl", files=2, pages_each=30)]
    (tmp_path / "quiz.txt").write_text("theorem proof lemma equation integral matrix polynomial integer algebra function\n")
    config = CurateConfig(
        recall=RecallConfig(), precision=PrecisionConfig(), decontaminate=DecontaminateConfig(benchmarks=(tmp_path / "quiz.txt",))
    )
    done = curate("webmath", files, tmp_path / "out", config, workers=2, keep_work=True, say=lambda line: None)
    entered = done.stages[0].entered
    assert entered == 2 * 30 + 2 + 1
    for stage in done.stages:
        assert stage.entered == entered, f"{stage.stage}: what the stage before kept"
        assert stage.entered == stage.kept + stage.dropped.total(), stage.stage
        entered = stage.kept
    rows = sum(pq.read_table(file).num_rows for file in done.files)
    assert rows == done.stages[-1].kept > 5
    out = tmp_path / "out"
    before, when = digest(out), times(out)
    again = curate("webmath", files, out, config, workers=1, keep_work=True, say=lambda line: None)
    assert (digest(out), times(out)) == (before, when), "what is finished is not done again"
    assert not again.seconds
    for finished in (*out.glob("work/*/counts"), out / "documents" / "counts", out / "answers"):  # all is done, and asked, again
        shutil.rmtree(finished)
    (out / "counts.json").unlink()
    again = curate("webmath", files, out, config, workers=1, keep_work=True, say=lambda line: None)
    assert digest(out) == before
    stages_ = {stage.stage for stage in done.stages}
    assert set(again.seconds) == stages_ | {f"asked: {name}" for name in ("recall", "near-duplicates", "urls", "precision", "images")} | {BETWEEN}
    assert [stage.kept for stage in again.stages] == [stage.kept for stage in done.stages]


def times(folder: Path) -> dict[str, int]:
    """When each file was written."""
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}
