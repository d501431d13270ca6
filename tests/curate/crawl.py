"""Small crawls made by hand: WARC records, whole and broken, and pages that teach mathematics or sell shoes."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence
from pathlib import Path

HTML = b"HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\r\n"
MATHS = [
    "theorem", "proof", "lemma", "equation", "integral", "matrix", "polynomial", "integer", "algebra", "function", "vector", "derivative",
    "prime", "divisor", "sum", "product", "limit", "series", "root", "field", "group", "ring", "module", "basis", "kernel", "image", "rank",
    "norm", "metric", "space", "open", "closed", "compact", "continuous", "bounded", "sequence", "converges",
]  # fmt: skip
SHOES = [
    "shoes", "leather", "boots", "price", "delivery", "cart", "size", "colour", "offer", "brand", "heel", "sole", "laces", "summer", "winter",
    "sale", "shop", "returns", "store", "gift", "card", "checkout", "stock", "new", "order", "trainers", "sandals", "comfort", "fit", "wide",
    "narrow", "style", "wear", "street", "running", "walking", "hiking",
]  # fmt: skip


def record(url: str, html: bytes | str = b"<p>hi</p>", *, http: bytes = HTML, kind: str = "response", length: object = None) -> bytes:
    """A WARC record; `length` False leaves the field out, anything else is written instead of the true one."""
    block = http + (html.encode() if isinstance(html, str) else html)
    fields = [b"WARC/1.0", f"WARC-Type: {kind}".encode(), f"WARC-Target-URI: {url}".encode(), b"WARC-Date: 2023-12-01T00:00:00Z"]
    if length is not False:
        fields.append(f"Content-Length: {len(block) if length is None else length}".encode())
    return b"\r\n".join(fields) + b"\r\n\r\n" + block + b"\r\n\r\n"


def zipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def page(seed: int, mathematics: bool, words: int = 120) -> str:
    """A page of random sentences; a mathematical one has formulas and an image."""
    random_ = random.Random(seed)
    filler = ["the", "of", "and", "to", "a", "in", "is", "that", "for", "it", "as", "with", "on", "by", "this", "are", "be", "from", "at", "which"]
    vocabulary = (MATHS if mathematics else SHOES) + filler
    sentences = []
    for _ in range(words // 12):
        sentence = " ".join(random_.choices(vocabulary, k=12)).capitalize()
        if mathematics:
            sentence += rf" where \(x_{{{random_.randrange(99)}}} + {random_.choice('abcdefg')}^2 = {random_.choice('uvwxyz')}\)"
        sentences.append(f"<p>{sentence}.</p>")
    head = '<script src="https://cdn.example.org/mathjax/MathJax.js"></script>' if mathematics else ""
    image = f'<img src="/figures/{seed}.png">' if mathematics else '<img src="http://shop.example.com/shoe.png">'
    main = f"<h1>Page {random_.choice(vocabulary)}</h1>{''.join(sentences)}{image}"
    return f"<html><head><title>{seed}</title>{head}</head><body><main>{main}</main></body></html>"


def crawl(folder: Path, files: int = 2, pages_each: int = 20, snapshots: Sequence[str] = ("CC-MAIN-2022-05", "CC-MAIN-2023-50")) -> list[Path]:
    """WARC files of a small crawl, half mathematics; the last page of each file stands in the next one too, a little longer."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number in range(files):
        records = [record("", kind="warcinfo", http=b"", html=b"software: test\r\n")]
        for place in range(pages_each):
            seed = 1000 * number + place
            records.append(record(f"https://site{place % 3}.example.org/{seed}.html", page(seed, place % 2 == 0)))
        if number:
            seed = 1000 * (number - 1)
            records.append(record(f"https://site0.example.org/{seed}.html", page(seed, True).replace("</main>", "<p>An added line.</p></main>")))
        path = folder / f"{snapshots[number % len(snapshots)]}-{number:05d}.warc.gz"
        path.write_bytes(b"".join(map(zipped, records)))
        made.append(path)
    return made


def write_texts(path: Path, texts: Sequence[str]) -> Path:
    """Documents as JSON lines, each with an address."""
    path.write_text("".join(json.dumps({"url": f"https://texts.example.org/{n}", "text": text}) + "\n" for n, text in enumerate(texts)))
    return path
