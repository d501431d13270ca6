"""Our own fastText classifier: a mean of word and n-gram vectors, a softmax, trained by stochastic gradient descent with a falling rate (webmath A3).

The hashes, ids, updates and file format are fastText's, so that a model trained here runs there and the other way (`fasttext_file`). Texts are one
line: words
between blanks, and the end of the line is the word `</s>`.
"""

from __future__ import annotations

import json
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np

from headstart.core.errors import BadInput
from headstart.core.files import atomic_write

POSITIVE, NEGATIVE = "__label__positive", "__label__negative"
END = "</s>"
_FACTOR = np.uint64(116049371)
_BLANK = re.compile(r"[ \t\n\v\f\r\0]+")
FORMAT = "headstart classifier 1"
MANY = 10_000
"""Below so many documents the paper's settings stay near the prior and keep everything."""


@dataclass(frozen=True)
class FastTextConfig:
    """How a classifier is trained. The defaults are for a million documents; `FEW` is for fewer than 10,000."""

    dim: int = 256
    """Length of the vectors."""
    learning_rate: float = 0.1
    """At the start; it falls linearly to 0 over the words."""
    word_ngrams: int = 3
    """Longest n-gram of words."""
    min_count: int = 3
    """Words that occur less often have no vector of their own."""
    epochs: int = 3
    """Passes over the documents."""
    bucket: int = 2_000_000
    """Hashed vectors that the n-grams share."""
    seed: int = 0
    """Decides the initial vectors and the order of the documents."""


HELD_ROWS = 20_000_000
"""Of so many words and n-grams the rows are kept from one pass over the documents to the next, a quarter of a gigabyte; of a million documents they
would be 36, and are found anew in each."""
FEW = FastTextConfig(dim=64, learning_rate=0.5, word_ngrams=1, min_count=3, epochs=25, bucket=100_000)


def word_hash(word: str) -> int:
    """FNV-1a of 32 bits over the bytes of a word, each extended by its sign as fastText does."""
    value = 2166136261
    for byte in word.encode("utf-8", "surrogatepass"):
        value = ((value ^ (byte | 0xFFFFFF00 if byte & 0x80 else byte)) * 16777619) & 0xFFFFFFFF
    return value


def ngram_ids(hashes: np.ndarray, longest: int, bucket: int) -> np.ndarray:
    """Bucket numbers of the n-grams of 2 to `longest` words.

    Args:
        hashes: uint32 [n], of the words in order, those without a vector too.

    Returns:
        int64 [m].
    """
    if longest < 2 or len(hashes) < 2 or bucket == 0:
        return np.zeros(0, dtype=np.int64)
    extended = hashes.view(np.int32).astype(np.int64).view(np.uint64)  # fastText keeps them as signed 32-bit numbers
    value, found = extended, []
    for step in range(1, min(longest, len(hashes))):
        value = value[:-1] * _FACTOR + extended[step:]  # wraps at 2^64
        found.append(value % np.uint64(bucket))
    return np.concatenate(found).astype(np.int64) if found else np.zeros(0, dtype=np.int64)


def split(text: str) -> list[str]:
    """The words of a text taken as one line, with its end."""
    return [*(word for word in _BLANK.split(text) if word), END]


