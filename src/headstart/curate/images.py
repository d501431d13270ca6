"""Image addresses of documents (webmath A8): which stay, and how documents look without the others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa

from headstart.curate.config import ImagesConfig
from headstart.curate.tables import Stage, drop, with_column, with_items

_KEYWORD = re.compile(r"logo|banner|avatar|icon", re.IGNORECASE)


def frequent_images(documents: Any, more_than: int) -> pa.Table:
    """Addresses in more than so many documents, a column `url`, sorted.

    Args:
        documents: a Daft dataframe with `order` and `image_list`.
    """
    from daft import col, lit

    one_each = documents.select("order", col("image_list").list_distinct().alias("url")).explode("url").where(col("url").not_null())
    counted = one_each.groupby("url").agg(col("order").count().alias("documents"))
    counted = counted.where(col("documents") > lit(more_than))
    return counted.select("url").to_arrow().sort_by("url")


def address_reason(url: str, config: ImagesConfig) -> str | None:
    """Why an image address is dropped by itself; None: it is not."""
    if config.https and not url.lower().startswith("https://"):
        return "not https"
    where = url
    if config.keywords == "name":
        try:
            where = "/".join(urlsplit(url).path.split("/")[-2:])
        except ValueError:
            return "not an address"
    return "keyword in its name" if _KEYWORD.search(where) else None


def without_images(
    texts: Sequence[str | None], images: Sequence[str | None], keep: Callable[[str], bool]
) -> tuple[list[str | None], list[str | None]]:
    """The lists without the images that are not kept; texts that then stand side by side become one."""
    kept_texts: list[str | None] = []
    kept_images: list[str | None] = []
    for text, image in zip(texts, images, strict=True):
        if image is not None:
            if keep(image):
                kept_texts.append(None)
                kept_images.append(image)
        elif kept_texts and kept_texts[-1] is not None:
            kept_texts[-1] += "\n\n" + (text or "")
        else:
            kept_texts.append(text)
            kept_images.append(None)
    return kept_texts, kept_images


def image_filter(config: ImagesConfig, frequent: frozenset[str], arrived: frozenset[str] | None = None) -> Stage:
    """The stage: takes image addresses out of the documents. Drops a document only if nothing is left of it.

    Args:
        frequent: addresses in too many documents (`frequent_images`).
        arrived: addresses whose image was fetched; None: nothing was fetched, all stay.
    """

    def stage(table: pa.Table) -> pa.Table:
        items: Counter[str] = Counter()
        lists, reasons = [], []
        for texts, images in zip(table["text_list"].to_pylist(), table["image_list"].to_pylist(), strict=True):
            many = sum(image is not None for image in images) > config.max_images

            def keep(url: str, many: bool = many) -> bool:
                reason = "of a document with too many" if many else "in too many documents" if url in frequent else address_reason(url, config)
                if reason is None and arrived is not None and url not in arrived:
                    reason = "not fetched"
                if reason is not None:
                    items[f"image: {reason}"] += 1
                return reason is None

            lists.append(without_images(texts, images, keep))
            reasons.append(None if any(text and text.strip() for text in lists[-1][0]) or any(lists[-1][1]) else "nothing but dropped images")
        kind = pa.list_(pa.string())
        table = with_column(table, "text_list", [texts for texts, _ in lists], kind)
        table = with_column(table, "image_list", [images for _, images in lists], kind)
        table = with_column(table, "images", [sum(image is not None for image in images) for _, images in lists], pa.int32())
        return with_items(drop(table, reasons), items)

    return stage


def thin_galleries(table: pa.Table) -> pa.Table:
    """The stage: leaves a document no more images than texts, which training asks for. Drops a document only if it has no text.

    Of images one after another the later ones leave, the last of the document first; a document that begins and ends with an image may lose its last.
    """
    items: Counter[str] = Counter()
    lists, reasons = [], []
    for texts, images in zip(table["text_list"].to_pylist(), table["image_list"].to_pylist(), strict=True):
        over = sum(image is not None for image in images) - sum(text is not None for text in texts)
        if over > 0:
            items["image: more images than texts"] += over
            behind = [place for place in range(1, len(images)) if images[place] is not None and images[place - 1] is not None]
            gone = set(behind[-over:])
            if len(gone) < over:
                gone.add(next(place for place in reversed(range(len(images))) if images[place] is not None and place not in gone))
            texts, images = ([entry for place, entry in enumerate(entries) if place not in gone] for entries in (texts, images))
        lists.append((texts, images))
        reasons.append(None if any(text is not None for text in texts) else "images without a text")
    kind = pa.list_(pa.string())
    table = with_column(table, "text_list", [texts for texts, _ in lists], kind)
    table = with_column(table, "image_list", [images for _, images in lists], kind)
    table = with_column(table, "images", [sum(image is not None for image in images) for _, images in lists], pa.int32())
    return with_items(drop(table, reasons), items)


def wanted_images(documents: Any, config: ImagesConfig, frequent: frozenset[str]) -> list[str]:
    """Addresses that the rules leave, each once, sorted: those to fetch.

    Args:
        documents: a Daft dataframe with `image_list` and `images`.
    """
    from daft import col, lit

    some = documents.where(col("images") <= lit(config.max_images)).select(col("image_list").alias("url")).explode("url")
    urls = some.where(col("url").not_null()).distinct().to_pydict()["url"]
    return sorted(url for url in urls if url not in frequent and address_reason(url, config) is None)
