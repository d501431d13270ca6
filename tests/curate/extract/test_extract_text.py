"""The text of a page: what is left out, blocks, lists, tables, code, main content; and images among it."""

from __future__ import annotations

import pytest

from headstart.curate.extract import Document, ExtractConfig, PageDropped, extract

LONG = "A sentence that is long enough to be content of a page."


def page(body: str, url: str = "https://example.org/a/b.html", **settings: bool) -> Document:
    return extract(f"<html lang=EN-gb><head><title>The &amp; title</title></head><body>{body}</body></html>", url, ExtractConfig(**settings))


def test_blocks_and_blanks() -> None:
    blocks = f"<h1>Title</h1>  <p>{LONG}\n   with <b>bold</b>   words<br>and a line</p><div>Apart</div><ul><li>one</li><li><p>two</p></li></ul>"
    document = page(blocks)
    assert document.text() == f"# Title\n\n{LONG} with bold words\nand a line\n\nApart\n\n- one\n- two"
    assert (document.title, document.language) == ("The & title", "en-gb")
    assert document.counts["characters"] == len(document.text())


def test_raised_and_lowered_text_keeps_its_meaning() -> None:
    text = page("<p>x<sup>2</sup> + H<sub>ij</sub> on the 2<sup>nd</sup> day<sup><a href=x>[1]</a></sup>, a<sup>&minus;1</sup></p>").text()
    assert text == "x^2 + H_{ij} on the 2nd day[1], a^{−1}"


def test_code_keeps_its_lines_and_its_dollars() -> None:
    document = page(f"<p>{LONG} Run <code>echo $HOME</code> or <tt>a`b</tt>:</p><pre>  if $x:\n\tpay()   \n\n</pre>")
    assert document.text() == f"{LONG} Run `echo $HOME` or `` a`b ``:\n\n```\n  if $x:\n    pay()\n```"


def test_a_block_of_code_with_a_fence_in_it_gets_a_longer_one() -> None:
    assert page(f"<p>{LONG}</p><pre>```\nx\n```</pre>").text() == f"{LONG}\n\n````\n```\nx\n```\n````"


def test_code_without_its_line_numbers_and_with_its_breaks() -> None:
    numbered = "<table class=highlighttable><tr><td class=linenos><pre>1\n2</pre></td><td class=code><pre>a\nb</pre></td></tr></table>"
    assert page(f"<p>{LONG}</p>{numbered}").text() == f"{LONG}\n\n```\na\nb\n```"
    assert page(f"<p>{LONG}</p><pre><span class=lineno>1</span>a<br>b</pre>").text().endswith("```\na\nb\n```")


def test_a_table_of_data_keeps_rows_and_columns() -> None:
    rows = "<tr><th>n</th><th>n<sup>2</sup></th><th>name</th></tr><tr><td><p>1</p></td><td></td><td><ul><li>one</li><li>uno</li></ul></td></tr>"
    assert page(f"<p>{LONG}</p><table><caption>Squares</caption>{rows}</table>").text() == f"{LONG}\n\nSquares\nn | n^2 | name\n1 | | one uno"


def test_a_small_or_layout_table_gives_its_cells() -> None:
    assert page("<table><tr><td>a cell</td><td>another</td></tr></table>").text() == "a cell another"
    assert page("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td><td>d</td></tr></table>").text() == "a b\nc d"
    layout = f"<table><tr><td>x</td><td>y</td><td><pre>code\nhere</pre></td></tr><tr><td><p>{LONG}</p></td></tr></table>"
    assert page(layout).text() == f"x y\n\n```\ncode\nhere\n```\n\n{LONG}"


@pytest.mark.parametrize(
    "left_out",
    [
        "<script>bad()</script>",
        "<style>.bad {}</style>",
        "<noscript>bad</noscript>",
        "<nav>bad</nav>",
        "<footer>bad</footer>",
        "<aside>bad <p>more</p></aside>",
        "<button>bad</button>",
        "<form>bad <input></form>",
        "<div style='color: red; DISPLAY : none'>bad</div>",
        "<div hidden>bad</div>",
        "<div class='x navbar y'>bad</div>",
        "<div class=my-promotion>bad</div>",
        "<div id=comments>bad</div>",
        "<div role=navigation>bad</div>",
        "<a class=headerlink href=#x>bad</a>",
        "<a href=#x>¶</a>",
        "<select><option>bad</option></select>",
        "<textarea>bad</textarea>",
        "<svg><text>bad</text></svg>",
        "<!-- bad -->",
        "<ul><li><a href=a>bad one</a></li><li><a href=b>bad two</a></li></ul>",
        "<div><a href=a>bad one</a> | <a href=b>bad two</a></div>",
        "<p>Copyright bad. All rights reserved.</p>",
    ],
)
def test_what_is_no_content_is_left_out(left_out: str) -> None:
    assert page(f"<h1>Heading</h1>{left_out}<p>{LONG}</p><p>{LONG}</p>").text() == f"# Heading\n\n{LONG}\n\n{LONG}"


