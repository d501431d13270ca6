"""What lies in the user's folder, as a page that a person reads in ten seconds: kind, size, duplicates, languages or image sizes."""

from __future__ import annotations

import glob
import hashlib
import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart.catalog.card import DATA_KINDS
from headstart.catalog.folder import FolderContents, what_lies_here
from headstart.core.files import read_json
from headstart.core.progress import progress
from headstart.core.words import agree, plural
from headstart.data.listing import is_store
from headstart.data.text.builtin import PREFIX
from headstart.data.text.config import TextConfig
from headstart.data.text.read import Fault, Reading
from headstart.data.text.sources import find_inputs

MAX_LOOKED_AT = 50_000_000  # characters of text, and bytes of images, that are read for duplicates
SHINGLE = 5  # words
HASHES, BANDS = 64, 16
NEAR = 0.8  # estimated Jaccard similarity of the shingles
LANGUAGE_SAMPLE = 500  # documents
STOP_WORD_SHARE = 0.08  # of the words of a document; running text has 0.2 to 0.5 in its own language

STOP_WORDS: dict[str, frozenset[str]] = {
    language: frozenset(words.split())
    for language, words in {
        "English": "the of and to in is that it was for with as his on be at by had not are but from this have an they which you were her she",
        "German": "der die und das ist nicht ein eine den mit von zu auf sich dem des für als auch wird aus sie er ich es werden bei nach wie oder",
        "French": "le la les et des est une dans que qui pour pas sur au avec ce il sont plus par elle cette mais nous vous ou leur être",
        "Spanish": "el los las del que en una es por con para no se como más pero sus le ya este sí porque esta entre cuando muy sin sobre también",
        "Portuguese": "os uma não que em para com é por mais dos como mas ao das seu sua ou quando muito nos já eu também só pelo pela até isso",
        "Italian": "il che di è un una per non con sono gli della del nel alla dei come più anche ma questo ha delle si nella lo le",
        "Dutch": "het een en van ik niet dat die is te zijn op aan met voor er maar om ook als dan zou wat bij naar heb hij ze wordt",
        "Swedish": "och att det som en på är av för med den till inte har de ett om men var jag sig från vi så kan när hon han",
        "Polish": "nie się na jest że do to jak ale co za od tak tym czy po już przez dla przy jego oraz są być był",
        "Turkish": "ve bir bu için ile da de çok daha olarak gibi ne kadar ama olan sonra var mi her ben",
        "Indonesian": "yang dan di untuk dengan dari pada ini itu tidak dalam adalah akan juga atau oleh ke sebagai dapat karena",
        "Maltese": "li ta u il fil tal f'dan kien mill ma għal din dak hija huwa minn bil jew biex b'mod",
        "Russian": "и в не на что с он как это по но из у за от же для так его к все бы",
    }.items()
}
"""Function words that are frequent in running text. Short words that many languages share are left out."""

SCRIPTS: tuple[tuple[str, int, int], ...] = (
    ("Latin", 0x41, 0x24F), ("Greek", 0x370, 0x3FF), ("Cyrillic", 0x400, 0x52F), ("Hebrew", 0x590, 0x5FF), ("Arabic", 0x600, 0x77F),
    ("Devanagari", 0x900, 0x97F), ("Bengali", 0x980, 0x9FF), ("Tamil", 0xB80, 0xBFF), ("Thai", 0xE00, 0xE7F), ("Georgian", 0x10A0, 0x10FF),
    ("Ethiopic", 0x1200, 0x137F), ("Japanese kana", 0x3040, 0x30FF), ("Chinese characters", 0x4E00, 0x9FFF), ("Korean", 0xAC00, 0xD7AF),
)  # fmt: skip
_WORD = re.compile(r"\w+(?:['’]\w+)?")


