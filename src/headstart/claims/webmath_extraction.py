"""webmath's claim on extraction: does it keep the formulas that plain text extraction loses?

Nothing is trained. Paired by page: of the 15 pages whose every formula was read by hand, the share that stands in the extracted text, in order,
between delimiters. Beside it, without a verdict: recall by markup, the order of images, and the filter (first classifier) on pages without formulas.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.claims._claim import Arm, Claim, Comparison, Data, Scale, Score, Task, Use
from headstart.claims._webmath import PAPER, Page, english, read_pages
from headstart.core.errors import MissingDependency
from headstart.curate.extract import extract
from headstart.curate.extract.score import in_order, written
from headstart.curate.extract.tex import normalise
from headstart.curate.fasttext import settings_for, train

FOLDS = 6
KEPT_FROM = 0.4
"""The paper's threshold of the first classifier."""


def by_resiliparse(page: Page) -> str:
    """Its plain text of the main content."""
    try:
        from resiliparse.extract.html2text import extract_plain_text
    except ImportError:
        raise MissingDependency("resiliparse", "bench", "The claim's comparison") from None
    return str(extract_plain_text(page.html, main_content=True))


def by_trafilatura(page: Page) -> str:
    """Its plain text."""
    try:
        import trafilatura
    except ImportError:
        raise MissingDependency("trafilatura", "bench", "The claim's comparison") from None
    return trafilatura.extract(page.html, url=page.url) or ""


def by_us(page: Page) -> str:
    return extract(page.html, page.url).text()


EXTRACTORS: dict[str, Callable[[Page], str]] = {"headstart": by_us, "resiliparse": by_resiliparse, "trafilatura": by_trafilatura}


def formulas_kept(text: str, formulas: Sequence[Mapping[str, Any]]) -> int:
    """How many of the expected formulas stand in the text, in order, between delimiters."""
    return in_order([normalise(str(formula["tex"])) for formula in formulas], [tex for tex, _ in written(text)])


def open_data(scale: Scale, folder: Path) -> Data:
    pages, expected, files = read_pages(fixture=bool(scale.options["fixture"]))
    of_id = {page.id: page for page in pages}
    rows = [row for row in expected if row["id"] in of_id][: scale.seeds]

    def recall(use: Use) -> Score:
        row = rows[use.model.seed]
        return Score(formulas_kept(EXTRACTORS[use.model.arm.name](of_id[row["id"]]), row["formulas"]) / len(row["formulas"]))

    facts = {
        "name": "web pages of mathematics and others",
        "source": "kept pages of documentation, encyclopedias and books",
        "train": 0,
        "test": len(rows),
        "split": "paired by page",
    }
    anchors: dict[str, Any] = {f"formulas kept, {markup}": kept for markup, kept in by_markup(rows, of_id).items()}
    anchors["images in order"] = {"headstart": images_in_order(expected, of_id)}
    if not scale.options["fixture"]:
        anchors |= the_filter(pages, range(int(scale.options["filter_seeds"])))
    return Data(facts, {"train": ()}, (Task("recall of formulas", recall),), files, anchors=anchors)


def by_markup(rows: Sequence[Mapping[str, Any]], of_id: Mapping[str, Page]) -> dict[str, dict[str, float]]:
    """Markup -> extractor -> share of the formulas of its pages that it kept."""
    kept: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    whole: dict[str, int] = defaultdict(int)
    for row in rows:
        page = of_id[row["id"]]
        whole[page.markup] += len(row["formulas"])
        for name, extracted in EXTRACTORS.items():
            kept[page.markup][name] += formulas_kept(extracted(page), row["formulas"])
    return {f"{markup} ({whole[markup]})": {name: count / whole[markup] for name, count in found.items()} for markup, found in sorted(kept.items())}


def images_in_order(expected: Sequence[Mapping[str, Any]], of_id: Mapping[str, Page]) -> float:
    """The share of expected images that our extraction has, in order."""
    found = whole = 0
    for row in expected:
        wanted = [image["src"] for image in row.get("images", ()) if image["kept"]]
        if wanted and row["id"] in of_id:
            have = [image for image in extract(of_id[row["id"]].html, of_id[row["id"]].url).image_list if image is not None]
            whole += len(wanted)
            found += in_order(wanted, have)
    return found / max(whole, 1)


def the_filter(pages: Sequence[Page], seeds: Sequence[int]) -> dict[str, dict[str, float]]:
    """What the first classifier, and TF-IDF with a logistic regression, tell of pages of sites that they were not trained on. Formulas are removed:
    with them the dollars alone tell all."""
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.metrics import roc_auc_score
    except ImportError:
        raise MissingDependency("scikit-learn", "bench", "The filter's baseline") from None
    documents = english(pages)
    texts = [document.text(formulas=False).replace("$", " ") for _, document in documents]
    truth = np.array([page.mathematical for page, _ in documents])
    sites = sorted({page.source for page, _ in documents})
    figures: dict[str, dict[str, float]] = {}
    for name in ("fastText, preset few", "TF-IDF, logistic regression"):
        of_seeds = []
        for seed in seeds:
            order = np.random.default_rng(seed).permutation(len(sites))
            fold_of = {sites[site]: place % FOLDS for place, site in enumerate(order)}
            folds, scores = np.array([fold_of[page.source] for page, _ in documents]), np.zeros(len(documents))
            for fold in range(FOLDS):
                learnt, asked = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
                if name.startswith("fastText"):
                    positive, negative = ([texts[i] for i in learnt if truth[i] == label] for label in (True, False))
                    config = replace(settings_for(len(learnt), None, lambda line: None), seed=seed)
                    scores[asked] = train(positive, negative, config).positive([texts[i] for i in asked])
                else:
                    words = TfidfVectorizer(sublinear_tf=True, min_df=2)
                    model = LogisticRegression(C=10.0, max_iter=1000, random_state=seed)
                    model.fit(words.fit_transform([texts[i] for i in learnt]), truth[learnt])
                    scores[asked] = model.predict_proba(words.transform([texts[i] for i in asked]))[:, 1]
            kept = scores >= KEPT_FROM
            of_seeds.append((roc_auc_score(truth, scores), kept[truth].mean(), kept[~truth].mean()))
        means = np.mean(of_seeds, axis=0)
        figures[f"filter, {name}"] = dict(zip(("AUC", f"recall at {KEPT_FROM}", "false positives"), map(float, means), strict=True))
    return figures


ARMS = tuple(Arm(name, "", trained=False) for name in EXTRACTORS)


CLAIM = Claim(
    slug="webmath_extraction",
    of=("webmath",),
    statement="The extractor keeps formulas that plain text extraction loses: on pages of every usual markup its text has more of the formulas, in "
    "order, between delimiters, than the plain text of resiliparse and of trafilatura.",
    paper=PAPER,
    metric="share of a page's formulas that stand in the extracted text, in order, between delimiters",
    paired_by="page",
    presets={
        "smoke": Scale(ARMS, seeds=2, learning_rates=(1.0,), options={"fixture": True}),
        "cpu": Scale(ARMS, seeds=15, learning_rates=(1.0,), options={"fixture": False, "filter_seeds": 3}),
    },
    comparisons=(Comparison("headstart", "resiliparse", margin=0.02), Comparison("headstart", "trafilatura", margin=0.02)),
    open_data=open_data,
)
