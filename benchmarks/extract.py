"""HTML to text that keeps its formulas: ours beside trafilatura's and resiliparse's plain text, on the shared web pages.

Two questions, one run. What is kept: recall and precision of the formulas of 15 hand-checked pages by the markup they are written in (a formula
counts when its TeX stands in the text, in order, between delimiters; the same count for all), and whether images stand in order. What it costs: CPU
seconds of one process over all 127 pages, the extractors in turns; pages a second at 40 kB are bytes a second over 40,000.

python -m benchmarks.extract [--repeats 5] [--out benchmarks/results/extract.json]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lxml.html
import pyarrow as pa
import resiliparse.extract.html2text
import resiliparse.parse.html
import trafilatura
from selectolax.lexbor import LexborHTMLParser

from benchmarks.parts import in_turns, median_ratio
from benchmarks.result import write_result
from headstart.claims._data import data_folder
from headstart.curate.extract import ExtractConfig, PageDropped, extract
from headstart.curate.extract.score import in_order, written
from headstart.curate.extract.tex import normalise

Page = Mapping[str, Any]
PAGE = 40_000
"""Bytes of a page of the web, by which rates are stated."""


def read(path: Path) -> list[Page]:
    data = pa.input_stream(str(path), compression="zstd" if path.suffix == ".zst" else None).read()
    return [json.loads(line) for line in data.decode().splitlines()]


def ours(page: Page, config: ExtractConfig = ExtractConfig()) -> str:  # noqa: B008  # frozen
    try:
        return extract(page["html"], page["url"], config).text()
    except PageDropped:
        return ""


def of_trafilatura(page: Page) -> str:
    return trafilatura.extract(page["html"], url=page["url"], include_comments=False, include_tables=True) or ""


def of_resiliparse(page: Page) -> str:
    return str(resiliparse.extract.html2text.extract_plain_text(page["html"], main_content=True))


EXTRACTORS: dict[str, Callable[[Page], str]] = {
    "headstart": ours,
    "headstart, plain text": lambda page: ours(page, ExtractConfig(math=False)),
    "trafilatura": of_trafilatura,
    "resiliparse": of_resiliparse,
}


def kept(texts: Mapping[str, str], expected: list[Page]) -> dict[str, float]:
    """Recall and precision of formulas, by markup and of all.

    Args:
        texts: the extracted text of each page, by id.
    """
    counts: dict[str, list[int]] = {}  # right, expected, found
    for row in expected:
        if "formulas" not in row:
            continue
        wanted = [normalise(formula["tex"]) for formula in row["formulas"]]
        found = [tex for tex, _ in written(texts[row["id"]])]
        right = in_order(wanted, found)
        for group in (row["markup"], "all"):
            counts[group] = [old + new for old, new in zip(counts.get(group, [0, 0, 0]), (right, len(wanted), len(found)), strict=True)]
    figures: dict[str, float] = {}
    for group, (right, wanted_in_all, found_in_all) in counts.items():
        figures[f"recall, {group}"] = round(right / wanted_in_all, 4)
        figures[f"precision, {group}"] = round(right / max(1, found_in_all), 4)
        figures[f"formulas of {wanted_in_all}, {group}"] = right
    return figures


def images_in_order(pages: Mapping[str, Page], expected: list[Page]) -> float:
    """Share of the pages with hand-checked images whose images all stand in order, and no other (the two plain texts have none)."""
    rows = [row for row in expected if any(image["kept"] for image in row.get("images", []))]
    right = 0
    for row in rows:
        document = extract(pages[row["id"]]["html"], pages[row["id"]]["url"])
        right += [image.url for image in document.images] == [image["src"] for image in row["images"] if image["kept"]]
    return round(right / len(rows), 4)


def seconds(extractor: Callable[[Page], str], pages: list[Page]) -> float:
    start = time.process_time()
    for page in pages:
        extractor(page)
    return time.process_time() - start


def parse_by_lxml(html: str) -> Any:
    return lxml.html.document_fromstring(html.encode())  # a text with an XML declaration is refused


def parse_lxml(html: str) -> int:
    return sum(bool(element.get("class") or element.text or element.tail) for element in parse_by_lxml(html).iter("*"))


def parse_selectolax(html: str) -> int:
    root = LexborHTMLParser(html).root
    assert root is not None
    return sum(bool(node.text_content if node.tag == "-text" else node.attributes) for node in root.traverse(include_text=True))


def parse_resiliparse(html: str) -> int:
    kinds = resiliparse.parse.html.NodeType
    tree = resiliparse.parse.html.HTMLTree.parse(html)  # its nodes do not keep it alive
    found = 0
    for node in tree.document:
        kind = node.type
        if kind == kinds.ELEMENT:
            found += bool(node.getattr("class"))
        elif kind == kinds.TEXT:  # to ask a doctype for its text ends the process
            found += bool(node.text)
    return found


PARSERS: dict[str, tuple[Callable[[str], object], Callable[[str], int]]] = {
    "lxml": (parse_by_lxml, parse_lxml),
    "selectolax": (LexborHTMLParser, parse_selectolax),
    "resiliparse": (resiliparse.parse.html.HTMLTree.parse, parse_resiliparse),
}
"""Each parser alone, and with a walk over the whole tree that looks at every text and attribute (decision 0024)."""


def parsers(pages: list[Page], repeats: int) -> dict[str, float]:
    """Milliseconds a page of each parser, and of parser and walk."""
    ways = {
        f"{name}, {what}": lambda work=work: seconds(lambda page: str(work(page["html"])), pages)  # type: ignore[misc]
        for name, works in PARSERS.items()
        for what, work in zip(("parse", "parse and walk"), works, strict=True)
    }
    return {name: round(1000 * min(taken) / len(pages), 3) for name, taken in in_turns(ways, repeats).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/extract.json"))
    args = parser.parse_args()
    folder = data_folder("webmath")
    pages, expected = read(folder / "pages.jsonl.zst"), read(folder / "expected.jsonl")
    by_id = {page["id"]: page for page in pages}
    size = sum(len(page["html"].encode()) for page in pages)

    figures: dict[str, dict[str, float]] = {}
    for name, extractor in EXTRACTORS.items():
        figures[name] = kept({row["id"]: extractor(by_id[row["id"]]) for row in expected}, expected)
    figures["headstart"]["pages with images in order"] = images_in_order(by_id, expected)
    times = in_turns({name: lambda extractor=extractor: seconds(extractor, pages) for name, extractor in EXTRACTORS.items()}, args.repeats)  # type: ignore[misc]
    for name, taken in times.items():
        best = min(taken)
        figures[name] |= {
            "pages/s": round(len(pages) / best, 1),
            "MB/s": round(size / best / 1e6, 2),
            "pages/s at 40 kB": round(size / best / PAGE, 1),
        }
    for name, values in figures.items():
        for what, value in values.items():
            print(f"{name}: {what}: {value:g}")
    write_result(
        args.out,
        name="extract",
        what="pages a second of one core from HTML to text, beside trafilatura; recall and precision of formulas by markup, beside resiliparse too",
        ours={f"{name}: {what}": value for name in ("headstart", "headstart, plain text") for what, value in figures[name].items()},
        peer={f"{name}: {what}": value for name in ("trafilatura", "resiliparse") for what, value in figures[name].items()},
        ratio=median_ratio(times["trafilatura"], times["headstart"]),
        must=1.0,
        command=f"python -m benchmarks.extract --repeats {args.repeats}",
        parsers_ms_a_page=parsers(pages, args.repeats),
        peers={name: version(name) for name in ("trafilatura", "resiliparse", "selectolax", "lxml")},
    )


if __name__ == "__main__":
    main()
