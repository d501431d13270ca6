"""The small stages: pre-filter, language, rules, personal data, images, labels, layouts. Their input: test_crawl_sources.py."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings, strategies

from headstart.core.errors import BadInput
from headstart.curate import labels, training
from headstart.curate.config import ImagesConfig, LanguageConfig, PrecisionConfig, PrefilterConfig, PrivateConfig, ReadConfig, RulesConfig
from headstart.curate.decontaminate import read_benchmarks
from headstart.curate.extract import Document, Dropped, ExtractConfig, PageDropped, extract
from headstart.curate.extract.decode import decode, sound
from headstart.curate.images import address_reason, image_filter, thin_galleries, without_images
from headstart.curate.language import language, quick_text
from headstart.curate.layouts import laid_out
from headstart.curate.pages import extraction, prefilter, utf8
from headstart.curate.rules import masked, private, rules
from headstart.curate.sources import read_source
from headstart.curate.tables import DOCUMENTS, PAGES, count_words, items_of, without_formulas
from tests.curate import pages
from tests.curate.crawl import page


def documents(*texts: str, **columns: Any) -> pa.Table:
    same = {"image_list": [None], "language": "en"} | columns
    rows = [{"order": place, "text_list": [text], "words": len(text.split())} | same for place, text in enumerate(texts)]
    return pa.Table.from_pylist(rows, schema=DOCUMENTS)


def crawled(*rows: tuple[str, bytes, str]) -> pa.Table:
    made = [{"order": place, "url": url, "html": html, "content_type": kind} for place, (url, html, kind) in enumerate(rows)]
    return pa.Table.from_pylist(made, schema=PAGES)


# pages


def test_the_prefilter_names_what_it_drops() -> None:
    good = page(0, True).encode()
    table = crawled(
        ("https://x.org/a", good, "text/html"),
        ("https://x.org/a", "数学".encode("gb18030") * 200, "text/html; charset=gbk"),
        ("ftp://x.org/a", good, "text/html"),
        ("javascript:void(0)", good, ""),
        ("https://x.org/" + "a" * 3000, good, ""),
        ("", good, ""),
        ("https://x.org/a", b"<p>short</p>", ""),
        ("https://x.org/a", b"%PDF-1.7" + b"x" * 300, "text/html"),
        ("https://[broken", good, ""),
    )
    after = prefilter(PrefilterConfig())(table)
    bad = "URL is no web address"
    assert after["dropped"].to_pylist() == [None, None, bad, bad, "URL too long", "no URL", "too short", "not html", bad]
    assert after["html"].to_pylist()[1] == "数学" * 200


ODD = [
    b"", b" \n", b"\x01", b"\x00a", b"a\x00" * 60, b"a\x00\x00" * 60, "ä".encode("utf-16"), "ä".encode("utf-16-le") * 9, b"\xef\xbb\xbfa", b"a\x1b$B",
    b"\x1b(Ba\xc3\xa4", b"%PDF-1", b"  \x89PNG", "<p>数学 ä 𝔸".encode(), "<p>ä".encode("latin-1"), "数学".encode("gb18030") * 20,
    "<p>ä".encode()[:-1],
    b"\xed\xa0\x80", b"a\x7fb", "é".encode() * 300 + b"\xff", b"\xc0\x80", b"\xf8\x88\x80\x80\x80", b"\xf4\x90\x80\x80", b"\xfe\xff",
]  # fmt: skip
"""Beginnings and sequences that a reader of UTF-8 and a reader of pages may take differently."""


@settings(max_examples=150, deadline=None)
@given(strategies.lists(strategies.one_of(strategies.sampled_from(ODD), strategies.binary(max_size=6)), max_size=5).map(b"".join))
def test_the_characters_of_a_page_are_the_same_whether_it_is_read_or_looked_at(data: bytes) -> None:
    def found(work: Callable[[bytes, str], bytes]) -> bytes | str:
        try:
            return work(data, "text/html; charset=gbk")
        except PageDropped as dropped:
            return dropped.reason

    assert found(utf8) == found(lambda data, kind: sound(decode(data, kind)[0]).encode())


def test_quick_text_takes_scripts_and_navigation_out() -> None:
    html = "<head><style>p{}</style></head><nav>menu</nav><p>one &amp; <b>two</b></p><script>var x = '<p>'</script><!-- no --> three"
    html += "<footer>f</footer>"
    assert quick_text(html) == "one & two three"
    assert "text behind" in quick_text("<script>unclosed text behind")


@pytest.mark.parametrize("hostile", ["<" * 300_000, "<nav>" * 60_000, "<!--" * 80_000, "&" * 300_000, "<script" * 50_000])
def test_quick_text_takes_linear_time(hostile: str) -> None:
    assert len(quick_text(hostile)) <= 20_000  # quadratic time would meet the limit of the test run


def test_a_number_of_thousands_of_digits_is_no_character() -> None:
    """Python makes no number of it, and one page ended the curation of all others."""
    digits = "9" * 5000
    assert quick_text(f"<p>before &#{digits}; and &#{digits} &#x{'f' * 5000}; &#65; after</p>") == "before \ufffd and \ufffd \ufffd A after"
    table = crawled(("https://x.org/a", f"<p>The sum of two numbers is &#{digits}; in this text of English words.</p>".encode(), "text/html"))
    assert language(LanguageConfig())(table)["dropped"].to_pylist() == [None]


def test_languages_of_the_shared_pages() -> None:
    shared = list(pages.shared_pages().values())
    table = crawled(*((row["url"], row["html"].encode(), "text/html") for row in shared))
    after = language(LanguageConfig())(table)
    wrong = [row["id"] for row, found in zip(shared, after["language"].to_pylist(), strict=True) if row["lang"] != found]
    assert len(wrong) <= 2, wrong
    assert {reason for reason in after["dropped"].to_pylist() if reason} <= {"language de", "language fr", "language vi", "language in doubt"}


def test_another_identifier_decides() -> None:
    table = documents("a", "b", "c")
    answers = {"a": ("en", 0.5), "b": ("en", 0.49), "c": ("de", 1.0)}
    assert language(LanguageConfig(), answers.__getitem__)(table)["dropped"].to_pylist() == [None, "language in doubt", "language de"]
    assert language(LanguageConfig(keep=()), answers.__getitem__)(table)["dropped"].to_pylist() == [None, None, None]


def test_a_page_that_the_extractor_cannot_take_is_counted() -> None:
    def extract(html: str, url: str, content_type: str) -> Document:
        if "fail" in url:
            raise RuntimeError("a bug")
        if "slow" in url:
            raise PageDropped("time limit", "It took too long.")
        return Document(url, "", "utf-8", "", ["a $x$", None], [None, "https://x.org/i.png"], [], [], [Dropped("image", "data URL", "data:")], {})

    table = crawled(*((f"https://x.org/{name}", b"<p>x", "text/html") for name in ("good", "fail", "slow")))
    after = extraction(ExtractConfig(), extract)(table)
    assert after["dropped"].to_pylist() == [None, "extraction failed", "time limit"]
    assert after["images"].to_pylist()[0] == 1
    assert after["html_bytes"].to_pylist() == [4, 4, 4]
    assert items_of(after) == {"image: data URL": 1}


# documents


def test_rules_drop_what_they_name() -> None:
    texts = {
        "Lorem ipsum dolor": "lorem ipsum",
        "Lorem ipsum dolor " + "word " * 300: None,
        "broken \ufffd text": "Unicode error",
        "free PORN here": "NSFW word",
        "pornography studies and sex ratio": "NSFW word",
        "the sex ratio of a population, Dick and Essex, xxx as bits": None,
        "the harbour of Pornic, in the Loire": None,  # a word of the list inside another
        "The set {a, b} is finite; see part (1) of the proof.": None,
    }
    assert rules(RulesConfig())(documents(*texts))["dropped"].to_pylist() == list(texts.values())
    assert rules(RulesConfig(min_words=3))(documents("one two", "one two three"))["dropped"].to_pylist() == ["too few words", None]


def test_rules_at_their_limits() -> None:
    """Under 1,000 characters for lorem ipsum, over .3 of punctuation."""
    lorem = "lorem ipsum " + "a" * 987
    marks = "." * 30 + "a" * 70
    assert len(lorem) == 999
    texts = {lorem: "lorem ipsum", lorem + "a": None, marks: None, marks.replace("a", ".", 1): "punctuation"}
    assert rules(RulesConfig())(documents(*texts))["dropped"].to_pylist() == list(texts.values())


def test_formulas_are_taken_out_and_literal_dollars_stay() -> None:
    assert without_formulas(r"a $x$ b $$y_\$ \\$$ c \$5 and \$6 d") == r"a   b   c \$5 and \$6 d"
    assert without_formulas("no dollar") == "no dollar"
    assert count_words("two words 数学") == 4


def test_personal_data_is_masked_and_numbers_stay() -> None:
    text = "Mail jane.doe+x@mail.example.org or +49 30 901820-12, host 8.8.8.8, not 192.168.0.1, version 1.2.3.4.5, pi 3.14159, a@b."
    assert masked(text) == "Mail <EMAIL> or <PHONE>, host <IP>, not 192.168.0.1, version 1.2.3.4.5, pi 3.14159, a@b."
    assert private(PrivateConfig(mask=True))(documents(text))["text_list"].to_pylist()[0] == [masked(text)]
    assert private(PrivateConfig())(documents(text))["text_list"].to_pylist()[0] == [text]


def test_texts_beside_a_dropped_image_are_joined() -> None:
    texts, images = ["a", None, "b", None, "c"], [None, "keep", None, "drop", None]
    assert without_images(texts, images, lambda url: url == "keep") == (["a", None, "b\n\nc"], [None, "keep", None])
    table = documents("x").set_column(DOCUMENTS.get_field_index("text_list"), "text_list", pa.array([[None]], pa.list_(pa.string())))
    table = table.set_column(DOCUMENTS.get_field_index("image_list"), "image_list", pa.array([["http://x.org/a.png"]], pa.list_(pa.string())))
    after = image_filter(ImagesConfig(), frozenset())(table)
    assert after["dropped"].to_pylist() == ["nothing but dropped images"]
    assert items_of(after) == {"image: not https": 1}


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("a/fig-150x150.jpg", None),
        ("multiplication-table-12x12.png", None),
        ("magic-square_10x10.svg", None),
        ("sudoku-16x16.gif", None),
        ("rubiks-cube-20x20.jpg", None),
        ("24x24/fig.png", "small by its address"),
        ("a/matrix-3x3.png", None),
        ("thumb/a/ab/F.svg/20px-F.svg.png", "small by its address"),
        ("thumb/a/ab/F.svg/220px-F.svg.png", None),
        ("upload/w_16,h_16/v1/a.png", "small by its address"),
        ("upload/w_16,h_400/v1/a.png", None),
        ("abc=s24-c", "small by its address"),
        ("abc=w400-h20", None),
        ("a.png?w=31", "small by its address"),
        ("a.png?w=32", None),
        ("a.png?width=640&height=20", None),
        ("a.png?size=16x16&v=2", "small by its address"),
        ("a.png?s=16px", "small by its address"),
        ("latex.php?latex=x%5E2&bg=ffffff&fg=000&s=0", None),
        ("latex.php?latex=x%5E2&s=4", None),
        ("chart?cht=tx&chl=x&s=2", None),
        ("plot.php?id=7&size=2", None),
        ("plot.php?id=7&size=12", None),
        ("a.png?h=1", None),
        ("ads/a.png", "advertisement or counter"),
        ("Ads/2024/05/a.png", "advertisement or counter"),
        ("img/banners/x/a.png", "advertisement or counter"),
        ("advertising.png", None),
        ("advertising-sales.png", None),
        ("sponsored-a.png", None),
        ("heads/ad/adjoint.png", None),
        ("1x1.gif", "advertisement or counter"),
        ("sub-pixel.png", None),
    ],
)
def test_what_an_address_says_of_its_image(address: str, reason: str | None) -> None:
    """Its size, or that it advertises; the paper looks at neither."""
    url = f"https://x.org/{address}"
    assert address_reason(url, ImagesConfig()) == reason
    assert address_reason(url, ImagesConfig(min_side=0, ads=False)) is None


def test_hosts_of_advertisers_with_all_below_them() -> None:
    hosts = ("ad.doubleclick.net", "doubleclick.net", "notdoubleclick.net", "x.net")
    reasons = [address_reason(f"https://{host}/a.png", ImagesConfig()) for host in hosts]
    assert reasons == ["advertisement or counter"] * 2 + [None] * 2


def test_images_that_the_page_shows_small_are_left_out_and_counted() -> None:
    """Both sides must be known and small; a page that is extracted alone keeps all but trackers."""
    sizes = ("width=31 height=31", "width=31px height=8", "width=31 height=32", "width=31", "width=10% height=10%", "width=1 height=1")
    html = f"<main><p>Some text.</p>{''.join(f'<img src=/{n}.png {size}>' for n, size in enumerate(sizes))}</main>"
    found = extract(html, "https://x.org/", ExtractConfig(min_side=32))
    assert [image.raw for image in found.images] == ["/2.png", "/3.png", "/4.png"]
    assert (found.counts["image: small"], found.counts["image: tracker"]) == (2, 1)
    assert [image.raw for image in extract(html, "https://x.org/").images] == [f"/{n}.png" for n in range(5)]


def test_both_layouts_hold_the_same() -> None:
    row = {"url": "u", "text_list": ["a", None], "image_list": [None, "i"], "language": "en", "words": 1, "formulas": 0, "snapshot": "s"}
    table = pa.Table.from_pylist([row], schema=DOCUMENTS)
    (webmath,), (obelics,) = (laid_out(table, layout, {"i": {"sha256": "0f"}}).to_pylist() for layout in ("webmath", "obelics"))
    about = json.loads(webmath["metadata"])
    assert (webmath["URL"], webmath["text_list"], webmath["image_list"]) == ("u", ["a", None], [None, "i"])
    assert about["images"] == [{"url": "i", "sha256": "0f"}]
    assert (obelics["texts"], obelics["images"]) == (["a", None], [None, "i"])
    assert json.loads(obelics["metadata"]) == [None, {"src": "i", "sha256": "0f"}]
    assert json.loads(obelics["general_metadata"]) == about | {"url": "u"}
    broken = table.set_column(DOCUMENTS.get_field_index("image_list"), "image_list", pa.array([[None, None]], pa.list_(pa.string())))
    with pytest.raises(BadInput, match="do not interleave"):
        laid_out(broken, "webmath")


@pytest.mark.parametrize("layout", ["webmath", "obelics"])
@pytest.mark.parametrize("form", ["parquet", "jsonl"])
def test_documents_that_were_written_are_read_again_as_they_were(layout: str, form: str, tmp_path: Path) -> None:
    """So stages one by one know what a recipe knows: snapshots decide which copy stays, and scores stay with their document."""
    row = {"url": "https://x.org/", "text_list": ["a", None], "image_list": [None, "i"], "language": "en", "language_probability": 0.7, "words": 1}
    row |= {"formulas": 2, "html_bytes": 99, "snapshot": "CC-MAIN-2023-50", "id": "3-7", "math_prob": 0.9, "quality_prob": 0.25, "images": 1}
    fetched: dict[str, dict[str, Any]] = {"i": {"sha256": "0f", "width": 3, "height": 2, "file": "0f/0f.png"}}
    written = laid_out(pa.Table.from_pylist([row], schema=DOCUMENTS), layout, fetched)
    if form == "parquet":
        pq.write_table(written, tmp_path / "a.parquet")
    else:
        (tmp_path / "a.jsonl").write_text(json.dumps(written.to_pylist()[0]) + "\n")
    (read,) = read_source(str(tmp_path / f"a.{form}"), 0, ReadConfig())
    (found,) = read.to_pylist()
    assert {name: found[name] for name in row} == {name: pytest.approx(value) if isinstance(value, float) else value for name, value in row.items()}
    assert json.loads(found["image_facts"]) == fetched
    assert laid_out(read, layout).equals(written)


def test_metadata_of_every_kind_costs_no_document(tmp_path: Path) -> None:
    odd: list[Any] = [{"snapshot": "s", "formulas": True, "math_prob": "high"}, [1], 7, {"math_prob": 1e300, "formulas": -1, "html_size": 2**40}]
    odd[0]["images"], odd[3]["images"] = 7, [3, {"url": 3, "width": 1}, {"url": "i", "width": "wide"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": "t", "metadata": one}) + "\n" for one in odd))
    (read,) = read_source(str(tmp_path / "a.jsonl"), 0, ReadConfig())
    assert read["dropped"].to_pylist() == [None] * 4
    assert read["snapshot"].to_pylist() == ["s", "", "", ""]
    for name in ("math_prob", "formulas", "html_bytes", "image_facts"):
        assert read[name].to_pylist() == [None] * 4, name


# labels


def test_scores_come_from_rules_a_file_or_a_server(tmp_path: Path) -> None:
    maths, shoes = "Theorem. Let $x$ and $y$ be integers. Proof: the equation $x^2=y$ has a solution, by the lemma.", "Buy leather boots in our shop."
    good, bad = labels.by_rules([("u", maths), ("v", shoes)])
    assert good is not None
    assert bad is not None
    assert good >= 6 > 1 >= bad
    assert labels.rule_score("A price list. " + r"\$5 and \$6, " * 60_000) == 0, "quadratic time would meet the limit of the test run"
    (tmp_path / "s.jsonl").write_text('{"url": "u", "score": 7.5}\n')
    assert labels.from_file(tmp_path / "s.jsonl")([("u", ""), ("v", "")]) == [7.5, None]
    twice = '{"url": "u", "score": 1}\n{"url": "u", "score": 2}'
    lines = [{"url": url, "score": score} for url, score in (("", 1), (None, 1), ("twice", 1), ("twice", 9), ("same", 3), ("same", 3), ("u", 2))]
    (tmp_path / "scores.jsonl").write_text("".join(json.dumps(line | {"asked": str(n)}) + "\n" for n, line in enumerate(lines)))
    of_endpoint = labels.from_file(tmp_path / "scores.jsonl")([(url, "") for url in ("", "twice", "same", "u")])
    assert of_endpoint == [None, None, 3.0, 2.0], "an endpoint scores texts: an address may have none, or several"
    lacks = [(line, "no url and score") for line in ('{"url": "u"}', '{"url": "", "score": 1}', '{"url": ["u"], "score": 1}')]
    for line, says in (*lacks, ('{"url": "u", "score": 11}', "score 11"), (twice, "again")):
        (tmp_path / "bad.jsonl").write_text(line)
        with pytest.raises(BadInput, match=says):
            labels.from_file(tmp_path / "bad.jsonl")


def test_documents_of_the_domain_are_read_or_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "one"}\n{"text_list": ["two", null], "image_list": [null, "i"]}\n'))
    assert [list(labels.read_texts(tmp_path / name)) for name in ("a.txt", "a.jsonl.gz")] == [["one", "two"]] * 2
    for name, data, says in (
        ("bad.jsonl", '{"text": "one"}\n{"txt": "two"}\n', r"bad\.jsonl, record 2: cannot be used: no text\."),
        ("pages.jsonl", '{"html": "<p>one"}\n', "has no field text"),
        ("a.csv", "text\none\n", r"a\.csv: is no file of documents"),
    ):
        (tmp_path / name).write_text(data)
        with pytest.raises(BadInput, match=says):
            list(labels.read_texts(tmp_path / name))


def test_documents_without_an_address_are_told_apart_by_their_text() -> None:
    """The good ones of a small crawl are not learned from as the other side too, and the others are."""
    texts = [f"lemma {n}" for n in range(6)] + [f"boots {n}" for n in range(6)]
    said: list[str] = []
    labelled: dict[tuple[str, str], float | None] = {("", text): 8.0 if text.startswith("lemma") else 0.0 for text in texts}
    training._learn_from(labelled, [("", text) for text in texts], PrecisionConfig(), "rules", said.append)
    assert said[0] == "second classifier: 6 of 12 documents scored 6 or more by rules, against 6 random ones"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("tit", "tit"), ("iti", "it"), ("tiiti", "titi"), ("iit", "it"), ("iiti", "it"), ("tiii", "ti"), ("iitii", "it"), ("titii", "titi"),
        ("tiiit", "tiit"),
    ],
)  # fmt: skip
def test_no_more_images_than_texts_stay(before: str, after: str) -> None:
    """Texts and images by their letters; the numbers of the images show that they keep their order."""
    lists = [(f"text {place}", None) if letter == "t" else (None, f"image {place}") for place, letter in enumerate(before)]
    texts, images = ([pair[side] for pair in lists] for side in (0, 1))
    thin = thin_galleries(pa.Table.from_pylist([{"text_list": texts, "image_list": images, "dropped": None}], schema=DOCUMENTS))
    left = list(zip(thin["text_list"][0].as_py(), thin["image_list"][0].as_py(), strict=True))
    assert "".join("i" if text is None else "t" for text, _ in left) == after
    assert [pair for pair in lists if pair in left] == left
    assert thin["images"].to_pylist() == [after.count("i")]
    assert thin["dropped"].to_pylist() == [None]
    assert items_of(thin) == ({"image: more images than texts": len(before) - len(after)} if before != after else {})


def test_benchmarks_are_items_of_strings(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("two words\nthree short words\n")
    pq.write_table(pa.table({"q": ["one two three four five six seven eight nine ten eleven"]}), tmp_path / "b.parquet")
    found = read_benchmarks([tmp_path / "a.txt", tmp_path / "b.parquet"])
    assert found.items == {"a": (1, 1), "b": (1, 0)}
    assert found.quoted_in("x three short words y two three four five six seven eight nine ten eleven") == ("a", "b")
    assert found.quoted_in("three short, other words") == ()
    choices = {"subject": "high_school_mathematics", "question": "Which number below is prime and even?", "choices": ["two", "none of the above"]}
    (tmp_path / "m.jsonl").write_text(json.dumps(choices) + "\n" + json.dumps({"q": "too short", "level": "5"}) + "\n")
    short = read_benchmarks([tmp_path / "m.jsonl"])
    assert short.items == {"m": (1, 1)}
    assert short.quoted_in("Our course of high school mathematics. Answer: none of the above.") == (), "what stands beside a question is none"
    assert short.quoted_in("Quiz: which number, below, is PRIME and even") == ("m",)
    (tmp_path / "c.jsonl").write_text('{"q": "a b"}\n')
    with pytest.raises(BadInput, match="no item of 3 words"):
        read_benchmarks([tmp_path / "c.jsonl"])
    (tmp_path / "e.jsonl").write_text(json.dumps({"q": "one two\u2028three"}, ensure_ascii=False) + "\n")
    assert read_benchmarks([tmp_path / "e.jsonl"]).items == {"e": (1, 0)}, "U+2028 ends no line of JSON"
    (tmp_path / "f.jsonl.gz").write_bytes(gzip.compress(b'{"q": "one two three"}'))
    with pytest.raises(BadInput, match="is no file of test items"):
        read_benchmarks([tmp_path / "f.jsonl.gz"])
    (tmp_path / "d.jsonl").write_text("{\n")
    with pytest.raises(BadInput, match="record 1: is not valid JSON"):
        read_benchmarks([tmp_path / "d.jsonl"])
