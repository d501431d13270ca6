"""The page on the user's folder: duplicates, languages, image sizes."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path

import pytest

from headstart.core.errors import BadInput
from headstart.verbs import _advise_look
from headstart.verbs._advise_look import NearDuplicates, contents_of, image_size, language_of, look
from tests.corpus import documents, write_jsonl


def page(folder: Path) -> dict[str, object]:
    return look([str(folder)], contents_of([str(folder)]), "text")


def png(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))


def jpeg(width: int, height: int) -> bytes:
    comment = b"\xff\xfe" + struct.pack(">H", 6) + b"test"
    return b"\xff\xd8" + comment + b"\xff\xc2" + struct.pack(">HBHHB", 11, 8, height, width, 1) + bytes(4)


def test_exact_and_near_duplicates_are_counted_apart(tmp_path: Path) -> None:
    texts = [" ".join(documents(1, seed=number)[0].split()) for number in range(20)]
    longest = max(texts, key=len).split()
    nearly = " ".join([*longest[:-1], "otherwise."])
    write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in [*texts, texts[3], texts[4].upper(), nearly]])
    found = page(tmp_path)["text"]
    assert isinstance(found, dict)
    assert found["documents"] == 23
    assert found["exact_duplicates"] == 2, "letter case makes no other document"
    assert found["near_duplicates"] == 1


def test_different_documents_of_one_vocabulary_are_no_duplicates() -> None:
    rng = random.Random(0)
    words = [f"w{number}" for number in range(50)]
    seen = NearDuplicates()
    assert not any(seen.repeats(rng.choices(words, k=60)) for _ in range(300))


def test_a_document_with_a_word_changed_is_a_near_duplicate_but_none_with_every_twentieth_changed() -> None:
    rng = random.Random(1)
    words = [f"w{number}" for number in range(500)]
    seen = NearDuplicates()
    for _ in range(10):
        text = rng.choices(words, k=200)
        scattered = [word if number % 20 else "other" for number, word in enumerate(text)]  # a similarity of 0.6: a quarter of the shingles change
        once = [*text[:100], "other", *text[101:]]
        assert not seen.repeats(text)
        assert not seen.repeats(scattered)
        assert seen.repeats(once)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("the pump was switched off and it is not clear which of the valves had been open at that time", "English"),
        ("die Pumpe wurde abgeschaltet und es ist nicht klar welche der Ventile zu dieser Zeit auch offen waren", "German"),
        ("la bomba se apagó y no está claro cuál de las válvulas estaba abierta en ese momento porque no hay datos", "Spanish"),
        ("насос был выключен и не ясно какой из клапанов был открыт в это время так что же он не работал", "Russian"),
        ("泵已关闭，不清楚当时哪个阀门是开着的", "Chinese characters"),
        ("ポンプは停止していて、どの弁が開いていたかは分からない", "Japanese"),
        ("Pumppu sammutettiin eikä ole selvää mikä venttiileistä oli silloin auki", "Latin script, language not recognised"),
        ("12 345 678", "mixed scripts, or no letters"),
    ],
)
def test_languages_are_told_by_function_words_and_scripts_or_not_at_all(text: str, language: str) -> None:
    assert language_of(_advise_look._WORD.findall(text.casefold())) == language


def test_images_are_counted_with_their_sizes(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.png").write_bytes(png(64, 32) + bytes([number]))
    (tmp_path / "again.png").write_bytes(png(64, 32) + bytes([0]))
    (tmp_path / "photo.jpg").write_bytes(jpeg(640, 480))
    found = page(tmp_path)["images"]
    assert found == {"files": 5, "exact_duplicates": 1, "sizes": "4 of 64x32, 1 of 640x480"}
    assert any("4 of 64x32" in line for line in _advise_look.lines(page(tmp_path)))


@pytest.mark.parametrize("data", [b"", b"GIF89a", png(4, 4)[:20], jpeg(4, 4)[:9], b"\xff\xd8\xff\xe0\xff\xff"])
def test_a_damaged_or_other_image_has_no_size(data: bytes) -> None:
    assert image_size(data) is None


def test_a_store_is_of_the_kind_that_it_says(store: Path) -> None:
    assert contents_of([str(store)])[0].kinds == {"text": 1}


def test_a_pattern_stands_for_its_files(corpus: Path) -> None:
    found = contents_of([str(corpus / "*.txt")])
    assert [entry.kinds for entry in found] == [{"text": 1}, {"text": 1}]
    assert look([str(corpus / "*.txt")], found, "text")["text"]["documents"] > 100


@pytest.mark.parametrize("entry", ["missing", "missing/*.txt"])
def test_a_missing_folder_is_refused(entry: str) -> None:
    with pytest.raises(BadInput, match="no such file or folder"):
        contents_of([entry])
