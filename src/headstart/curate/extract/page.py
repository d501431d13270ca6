"""`extract`: one page to one document."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import urljoin

from headstart.core.errors import MissingDependency
from headstart.curate.extract import lines as assembly
from headstart.curate.extract.config import ExtractConfig
from headstart.curate.extract.decode import clean, decode
from headstart.curate.extract.delimiters import of_page
from headstart.curate.extract.document import Document, PageDropped
from headstart.curate.extract.limits import check

try:
    from selectolax.lexbor import LexborDocumentOptions, LexborHTMLParser, SelectolaxError

    from headstart.curate.extract.walk import Facts, Walk
except ImportError:
    raise MissingDependency("selectolax", "curate", "Extracting text from HTML") from None

MAIN = (
    ("main", "<main"),
    ("article", "<article"),
    ("[role=main]", "role="),
    ("#mw-content-text", "mw-content-text"),
    ("#content", "content"),
    ("div.body", "body"),
    ("div.contents", "contents"),
    ("div.document", "document"),
)
"""Where the main content is, best first (A2); a selector is tried only when the page has the word beside it."""
MANY_MATCHES = 200
_TAGS = """
html head body title meta link script style template div p span br hr a img table tr td h[1-6] ul ol li dl dt pre code blockquote article section main
nav header footer aside form input select button label iframe video font center b i u em strong small sup sub svg math frameset frame
"""
TAGS = re.compile(rf"<(?:!doctype html|{'|'.join(_TAGS.split())})[\s>/]")
FEED = re.compile(r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?<(?:rss|feed|urlset|sitemapindex|rdf:rdf)[\s>]", re.DOTALL)
DECLARATION = re.compile(r"\s*<\?xml[^>]{0,200}\?>")
TEMPLATE = re.compile(r"<(/?)template(?=[\s>/])", re.IGNORECASE)
SELF_CLOSED = re.compile(
    r"<(script|style|title|textarea|iframe|noscript|a|div|span|p|i|b|em|strong|td|th|li|ul|ol|h[1-6])(\s[^<>]*)?/>", re.IGNORECASE
)
DEFAULTS = ExtractConfig()


def extract(html: str | bytes, url: str = "", config: ExtractConfig = DEFAULTS, *, content_type: str = "") -> Document:
    """The readable content of a page: texts and images in page order, formulas as LaTeX between dollars.

    Args:
        html: the page. Bytes are decoded: UTF-8 first, then what header or page declare, then what is detected.
        url: of the page; image addresses are resolved against it.
        content_type: the HTTP header ("text/html; charset=gbk"), when known.

    Raises:
        PageDropped: no document can be made of the page; its `reason` says why. The parser is C code that cannot be stopped from inside: pages that
            would make it slow are refused before; `TimedExtractor` holds the limits from outside.
    """
    deadline = time.monotonic() + config.seconds
    if len(html) > config.max_bytes:
        raise PageDropped("too large", f"The page has {len(html):,} bytes, more than {config.max_bytes:,}.")
    try:
        text, charset = decode(html, content_type) if isinstance(html, bytes) else (clean(html), "str")
        return _extract(text, charset, url, config, content_type, _clock(deadline, config.seconds))
    except MemoryError:
        raise PageDropped("memory", "The page took more memory than there is.") from None


def _extract(html: str, charset: str, url: str, config: ExtractConfig, content_type: str, tick: Callable[[], None]) -> Document:
    if not html.strip():
        raise PageDropped("empty", "The page has no content.")
    if declaration := DECLARATION.match(html):
        html = html[declaration.end() :]
    if "xhtml" in content_type:
        html = SELF_CLOSED.sub(r"<\1\2></\1>", html)
    lower = html.lower()
    if TAGS.search(lower) is None or FEED.match(lower):
        raise PageDropped("not html", "The page has no HTML elements.")
    check(html, lower, config)
    if "<template" in lower:
        html = TEMPLATE.sub(r"<\1div", html)
    try:
        tree = LexborHTMLParser(html, options=LexborDocumentOptions.WO_EVENTS)
    except SelectolaxError:
        raise PageDropped("memory", "The parser could not read the page.") from None
    tick()
    title = tree.css_first("title")
    root = tree.root
    language = (root.attributes.get("lang") or "").strip().lower() if root is not None else ""
    document = Document(url, " ".join((title.text() or "").split()) if title is not None else "", charset, language)
    facts = Facts(_base(tree, lower, url), of_page(html, lower) if config.math else None, tick, config)
    main = _main(tree, lower)
    _fill(document, main, facts)
    if not document.text_list and main is not tree.body and tree.body is not None:  # an element for the content that a script would fill
        facts.dropped.clear()
        _fill(document, tree.body, facts)
    if not document.text_list:
        raise PageDropped("empty", "Nothing readable is left of the page.")
    document.dropped = facts.dropped
    document.counts = _counts(document, lower)
    return document


def _clock(deadline: float, seconds: float) -> Callable[[], None]:
    def tick() -> None:
        if time.monotonic() > deadline:
            raise PageDropped("time limit", f"The page took more than {seconds:g} seconds.")

    return tick


def _base(tree: Any, lower: str, url: str) -> str:
    """What the page's addresses are relative to."""
    if "<base" in lower and (base := tree.css_first("base[href]")) is not None:
        try:
            return urljoin(url, (base.attributes.get("href") or "").strip())
        except ValueError:
            return url
    return url


def _main(tree: Any, lower: str) -> Any:
    """The main content: the longest match of the first selector that occurs, else the body."""
    for selector, word in MAIN:
        if word not in lower:
            continue
        found = tree.css(selector)
        if found:
            return found[0] if len(found) == 1 else max(found[:MANY_MATCHES], key=lambda node: len(node.text() or ""))
    return tree.body if tree.body is not None else tree.root


def _fill(document: Document, root: Any, facts: Facts) -> None:
    lines = Walk(facts).run(root).done
    if facts.config.boilerplate:
        lines = assembly.without_boilerplate(lines, facts.dropped)
        lines = assembly.without_empty_sections(lines, facts.dropped)
    assembly.interleave(lines, document)


def _counts(document: Document, lower: str) -> dict[str, int]:
    counts = {
        "formulas": len(document.formulas),
        "display": sum(formula.display for formula in document.formulas),
        "images": len(document.images),
        "links": lower.count("<a "),
        "characters": sum(map(len, filter(None, document.text_list))),
    }
    return counts | Counter(f"{dropped.what}: {dropped.reason}" for dropped in document.dropped)
