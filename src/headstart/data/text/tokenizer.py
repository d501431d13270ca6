"""Tokenizers: trained on the corpus with the `tokenizers` library, or taken as they are.

What is special:
- Training gives the same vocabulary, with the same ids, on every run. The library alone does not: WordPiece numbers its `##x` pieces in the order
  of a hash map, Unigram gives rare characters almost equal scores in such an order (both seen in tokenizers 0.23). `_train_wordpiece` and
  `_canonical_unigram` mend that.
- Our own vocabularies begin with [PAD] [UNK] [CLS] [SEP] [MASK] = 0..4, whatever the kind, so every method works with every tokenizer.
- Text that spells a special token ("[MASK]") is encoded as ordinary text.
- A tokenizer.json is a small program: what would exhaust memory or time is refused before the library sees it (`_refuse_explosions`), and what makes
  the library panic is bad input like any other (`library_errors`).
"""

from __future__ import annotations

import base64
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from headstart.core.errors import BadInput, HeadstartError, UsageError
from headstart.core.files import read_bounded, read_json
from headstart.data.text.config import TextConfig

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
"""Ids 0..4 of every vocabulary that we train."""

MAX_WORD_CHARACTERS = 200
"""A longer word is [UNK] (WordPiece; google-research/electra model/tokenization.py)."""

LONGEST_RUN = 2000
"""Characters without white space that a tokenizer is trained on in one piece: the time of all trainers grows with the square of a word's length, and
five million letters in a row (a hex dump, a genome) take hours, in which nothing can stop the process. Words of WordPiece end far before."""
_LONG_RUN = re.compile(rf"\S{{{LONGEST_RUN}}}(?=\S)")

MAX_TOKENIZER_BYTES = 2**27
"""Of a tokenizer.json or vocab.txt. The largest in use have a quarter of it."""
MAX_VOCABULARY = 2**22
"""Largest token id + 1, so rows of an embedding table. The largest in use have a sixteenth of it."""
MAX_EXPANSION = 4096
"""Characters that the normaliser of a taken tokenizer may make of one, by its steps that insert text."""
MAX_WORD_SEARCH = 1000
"""Largest `max_input_chars_per_word` of a taken WordPiece: its search is quadratic in it."""

SENTENCE_END = "\0"
"""Marks the end of a sentence while encoding. NUL is not allowed in text, so it cannot be confused with any."""

_ROLES = {  # role -> the key in transformers' tokenizer_config.json, then spellings to look for
    "pad": ("pad_token", "[PAD]", "<pad>"),
    "unk": ("unk_token", "[UNK]", "<unk>"),
    "cls": ("cls_token", "[CLS]", "<s>"),
    "sep": ("sep_token", "[SEP]", "</s>"),
    "mask": ("mask_token", "[MASK]", "<mask>"),
    "bos": ("bos_token", "<s>", "<|begin_of_text|>", "<|endoftext|>", "<bos>", "[CLS]"),
    "eos": ("eos_token", "</s>", "<|end_of_text|>", "<|endoftext|>", "<eos>", "[SEP]"),
}


def train_tokenizer(sentences: Sequence[str], config: TextConfig) -> Tokenizer:
    """Train a tokenizer of `config.tokenizer_kind` with at most `config.vocab_size` entries. The same sentences give the same tokenizer.

    Raises BadInput when the vocabulary is too small for the characters that bytes or specials need.
    """
    smallest = len(SPECIAL_TOKENS) + (256 if config.falls_back_to_bytes else 1)
    if config.vocab_size <= smallest:
        raise BadInput(f"a vocabulary of {config.vocab_size} has no room for its {smallest} fixed entries.", "Give a larger --text.vocab-size.")
    train = {"wordpiece": _train_wordpiece, "bpe": _train_bpe, "unigram": _train_unigram}[config.tokenizer_kind]
    tokenizer = train([_LONG_RUN.sub(r"\g<0> ", sentence) if len(sentence) > LONGEST_RUN else sentence for sentence in sentences], config)
    _register_specials(tokenizer)
    return tokenizer


