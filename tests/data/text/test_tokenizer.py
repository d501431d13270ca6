import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from headstart.core.errors import BadInput, UsageError
from headstart.data.text.config import TextConfig
from headstart.data.text.encode import split_sentences
from headstart.data.text.store import TextStore, prepare_text
from headstart.data.text.tokenizer import (
    LONGEST_RUN,
    SENTENCE_END,
    SPECIAL_TOKENS,
    continues_word,
    keeps_line_ends,
    load_tokenizer,
    require_specials,
    sentence_encoder,
    special_ids,
    train_tokenizer,
    vocabulary_size,
)

KINDS = [("wordpiece", None), ("bpe", True), ("bpe", False), ("unigram", True), ("unigram", False)]


@pytest.fixture(scope="module")
def sentences(documents: list[str]) -> list[str]:
    return [line for text in documents[:40] for line in text.split("\n") if line.strip()]


@pytest.mark.parametrize(("kind", "byte_fallback"), KINDS)
def test_every_kind_has_the_specials_first_and_keeps_to_the_size(sentences: list[str], kind: Any, byte_fallback: bool | None) -> None:
    tokenizer = train_tokenizer(sentences, TextConfig(tokenizer_kind=kind, byte_fallback=byte_fallback, vocab_size=600))
    assert [tokenizer.id_to_token(index) for index in range(5)] == SPECIAL_TOKENS == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert special_ids(tokenizer) == {"pad": 0, "unk": 1, "cls": 2, "sep": 3, "mask": 4, "bos": 2, "eos": 3}
    assert 550 < vocabulary_size(tokenizer) <= 600
    assert tokenizer.encode("text", "pair").tokens[0] == "[CLS]"
    assert tokenizer.encode("text", "pair").tokens.count("[SEP]") == 2


