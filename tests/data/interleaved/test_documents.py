"""Every form of a record, and every way in which one is no document."""

from __future__ import annotations

from typing import Any

import pytest

from headstart.data.interleaved.documents import Image, Refused, Text, pieces_of


def plain(record: Any) -> list[Any]:
    """Texts as they are, answers as ("answer", text), images as ["name"]."""
    return [[p.name] if isinstance(p, Image) else ("answer", p.text) if p.answer else p.text for p in pieces_of(record)]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"URL": "u", "text_list": ["a", None, "b"], "image_list": [None, "x.png", None], "metadata": "{}"}, ["a", ["x.png"], "b"]),
        ({"texts": [None, "b"], "images": ["x.png", None], "metadata": "[]", "general_metadata": "{}"}, [["x.png"], "b"]),
        ({"image": "x.png", "caption": "a cat"}, [["x.png"], "a cat"]),
        ({"image": "x.png", "captions": ["a cat", "an animal"]}, [["x.png"], "a cat"]),
        ({"images": ["x.png", "y.png"], "question": "is <image> more than <image> ?", "answer": "yes"},
         ["is ", ["x.png"], " more than ", ["y.png"], " ?\n", ("answer", "yes")]),
        ({"image": "x.png", "question": "what is it ?", "answer": "a cat"}, [["x.png"], "what is it ?\n", ("answer", "a cat")]),
        ({"image": "x.png", "conversations": [{"from": "human", "value": "<image>\nwhat ?"}, {"from": "gpt", "value": "a cat"}]},
         [["x.png"], "\nwhat ?\n", ("answer", "a cat")]),
        ({"conversations": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "hi"}, {"role": "user", "content": "?"}]},
         ["hello\n", ("answer", "hi\n"), "?"]),
        ({"text": "alone"}, ["alone"]),
    ],
)  # fmt: skip
def test_every_form_gives_its_pieces_in_order(record: Any, expected: list[Any]) -> None:
    assert plain(record) == expected


@pytest.mark.parametrize(
    ("record", "what"),
    [
        (["a"], "is a JSON list"),
        ({"body": "x"}, "of no known form (its fields: 'body')"),
        ({"text_list": ["a", "b"], "image_list": [None]}, "text_list has 2 entries, image_list 1"),
        ({"text_list": ["a", None], "image_list": [None, None]}, "neither text nor image at place 1"),
        ({"text_list": ["a"], "image_list": ["x.png"]}, "both a text and an image at place 0"),
        ({"text_list": ["a", None, None], "image_list": [None, "x.png", "y.png"]}, "has 2 images for 1 texts"),
        ({"text_list": "a"}, "is no list"),
        ({"text_list": [7], "image_list": [None]}, "text_list is '7', not a text"),
        ({"text_list": ["a\0"], "image_list": [None]}, "NUL byte"),
        ({"image": "x.png", "caption": None}, "caption is 'None', not a text"),
        ({"image": 7, "caption": "a"}, "names an image '7'"),
        ({"images": ["x.png"], "question": "<image> <image>", "answer": "a"}, "has 2 markers <image> for 1 images"),
        ({"conversations": [{"from": "robot", "value": "a"}]}, "a turn of 'robot'"),
        ({"conversations": []}, "has no turns"),
    ],
)
def test_what_is_no_document_is_refused_with_the_reason(record: Any, what: str) -> None:
    with pytest.raises(Refused) as caught:
        pieces_of(record)
    assert what in caught.value.what
    assert caught.value.mend


def test_the_pieces_joined_give_back_the_lists() -> None:
    """Check 3, reader side: at each place exactly one list has an entry, and nothing is lost or moved."""
    texts = ["one", None, "two", None, "three"]
    images = [None, "a.png", None, "b.png", None]
    pieces = pieces_of({"text_list": texts, "image_list": images})
    assert [piece.text if isinstance(piece, Text) else None for piece in pieces] == texts
    assert [piece.name if isinstance(piece, Image) else None for piece in pieces] == images
