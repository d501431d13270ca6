"""The settings of the extraction."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ExtractConfig:
    """How a page becomes a document, and the limits it has to keep."""

    math: bool = True
    """Find formulas and write them as LaTeX between dollars. False: plain text; nothing is taken for a formula and no dollar is escaped."""
    images: bool = True
    """Keep images in place. False: their URLs are left out and not counted as dropped."""
    min_side: int = 0
    """Images whose width and height, as the page states them, are both below so many pixels are left out ("small"); one pixel is a tracker always."""
    boilerplate: bool = True
    """Leave out navigation, footers, share buttons and lines such as "all rights reserved" (lists in boilerplate.toml)."""
    max_bytes: int = 16 * 2**20
    """Bytes (characters, for a page given as text) of a page beyond which it is dropped. Common Crawl itself cuts at 1 MiB, since 2025 at 5 MiB."""
    max_links: int | None = 3000
    """Links of a page beyond which it is dropped as a directory. None: any number."""
    max_depth: int = 2000
    """Elements open at one place beyond which a page is dropped: parsing takes time quadratic in them."""
    max_formula: int = 5000
    """Characters of TeX beyond which something between delimiters is not taken for a formula and stays as text."""
    seconds: float = 10.0
    """Time that one page may take."""
