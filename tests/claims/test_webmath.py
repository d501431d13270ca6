"""webmath's three claims: what they are made of, and that their measures measure."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from headstart.claims import load_claim
from headstart.claims._claim import Model, Use
from headstart.claims._run import claim
from headstart.claims._webmath import NEAR, OLDER, english, read_pages
from headstart.claims.webmath_extraction import EXTRACTORS, formulas_kept
from headstart.claims.webmath_images import FOR_DOCUMENTS, FOR_TOWER, NUMBERS, Writer, asking, digits, questions, unseen, word_tokenizer
from headstart.claims.webmath_text import bits_of, bits_per_byte, byte_tokenizer, entropy_of_bytes, marked, programs

TEXT = "Let $x^2$ be é, and\n\\begin{equation}a=b\\end{equation} for 2 dollars."


@pytest.mark.parametrize("name", ["extraction", "text", "images"])
def test_each_is_reported_on_its_own_and_belongs_to_the_papers_card(name: str) -> None:
    declared = load_claim(f"webmath_{name}")
    assert (declared.slug, declared.of[0]) == (f"webmath_{name}", "webmath")
    assert declared.slug.startswith(declared.of[0]), "so it is found by its name"
    assert {"smoke", "cpu"} <= declared.presets.keys()
    for scale in declared.presets.values():
        assert any(comparison.decides for comparison in declared.comparisons_of(scale))


def test_extraction_is_paired_by_page_and_counts_formulas_in_order(tmp_path: Path) -> None:
    result = claim("webmath_extraction", "smoke", out=tmp_path, device="cpu", say=lambda line: None)
    assert {comparison["paired_by"] for comparison in result["comparisons"]} == {"page"}
    assert "2 pages decide nothing" in result["sentence"]
    assert [arm["method"] for arm in result["arms"]] == [None] * 3
    assert [arm["arm"] for arm in result["arms"]] == list(EXTRACTORS)
    expected = [{"tex": "a+b"}, {"tex": "x^2"}, {"tex": "c"}]
    assert formulas_kept("first $a+b$, then $x^2$ and $c$", expected) == 3
    assert formulas_kept("first x^2, then $a+b$ and $c$", expected) == 2, "without delimiters it is no formula"
    assert formulas_kept("first $x^2$, then $a+b$", expected) == 1, "the order counts"


def test_pages_of_held_out_sites_and_copies_are_apart() -> None:
    pages, expected, files = read_pages(fixture=True)
    assert expected
    assert files
    assert not {page.id for page, _ in english(pages)} & {*OLDER, *NEAR}
    assert all(page.language == "en" for page, _ in english(pages))


def test_a_byte_is_a_token() -> None:
    tokenizer = byte_tokenizer()
    for text in (TEXT, "".join(map(chr, range(1, 500))), next(iter(programs(100_000)))):
        assert tokenizer.encode(text, add_special_tokens=False).ids == list(text.encode())
        assert tokenizer.decode(list(text.encode())) == text
    assert (tokenizer.token_to_id("<s>"), tokenizer.token_to_id("</s>")) == (256, 257)


def test_bytes_of_formulas_are_marked_with_their_delimiters() -> None:
    of_formulas = np.frombuffer(TEXT.encode(), np.uint8)[marked(TEXT)].tobytes().decode()
    assert of_formulas == "$x^2$\\begin{equation}a=b\\end{equation}"


def test_bits_per_byte_are_those_of_the_model_each_byte_once(tmp_path: Path) -> None:
    """Against one pass over a text that fits into a window; and of a longer one, every byte has its bits."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from headstart.interop.transformers_io import save_model_folder

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48, "max_position_embeddings": 128}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=258, bos_token_id=256, eos_token_id=257, pad_token_id=None, **sizes))
    save_model_folder(model, byte_tokenizer(), tmp_path / "export")
    ids = torch.tensor([[256, *TEXT.encode()]])
    with torch.no_grad():
        expected = F.cross_entropy(model(ids[:, :-1]).logits[0], ids[0, 1:], reduction="none") / np.log(2)
    (found,) = bits_of(tmp_path / "export", (TEXT,), 128, "cpu")
    np.testing.assert_allclose(found, expected, atol=1e-4)
    long = TEXT * 5
    (windows,) = bits_of(tmp_path / "export", (long,), 64, "cpu")
    assert len(windows) == len(long.encode())
    with torch.no_grad():
        ids = torch.tensor([[256, *long.encode()]])
        last = ids[:, -66:]
        tail = F.cross_entropy(model(last[:, :-1]).logits[0], last[0, 1:], reduction="none")[-16:] / np.log(2)
    assert np.abs(windows[-16:] - tail.numpy()).max() < 0.5, "half a window before it at least"
    arm = load_claim("webmath_text").scale("smoke").arms[-1]
    use = Use(Model(arm, 0, tmp_path, 1e-3, 1.0, 1, 1.0, 1.0), "test", None, 0, "cpu")
    score = bits_per_byte(use, (TEXT, long), 64, within_formulas=True)
    assert score.items is not None
    assert score.items[:, 1].tolist() == [marked(TEXT).sum(), marked(long).sum()]
    assert score.value == pytest.approx(score.items[:, 0].sum() / score.items[:, 1].sum())


def test_the_entropy_of_bytes() -> None:
    assert entropy_of_bytes(["aabb"]) == 1.0
    assert entropy_of_bytes(["abcd"]) == 2.0


def test_images_of_the_test_and_unseen_pairs_are_in_no_document(tmp_path: Path) -> None:
    known, writer = digits(), Writer(tmp_path, seed=0)
    assert len(known.labels) == 1797
    assert sum(unseen(a, b) for a in range(10) for b in range(10)) == 20
    path = writer.write("interleaved", 300, lambda: writer.document(images=True))
    words = set(word_tokenizer().get_vocab())
    for line in path.read_text().splitlines():
        record = json.loads(line)
        numbers = [int(name.removesuffix(".png")) for name in record["image_list"] if name is not None]
        assert all(FOR_TOWER <= number < FOR_TOWER + FOR_DOCUMENTS for number in numbers)
        a, b = (int(known.labels[number]) for number in numbers)
        assert not unseen(a, b)
        assert f"equals {NUMBERS[a + b]} ." in record["text_list"][4]
        assert set(" ".join(text for text in record["text_list"] if text).split()) <= words
    asked = questions(50, True)
    assert all(min(a, b) >= FOR_TOWER + FOR_DOCUMENTS for a, b, _ in asked)
    assert all(known.labels[a] + known.labels[b] == total and unseen(int(known.labels[a]), int(known.labels[b])) for a, b, total in asked)
    assert set(asking("one", "two").split()) <= words