def contents_of(data: Sequence[str]) -> list[FolderContents]:
    """What each entry of --data holds; a prepared store is of the kind that its manifest names, a built-in corpus is text.

    Raises:
        BadInput: an entry does not exist.
    """
    found = []
    for entry in data:
        if entry.startswith(PREFIX):
            found.append(FolderContents(Path(entry), {"text": 1}, {}, 1, True))
        elif is_store(entry):
            found.append(FolderContents(Path(entry), {str(read_json(Path(entry) / "manifest.json").get("kind")): 1}, {}, 1, True))
        elif glob.has_magic(entry) and not Path(entry).exists():
            matches = sorted(glob.glob(entry, recursive=True))  # noqa: PTH207 (pathlib takes no absolute pattern)
            found += [what_lies_here(path) for path in matches] or [what_lies_here(entry)]
        else:
            found.append(what_lies_here(entry))
    return found


def look(data: Sequence[str], contents: Sequence[FolderContents], text_field: str) -> dict[str, Any]:
    """JSON-ready: kinds with numbers of files, and what can be said of the texts or images among them."""
    kinds: Counter[str] = Counter()
    for entry in contents:
        kinds.update(entry.kinds)
    page: dict[str, Any] = {"data": list(data), "kinds": dict(kinds), "complete": all(entry.complete for entry in contents)}
    raw = [entry for entry in data if not is_store(entry)]
    if raw and "text" in kinds:
        page["text"] = _texts(raw, text_field)
    if raw and "images" in kinds:
        page["images"] = _images([Path(entry) for entry in raw])
    return page


def lines(page: dict[str, Any]) -> list[str]:
    """The page, for a person."""
    kinds = ", ".join(f"{n:,} {'file' if n == 1 else 'files'} of {DATA_KINDS.get(kind, kind)}" for kind, n in page["kinds"].items())
    report = [f"  data       {', '.join(page['data'])}: {kinds or 'nothing to pre-train on was recognised'}"]
    if text := page.get("text"):
        part = "" if text["complete"] else f" (the first {text['documents']:,} documents were looked at)"
        exact, near = text["exact_duplicates"], text["near_duplicates"]
        size = f"{plural(text['documents'], 'document')}, {plural(text['words'], 'word')}, median {text['median_words']:,} a document"
        report.append(f"  size       {size}{part}")
        again = f"{plural(exact, 'document')} {agree(exact, 'repeats', 'repeat')} another"
        report.append(f"  duplicates {again}, {near:,} more nearly {agree(near, 'does', 'do')}")
        languages = ", ".join(f"{name} {share:.0%}" for name, share in text["languages"].items())
        report.append(f"  language   {languages} of the documents, by script and function words")
        if text["faults"]:
            report.append(f"  WARNING    {plural(text['faults'], 'record')} cannot be read; pretrain will name the first")
    if images := page.get("images"):
        again = f"{images['exact_duplicates']:,} {agree(images['exact_duplicates'], 'repeats', 'repeat')} another"
        report.append(f"  images     {plural(images['files'], 'file')}, {again}; sizes {images['sizes'] or 'not read'}")
    return report


# --- texts ------------------------------------------------------------------------------------------------------------------------------------


def documents(data: Sequence[str], text_field: str) -> Iterator[str | Fault]:
    """Every document of raw text sources, as `prepare` would read it."""
    config = TextConfig(text_field=text_field)
    for file in find_inputs(list(data)).files:
        for record in Reading(file, config):
            yield record if isinstance(record, Fault) else record.text


