"""`headstart curate` with classifiers, labels and an identifier of languages of one's own: each flag as a person gives it, on a crawl of which
one half is mathematics and the other, which stays here, sells shoes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from headstart.cli.main import main
from headstart.curate.classify import cleaned, plain
from headstart.curate.extract import extract
from headstart.curate.fasttext import FEW, load_classifier, save_classifier, train
from tests.curate.crawl import MATHS, SHOES, crawl, page, write_texts
from tests.curate.test_endpoint import Model

pytestmark = pytest.mark.slow

PAGES = 41
"""Of the crawl; one stands in both files, and one copy is dropped."""
SHOPS = 20


@pytest.fixture(scope="module")
def crawled(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return [str(path) for path in crawl(tmp_path_factory.mktemp("crawl"), files=2, pages_each=20)]


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of shops against mathematics."""
    path = tmp_path_factory.mktemp("model") / "shops.safetensors"
    sides = ([extract(page(seed, mathematics)).text() for seed in range(500, 520)] for mathematics in (False, True))
    save_classifier(train(*sides, FEW), path)
    return path


def curated(recipe: str, data: list[str], out: Path, *flags: object) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """Counts by stage, and the rows that stay."""
    assert main(["curate", recipe, *data, "--out", str(out), "--workers", "1", *map(str, flags)]) == 0
    counts = {stage["stage"]: stage for stage in json.loads((out / "counts.json").read_text())["stages"]}
    return counts, [row for file in sorted((out / "documents").glob("*.parquet")) for row in pq.read_table(file).to_pylist()]


def is_shop(url: str) -> bool:
    return int(url.rpartition("/")[2].removesuffix(".html")) % 2 == 1


def sells(text: str) -> bool:
    words = text.lower().split()
    return sum(word in SHOES for word in words) > sum(word in MATHS for word in words)


@pytest.fixture
def model() -> Iterator[Model]:
    server = Model()
    server.good = sells
    yield server
    server.close()


def test_own_positives_and_a_model_that_scores_make_a_corpus_of_another_domain(
    crawled: list[str], model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """--recall.positives, --precision.endpoint, --precision.rounds: each round asks for as many, never again for one, and learns from all."""
    positives = write_texts(tmp_path / "positives.jsonl", [extract(page(seed, False)).text() for seed in range(500, 530)])
    flags = ("--recall.positives", positives, "--recall.at-least", 0.02, "--precision.endpoint", model.address, "--precision.endpoint-model", "m")
    counts, rows = curated("webmath", crawled, tmp_path / "out", *flags, "--precision.rounds", 2, "--precision.sample", 16, "--images.no-https")
    told = capsys.readouterr().out.splitlines()
    assert f"first classifier: 30 documents given against {PAGES} random ones of the crawl" in told
    assert counts["recall"]["kept"] == SHOPS, "0.11 and more for shops, up to 0.004 for mathematics"
    of_second = [line for line in told if line.startswith("second classifier")]
    assert [line.split(" of ")[1].split(" documents")[0] for line in of_second] == ["8", "16"]
    assert len(model.asked) == len(set(model.texts())) == 16
    assert 16 <= len(rows) <= SHOPS, "those that were not scored are among the random ones"
    assert all(is_shop(row["URL"]) for row in rows)


def test_finished_models_are_used_as_they_are(crawled: list[str], shops: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--language.model, --recall.model, --precision.model: nothing is learned, and two passes fall away."""
    pytest.importorskip("fasttext")
    languages = tmp_path / "languages.bin"
    lines = [f"__label__{'de' if seed % 2 else 'en'} " + " ".join(extract(page(seed, seed % 2 == 0)).text().split()) for seed in range(600, 640)]
    (tmp_path / "train.txt").write_text("\n".join(lines) + "\n")
    made = "import fasttext, sys; fasttext.train_supervised(sys.argv[1], dim=8, epoch=60, lr=0.8, thread=1, verbose=0).save_model(sys.argv[2])"
    subprocess.run([sys.executable, "-c", made, tmp_path / "train.txt", languages], check=True)
    flags = ("--language.model", languages, "--language.keep", "de", "--recall.model", shops, "--precision.model", shops)
    counts, rows = curated("webmath", crawled, tmp_path / "out", *flags, "--images.no-https", "--keep-work")
    assert "classifier:" not in capsys.readouterr().out
    assert counts["language"]["dropped"] == {"language en": PAGES - SHOPS}, "it calls shops German"
    assert counts["recall"]["kept"] == counts["precision"]["kept"] == len(rows) == SHOPS
    assert not list((tmp_path / "out" / "answers").glob("*.safetensors"))
    assert len(list((tmp_path / "out" / "work").iterdir())) == 2, "and the output is the third pass"
    classifier = load_classifier(shops)
    for row in rows:
        about, text = json.loads(row["metadata"]), "\n".join(text for text in row["text_list"] if text)
        assert about["ft_lang_label"] == "de"
        assert about["math_prob"] == pytest.approx(float(classifier.positive([plain(text)])[0]), abs=1e-5)
        assert about["quality_prob"] == pytest.approx(float(classifier.positive([cleaned(text)])[0]), abs=1e-5)


def test_a_file_of_scores_decides_and_a_file_of_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--precision.scores: by address; a document that the file lacks is named and learned from by neither side."""
    data = write_texts(tmp_path / "texts.jsonl", [extract(page(seed, seed % 2 == 0)).text() for seed in range(40)])
    scores = tmp_path / "scores.jsonl"
    scores.write_text("".join(json.dumps({"url": f"https://texts.example.org/{n}", "score": 9 if n % 2 else 1}) + "\n" for n in range(39)))
    counts, rows = curated("precision", [str(data)], tmp_path / "out", "--precision.scores", scores)
    told = "second classifier: 19 of 40 documents scored 6 or more by scores.jsonl"
    assert f"{told} (1 have no score: https://texts.example.org/39), against 21 random ones" in capsys.readouterr().out
    assert counts["precision"]["kept"] in (19, 20)
    assert {int(row["URL"].rpartition("/")[2]) % 2 for row in rows} == {1}
    assert not (tmp_path / "out" / "answers" / "without-score.jsonl").exists(), "one is said"
    scores.write_text("".join(scores.read_text().splitlines(keepends=True)[:30]))
    curated("precision", [str(data)], tmp_path / "less", "--precision.scores", scores)
    listed = tmp_path / "less" / "answers" / "without-score.jsonl"
    assert f" ...; {listed} names all)" in capsys.readouterr().out
    lacking = sorted(json.loads(line)["url"] for line in listed.read_text().splitlines())
    assert lacking == sorted(f"https://texts.example.org/{n}" for n in range(30, 40))
    assert main(["curate", "precision", str(data), "--out", str(tmp_path / "other"), "--precision.scores", str(data)]) == 3
    assert "has no url and score" in capsys.readouterr().err
