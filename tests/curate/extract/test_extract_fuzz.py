"""Damaged and made-up pages, with a fixed budget: whatever comes in, a document that keeps its promises comes out, or a counted reason."""

from __future__ import annotations

import dataclasses
from itertools import pairwise

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headstart.curate.extract import REASONS, Document, ExtractConfig, PageDropped, extract
from headstart.curate.extract.timed import packed, unpacked
from tests.curate.pages import kept_pages

CONFIG = ExtractConfig(seconds=20)
PAGES = [page["html"] for page in kept_pages().values()]
TAGS = (
    "p div span a b i h1 h2 h6 ul ol li dl dt dd table tr td th pre code math mi mo msup mfrac mtable semantics annotation script style template form"
    " nav main article aside br img svg mjx-container mjx-math d-math sup sub select option textarea title base body html"
)
NAMES = TAGS.split()
CLASSES = (
    "katex katex-display katex-html mwe-math-element texerror MathJax MathJax_Preview math arithmatex process-math tex2jax_ignore navbar linenos"
    " latex formulaDsp"
)
ATTRIBUTES = st.sampled_from(
    [
        *(f" class='{name}'" for name in CLASSES.split()),
        " style='display:none'",
        " hidden",
        " type='math/tex'",
        " type='math/asciimath'",
        " type='math/mml'",
        " encoding='application/x-tex'",
        " display=block",
        " data-latex='a_1'",
        " data-expr='\\x'",
        " src=a.png",
        " src='//['",
        " src='x?\\frac'",
        " alt='$x$'",
        " srcset='a 1x, b 2x'",
        " href='javascript:x'",
        " role=main",
        " id=content",
        "",
    ]
)
SIGNS = ["$", "$$", "\\(", "\\)", "\\[", "\\]", "\\begin{align}", "\\end{align}", "{", "}", "\\", "\\$", "`", "[itex]", "[/itex]", "<", ">"]
OTHERS = ["&lt;", "&#0;", "&#30;", "\x00", "\ud800", "x", " ", "\n", "5", "数学", "¶", "\\frac", "\\newcommand{\\a}{b}", "MathJax", "<!--", "-->"]
PHRASES = ["sign in", "a sentence of so many words that it stays"]
WORDS = st.sampled_from([*SIGNS, *OTHERS, *PHRASES])
STARTS = st.sampled_from([b"", b"<p>", b"<meta charset=gbk><p>", b"<meta charset=utf-16><p>", b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf<p>"])
PIECE = st.one_of(
    WORDS,
    st.builds(lambda name, attribute: f"<{name}{attribute}>", st.sampled_from(NAMES), ATTRIBUTES),
    st.sampled_from(NAMES).map(lambda name: f"</{name}>"),
    st.text(max_size=5),
)
BUDGET = settings(max_examples=400, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


def check(document: Document) -> None:
    """What every document promises."""
    assert len(document.text_list) == len(document.image_list) > 0
    kinds = [text is None for text in document.text_list]
    assert kinds == [image is not None for image in document.image_list]
    assert (False, False) not in pairwise(kinds), "two texts side by side"
    for text in document.text_list:
        assert text is None or (text == text.strip("\n") and text.strip())
    last = (-1, -1)
    for formula in document.formulas:
        mark = "$$" if formula.display else "$"
        assert (document.text_list[formula.entry] or "")[formula.start : formula.end] == f"{mark}{formula.tex}{mark}"
        assert (formula.entry, formula.start) > last, "in order, none twice"
        assert formula.tex == " ".join(formula.tex.split())
        assert len(formula.tex) <= CONFIG.max_formula
        last = (formula.entry, formula.start)
    for image in document.images:
        assert document.image_list[image.entry] == image.url
        assert image.url.startswith(("http://", "https://"))
    if "`" not in document.marked():
        assert "$" not in document.text(formulas=False).replace("\\$", ""), "outside code every dollar is a formula's or escaped"
    document.marked().encode()
    assert unpacked(packed(document)) == document


def survive(html: str | bytes) -> None:
    for config in (CONFIG, dataclasses.replace(CONFIG, math=False, boilerplate=False)):
        try:
            document = extract(html, "https://example.org/a/", config)
        except PageDropped as dropped:
            assert dropped.reason in REASONS  # noqa: PT017  # any reason will do
            continue
        if config.math:
            check(document)


@BUDGET
@given(st.lists(PIECE, max_size=60))
def test_any_sequence_of_tags_and_signs(pieces: list[str]) -> None:
    survive("".join(pieces))


@BUDGET
@given(st.sampled_from(PAGES), st.lists(st.tuples(st.floats(0, 1), st.integers(0, 200), PIECE), min_size=1, max_size=6))
def test_damaged_pages(page: str, damages: list[tuple[float, int, str]]) -> None:
    for place, length, piece in damages:
        at = int(place * len(page))
        page = page[:at] + piece + page[at + length :]
    survive(page)


@BUDGET
@given(st.binary(max_size=300), STARTS)
def test_any_bytes(data: bytes, start: bytes) -> None:
    survive(start + data)


@BUDGET
@given(st.sampled_from(PAGES), st.sampled_from(["gb18030", "cp1251", "utf-16", "cp932", "iso2022_jp", "utf-7"]), st.floats(0, 1))
def test_wrong_encodings_and_pages_cut_short(page: str, encoding: str, cut: float) -> None:
    data = page.encode(encoding, "ignore")
    survive(data[: int(cut * len(data))])