def _register_specials(tokenizer: Tokenizer) -> None:
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    cls, sep = SPECIAL_TOKENS.index("[CLS]"), SPECIAL_TOKENS.index("[SEP]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", cls), ("[SEP]", sep)]
    )


def word_tokenizer(words: Iterable[str]) -> Tokenizer:
    """One token for each of these words, which white space separates; anything else is [UNK]."""
    names = [*SPECIAL_TOKENS, *words]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(names)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    _register_specials(tokenizer)
    return tokenizer


def bert_tokenizer(vocabulary: dict[str, int], config: TextConfig) -> Tokenizer:
    """WordPiece with BERT's normaliser and splitting: control characters removed, CJK characters and punctuation split, greedy longest match."""
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]", max_input_chars_per_word=MAX_WORD_CHARACTERS))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=config.folds_case, strip_accents=config.strips_accents)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _train_wordpiece(sentences: Sequence[str], config: TextConfig) -> Tokenizer:
    # The trainer numbers the `##x` pieces of single characters as a hash map yields them, and merges of equal count by these numbers. So they are
    # collected before and given to it in sorted order, as special tokens. The finished vocabulary goes into a fresh model in which they are
    # ordinary.
    blank = {token: index for index, token in enumerate(SPECIAL_TOKENS)}
    tokenizer = bert_tokenizer(blank, config)
    counts, inside = _characters(sentences, tokenizer)
    alphabet = _most_frequent(counts, config.vocab_size)
    continuations = [f"##{character}" for character in alphabet if inside[ord(character)]]
    trainer = trainers.WordPieceTrainer(
        vocab_size=config.vocab_size,
        special_tokens=SPECIAL_TOKENS + continuations,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(sentences, trainer)
    return bert_tokenizer(tokenizer.get_vocab(), config)


def _train_bpe(sentences: Sequence[str], config: TextConfig) -> Tokenizer:
    if config.falls_back_to_bytes:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.normalizer = _normalizer(config, spaces=False)
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    else:
        tokenizer = Tokenizer(models.BPE(unk_token="[UNK]", fuse_unk=False))
        tokenizer.normalizer = _normalizer(config, spaces=True)
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        tokenizer.decoder = decoders.Metaspace()
        alphabet = _alphabet(sentences, tokenizer, config.vocab_size)
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size, special_tokens=SPECIAL_TOKENS, initial_alphabet=alphabet, limit_alphabet=len(alphabet), show_progress=False
    )
    tokenizer.train_from_iterator(sentences, trainer)
    return tokenizer


def _train_unigram(sentences: Sequence[str], config: TextConfig) -> Tokenizer:
    byte_pieces = [f"<0x{byte:02X}>" for byte in range(256)] if config.falls_back_to_bytes else []
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = _normalizer(config, spaces=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    alphabet = _alphabet(sentences, tokenizer, config.vocab_size)
    if len(alphabet) >= config.vocab_size // 4:
        # The trainer keeps every character it sees, whatever the vocabulary size: show it only those that we keep.
        others = re.compile(f"[^{re.escape(''.join(alphabet))}]+")
        sentences = [others.sub(" ", tokenizer.normalizer.normalize_str(sentence)) for sentence in sentences]
    trainer = trainers.UnigramTrainer(
        vocab_size=config.vocab_size - len(byte_pieces), special_tokens=SPECIAL_TOKENS, unk_token="[UNK]", show_progress=False
    )
    tokenizer.train_from_iterator(sentences, trainer)
    pieces = _canonical_unigram(json.loads(tokenizer.to_str())["model"]["vocab"], byte_pieces)
    tokenizer.model = models.Unigram(pieces, unk_id=SPECIAL_TOKENS.index("[UNK]"), byte_fallback=bool(byte_pieces))
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()]) if byte_pieces else decoders.Metaspace()
    return tokenizer


