"""The catalog: 35 complete cards, and 'implemented' read off the code."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from headstart import catalog
from headstart.core.errors import UsageError

SPECS = {
    "bioptimus", "blsp", "bprop", "clip2point", "context_wm", "croco", "ctc_ot", "dcpt_law", "droppos", "electra", "graphcodebert",
    "hykist", "implicit_bias", "lexlip", "maltese", "mcl", "medical_bert", "mindllm", "nmtune", "oc_gfn", "prop", "retrieval_tasks",
    "rewarm", "rst", "satmaepp", "self_distill", "space2", "spark_medical", "spdf", "spread_love", "stability_gap", "unipt", "unixcoder",
    "v_ptr", "webmath",
}
PACKAGE = Path(catalog.__file__).parents[1]
EVERY_CARD = [*catalog.cards(), *catalog.BASELINES.values()]


def test_there_is_one_card_per_spec() -> None:
    assert len(SPECS) == 35
    assert set(catalog.CARDS) == SPECS


def test_baselines_are_apart_from_the_35() -> None:
    assert set(catalog.BASELINES) == {"causal-lm", "mlm", "mae", "interleaved-lm"}
    assert not set(catalog.BASELINES) & set(catalog.CARDS)


@pytest.mark.parametrize("card", EVERY_CARD, ids=lambda card: card.slug)
def test_every_field_of_a_card_is_filled(card: catalog.Card) -> None:
    may_be_empty = {"arxiv"} if card.slug == "causal-lm" else set()  # GPT was never on arXiv
    empty = {field.name for field in dataclasses.fields(card) if not getattr(card, field.name)}
    assert empty <= may_be_empty
    assert all(value == value.strip() and "  " not in value for value in (card.title, card.needs, card.gives, card.claim, card.expect))


@pytest.mark.parametrize("card", EVERY_CARD, ids=lambda card: card.slug)
def test_family_and_data_kinds_come_from_the_closed_lists(card: catalog.Card) -> None:
    assert card.family in catalog.FAMILIES
    assert card.data_kinds
    assert set(card.data_kinds) <= set(catalog.DATA_KINDS)


def test_arxiv_ids_are_well_formed_distinct_and_not_after_the_paper() -> None:
    cards = [card for card in EVERY_CARD if card.arxiv and card.slug != "interleaved-lm"]  # the training of webmath's paper
    assert len({card.arxiv for card in cards}) == len(cards)
    for card in cards:
        assert re.fullmatch(r"\d{4}\.\d{5}", card.arxiv), card.slug
        if card.slug != "hykist":  # a thesis of 2022 that went to arXiv a year later
            assert card.year >= 2000 + int(card.arxiv[:2]), card.slug


def test_every_kind_of_data_and_every_family_is_used() -> None:
    assert {kind for card in EVERY_CARD for kind in card.data_kinds} == set(catalog.DATA_KINDS)
    assert {card.family for card in EVERY_CARD} == set(catalog.FAMILIES)


def test_cards_come_family_by_family() -> None:
    heights = [catalog.FAMILIES.index(card.family) for card in catalog.cards()]
    assert heights == sorted(heights)


def test_a_card_is_found_with_either_spelling() -> None:
    assert catalog.card("dcpt-law") is catalog.card("dcpt_law")
    assert catalog.card("causal_lm") is catalog.card("causal-lm")


def test_an_unknown_slug_names_the_closest() -> None:
    with pytest.raises(UsageError, match="no method 'elektra'") as caught:
        catalog.card("elektra")
    assert "Did you mean electra?" in caught.value.mend
    with pytest.raises(UsageError) as caught:
        catalog.card("zzzz")
    assert "Did you mean" not in caught.value.mend


def test_implementation_is_a_module_or_a_package_in_one_of_the_homes(tmp_path: Path) -> None:
    for home in ("methods", "interventions", "planning", "curate"):
        (tmp_path / home).mkdir()
    (tmp_path / "methods" / "electra.py").write_text("raise RuntimeError('must not be imported')")
    (tmp_path / "methods" / "causal_lm.py").touch()
    (tmp_path / "interventions" / "rewarm.py").touch()
    (tmp_path / "planning" / "dcpt_law").mkdir()
    (tmp_path / "planning" / "dcpt_law" / "__init__.py").touch()
    (tmp_path / "curate" / "webmath").mkdir()
    (tmp_path / "curate" / "webmath" / "__init__.py").touch()
    (tmp_path / "methods" / "mae" / "__pycache__").mkdir(parents=True)  # left over: no __init__.py, so no code

    found = {slug: catalog.implementation(slug, tmp_path) for slug in ("electra", "causal-lm", "rewarm", "dcpt_law", "webmath", "mae", "prop")}

    assert found == {
        "electra": "headstart.methods.electra",
        "causal-lm": "headstart.methods.causal_lm",
        "rewarm": "headstart.interventions.rewarm",
        "dcpt_law": "headstart.planning.dcpt_law",
        "webmath": "headstart.curate.webmath",
        "mae": None,
        "prop": None,
    }


def test_implemented_agrees_with_the_files_of_the_package() -> None:
    homes = [PACKAGE / home for home in ("methods", "interventions", "planning", "curate")]
    for card in EVERY_CARD:
        name = card.slug.replace("-", "_")
        exists = any((home / f"{name}.py").is_file() or (home / name / "__init__.py").is_file() for home in homes)
        assert catalog.implemented(card.slug) == exists, card.slug


def test_every_method_module_has_a_card() -> None:
    files = [*(PACKAGE / "methods").glob("*.py"), *(PACKAGE / "methods").glob("*/__init__.py")]
    modules = {file.parent.name if file.name == "__init__.py" else file.stem for file in files} - {"methods"}
    slugs = {card.slug.replace("-", "_") for card in EVERY_CARD}
    assert {module for module in modules if not module.startswith("_")} <= slugs
