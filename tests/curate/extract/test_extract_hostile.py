"""Pages that mean harm, and pages that are broken: every one ends, in a document or in a counted reason."""

from __future__ import annotations

import time

import pytest

from headstart.curate.extract import ExtractConfig, PageDropped, TimedExtractor, extract

MATHJAX = "<script src=MathJax.js></script><p>x "
MANY = 20_000

DROPPED = {
    "nested blocks": ("<div>" * MANY + "x", "too deep"),
    "nested lists": ("<ul><li>" * MANY + "x", "too deep"),
    "end tags of others": ("<div></span>" * MANY, "too deep"),
    "nested MathML": ("<p>x<math>" + "<mrow>" * MANY + "x", "too deep"),
    "open formatting": ("<p>" + "".join(f"<font color={number}>" for number in range(1500)) + "<p>x" * 1500, "too deep"),
    "attributes": ("<p " + " ".join(f"a{number}=1" for number in range(10_000)) + ">x", "too deep"),
    "links": ("<p>x" + "<a href=x>y</a> " * 3001, "too many links"),
    "size": ("<p>" + "x" * (16 * 2**20), "too large"),
}
SURVIVED = {
    "openers": MATHJAX + r"\( " * MANY,
    "openers with braces": MATHJAX + r"\({ " * (MANY // 4) + r"\)",
    "dollars": MATHJAX + "$" * MANY,
    "dollars with braces": MATHJAX + "$$a{ " * (MANY // 20) + "$$",
    "environments": MATHJAX + r"\begin{align}" * MANY,
    "backslashes": MATHJAX + "\\" * MANY,
    "brackets": MATHJAX + "[itex] " * MANY + "[/itex]",
    "line breaks": MATHJAX + "$x<br>" * MANY,
    "definitions": MATHJAX + "$" + r"\def\a{" * 700 + "$",
    "formulas": MATHJAX + "$x$ " * MANY,
    "MathML": "<p>x<math>" + "<mi>x</mi>" * MANY + "</math>",
    "tables": "<table><tr><td>" * 300 + "x",
    "wrappers": "<p>x" + "<div class=MathJax_Display>" * 500 + "<script></script>",
    "settings": "<p>x<script>" + "inlineMath: [[' " * MANY + "</script>",
    "srcset": "<p>x<img srcset='" + "a 1x, " * MANY + "'>",
    "classes": "<p class='" + "a " * MANY + "'>x",
    "unclosed": "<p>x<!--" * 500 + "<script>" * 500 + "<style>" * 500,
    "less-than signs": "<p>x" + "<" * MANY,
    "entities": "<p>x&#0;&#x110000;&#xd800;&notit;&" + "&lt;" * MANY,
    "backticks": "<p>x<pre>" + "`" * MANY,
    "tags cut": "<p>x<a href='" + "y" * MANY,
    "base": "<base href='http://['><p>x<img src=a.png>",
    "old anchors": "<p>x" + "<a name=x>" * 2500,
    "headings": "<h1>y" * MANY + "<p>x" + "text " * 10,
}


@pytest.mark.parametrize(("html", "reason"), list(DROPPED.values()), ids=list(DROPPED))
def test_what_the_parser_must_not_see_is_dropped_before_it(html: str, reason: str) -> None:
    with pytest.raises(PageDropped) as dropped:
        extract(html)
    assert dropped.value.reason == reason


@pytest.mark.parametrize("html", list(SURVIVED.values()), ids=list(SURVIVED))
def test_what_looks_harmful_ends_in_a_document(html: str) -> None:
    document = extract(html, "https://example.org/", ExtractConfig(seconds=5))
    assert "x" in document.marked()


def test_sizes_are_settings() -> None:
    links = "<p>Some words.</p>" + "<a href=x>y</a> " * 3001
    assert extract(links, config=ExtractConfig(max_links=None)).counts["links"] == 3001
    deep = "<div>" * 1500 + "x" + "<p>y" * MANY
    assert extract(deep).counts["characters"] > MANY
    with pytest.raises(PageDropped):
        extract(deep, config=ExtractConfig(max_depth=1000))


def test_a_page_that_takes_too_long_is_dropped() -> None:
    with pytest.raises(PageDropped) as dropped:
        extract("<p>x" * 200_000, config=ExtractConfig(seconds=0.2))
    assert dropped.value.reason == "time limit"
    assert "0.2 seconds" in str(dropped.value)


def test_a_dropped_page_survives_a_pipe() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(PageDropped("too deep", "Why.")))
    assert (error.reason, error.what, error.exit_code) == ("too deep", "Why.", 3)




def test_a_process_gives_the_same_documents() -> None:
    pages = [
        (r"<h1>Title</h1><p>One <span class=math>\(x\)</span> <img src=a.png> and &amp; 数学</p>", "https://example.org/"),
        ("<p>café</p>".encode("latin-1") * 40, ""),
        (b"%PDF-1.7", ""),
        ("<p>lone \ud800 surrogate, long enough</p>", ""),
    ]
    with TimedExtractor() as timed:
        for html, url in pages:
            try:
                expected: object = extract(html, url)
            except PageDropped as dropped:
                expected = dropped.reason
            try:
                found: object = timed(html, url)
            except PageDropped as dropped:
                found = dropped.reason
            assert found == expected
    assert timed._child is None


def test_a_process_that_hangs_is_killed_and_the_next_page_read() -> None:
    config = ExtractConfig(seconds=0.3, max_depth=10**9)
    with TimedExtractor(config) as timed:
        assert timed("<p>before</p>").text() == "before"
        start = time.monotonic()
        with pytest.raises(PageDropped) as dropped:
            timed("<div>" * 200_000 + "x")  # the parser alone takes minutes: nothing in the process can stop it
        assert dropped.value.reason == "time limit"
        assert time.monotonic() - start < 5
        assert timed("<p>after</p>").text() == "after"


def test_a_process_that_takes_too_much_memory_says_so() -> None:
    fonts = "<p>" + "".join(f"<font color={number}>" for number in range(480)) + "<p>x" * 480  # few enough tags to be let through
    with TimedExtractor(memory_mb=32) as timed:
        with pytest.raises(PageDropped) as dropped:
            timed(fonts)
        assert dropped.value.reason == "memory"
        assert timed("<p>after</p>").text() == "after"
    assert extract(fonts).counts["characters"] > 400


def test_a_process_that_dies_is_counted_and_replaced() -> None:
    with TimedExtractor() as timed:
        assert timed("<p>before</p>").text() == "before"
        assert timed._child is not None
        timed._child.kill()
        timed._child.wait()
        assert timed("<p>after</p>").text() == "after", "it had died between two pages"
