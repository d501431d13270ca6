"""HTML to a document of interleaved text and images that keeps its LaTeX (InfiMM-WebMath, arXiv 2409.12568, stage 2; specification A0, A2, A8).

    page.py        `extract`: the steps in order
    decode.py      bytes to characters
    limits.py      what must not reach the parser
    walk.py        the one walk over the tree
    elements.py    what tags, classes and attributes mean; boilerplate.toml holds the lists
    nodes.py       questions about a node
    formulas.py    formulas that are elements: MathML, MediaWiki, scripts, KaTeX, MathJax
    delimiters.py  formulas between delimiters in running text
    images.py      addresses of images; formulas that are images
    mathml.py, asciimath.py, symbols.py   conversion to LaTeX
    tex.py         the one form of a formula, and what is none
    score.py       how many formulas an extraction kept
    lines.py       lines, boilerplate lines, empty sections, interleaving
    timed.py       the same in a process of its own, with limits that hold
    document.py    what comes out
"""

from __future__ import annotations

from headstart.curate.extract.config import ExtractConfig
from headstart.curate.extract.document import REASONS, Document, Dropped, Formula, Image, PageDropped
from headstart.curate.extract.page import extract
from headstart.curate.extract.timed import TimedExtractor

__all__ = ["REASONS", "Document", "Dropped", "ExtractConfig", "Formula", "Image", "PageDropped", "TimedExtractor", "extract"]