def test_the_lists_can_be_turned_off() -> None:
    body = f"<nav>menu</nav><div class=navbar>bar</div><p>{LONG}</p><p>All rights reserved.</p><h2>Empty</h2>"
    assert page(body, boilerplate=False).text() == f"menu\n\nbar\n\n{LONG}\n\nAll rights reserved.\n\n## Empty"


def test_one_link_or_much_text_around_links_stays() -> None:
    body = f"<div><a href=a>One link alone</a></div><div>{LONG} See <a href=a>this</a> and <a href=b>that</a>.</div>"
    assert page(body).text() == f"One link alone\n\n{LONG} See this and that."


def test_a_list_of_links_does_not_count_against_the_text_around_it() -> None:
    links = "<ul><li><a href=a>A first link with many words in it</a></li><li><a href=b>A second link with as many words</a></li></ul>"
    assert page(f"<div>Short text.{links}</div>").text() == "Short text."


def test_a_form_around_the_whole_page_is_no_form() -> None:
    assert page(f"<form><h1>Title</h1><p>{LONG}</p></form>").text() == f"# Title\n\n{LONG}"


def test_a_boilerplate_line_near_the_end_takes_the_rest_but_not_formulas_code_or_images() -> None:
    body = f"<p>{LONG}</p>" * 20 + "<p>Leave a comment</p><p>Someone wrote this.</p><span class=math>$x$</span><pre>code</pre><p><img src=a.png></p>"
    document = page(body)
    assert "Someone" not in document.text()
    assert document.text().endswith("$x$\n\n```\ncode\n```")
    assert len(document.images) == 1
    assert [(dropped.reason, dropped.value) for dropped in document.dropped] == [
        ("boilerplate", "Leave a comment"),
        ("after boilerplate", "Someone wrote this."),
    ]


def test_a_boilerplate_line_at_the_start_takes_nothing_with_it() -> None:
    assert page(f"<p>Jump to navigation</p><p>{LONG}</p>").text() == LONG


def test_phrases_count_as_whole_words_in_proportion_to_the_line() -> None:
    assert page(f"<p>{LONG} You need no password for it.</p>").text().endswith("password for it.")
    assert page("<p>Passwordless logins rssfeed cookiecutter</p>").text().startswith("Passwordless")


def test_boilerplate_at_its_limits() -> None:
    """Over .18 of a line's words, or over 10 of them; within 15 lines of the end it takes the rest; a section has a line of over 16 characters."""
    other = " ".join(["word"] * 89)
    for line, stays in (
        ("cookie" + " word" * 5, True), ("cookie" + " word" * 4, False), (f"{other} {'cookie ' * 10}", True), (f"{other} {'cookie ' * 11}", False),
    ):  # fmt: skip
        assert (line.strip() in page(f"<p>{LONG}</p><p>{line}</p><p>{LONG}</p>" * 2).text()) is stays, line
    for after, rest in ((14, False), (15, True)):
        lines = [f"{LONG} {number}." for number in range(40)]
        lines[39 - after] = "All rights reserved."
        assert (lines[39] in page("".join(f"<p>{line}</p>" for line in lines)).text()) is rest, after
    for content, stays in (("a" * 16, False), ("a" * 17, True)):
        assert ("## Part" in page(f"<h2>Part</h2><p>{content}</p>").text()) is stays


def test_lists_of_links_at_their_limit() -> None:
    """Over 80 % link text, two links at least."""
    for beside, stays in ((10, True), (9, False)):
        links = f"<div><a href=a>{'a' * 20}</a> <a href=b>{'b' * 20}</a> {'c' * beside}</div>"
        assert (("c" * beside) in page(f"<p>{LONG}</p>{links}").text()) is stays, beside


def test_headings_without_content_are_dropped() -> None:
    body = f"<h1>Top</h1><h2>Empty</h2><h2>Short</h2><p>too short</p><h2>Full</h2><h3>Below</h3><p>{LONG}</p>"
    body += "<h2>Formula</h2><span class=math>$x$</span>"
    assert page(body).text() == f"# Top\n\ntoo short\n\n## Full\n\n### Below\n\n{LONG}\n\n## Formula\n\n$x$"


def test_a_heading_is_one_line() -> None:
    assert page(f"<h2><div>Title</div></h2><p>{LONG}</p><h3>Never closed<p>{LONG}</p><p>{LONG}</p>").text() == (
        f"## Title\n\n{LONG}\n\n### Never closed\n\n{LONG}\n\n{LONG}"
    )


@pytest.mark.parametrize(
    "body",
    [
        "<p>Outside</p><main>{}</main>",
        "<p>Outside</p><article>short</article><article>{}</article>",
        "<p>Outside</p><div role=main>{}</div>",
        "<p>Outside</p><div id=mw-content-text>{}</div>",
        "<p>Outside</p><div id=content>{}</div>",
        "<p>Outside</p><div class='x body'>{}</div>",
        "<p>Outside</p><div class=contents>{}</div>",
        "<p>Outside</p><div class=document>{}</div>",
        "<div id=content>Outside</div><main>{}</main>",
    ],
)
def test_main_content(body: str) -> None:
    assert page(body.format(f"<p>{LONG}</p>")).text() == LONG


