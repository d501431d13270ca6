"""What a person gives a curation beside the data: files of other encodings and line ends, and settings that nothing would look at."""

from pathlib import Path

import pytest

from headstart.core.errors import BadInput, UsageError
from headstart.curate import labels
from headstart.curate.config import ReadConfig
from headstart.curate.decontaminate import read_benchmarks
from headstart.curate.rules import word_pattern
from headstart.curate.sources import read_source
from headstart.verbs._curate_settings import check, settings_of

WORDS = "integral of the sine\nboots for the rain\n"
SCORES = '{"url": "u", "score": 7}\n{"url": "v", "score": 2}\n'


def every_reader(folder: Path, end: str, encoding: str) -> list[object]:
    """What each reader makes of a file with these line ends, in this encoding; the message where it refuses."""
    folder = folder / f"{encoding} {end!r}".replace("\\", "")  # lists of words are kept by their path
    folder.mkdir(exist_ok=True)
    words, scores = folder / "words.txt", folder / "scores.jsonl"
    words.write_bytes(WORDS.replace("\n", end).encode(encoding))
    scores.write_bytes(SCORES.replace("\n", end).encode(encoding))
    readers = (
        lambda: sorted(word_pattern(words).findall(WORDS)),
        lambda: list(labels.read_texts(words)),
        lambda: read_benchmarks([words], 3).items["words"],
        lambda: labels.from_file(scores)([("u", ""), ("v", "")]),
    )
    found: list[object] = []
    for reader in readers:
        try:
            found.append(reader())
        except BadInput as error:
            found.append(error.reason)
    return found


def test_line_ends_do_not_matter_and_another_encoding_is_refused(tmp_path: Path) -> None:
    """UTF-16 gave a classifier that learned from noise, and a list of words that no page has."""
    lines = WORDS.splitlines()
    assert every_reader(tmp_path, "\n", "utf-8") == [sorted(lines), lines, (2, 0), [7.0, 2.0]]
    assert every_reader(tmp_path, "\r", "utf-8") == every_reader(tmp_path, "\r\n", "utf-8") == every_reader(tmp_path, "\n", "utf-8")
    assert every_reader(tmp_path, "\n", "utf-16") == ["is UTF-16, not UTF-8."] * 4


def test_pages_in_utf_16_are_called_so(tmp_path: Path) -> None:
    (tmp_path / "pages.jsonl").write_bytes('{"text": "one"}\n{"text": "two"}\n'.encode("utf-16"))
    tables = list(read_source(str(tmp_path / "pages.jsonl"), 0, ReadConfig()))
    assert [reason for table in tables for reason in table["dropped"].to_pylist()] == ["unreadable: UTF-16, not UTF-8"]


@pytest.mark.parametrize(
    ("recipe", "given", "says"),
    [
        ("rules", {"near.keep": "older"}, "--near.keep is of the stage near-duplicates, which 'rules' does not have."),
        ("text", {"precision.rounds": 2}, "--precision.rounds is of the stage precision, which 'text' does not have."),
        ("text", {"recall.at_least": 0.9}, "--recall.at-least does nothing without --recall.positives or --recall.model."),
        ("webmath", {"decontaminate.n_gram": 8}, "--decontaminate.n-gram does nothing without --decontaminate.benchmarks."),
        ("text", {"images.https": False}, "--images.no-https does nothing without --with-images."),
        ("webmath", {"recall.model": Path("m"), "recall.positives": Path("p")}, "--recall.positives does nothing beside --recall.model."),
        ("precision", {"precision.scores": Path("s"), "precision.endpoint": "http://h", "precision.endpoint_model": "m"}, "--precision.endpoint"),
    ],
    ids=["stage", "recipe", "recall", "benchmarks", "images", "model", "scores"],
)
def test_a_setting_that_nothing_looks_at_is_refused(recipe: str, given: dict[str, object], says: str, tmp_path: Path) -> None:
    from headstart.core.config import replace_nested

    settings = replace_nested(settings_of(recipe), {"data": ("d.jsonl",), "out": tmp_path / "out", **given})
    with pytest.raises(UsageError) as refused:
        check(settings)
    assert refused.value.what.startswith(says)


def test_data_without_a_recipe_is_told_what_comes_first() -> None:
    with pytest.raises(UsageError, match=r"'crawl/a\.jsonl' is no recipe, which comes first\.\nexample: headstart curate webmath crawl/a\.jsonl"):
        settings_of("crawl/a.jsonl")


def test_a_curation_that_goes_on_may_have_begun_with_any_setting(tmp_path: Path) -> None:
    from headstart.core.config import replace_nested

    (tmp_path / "curate.json").write_text("{}")
    check(replace_nested(settings_of("rules"), {"data": ("d.jsonl",), "out": tmp_path, "near.keep": "older"}))