def _canonical_unigram(pieces: list[tuple[str, float]], byte_pieces: list[str]) -> list[tuple[str, float]]:
    """Specials, bytes, then the pieces by falling score.

    The trainer appends characters that pruning removed with scores of minimum + 0.0001 k, k in the order of a hash map: all of them get the
    minimum. Sums over
    threads differ in the last digits: scores are rounded to 9.
    """
    ordinary = [(piece, round(score, 9)) for piece, score in pieces if piece not in SPECIAL_TOKENS]
    lowest = min(score for _, score in ordinary)
    appended = lowest + 1e-4 * (len(ordinary) + 1)
    ordinary = [(piece, lowest if len(piece) == 1 and score < appended else score) for piece, score in ordinary]
    ordinary.sort(key=lambda entry: (-entry[1], entry[0]))
    return [(token, 0.0) for token in SPECIAL_TOKENS] + [(piece, lowest) for piece in byte_pieces] + ordinary


def _normalizer(config: TextConfig, spaces: bool) -> Any:
    """Unicode normalisation for bpe and unigram. With `spaces` every white space becomes one space, as sentencepiece does."""
    steps: list[Any] = [normalizers.NFKC() if spaces else normalizers.NFC()]
    if config.strips_accents:
        steps += [normalizers.NFD(), normalizers.StripAccents()]
    if config.folds_case:
        steps.append(normalizers.Lowercase())
    if spaces:
        steps.append(normalizers.Replace(Regex(r"\s+"), " "))
    return normalizers.Sequence(steps)


def _characters(sentences: Sequence[str], tokenizer: Tokenizer) -> tuple[np.ndarray, np.ndarray]:
    """Of every code point, after normalising: how often it occurs, and whether it occurs inside a word of BERT's splitting (neither first, nor
    punctuation)."""
    counts = np.zeros(0x110000, np.int64)
    inside = np.zeros(0x110000, bool)
    is_word = np.zeros(0x110000, bool)  # of those that occurred: to ask for all takes longer than most texts
    for start in range(0, len(sentences), 1000):
        text = tokenizer.normalizer.normalize_str("\n".join(sentences[start : start + 1000]))
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
        found = np.bincount(codes, minlength=len(counts))
        new = np.flatnonzero((found > 0) & (counts == 0))
        is_word[new] = [not (chr(code).isspace() or _is_punctuation(chr(code))) for code in new.tolist()]
        counts += found
        in_word = is_word[codes]
        inside[codes[1:][in_word[1:] & in_word[:-1]]] = True
    return counts, inside


def _is_punctuation(character: str) -> bool:
    """BERT's definition: all ASCII that is neither letter, digit nor space, and Unicode's P classes."""
    return (33 <= ord(character) <= 126 and not character.isalnum()) or unicodedata.category(character).startswith("P")