def test_an_empty_main_element_is_not_the_content() -> None:
    assert page(f"<main><div class=spinner></div></main><p>{LONG}</p>").text() == LONG


def test_a_template_is_read_as_a_block() -> None:
    assert page(f"<p>{LONG}</p><template><p>Inside.</p></template>").text() == f"{LONG}\n\nInside."


def test_an_xml_declaration_and_elements_closed_in_place() -> None:
    html = f'<?xml version="1.0"?><!DOCTYPE html><html><body><script src="a.js"/><p>{LONG}</p></body></html>'
    assert extract(html, content_type="application/xhtml+xml").text() == LONG


def test_images_are_interleaved_in_reading_order() -> None:
    figure = "<figure><img src=/two.png><img src=//cdn.example.org/3.png><figcaption>Two</figcaption></figure>"
    document = page(f"<p>{LONG} <img src=one.png alt=One> after</p>{figure}")
    assert document.text_list == [LONG, None, "after", None, None, "Two"]
    assert document.image_list == [None, "https://example.org/a/one.png", None, "https://example.org/two.png", "https://cdn.example.org/3.png", None]
    assert (document.images[0].raw, document.images[0].alt) == ("one.png", "One")
    assert document.marked().splitlines()[:3] == [LONG, "[Image_Link]https://example.org/a/one.png[Image_Link]", "after"]
    assert document.record() == {"URL": document.url, "text_list": document.text_list, "image_list": document.image_list, "metadata": {}}


@pytest.mark.parametrize(
    ("image", "url"),
    [
        ("<img data-src=b.png>", "https://example.org/a/b.png"),
        ("<img src=data:image/gif;base64,R0 data-src=b.png>", "https://example.org/a/b.png"),
        ("<img srcset='s.png 300w, l.png 1200w, m.png 600w'>", "https://example.org/a/l.png"),
        ("<img srcset='s.png, l.png 2x'>", "https://example.org/a/l.png"),
        ("<img src=' b c.png '>", "https://example.org/a/b%20c.png"),
        ("<img src='b\n.png'>", "https://example.org/a/b.png"),
    ],
)
def test_which_address_is_meant(image: str, url: str) -> None:
    assert [found.url for found in page(f"<p>{LONG}</p>{image}").images] == [url]


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("<img>", "empty"),
        ("<img src=''>", "empty"),
        ("<img src=data:image/gif;base64,R0>", "data URL"),
        ("<img src='JavaScript:alert(1)'>", "javascript URL"),
        ("<img src=a.gif width=1 height=1px>", "tracker"),
        ("<img src=file:///etc/passwd>", "no http URL"),
        ("<img src='http://[::1/a.png'>", "broken URL"),
        ("<img src='//[a.png'>", "broken URL"),
    ],
)
def test_dropped_images_have_a_reason(image: str, reason: str) -> None:
    document = page(f"<p>{LONG}</p>{image}")
    assert document.images == []
    assert [(dropped.what, dropped.reason) for dropped in document.dropped] == [("image", reason)]
    assert document.counts[f"image: {reason}"] == 1


def test_base_elsewhere_and_no_address_of_the_page() -> None:
    html = f"<base href='https://cdn.example.org/x/'><p>{LONG}</p><img src=b.png>"
    assert [image.url for image in extract(html, "https://example.org/").images] == ["https://cdn.example.org/x/b.png"]
    assert [image.url for image in extract(html).images] == ["https://cdn.example.org/x/b.png"]
    assert extract(f"<p>{LONG}</p><img src=b.png>").counts["image: no http URL"] == 1


def test_without_images() -> None:
    document = page(f"<p>{LONG} <img src=a.png> after</p>", images=False)
    assert document.text_list == [f"{LONG} after"]
    assert (document.image_list, document.images, document.dropped) == ([None], [], [])


@pytest.mark.parametrize(
    ("html", "reason"),
    [
        ("", "empty"),
        (b"  \n ", "empty"),
        ("<html><body></body></html>", "empty"),
        ("<html><body><nav>only a menu</nav></body></html>", "empty"),
        ('{"a": 1}', "not html"),
        ("plain words < others", "not html"),
        ("<?xml version='1.0'?><rss version='2.0'><channel><title>t</title></channel></rss>", "not html"),
        (b"%PDF-1.7 <html><body>text", "not html"),
        (b"\x89PNG\r\n\x1a\n", "not html"),
        (b"<html>\x00\x01\x00\x02\x00\x03\x00\x04\x00\x05" * 40, "not html"),
    ],
)
def test_pages_of_which_nothing_can_be_made(html: str | bytes, reason: str) -> None:
    with pytest.raises(PageDropped) as dropped:
        extract(html)
    assert dropped.value.reason == reason
