"""Image addresses of documents (webmath A8): which stay, and how documents look without the others."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import SplitResult, urlsplit

import pyarrow as pa

from headstart.curate.config import ImagesConfig
from headstart.curate.tables import Stage, drop, with_column, with_items

_KEYWORD = re.compile(r"logo|banner|avatar|icon", re.IGNORECASE)
_ADVERTISERS = """
2mdn.net adform.net adnxs.com adsafeprotected.com adservice.google.com adsrvr.org amazon-adsystem.com bat.bing.com casalemedia.com chartbeat.net
clicky.com criteo.com criteo.net doubleclick.net exelator.com flashtalking.com google-analytics.com googleadservices.com googlesyndication.com
googletagmanager.com histats.com hotjar.com imrworldwide.com mathtag.com mc.yandex.ru media.net mixpanel.com moatads.com openx.net outbrain.com
outbrainimg.com pixel.quantserve.com pixel.wp.com pubmatic.com quantserve.com rubiconproject.com scorecardresearch.com sitemeter.com statcounter.com
stats.wp.com taboola.com yieldmo.com zedo.com
"""
ADVERTISERS = frozenset(_ADVERTISERS.split())
"""Hosts, with all below them, whose images are advertisements or count visits."""
_AD_FOLDERS = frozenset(("ads", "adserver", "adservice", "advertisements", "adverts", "banners", "sponsored", "sponsors"))
"""Folders of advertisements. File names say less: advertising.png may be a plot of the sales that advertising brings."""
_BLANK = re.compile(r"(?:spacer|blank|transparent|(?:tracking[-_]?)?pixel|1x1)(?:\.\w+)?", re.IGNORECASE)
"""Names of images that show nothing."""
_IN_PATH = (
    re.compile(r"^(\d{2,5})x(\d{2,5})$"),  # a folder /24x24/; a file sudoku-16x16.png says what it shows
    re.compile(r"^(\d{1,5})px-"),  # the thumbnails of MediaWiki
    re.compile(r"(?:^|,)w_(\d{1,5})(?:,|$)(?:.*?h_(\d{1,5})(?:,|$))?"),  # Cloudinary
    re.compile(r"=[swh](\d{1,5})(?:-[swh](\d{1,5}))?(?:-\w+)*$"),  # Google
)
_IN_QUERY = re.compile(
    r"(?:^|&)(?:(?:w|h|width|height)=(\d{2,5})(?:px)?|(?:s|sz|size)=(?:(\d{2,5})px|(\d{2,5})x(\d{2,5})))(?=&|$)", re.IGNORECASE
)
"""A size alone, and a number of one digit, may be of fonts: latex.php?latex=x&s=2."""


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
    try:
        parts = urlsplit(url)
        host = (parts.hostname or "").lower()
    except ValueError:
        return "not an address"
    *folders, file = parts.path.split("/")
    name = "/".join([*folders[-1:], file])
    if _KEYWORD.search(url if config.keywords == "paper" else name):
        return "keyword in its name"
    if config.ads and (_of_advertiser(host) or _AD_FOLDERS & {folder.lower() for folder in folders} or _BLANK.fullmatch(file)):
        return "advertisement or counter"
    if config.min_side and (sides := stated_sides(parts)) and max(sides) < config.min_side:
        return "small by its address"
    return None


def _of_advertiser(host: str) -> bool:
    labels = host.split(".")
    return any(".".join(labels[start:]) in ADVERTISERS for start in range(len(labels) - 1))


def stated_sides(parts: SplitResult) -> list[int]:
    """The pixels of an image's sides as its address states them: one, both or none."""
    asked = [found for match in _IN_QUERY.finditer(parts.query) for found in match.groups() if found]
    if asked:
        return [int(side) for side in asked]
    for part in reversed(parts.path.split("/")[-3:]):
        for pattern in _IN_PATH:
            if match := pattern.search(part):
                return [int(side) for side in match.groups() if side]
    return []


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