@dataclass
class Classifier:
    """A trained classifier.

    Attributes:
        words: word -> row of `vectors`.
        labels: names of the classes, in the order of the rows of `output`.
        vectors: float32 [words + bucket, dim].
        output: float32 [labels, dim].
        pruned: bucket -> row behind the words, in a quantised file that dropped rows; None: nothing was dropped.
        counts: occurrences of each word and each label, as a fastText file keeps them.
    """

    words: dict[str, int]
    labels: list[str]
    vectors: np.ndarray
    output: np.ndarray
    config: FastTextConfig
    pruned: dict[int, int] | None = None
    counts: tuple[list[int], list[int]] | None = None
    _hashes: dict[str, int] = field(default_factory=dict, repr=False)

    def ids(self, text: str) -> np.ndarray:
        """Rows of `vectors` that a text is the mean of: int64 [n]."""
        words = split(text)
        known = [row for word in words if (row := self.words.get(word)) is not None]
        if self.config.word_ngrams < 2:
            return np.array(known, dtype=np.int64)
        if len(self._hashes) > 2_000_000:
            self._hashes.clear()
        cached = self._hashes
        hashes = np.empty(len(words), dtype=np.uint32)
        for place, word in enumerate(words):
            value = cached.get(word)
            if value is None:
                value = cached[word] = word_hash(word)
            hashes[place] = value
        grams = ngram_ids(hashes, self.config.word_ngrams, self.config.bucket)
        if self.pruned is not None:
            grams = np.array([row for gram in grams.tolist() if (row := self.pruned.get(gram)) is not None], dtype=np.int64)
        return np.concatenate([np.array(known, dtype=np.int64), grams + len(self.words)])

    def predict(self, texts: Iterable[str]) -> np.ndarray:
        """Probabilities of the labels: float32 [n, labels]. Of a text without a known word, to which fastText answers nothing, all labels are as
        likely as each other."""
        rows = []
        for text in texts:
            ids = self.ids(text)
            hidden = self.vectors[ids].mean(axis=0) if len(ids) else np.zeros(self.output.shape[1], dtype=np.float32)
            rows.append(_softmax(self.output @ hidden))
        return np.stack(rows).astype(np.float32) if rows else np.zeros((0, len(self.labels)), dtype=np.float32)

    def positive(self, texts: Iterable[str]) -> np.ndarray:
        """The probability of `__label__positive`: float32 [n]."""
        return self.predict(texts)[:, self.labels.index(POSITIVE)]


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()


def settings_for(documents: int, config: FastTextConfig | None, warn: Callable[[str], None]) -> FastTextConfig:
    """The given settings, or those for so many documents: `FEW` under 10,000, and then it says so."""
    if config is not None:
        return config
    if documents >= MANY:
        return FastTextConfig()
    why = "the paper's, for a million documents, would stay near the prior and keep everything"
    warn(f"{documents:,} documents to learn from: settings 'few' ({why})")
    return FEW


def train(positive: Sequence[str], negative: Sequence[str], config: FastTextConfig, held_rows: int = HELD_ROWS) -> Classifier:
    """A classifier of `__label__positive` against `__label__negative`.

    Args:
        positive, negative: the documents.
        held_rows: of more words and n-grams in all none is kept between two passes; the result is the same.

    Raises:
        BadInput: a side is empty, or no word is frequent enough.
    """
    if not positive or not negative:
        side = "positive" if not positive else "negative"
        raise BadInput(f"There are no {side} documents to learn from.", "A classifier needs both sides.")
    texts, targets = [*positive, *negative], [0] * len(positive) + [1] * len(negative)
    order = np.random.default_rng(config.seed).permutation(len(texts))
    counted, lengths = Counter[str](), []
    for i in order:
        words = split(texts[i])
        counted.update(words)
        lengths.append(len(words))
    kept = sorted((word for word, n in counted.items() if n >= config.min_count), key=lambda word: (-counted[word], word))
    if not kept:
        raise BadInput(f"No word occurs {config.min_count} times.", "Give more documents, or lower min_count.")
    random = np.random.default_rng([config.seed, 1])
    rows = len(kept) + (config.bucket if config.word_ngrams > 1 else 0)
    vectors = random.random((rows, config.dim), dtype=np.float32)
    vectors *= 2 / config.dim
    vectors -= 1 / config.dim  # uniform in -1/dim .. 1/dim
    model = Classifier(
        {word: row for row, word in enumerate(kept)},
        [POSITIVE, NEGATIVE],
        vectors,
        np.zeros((2, config.dim), dtype=np.float32),
        config if config.word_ngrams > 1 else replace(config, bucket=0),
        counts=([counted[word] for word in kept], [len(positive), len(negative)]),
    )
    _descend(model, [texts[i] for i in order], [targets[i] for i in order], lengths, held_rows)
    return model


