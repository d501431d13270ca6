"""The images of a page: which address is meant, and the formulas that are shown as images (A2, source 6)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import unquote, urljoin

from headstart.curate.extract.delimiters import delimiters, whole
from headstart.curate.extract.tex import TEX_SIGN

Attributes = Mapping[str, str | None]

ALT_CLASSES = {
    "latex": False,
    "tex": False,
    "latexcenter": True,
    "latexdisplay": True,
    "latexblock": True,
    "latexblockcenter": True,
    "math": False,
    "formulainl": False,
    "formuladsp": True,
    "mwe-math-fallback-image-inline": False,
    "mwe-math-fallback-image-display": True,
    "mwe-math-fallback-png-inline": False,
    "mwe-math-fallback-png-display": True,
}
"""Classes of images whose alternative text is TeX, and whether the formula is displayed."""
QUERY_SOURCES = ("codecogs.com", "mimetex.cgi", "mathtex.cgi")
ALT_SOURCES = ("latex.php", "/images/math/codecogs")
CODECOGS = re.compile(r"\\(?:dpi\{\d+\}|bg_\w+|fg_\w+|inline|huge|large|small|tiny)(?![A-Za-z])\s*")
LAZY = ("data-src", "data-original", "data-lazy-src", "data-lazy")
BLANKS = re.compile(r"[\t\r\n\f]")
DISPLAYMATH = re.compile(r"\\begin\{(displaymath|math)\}(.*)\\end\{\1\}", re.DOTALL)


def formula(attributes: Attributes, display: bool) -> tuple[str, bool] | None:
    """TeX and display flag of an image that shows a formula; None for any other image.

    Args:
        display: the image stands in a block for displayed formulas (`div.math`).
    """
    alt = (attributes.get("alt") or "").strip()
    classes = (attributes.get("class") or "").lower().split()
    for name in classes:
        shown = ALT_CLASSES.get(name)
        if shown is not None and alt:
            return _delimited(alt) or (alt, shown or display)
        if name == "x-ck12" and alt:
            return unquote(alt), display
    source = attributes.get("src") or ""
    if any(part in source for part in QUERY_SOURCES) and "?" in source:
        query = unquote(source.split("?", 1)[1]).replace("&space;", " ").replace("&plus;", "+")
        return CODECOGS.sub("", query.removeprefix("latex=").removeprefix("tex=")), display and "\\inline" not in query
    if alt and any(part in source for part in ALT_SOURCES):
        return alt, display
    if display and alt and (TEX_SIGN.search(alt) or "math" in source):
        return _delimited(alt) or (alt, True)
    if alt[:1] in ("$", "\\"):
        return _delimited(alt)
    return None


def _delimited(alt: str) -> tuple[str, bool] | None:
    found = whole(alt, delimiters())
    if found is not None:
        return found
    environment = DISPLAYMATH.fullmatch(alt)
    return None if environment is None else (environment[2], environment[1] == "displaymath")


def address(attributes: Attributes) -> str:
    """The raw address of an image: src, else what a script would load later, else the largest of srcset; "" when there is none.

    A placeholder (a data URL) does not hide the image that will be loaded in its place.
    """
    source = (attributes.get("src") or "").strip()
    if source and source[:5].lower() != "data:":
        return source
    for name in LAZY:
        later = (attributes.get(name) or "").strip()
        if later and later[:5].lower() != "data:":
            return later
    return _largest(attributes.get("srcset") or attributes.get("data-srcset") or "") or source


def _largest(srcset: str) -> str:
    best, size = "", -1.0
    for candidate in re.split(r",\s+", srcset.strip()):
        address, _, descriptor = candidate.strip().partition(" ")
        try:
            value = float(descriptor.strip()[:-1] or 1)
        except ValueError:
            value = 0.0
        if address and value > size and not address.startswith("data:"):
            best, size = address.rstrip(","), value
    return best


def resolve(raw: str, attributes: Attributes, base: str, min_side: int = 0) -> tuple[str, str | None]:
    """The absolute URL of an image and None, or "" and why it is dropped.

    Args:
        base: `<base href>` resolved, or the page's URL; "" when neither is known.
        min_side: images with both sides below so many pixels are "small".
    """
    raw = BLANKS.sub("", raw)
    scheme = raw[:11].lower()
    if not raw:
        return "", "empty"
    if scheme.startswith("data:"):
        return "", "data URL"
    if scheme.startswith("javascript:"):
        return "", "javascript URL"
    larger = max(_pixels(attributes.get("width")), _pixels(attributes.get("height")))
    if larger < max(min_side, 2):
        return "", "tracker" if larger < 2 else "small"
    try:
        url = urljoin(base, raw) if "[" in raw or not scheme.startswith(("http://", "https://")) else raw
    except ValueError:
        return "", "broken URL"
    if not url.lower().startswith(("http://", "https://")):
        return "", "no http URL"
    if len(url) > 4096 or len(url) <= len("https://"):
        return "", "broken URL"
    return url.replace(" ", "%20"), None


def _pixels(size: str | None) -> float:
    """A width or height as pages write it; endless where it is none of pixels (20%, auto), since nothing is known then."""
    number = (size or "").strip().removesuffix("px").strip()
    return int(number) if number.isascii() and number.isdigit() and len(number) < 9 else float("inf")
