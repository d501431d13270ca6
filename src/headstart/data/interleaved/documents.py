"""What a record says: a document as pieces, texts and images in their order. Pure functions of one record; whoever reads names file and number.

    {"URL": .., "text_list": ["..", null], "image_list": [null, "https://.."], "metadata": ".."}      InfiMM-WebMath, as released
    {"texts": ["..", null], "images": [null, "https://.."], "metadata": .., "general_metadata": ..}   OBELICS
    {"image": "a.png", "caption": ".."}                                                               a pair, for alignment
    {"images": ["a.png"], "question": "what is <image> ?", "answer": ".."}                            an instruction
    {"image": "a.png", "conversations": [{"from": "human", "value": "<image>\\n.."}, {"from": "gpt", "value": ".."}]}     one of several turns (LLaVA)
    {"text": ".."}                                                                                    a text alone

Where a path or address stands, Parquet may hold the image itself: its bytes, or {"bytes": .., "path": ..} as Hugging Face's datasets write it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from headstart.data.text.read import why_no_text

LISTS = (("text_list", "image_list"), ("texts", "images"))
"""The fields of the interleaved forms."""
MARKER = "<image>"
"""Where an image stands in a question or turn."""
ASKING, ANSWERING = ("human", "user", "system"), ("gpt", "assistant", "model")
THIN = "`headstart curate galleries FILES --out FOLDER` takes out those beyond the texts."
KNOWN = "text_list with image_list; texts with images; image with caption; question with answer; conversations; text"


class Refused(Exception):
    """A record that is no document: what is wrong, and how to mend it."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(what)
        self.what, self.mend = what, mend


@dataclass(frozen=True)
class Text:
    """A text; `answer`: what an instruction model has to say."""

    text: str
    answer: bool = False


@dataclass(frozen=True)
class Image:
    """An image of a document.

    Attributes:
        name: its path or address, as the document says it; of one that the document holds itself, the hash of its bytes.
        data: these bytes.
    """

    name: str
    data: bytes | None = field(default=None, repr=False)


Piece: TypeAlias = Text | Image


def pieces_of(record: Any) -> list[Piece]:
    """The pieces of a record of any known form.

    Raises:
        Refused: it has none, or is damaged.
    """
    if not isinstance(record, dict):
        raise Refused(f"is a JSON {type(record).__name__}, not an object.", f"Write one object a line. Known forms: {KNOWN}.")
    for text_field, image_field in LISTS:
        if text_field in record:
            return interleaved(record[text_field], record.get(image_field), text_field, image_field)
    if "conversations" in record:
        return conversation(record["conversations"], _images(record))
    if "question" in record:
        turns = [{"from": "human", "value": record["question"]}, {"from": "gpt", "value": record.get("answer")}]
        return conversation(turns, _images(record))
    if images := _images(record):
        caption = next((record[name] for name in ("caption", "captions", "text") if name in record), None)
        caption = caption[0] if isinstance(caption, list) and caption else caption
        return [*images, Text(_text(caption, "caption"))]
    if "text" in record:
        return [Text(_text(record["text"], "text"))]
    there = ", ".join(repr(name) for name in list(record)[:8]) or "none"
    raise Refused(f"is of no known form (its fields: {there}).", f"Known forms: {KNOWN}.")


def interleaved(texts: Any, images: Any, text_field: str = "text_list", image_field: str = "image_list") -> list[Piece]:
    """Two lists of equal length, of which at each place exactly one has an entry.

    Raises:
        Refused: they are not, or have more images than texts.
    """
    if not isinstance(texts, Sequence) or not isinstance(images, Sequence) or isinstance(texts, str) or isinstance(images, str):
        raise Refused(f"{text_field} or {image_field} is no list.", "Write two lists, with null where the other has an entry.")
    if len(texts) != len(images):
        raise Refused(f"{text_field} has {len(texts):,} entries, {image_field} {len(images):,}.", "Write null where the other list has an entry.")
    pieces: list[Piece] = []
    for place, (text, image) in enumerate(zip(texts, map(_held, images), strict=True)):
        if (text is None) == (image is None):
            both = "neither text nor image" if text is None else "both a text and an image"
            raise Refused(f"has {both} at place {place} of {text_field} and {image_field}.", "Write exactly one of them, null in the other list.")
        pieces.append(_image(image) if text is None else Text(_text(text, text_field)))
    count = sum(isinstance(piece, Image) for piece in pieces)
    if count > len(pieces) - count:
        raise Refused(f"has {count:,} images for {len(pieces) - count:,} texts.", f"Leave out galleries: they teach no language. {THIN}")
    return pieces


def conversation(turns: Any, images: Sequence[Image]) -> list[Piece]:
    """Questions and answers, the images where their markers are, or first if there is no marker. Each turn is a line.

    Raises:
        Refused: a turn is neither, or there are as many markers as images.
    """
    if not isinstance(turns, list) or not turns:
        raise Refused("has no turns.", 'Write them as [{"from": "human", "value": ".."}, {"from": "gpt", "value": ".."}].')
    said: list[tuple[str, bool]] = []
    for turn in turns:
        who = (turn.get("from") or turn.get("role")) if isinstance(turn, dict) else None
        if who not in ASKING + ANSWERING:
            raise Refused(f"has a turn of {who!r}.", f"Turns are of {', '.join(ASKING + ANSWERING)}.")
        said.append((_text(turn.get("value", turn.get("content")), "a turn"), who in ANSWERING))
    markers = sum(text.count(MARKER) for text, _ in said)
    if markers not in (0, len(images)):
        raise Refused(f"has {markers} markers {MARKER} for {len(images)} images.", "Write one marker for each image, or none.")
    waiting = list(images)
    pieces: list[Piece] = [] if markers else [*waiting]
    for number, (text, answer) in enumerate(said):
        parts = (text if number == len(said) - 1 else f"{text}\n").split(MARKER)
        for place, part in enumerate(parts):
            if place:
                pieces.append(waiting.pop(0))
            if part:
                pieces.append(Text(part, answer))
    return pieces


def _images(record: dict[str, Any]) -> list[Image]:
    found = _held(record.get("images", record.get("image")))
    if found is None:
        return []
    return [_image(entry) for entry in (found if isinstance(found, list) else [found])]


def _held(value: Any) -> Any:
    """The bytes, or else the path, of an image as Hugging Face's datasets write it; None where it has neither. Other values as they are."""
    if not isinstance(value, dict) or not value.keys() <= {"bytes", "path"}:
        return value
    return value.get("path") if value.get("bytes") is None else value["bytes"]


def _image(value: Any) -> Image:
    value = _held(value)
    if isinstance(value, bytes) and value:
        return Image(f"sha256:{hashlib.sha256(value).hexdigest()}", value)
    return Image(_name(value))


def _name(value: Any) -> str:
    if not isinstance(value, str) or not value.strip() or why_no_text(value):
        raise Refused(f"names an image {str(value)[:60]!r}.", "Write the path or address of a file.")
    return value.strip()


def _text(value: Any, field: str) -> str:
    if not isinstance(value, str):
        raise Refused(f"{field} is {str(value)[:40]!r}, not a text.", "Write a string.")
    if reason := why_no_text(value):
        raise Refused(f"{reason}.", "Remove it; the file may be binary or of another encoding.")
    return value