def _descend(model: Classifier, texts: Sequence[str], targets: Sequence[int], lengths: Sequence[int], held_rows: int) -> None:
    """Stochastic gradient descent, a document at a time, in fastText's order of updates."""
    config, vectors, output = model.config, model.vectors, model.output

    def prepared(text: str) -> tuple[np.ndarray, np.ndarray]:
        rows, counted = np.unique(model.ids(text), return_counts=True)
        return rows, counted.astype(np.float32)

    held = list(map(prepared, texts)) if sum(lengths) * config.word_ngrams <= held_rows else None
    total = config.epochs * sum(lengths)
    done = 0
    for _ in range(config.epochs):
        for (rows, times), target, length in zip(held or map(prepared, texts), targets, lengths, strict=True):
            rate = config.learning_rate * (1 - done / total)
            done += length
            if not len(rows):
                continue
            n = times.sum()
            hidden = times @ vectors[rows] / n
            pull = -_softmax(output @ hidden)
            pull[target] += 1
            pull *= np.float32(rate)
            gradient = pull @ output / n
            output += np.outer(pull, hidden)
            vectors[rows] += times[:, None] * gradient


# files


def save_classifier(model: Classifier, path: str | Path) -> None:
    """Writes a classifier as safetensors: `vectors`, `output`, and the words as one text of lines; no pickle. Whole or not at all."""
    from safetensors.numpy import save

    if model.pruned is not None:
        raise BadInput("A pruned model cannot be saved in our format.", "Keep the .bin or .ftz file that it came from.")
    about = {"format": FORMAT, "labels": model.labels, "config": asdict(model.config)}
    words = np.frombuffer("\n".join(model.words).encode("utf-8", "surrogatepass"), dtype=np.uint8)
    counts = np.array([*model.counts[0], *model.counts[1]] if model.counts else [], dtype=np.int64)
    tensors = {"vectors": model.vectors, "output": model.output, "words": words, "counts": counts}
    with atomic_write(path) as file:
        file.write(save(tensors, metadata={"about": json.dumps(about, sort_keys=True)}))


def load_classifier(path: str | Path) -> Classifier:
    """A classifier of ours (.safetensors) or of fastText (.bin, .ftz).

    Raises:
        BadInput: it is none, or damaged, or its labels are not `__label__positive` and `__label__negative`.
    """
    path = Path(path)
    if path.suffix in (".bin", ".ftz"):
        from headstart.curate.fasttext_file import read_fasttext

        model = read_fasttext(path)
    else:
        model = _load_ours(path)
    if set(model.labels) != {POSITIVE, NEGATIVE}:
        raise BadInput(f"has the labels {', '.join(model.labels[:5])}.", f"A classifier of documents has {POSITIVE} and {NEGATIVE}.", file=path)
    return model


def _mapped(path: Path, name: str) -> np.ndarray:
    """A float32 tensor of a safetensors file where it lies: two million vectors of 256 are 2 GB, which all workers of a machine then share."""
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        about = json.loads(file.read(size))[name]
    if about["dtype"] != "F32":
        raise ValueError(f"{name} is {about['dtype']}")
    return np.memmap(path, "<f4", "r", 8 + size + about["data_offsets"][0], tuple(about["shape"]))


def _load_ours(path: Path) -> Classifier:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))  # one entry: the order of several is not always the same
            if about.get("format") != FORMAT:
                raise BadInput("is no classifier of ours.", "Train one with headstart curate, or give a fastText .bin file.", file=path)
            output, words, counts = (file.get_tensor(name) for name in ("output", "words", "counts"))
        vectors = _mapped(path, "vectors")
        config, labels = FastTextConfig(**about["config"]), about["labels"]
        names = words.tobytes().decode("utf-8", "surrogatepass").split("\n")
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"cannot be read as a classifier ({error}).", "It is damaged or something else.", file=path) from error
    fits = vectors.ndim == output.ndim == 2 and vectors.shape == (len(names) + config.bucket * (config.word_ngrams > 1), config.dim)
    if not fits or output.shape != (len(labels), config.dim):
        raise BadInput("has tables that do not fit together.", "It is damaged; train it again.", file=path)
    n = len(names)
    both = (counts[:n].tolist(), counts[n:].tolist()) if len(counts) == n + len(labels) else None
    return Classifier({word: row for row, word in enumerate(names)}, labels, vectors, output, config, counts=both)