def _texts(data: Sequence[str], text_field: str) -> dict[str, Any]:
    seen: set[bytes] = set()
    lengths: list[int] = []
    exact = near = faults = read = 0
    neighbours = NearDuplicates()
    languages: Counter[str] = Counter()
    complete = True
    for document in progress(documents(data, text_field), what="look at the documents", unit="documents"):
        if read > MAX_LOOKED_AT:
            complete = False
            break
        if isinstance(document, Fault):
            faults += 1
            continue
        read += len(document)
        words = _WORD.findall(document.casefold())
        lengths.append(len(words))
        key = hashlib.blake2b(" ".join(words).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if key in seen:
            exact += 1
            continue
        seen.add(key)
        near += neighbours.repeats(words)
        if len(seen) <= LANGUAGE_SAMPLE:
            languages[language_of(words)] += 1
    total = max(1, sum(languages.values()))
    return {
        "documents": len(lengths),
        "words": sum(lengths),
        "median_words": int(np.median(lengths)) if lengths else 0,
        "exact_duplicates": exact,
        "near_duplicates": near,
        "languages": {name: count / total for name, count in languages.most_common(3)},
        "faults": faults,
        "complete": complete,
    }


class NearDuplicates:
    """Finds documents whose sets of five-word shingles are nearly those of an earlier one: MinHash (Broder 1997) with 16 bands of 4 hashes, and 0.8
    as the least estimated Jaccard similarity. Memory is 512 bytes a document and its bands."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self._factors = random.integers(1, 1 << 62, size=(HASHES, 1), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
        self._signatures: list[np.ndarray] = []
        self._bands: dict[tuple[int, bytes], int] = {}

    def repeats(self, words: Sequence[str]) -> bool:
        """Whether an earlier document is nearly this one. Remembers it otherwise. Too short documents (below eight words) never are."""
        if len(words) < SHINGLE + 3:
            return False
        ids = np.array([zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in words], dtype=np.uint64)
        shingles = np.zeros(len(ids) - SHINGLE + 1, dtype=np.uint64)
        for i in range(SHINGLE):
            shingles = shingles * np.uint64(0x9E3779B97F4A7C15) + ids[i : len(ids) - SHINGLE + 1 + i]
        mixed = np.unique(shingles)
        mixed ^= mixed >> np.uint64(29)
        signature = np.empty(HASHES, dtype=np.uint64)
        for start in range(0, HASHES, 8):  # eight at a time: a long document has many shingles
            products = self._factors[start : start + 8] * mixed  # the high bits of a product depend on all bits of its factors
            signature[start : start + 8] = (products >> np.uint64(20)).min(1)
        keys = [(band, part.tobytes()) for band, part in enumerate(np.split(signature, BANDS))]
        candidates = {self._bands[key] for key in keys if key in self._bands}
        if any((self._signatures[number] == signature).mean() >= NEAR for number in candidates):
            return True
        for key in keys:
            self._bands.setdefault(key, len(self._signatures))
        self._signatures.append(signature)
        return False


def language_of(words: Sequence[str]) -> str:
    """The language whose function words are most frequent, or the script where none is frequent enough. Honest, not clever: a language that is not
    in the list is reported by its script."""
    words = words[:400]
    if not words:
        return "no words"
    text = "".join(words)
    counts = {name: sum(first <= ord(c) <= last for c in text) for name, first, last in SCRIPTS}
    script, most = max(counts.items(), key=lambda entry: entry[1])
    if counts["Japanese kana"] > 0.1 * len(text):
        return "Japanese"
    if most < 0.5 * len(text):
        return "mixed scripts, or no letters"
    if script not in ("Latin", "Cyrillic"):
        return script
    best, hits = max(((name, sum(word in stop for word in words)) for name, stop in STOP_WORDS.items()), key=lambda entry: entry[1])
    return best if hits >= STOP_WORD_SHARE * len(words) else f"{script} script, language not recognised"


# --- images -----------------------------------------------------------------------------------------------------------------------------------


def _images(places: Sequence[Path]) -> dict[str, Any]:
    files = [path for place in places for path in (sorted(place.rglob("*")) if place.is_dir() else [place])]
    files = [path for path in files if path.suffix.lower() in (".png", ".jpg", ".jpeg") and path.is_file()]
    hashes: set[bytes] = set()
    sizes: Counter[str] = Counter()
    read = exact = 0
    for path in progress(files, what="look at the images", unit="images"):
        if read > MAX_LOOKED_AT:
            break
        data = path.read_bytes()
        read += len(data)
        key = hashlib.blake2b(data, digest_size=16).digest()
        exact += key in hashes
        hashes.add(key)
        if (size := image_size(data)) is not None:
            sizes[f"{size[0]}x{size[1]}"] += 1
    return {"files": len(files), "exact_duplicates": exact, "sizes": ", ".join(f"{n:,} of {size}" for size, n in sizes.most_common(3))}


def image_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of a PNG or JPEG from its header; None for anything else or a damaged one."""
    if data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        return width, height
    at = 2
    while data[:2] == b"\xff\xd8" and at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame holds the size
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return width, height
        at += 2 + length
    return None
