"""What is looked at before a page is parsed: the parser is C code, which nothing can interrupt, so pages that make it slow must not reach it.

Three shapes make an HTML5 parser slow, by the standard's own rules:

- elements nested by the thousand: each further tag searches the open ones, so the time is quadratic (`<ul><li>` 20,000 times: 5 s for 180 kB);
- formatting elements left open: each paragraph opens all of them anew (2,000 `<font color=..>` before 2,000 `<p>`: 1.5 GB for 49 kB);
- attributes by the thousand in one tag: each is compared with those before it (30,000: 4 s).

Ordinary pages pay for two counts of tags. The exact look at every tag is for pages of many tags. It follows a page that means no harm; one made
to get past it is met by `TimedExtractor`, which limits time and memory from outside.
"""

from __future__ import annotations

import re

from headstart.curate.extract.config import ExtractConfig
from headstart.curate.extract.document import PageDropped

FEW_TAGS = 1_000
"""Up to so many tags nothing can go wrong: the worst page of that size takes .15 s and 110 MB."""
MANY_TAGS = 10_000
"""From so many tags on each one is looked at (.4 microseconds a tag)."""
MAX_OPEN = 300
"""Formatting elements with attributes that may be open at one place. (Without attributes no more than three are opened anew.)"""
MAX_ATTRIBUTES = 3_000
LONG_TAG = re.compile(r"<[a-zA-Z][^<>]{12000}[^<>]*")
ATTRIBUTE = re.compile(r"""\s[^\s="']+(?:=(?:"[^"]*"|'[^']*'|[^\s>]*))?""")
TAG = re.compile(r"<(/?)([a-z][a-z0-9-]*)(\s*>)?")
RAW = re.compile(
    r"<(script|style|textarea|title|xmp|iframe|noembed|noframes)\b.*?(?:</\1|\Z)|<!--.*?(?:-->|\Z)|<!\[cdata\[.*?(?:\]\]>|\Z)", re.DOTALL
)
FORMATTING = frozenset(("b", "big", "code", "em", "font", "i", "s", "small", "strike", "strong", "tt", "u"))
"""Not `a` and `nobr`: a second one closes the first."""
OPENED = re.compile(r"<(?:b|big|code|em|font|i|s|small|strike|strong|tt|u)\s")
_NOT_NESTED = """
a h1 h2 h3 h4 h5 h6 select nobr button
area base br col embed hr img input link meta param source track wbr html head body p li dt dd option optgroup tr td th tbody thead tfoot
colgroup caption rt rp frame keygen mspace mprescripts none path rect circle line use
"""
NOT_NESTED = frozenset(_NOT_NESTED.split())
"""Elements without an end tag, or whose end tag is commonly left out and closed by the next."""


def check(html: str, lower: str, config: ExtractConfig) -> None:
    """Refuse a page that the parser must not see.

    Args:
        html: the page; lower: the same in lower case.

    Raises:
        PageDropped: "too large", "too many links" or "too deep".
    """
    if len(html) > config.max_bytes:
        raise PageDropped("too large", f"The page has {len(html):,} characters, more than {config.max_bytes:,}.")
    tags = lower.count("<")
    if tags > FEW_TAGS:
        if config.max_links is not None and lower.count("<a ") + lower.count("<a\n") > config.max_links:
            raise PageDropped("too many links", f"The page has more than {config.max_links:,} links.")
        if tags > MANY_TAGS or len(OPENED.findall(lower)) > MAX_OPEN:
            _check_depth(RAW.sub(" ", lower), config.max_depth)
    if len(html) > MAX_ATTRIBUTES * 4:
        for tag in LONG_TAG.findall(html):
            if tag.count(" ") + tag.count("=") > MAX_ATTRIBUTES and len(ATTRIBUTE.findall(tag)) > MAX_ATTRIBUTES:
                raise PageDropped("too deep", f"A tag of the page has more than {MAX_ATTRIBUTES:,} attributes.")


def _check_depth(lower: str, max_depth: int) -> None:
    """Follow the tags as a parser does: an end tag closes what is open inside its element; one without an element is passed over."""
    path: list[str] = []
    open_now: dict[str, int] = {}
    formatting = 0  # opened and not closed by an end tag of their own: each paragraph opens them anew
    for closing, name, bare in TAG.findall(lower):
        if name in NOT_NESTED:
            continue
        if not closing:
            path.append(name)
            open_now[name] = open_now.get(name, 0) + 1
            formatting += not bare and name in FORMATTING
            if len(path) > max_depth:
                raise PageDropped("too deep", f"The page has more than {max_depth:,} elements open at one place.")
            if formatting > MAX_OPEN:
                raise PageDropped("too deep", f"The page has more than {MAX_OPEN:,} formatting elements open at one place.")
        elif open_now.get(name):
            formatting -= formatting > 0 and name in FORMATTING
            while (inner := path.pop()) != name:
                open_now[inner] -= 1
            open_now[name] -= 1
