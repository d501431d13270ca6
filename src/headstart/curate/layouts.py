"""The columns of the output (webmath A8): those of the released corpus, or those of OBELICS."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa

from headstart.core.errors import BadInput

_TEXTS = pa.list_(pa.string())
WEBMATH = pa.schema([("URL", pa.string()), ("text_list", _TEXTS), ("image_list", _TEXTS), ("metadata", pa.string())])
OBELICS = pa.schema([("texts", _TEXTS), ("images", _TEXTS), ("metadata", pa.string()), ("general_metadata", pa.string())])


def laid_out(documents: pa.Table, layout: str, fetched: dict[str, dict[str, Any]] | None = None) -> pa.Table:
    """Documents in the columns of `layout`, "webmath" or "obelics"; pages, after a stage of pages alone, stay as they are.

    Args:
        fetched: of an image's address: its sha256, width, height and file, where images were fetched. What an earlier curation knew of its images
            is kept (`image_facts`).

    Raises:
        BadInput: a document whose two lists do not interleave.
    """
    if "text_list" not in documents.column_names:
        return documents.drop_columns(["dropped"])
    rows = []
    for document in documents.to_pylist():
        texts, images = document["text_list"], document["image_list"]
        if len(texts) != len(images) or any((text is None) == (image is None) for text, image in zip(texts, images, strict=True)):
            raise BadInput(f"The texts and images of {document['url']} do not interleave.", "This is a bug of the stage before.")
        about = metadata(document)
        before = json.loads(document.get("image_facts") or "{}")
        facts = {image: (fetched or {}).get(image) or before.get(image, {}) for image in images if image is not None}
        if any(facts.values()):
            about["images"] = [{"url": image} | facts[image] for image in images if image is not None]
        if layout == "webmath":
            rows.append({"URL": document["url"], "text_list": texts, "image_list": images, "metadata": _json(about)})
        else:
            each = [None if image is None else {"src": image} | facts[image] for image in images]
            general = about | {"url": document["url"]}
            rows.append({"texts": texts, "images": images, "metadata": _json(each), "general_metadata": _json(general)})
    return pa.Table.from_pylist(rows, schema=WEBMATH if layout == "webmath" else OBELICS)


def metadata(document: dict[str, Any]) -> dict[str, Any]:
    """What is known of a document beside its texts: the released names (ft_lang_label, ft_lang_prob, math_prob, size), then ours."""
    text = sum(len(text) for text in document["text_list"] if text is not None)
    about = {
        "ft_lang_label": document.get("language"),
        "ft_lang_prob": document.get("language_probability"),
        "math_prob": document.get("math_prob"),
        "quality_prob": document.get("quality_prob"),
        "size": text,
        "html_size": document.get("html_bytes"),
        "words": document.get("words"),
        "formulas": document.get("formulas"),
        "snapshot": document.get("snapshot"),
        "id": document.get("id"),
    }
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in about.items() if value is not None}


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
