"""What an extraction gives: texts and images in page order, the formulas among the texts, and what was left out with the reason."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from headstart.core.errors import BadInput

REASONS = ("empty", "not html", "charset", "too large", "too many links", "too deep", "time limit", "memory", "crash")
"""Why a page can be dropped as a whole. The last two only from `TimedExtractor`."""

IMAGE_MARK = "[Image_Link]"
"""Stands on both sides of an image's URL in the marked text, as in the paper's figure of an extracted document."""


class PageDropped(BadInput):
    """A page of which no document can be made.

    Attributes:
        reason: one of `REASONS`, to count by.
    """

    def __init__(self, reason: str, what: str) -> None:
        super().__init__(what)
        self.reason = reason

    def __reduce__(self) -> tuple[type[PageDropped], tuple[str, str]]:
        return type(self), (self.reason, self.what)


@dataclass(slots=True)
class Formula:
    """A formula and its place: `text_list[entry][start:end]` is `$tex$`, or `$$tex$$` when it is displayed.

    `source` is the markup it was found in: mathml, mathml-converted, mediawiki, script, asciimath, katex, mathjax, image, element, raw, environment.
    """

    tex: str
    display: bool
    source: str
    entry: int = -1
    start: int = -1
    end: int = -1


@dataclass(slots=True)
class Image:
    """An image: `image_list[entry]` is `url` (absolute, http or https); `raw` is what the page says."""

    url: str
    raw: str
    alt: str
    entry: int = -1


@dataclass(slots=True)
class Dropped:
    """Something that was left out or not taken for what it looked like. A formula that is refused stays as text; an image or a line is gone.

    `value` is cut to 200 characters.
    """

    what: Literal["image", "formula", "line"]
    reason: str
    value: str


@dataclass(slots=True)
class Document:
    """An interleaved document.

    Attributes:
        url: of the page, as given.
        title: of the page; "" when it has none.
        charset: the encoding that the bytes were read in; "str" when text was given.
        language: what the page says of itself (`<html lang>`), in lower case; "" when it says nothing.
        text_list, image_list: equal length, page order; at each index exactly one of the two is not None. Two texts never stand side by side.
        formulas, images: in page order, each with its place.
        dropped: what was left out, in page order.
        counts: plain numbers for tables: formulas, display, images, links, characters, and dropped things by reason ("image: data URL").
    """

    url: str
    title: str
    charset: str
    language: str
    text_list: list[str | None] = field(default_factory=list)
    image_list: list[str | None] = field(default_factory=list)
    formulas: list[Formula] = field(default_factory=list)
    images: list[Image] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def marked(self) -> str:
        """The document as one text, `[Image_Link]url[Image_Link]` where images stand."""
        pairs = zip(self.text_list, self.image_list, strict=True)
        return "\n".join(text if text is not None else f"{IMAGE_MARK}{image}{IMAGE_MARK}" for text, image in pairs)

    def text(self, formulas: bool = True) -> str:
        """The texts without the images; `formulas=False` deletes the formulas as well, with their dollars."""
        texts = [text or "" for text in self.text_list]
        if not formulas:
            for formula in reversed(self.formulas):
                text = texts[formula.entry]
                texts[formula.entry] = text[: formula.start] + text[formula.end :]
        return "\n".join(text for text, image in zip(texts, self.image_list, strict=True) if image is None)

    def record(self) -> dict[str, Any]:
        """The released layout (InfiMM-WebMath): URL, text_list, image_list, and an empty `metadata` for the pipeline to fill."""
        return {"URL": self.url, "text_list": self.text_list, "image_list": self.image_list, "metadata": {}}