@pytest.mark.parametrize(("kind", "byte_fallback"), KINDS)
def test_a_word_without_end_is_learned_from_in_pieces(kind: Any, byte_fallback: bool | None) -> None:
    """A genome or a hex dump is one word of millions of letters, and the time of every trainer grows with the square of its length."""
    config = TextConfig(tokenizer_kind=kind, byte_fallback=byte_fallback, vocab_size=300)
    words = ["a plain line of words"] * 3
    whole = train_tokenizer(["ab" * LONGEST_RUN, *words], config)
    cut = train_tokenizer([" ".join(["ab" * (LONGEST_RUN // 2)] * 2), *words], config)
    assert whole.to_str() == cut.to_str()


TRAIN = """
import hashlib, json, sys
from headstart.data.text.config import TextConfig
from headstart.data.text.tokenizer import train_tokenizer
kind, byte_fallback, path = json.loads(sys.argv[1])
lines = open(path, encoding="utf-8").read().split("\\n")
tokenizer = train_tokenizer(lines, TextConfig(tokenizer_kind=kind, byte_fallback=byte_fallback, vocab_size=500))
print(hashlib.sha256(tokenizer.to_str().encode()).hexdigest())
"""


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "byte_fallback"), KINDS)
def test_training_gives_the_same_tokenizer_in_every_process(sentences: list[str], tmp_path: Path, kind: str, byte_fallback: bool | None) -> None:
    """Hash maps of the library have other orders in every process. The alphabet is large, so limits and ties matter."""
    odd = [f"{chr(0x4E00 + i % 900)} {chr(0x430 + i % 32) * 3} {chr(0x600 + i % 90)}x{chr(0x1E00 + i % 200)}" for i in range(2000)]
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(sentences + odd), encoding="utf-8")
    command = [sys.executable, "-c", TRAIN, json.dumps([kind, byte_fallback, str(path)])]
    hashes = {subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(3)}
    assert len(hashes) == 1


def test_wordpiece_is_uncased_bert_unless_told_otherwise(sentences: list[str]) -> None:
    text = "Héllo, WORLD! x\u00ady"
    assert train_tokenizer(sentences, TextConfig(vocab_size=600)).normalizer.normalize_str(text) == "hello, world! xy"
    cased = TextConfig(vocab_size=600, lowercase=False, strip_accents=False)
    assert train_tokenizer(sentences, cased).normalizer.normalize_str(text) == "Héllo, WORLD! xy"
    accents = TextConfig(vocab_size=600, strip_accents=False)
    assert train_tokenizer(sentences, accents).normalizer.normalize_str(text) == "héllo, world! xy"


@pytest.mark.parametrize(("kind", "byte_fallback"), KINDS[1:])
def test_case_and_accents_of_bpe_and_unigram_are_options(sentences: list[str], kind: Any, byte_fallback: bool) -> None:
    folded = TextConfig(tokenizer_kind=kind, byte_fallback=byte_fallback, vocab_size=600, lowercase=True)
    assert train_tokenizer(sentences, folded).normalizer.normalize_str("Héllo") == "hello"
    kept = TextConfig(tokenizer_kind=kind, byte_fallback=byte_fallback, vocab_size=600)
    assert train_tokenizer(sentences, kept).normalizer.normalize_str("Héllo") == "Héllo"


def test_words_over_200_characters_are_unknown(sentences: list[str]) -> None:
    """google-research/electra model/tokenization.py: max_input_chars_per_word=200."""
    tokenizer = train_tokenizer(sentences, TextConfig(vocab_size=600))
    assert "[UNK]" not in tokenizer.encode("a" * 200, add_special_tokens=False).tokens
    assert tokenizer.encode("a" * 201, add_special_tokens=False).tokens == ["[UNK]"]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_byte_fallback_leaves_nothing_unknown(sentences: list[str], kind: Any) -> None:
    text = "日本語 🦜 ≠ ß"
    with_bytes = train_tokenizer(sentences, TextConfig(tokenizer_kind=kind, byte_fallback=True, vocab_size=600))
    assert 1 not in with_bytes.encode(text, add_special_tokens=False).ids
    assert with_bytes.decode(with_bytes.encode(text, add_special_tokens=False).ids) == text
    without = train_tokenizer(sentences, TextConfig(tokenizer_kind=kind, byte_fallback=False, vocab_size=600))
    assert 1 in without.encode(text, add_special_tokens=False).ids


def test_settings_that_contradict_each_other_are_refused(sentences: list[str]) -> None:
    with pytest.raises(UsageError, match="no byte fallback"):
        TextConfig(byte_fallback=True)
    with pytest.raises(BadInput, match="no room for its 261 fixed entries"):
        train_tokenizer(sentences, TextConfig(tokenizer_kind="bpe", vocab_size=200))


@pytest.mark.parametrize(("kind", "byte_fallback"), KINDS)
def test_one_string_with_marks_gives_the_ids_of_single_sentences(sentences: list[str], kind: Any, byte_fallback: bool | None) -> None:
    tokenizer = train_tokenizer(sentences, TextConfig(tokenizer_kind=kind, byte_fallback=byte_fallback, vocab_size=600))
    encoder, mark = sentence_encoder(tokenizer)
    marked = encoder.encode(SENTENCE_END.join(sentences) + SENTENCE_END, add_special_tokens=False).ids
    assert marked.count(mark) == len(sentences)
    plain = [index for sentence in sentences for index in [*tokenizer.encode(sentence, add_special_tokens=False).ids, mark]]
    assert marked == plain


def test_text_that_spells_a_special_token_is_text(tmp_path: Path, documents: list[str]) -> None:
    (tmp_path / "a.txt").write_text("\n".join(documents[:5]))
    (tmp_path / "b.txt").write_text("the model sees [MASK] and [SEP] here\nand [CLS] too")
    store = prepare_text([tmp_path / "a.txt", tmp_path / "b.txt"], tmp_path / "store", TextConfig(vocab_size=400, document_split="file"))
    assert not np.isin(store.tokens, [0, 2, 3, 4]).any()
    assert "[ mask ] and [ sep ]" in store.decode(store.document(1)).replace("##", "")


def test_line_ends_are_kept_by_tokenizers_that_can(tmp_path: Path, documents: list[str]) -> None:
    text = "\n\ndef f(x):\r\n    return x\n\n\n# done\n"
    assert split_sentences(text, keep_line_ends=True) == ["def f(x):\n", "    return x\n\n\n", "# done"]
    assert split_sentences(text, keep_line_ends=False) == ["def f(x):", "return x", "# done"]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": document}) + "\n" for document in documents[:30]))
    store = prepare_text([path], tmp_path / "store", TextConfig(tokenizer_kind="bpe", vocab_size=500))
    assert keeps_line_ends(store.tokenizer)
    assert not keeps_line_ends(train_tokenizer(documents[:3], TextConfig(vocab_size=400)))
    for index in (0, 7, 29):  # byte-level BPE loses nothing but white space around the document
        assert store.decode(store.document(index)) == documents[index].strip("\n").rstrip()
        assert "".join(store.decode(ids) for ids in store.sentences(index)) == store.decode(store.document(index))


def test_continuing_tokens(sentences: list[str]) -> None:
    for kind, text, expected in (
        ("wordpiece", "unbelievably strange", [0, 1]),
        ("bpe", " unbelievably strange", [0, 1]),
        ("unigram", "unbelievably strange", [0, 1]),
    ):
        config: Any = TextConfig(tokenizer_kind=kind, vocab_size=400)
        tokenizer = train_tokenizer(sentences, config)
        flags = continues_word(tokenizer)
        assert len(flags) == vocabulary_size(tokenizer)
        assert not flags[:5].any()
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert (~flags[ids]).sum() == len(expected)  # two words begin
        assert not flags[ids[0]]


# --- tokenizers that are taken ------------------------------------------------------------------------------------------------------------------


def test_a_tokenizer_json_is_taken_as_it_is(store: TextStore, corpus: Path, tmp_path: Path) -> None:
    config = TextConfig(tokenizer=str(store.folder / "tokenizer.json"), held_out_share=0.1)
    taken = prepare_text([corpus], tmp_path / "store", config)
    assert (taken.tokens == store.tokens).all()
    assert taken.special_ids == store.special_ids
    assert prepare_text([corpus], tmp_path / "store", config).folder == taken.folder
    other = train_tokenizer(["some other text"] * 3, TextConfig(vocab_size=300))
    other.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(UsageError, match=r"tokenizer '.*' -> '.*'"):
        prepare_text([corpus], tmp_path / "store", TextConfig(tokenizer=str(tmp_path / "tokenizer.json"), held_out_share=0.1))


def test_padding_and_truncation_of_a_taken_tokenizer_are_off(store: TextStore, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(store.folder / "tokenizer.json"))
    tokenizer.enable_truncation(4)
    tokenizer.enable_padding(length=16)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    taken, _ = load_tokenizer(tmp_path / "tokenizer.json", TextConfig())
    assert 4 < len(taken.encode("one two three four five six").ids) < 16


def test_a_folder_of_transformers_names_its_special_tokens(tmp_path: Path, sentences: list[str]) -> None:
    """A GPT-2-like folder: byte-level, <|endoftext|> is its only special token."""
    letters = {letter: index + 1 for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE({"<|endoftext|>": 0, **letters}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(["<|endoftext|>"])
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    config = {"eos_token": {"content": "<|endoftext|>"}, "bos_token": "<|endoftext|>", "pad_token": None}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    taken, names = load_tokenizer(tmp_path, TextConfig())
    assert special_ids(taken, names) == {"bos": 0, "eos": 0}
    assert vocabulary_size(taken) == 257


def test_a_folder_with_slow_files_only_is_loaded_by_transformers(tmp_path: Path) -> None:
    alphabet = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    (tmp_path / "vocab.json").write_text(json.dumps(alphabet | {"<|endoftext|>": 256}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer", "eos_token": "<|endoftext|>"}')
    taken, names = load_tokenizer(tmp_path, TextConfig())
    assert len(taken.encode("abc").ids) == 3
    assert special_ids(taken, names)["eos"] == 256


def test_a_vocab_txt_is_wordpiece(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\nwor\n##ld\nHello\n")
    taken, _ = load_tokenizer(tmp_path / "vocab.txt", TextConfig())
    assert taken.encode("Hello world zzz", add_special_tokens=False).tokens == ["hello", "wor", "##ld", "[UNK]"]
    cased, _ = load_tokenizer(tmp_path / "vocab.txt", TextConfig(lowercase=False))
    assert cased.encode("Hello", add_special_tokens=False).tokens == ["Hello"]


def test_a_folder_says_whether_its_vocab_txt_folds_case(tmp_path: Path) -> None:
    """As transformers writes it for a cased BERT: without this it would be read as an uncased one."""
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhello\nHello\n")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    for place in (tmp_path, tmp_path / "vocab.txt"):
        assert load_tokenizer(place, TextConfig())[0].encode("Hello", add_special_tokens=False).tokens == ["Hello"]
        assert load_tokenizer(place, TextConfig(lowercase=True))[0].encode("Hello", add_special_tokens=False).tokens == ["hello"]


def test_missing_special_tokens_are_named(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\nhello\n")
    taken, _ = load_tokenizer(tmp_path / "vocab.txt", TextConfig())
    require_specials(special_ids(taken), ["pad", "cls"])
    with pytest.raises(BadInput, match=r"no \[SEP\], \[MASK\] token, which this method needs"):
        require_specials(special_ids(taken), ["pad", "cls", "sep", "mask"])


def test_what_is_no_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        load_tokenizer(tmp_path / "nowhere.json", TextConfig())
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BadInput, match="is no tokenizer"):
        load_tokenizer(tmp_path, TextConfig())
    (tmp_path / "words.txt").write_text("hello\n")
    with pytest.raises(BadInput, match=r"no \[UNK\]"):
        load_tokenizer(tmp_path / "words.txt", TextConfig())
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no tokenizer that can be loaded"):
        load_tokenizer(tmp_path / "empty", TextConfig())


def test_many_unknown_tokens_are_a_warning(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\nhello\n")
    (tmp_path / "a.txt").write_text("hello all\nmy friends\n\nhello you\nand you too\n")
    store = prepare_text([tmp_path / "a.txt"], tmp_path / "store", TextConfig(tokenizer=str(tmp_path / "vocab.txt"), held_out_share=0))
    assert store.manifest["unknown_share"] == 7 / 9
    assert any("WARNING: 77.8% of the tokens are unknown" in line for line in store.report())


def test_large_vocabularies_need_four_bytes_a_token(tmp_path: Path) -> None:
    for size, dtype in ((2**16, np.uint16), (2**16 + 1, np.uint32)):
        (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n" + "".join(f"w{index}\n" for index in range(2, size)))
        (tmp_path / "a.txt").write_text(f"w{size - 1} w5\nw7\n")
        store = prepare_text([tmp_path / "a.txt"], tmp_path / f"{size}", TextConfig(tokenizer=str(tmp_path / "vocab.txt"), held_out_share=0))
        assert store.tokens.dtype == dtype
        assert store.tokens.tolist() == [size - 1, 5, 7]