def _most_frequent(counts: np.ndarray, vocab_size: int) -> list[str]:
    """The characters to keep, sorted: the most frequent, at most a quarter of the vocabulary (ties by code point).

    Without a limit a multilingual corpus fills the vocabulary with single characters; the trainer's own limit breaks ties in the order of a hash map.
    """
    characters = [int(code) for code in np.flatnonzero(counts) if not chr(int(code)).isspace()]
    characters.sort(key=lambda code: (-counts[code], code))
    return sorted(chr(code) for code in characters[: max(vocab_size // 4, 1)])


def _alphabet(sentences: Sequence[str], tokenizer: Tokenizer, vocab_size: int) -> list[str]:
    """Characters for a vocabulary of sentencepiece's form, the word mark among them."""
    counts, _ = _characters(sentences, tokenizer)
    counts[ord("▁")] = counts.max() + 1
    return _most_frequent(counts, vocab_size)


def load_tokenizer(path: str | Path, config: TextConfig) -> tuple[Tokenizer, dict[str, str]]:
    """A tokenizer.json, a vocab.txt or a folder of transformers, and the special tokens that the folder's tokenizer_config.json names. Whether a
    vocab.txt folds case and accents is what `config` says, then what that file does, then yes.

    Raises BadInput when there is none, or it cannot be read.
    """
    path = Path(path)
    names: dict[str, str] = {}
    folder = path if path.is_dir() else path.parent
    if (folder / "tokenizer_config.json").is_file():
        stated = _stated(folder / "tokenizer_config.json")
        names = _named_specials(stated)
        folds, strips = (stated.get(name) for name in ("do_lower_case", "strip_accents"))
        if config.lowercase is None and isinstance(folds, bool):
            config = replace(config, lowercase=folds, strip_accents=strips if isinstance(strips, bool) else config.strip_accents)
    if path.is_dir():
        candidates = [path / "tokenizer.json", path / "vocab.txt"]
        path = next((candidate for candidate in candidates if candidate.is_file()), path)
    if path.is_dir():
        tokenizer = _load_from_transformers(path)
    else:
        data = read_bounded(path, MAX_TOKENIZER_BYTES, "tokenizer")
        with library_errors("is no tokenizer", path):
            tokenizer = _from_vocabulary(data, path, config) if path.suffix == ".txt" else _from_json(data, path)
    check_tokenizer(tokenizer, path)
    return tokenizer, names


def check_tokenizer(tokenizer: Tokenizer, file: Path) -> None:
    """Refuses a tokenizer that models cannot have a table for, or that fails at its first text. Switches padding and truncation off.

    Raises BadInput.
    """
    tokenizer.no_padding()
    tokenizer.no_truncation()
    if (size := vocabulary_size(tokenizer)) > MAX_VOCABULARY:
        raise BadInput(f"has token ids up to {size - 1:,}.", f"Ids below {MAX_VOCABULARY:,} are read.", file=file)
    with library_errors("is a broken tokenizer", file):
        tokenizer.decode(tokenizer.encode(_TRIAL, _TRIAL).ids, skip_special_tokens=False)


_TRIAL = "The cat's 3 kittens, née \u00c5ngström\t\U0001f408 \u732b\n" + "x" * 300
"""Letters, digits, punctuation, accents, an emoji, CJK, and a long word."""
FAILS = "the tokenizer fails on this text"


@contextmanager
def library_errors(what: str, file: Path | str | None, *, any_error: bool = True) -> Iterator[None]:
    """What the tokenizers library raises becomes BadInput: it raises bare Exception, and a panic is not even that.

    Args:
        what: the sentence to say, without its end.
        any_error: other errors too, which a damaged file may cause; False where code of ours runs.
    """
    try:
        yield
    except HeadstartError:
        raise
    except BaseException as error:
        bare = type(error) is Exception or type(error).__name__ == "PanicException"
        if not bare and not (any_error and isinstance(error, Exception)):
            raise
        mend = "Give a tokenizer.json, a vocab.txt, or a folder of transformers that holds one."
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise BadInput(f"{what} ({reason}).", mend, file=file) from error


def _stated(path: Path) -> dict[str, Any]:
    """What a tokenizer_config.json says."""
    stated = read_json(path)
    if not isinstance(stated, dict):
        raise BadInput("is not a JSON object.", "Save the tokenizer again.", file=path)
    return stated


def _named_specials(stated: dict[str, Any]) -> dict[str, str]:
    """Role -> token, of those that a tokenizer_config.json names."""
    names = {}
    for role, (key, *_) in _ROLES.items():
        value = stated.get(key)
        value = value.get("content") if isinstance(value, dict) else value
        if isinstance(value, str):
            names[role] = value
    return names


def _from_vocabulary(data: bytes, path: Path, config: TextConfig) -> Tokenizer:
    lines = data.decode("utf-8-sig").removesuffix("\n").split("\n")  # a vocabulary may hold other characters that end lines
    lines = [line.removesuffix("\r") for line in lines]
    vocabulary = {token: index for index, token in enumerate(lines)}
    if len(vocabulary) < len(lines):
        first: dict[str, int] = {}
        again = next((index, token) for index, token in enumerate(lines) if first.setdefault(token, index) != index)
        what = f"has {again[1]!r} in line {first[again[1]] + 1:,} and in line {again[0] + 1:,}."
        raise BadInput(what, "A token stands once: its line is its number.", file=path, record=again[0] + 1)
    if "[UNK]" not in vocabulary:
        raise BadInput("has no [UNK], so it is no WordPiece vocabulary.", "Give a vocab.txt of BERT's form, one token a line.", file=path)
    tokenizer = bert_tokenizer(vocabulary, config)
    tokenizer.add_special_tokens([token for token in SPECIAL_TOKENS if token in vocabulary])
    return tokenizer


def write_vocabulary(tokenizer: Tokenizer, folder: Path) -> bool:
    """Writes vocab.txt as BERT has it, a token a line in the order of ids. Returns whether the tokenizer has such a list: WordPiece without gaps."""
    ids = tokenizer.get_vocab()
    words = sorted(ids, key=ids.__getitem__)
    listed = sorted(ids.values()) == list(range(len(ids))) and not any("\n" in word or "\r" in word for word in words)
    if not isinstance(tokenizer.model, models.WordPiece) or not listed:
        return False
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    return True


def _from_json(data: bytes, path: Path) -> Tokenizer:
    text = data.decode()
    _refuse_explosions(json.loads(text), path)
    return Tokenizer.from_str(text)


def _refuse_explosions(parsed: Any, path: Path) -> None:
    """Raises BadInput for what makes the library take memory or time without end (each seen with tokenizers 0.23): text that every character is
    replaced by, several times over; a table of normalisation that states a false size; a search over words of any length."""
    if not isinstance(parsed, dict):
        raise BadInput("is not a JSON object.", "Give a tokenizer.json.", file=path)
    expansion = 1
    for step in _steps(parsed.get("normalizer")):
        inserted = next((value for key in ("content", "prepend") if isinstance(value := step.get(key), str)), "")
        expansion *= max(len(inserted), 1)
        if isinstance(table := step.get("precompiled_charsmap"), str) and not _fits(table):
            raise BadInput("has a damaged table of normalisation.", "Save the tokenizer again.", file=path)
    if expansion > MAX_EXPANSION:
        raise BadInput(f"makes up to {expansion:,} characters of one.", f"At most {MAX_EXPANSION:,} are allowed.", file=path)
    model = parsed.get("model")
    longest = model.get("max_input_chars_per_word") if isinstance(model, dict) else None
    if isinstance(longest, int) and longest > MAX_WORD_SEARCH:
        raise BadInput(f"searches words of {longest:,} characters.", f"At most {MAX_WORD_SEARCH:,} are allowed.", file=path)


def _steps(normalizer: Any) -> Iterator[dict[str, Any]]:
    """The steps of a normaliser, those of sequences within it too."""
    if isinstance(normalizer, dict):
        yield normalizer
        for step in normalizer.get("normalizers") or ():
            yield from _steps(step)


def _fits(table: str) -> bool:
    """Whether sentencepiece's table holds what it states: a size in 4 bytes, an array of that size, strings."""
    try:
        data = base64.b64decode(table)
    except ValueError:
        return False
    size = int.from_bytes(data[:4], "little")
    return len(data) >= 4 and size % 4 == 0 and 4 + size <= len(data)


def _load_from_transformers(folder: Path) -> Tokenizer:
    from transformers import AutoTokenizer  # heavy, and needed only for folders without tokenizer.json

    with library_errors("holds no tokenizer that can be loaded", folder):
        loaded = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        return Tokenizer.from_str(loaded.backend_tokenizer.to_str())


def special_ids(tokenizer: Tokenizer, names: dict[str, str] | None = None) -> dict[str, int]:
    """Role ("pad", "unk", "cls", "sep", "mask", "bos", "eos") -> id, of those that the vocabulary has. `names` (role -> token) comes first."""
    found = {}
    for role, (_, *spellings) in _ROLES.items():
        for token in ([names[role]] if names and role in names else []) + spellings:
            index = tokenizer.token_to_id(token)
            if index is not None:
                found[role] = index
                break
    return found


def require_specials(ids: dict[str, int], names: Iterable[str]) -> None:
    """Raise BadInput naming the special tokens among `names` that the vocabulary lacks."""
    missing = [name for name in names if name not in ids]
    if missing:
        tokens = ", ".join(f"[{name.upper()}]" for name in missing)
        mend = "Take another tokenizer, or leave --text.tokenizer out to train one."
        raise BadInput(f"the tokenizer has no {tokens} token, which this method needs.", mend)


def vocabulary_size(tokenizer: Tokenizer) -> int:
    """One more than the largest id: a vocabulary may have gaps, and an embedding table needs a row for every id up to the last."""
    return max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1


def refuse_more_entries(tokenizer: Tokenizer, rows: int, file: Path | None = None) -> None:
    """Refuses a tokenizer with more entries than a network has rows of embeddings: an id without a row fails in the first batch that has it.

    Args:
        file: the folder that both come from; None: a program brought them together.

    Raises:
        BadInput: of the folder. UsageError: of a program.
    """
    if (size := vocabulary_size(tokenizer)) <= rows:
        return
    words = f"tokenizer has {size:,} entries, the network {rows:,}."
    mend = "Give the network the tokenizer that it was trained with (tokenizer.json or vocab.txt), or resize its embeddings with transformers."
    raise UsageError(f"The {words}", mend) if file is None else BadInput(f"its {words}", mend, file=file)


def sentence_encoder(tokenizer: Tokenizer) -> tuple[Tokenizer, int]:
    """A copy that encodes text with `SENTENCE_END` marks, and the id of a mark.

    One string for a document is a third faster than one a sentence (benchmarks/tokenization.py), and gives the same ids: the mark splits before
    normalising.
    """
    with library_errors("The tokenizer contradicts itself: it cannot be loaded again once it is saved", None):
        encoder = Tokenizer.from_str(tokenizer.to_str())
    encoder.no_padding()
    encoder.no_truncation()
    encoder.encode_special_tokens = True
    encoder.add_tokens([AddedToken(SENTENCE_END, normalized=False, special=False)])
    mark = encoder.token_to_id(SENTENCE_END)
    assert mark is not None
    return encoder, mark


def keeps_line_ends(tokenizer: Tokenizer) -> bool:
    """Whether a line end survives encoding and decoding (byte-level BPE does that, BERT's WordPiece does not)."""
    return "\n" in tokenizer.decode(tokenizer.encode("a\nb", add_special_tokens=False).ids, skip_special_tokens=False)


def continues_word(tokenizer: Tokenizer) -> np.ndarray:
    """bool [vocab_size]: the token continues the word of the token before it.

    WordPiece marks continuations ("##x"); sentencepiece and byte-level vocabularies mark the beginnings ("▁x", "Ġx"). Special tokens never continue.
    """
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    flags = np.zeros(vocabulary_size(tokenizer), bool)
    special = {index for index, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    marks_starts = not isinstance(tokenizer.model, models.WordPiece) and any(token.startswith(("▁", "Ġ")) for token in vocabulary)
    for token, index in vocabulary.items():
        if index not in special:
            flags[index] = not token.startswith(("▁", "Ġ", "Ċ", "ĉ", "č")) if marks_starts else token.startswith("##")
    return flags


def plain(name: str, continues: bool) -> str:
    """A WordPiece token's own characters."""
    return name[2:] if continues else name


def described(tokenizer: Tokenizer) -> dict[str, Any]:
    """What `TextConfig` would say of a tokenizer that is there: kind, size, and whether it folds case and accents."""
    with library_errors(FAILS, None, any_error=False):
        folded = "Aé" if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str("Aé")
    return {
        "tokenizer_kind": type(tokenizer.model).__name__.lower(),
        "vocab_size": vocabulary_size(tokenizer),
        "lowercase": "A" not in folded,
        "strip_accents": "é" not in unicodedata.normalize("NFC", folded),
    }
