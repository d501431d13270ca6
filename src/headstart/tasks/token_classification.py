"""Tagging of words (ELECTRA, google-research/electra finetune/tagging): entities, chunks, parts of speech.

The hidden state of the first piece of each word -> Linear -> cross-entropy, summed over words. Spans are trained as BIOES and scored as entities
(start, end, type); plain tags are scored by accuracy.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from headstart.core.errors import BadInput
from headstart.interop.transformers_io import Encoder
from headstart.tasks.blue import cut_sentences, phrase_f1
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.data import TaggedData, read_tags
from headstart.tasks.metrics import Records, is_span_scheme, span_counts, span_metrics, span_scores, to_bioes, without_each
from headstart.tasks.rows import Rows, make_rows
from headstart.tasks.task import Head, Task, frame, linear, plain_tokenizer

NO_WORD = -100  # label of a piece that stands for no word


class TaggingHead(Head):
    """Dropout, Linear hidden -> tags at every position; only positions that stand for a word count."""

    def __init__(self, hidden_size: int, n_tags: int, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.output = linear(hidden_size, n_tags)

    def loss(self, hidden: Tensor, batch: dict[str, Tensor]) -> Tensor:
        return tagging_loss(self._logits(hidden), batch["tag"])

    def outputs(self, hidden: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"tag": self._logits(hidden).argmax(-1).short()}  # [batch, length]

    def _logits(self, hidden: Tensor) -> Tensor:
        return self.output(self.dropout(hidden)).float()  # [batch, length, tags]


def tagging_loss(logits: Tensor, tags: Tensor) -> Tensor:
    """Cross-entropy summed over all words of the batch.

    Args:
        logits: [batch, length, tags].
        tags: int64 [batch, length], NO_WORD where no word is scored.
    """
    return F.cross_entropy(logits.flatten(0, 1), tags.flatten(), ignore_index=NO_WORD, reduction="sum")


class Tagging(Task):
    """A tag for each word."""

    name: ClassVar[str] = "tagging"

    def __init__(self, config: FinetuneConfig, train: Any = None, tags: list[str] | None = None, span_scheme: bool = False) -> None:
        """`train`: the training file or data; or the `tags` themselves (BIOES if `span_scheme`), for a saved model."""
        super().__init__(config)
        if tags is None:
            self.train = self.read(train)
            found = sorted({tag for sentence in self.train.tags for tag in sentence} | set(config.labels))
            span_scheme = is_span_scheme(found)
            tags = sorted({tag for sentence in self.train.tags for tag in to_bioes(sentence)} | {"O"}) if span_scheme else found
        if len(tags) < 2:
            raise BadInput(f"has only the tag {tags[0]!r}", "Tagging needs at least two tags.", file=self.train.source or None)
        self.tags, self.span_scheme = tags, span_scheme
        self.metric = "f1" if span_scheme else "accuracy"

    def read(self, path: Any) -> TaggedData:
        """Tags that the training file lacks are no error: few labels rarely show all. They cannot be predicted, and the result says how many."""
        data = path if isinstance(path, TaggedData) else read_tags(path, self.config.labels or None)
        return data if self.config.tagging.longest is None else cut_sentences(data, self.config.tagging.longest)

    def unseen(self, data: TaggedData) -> str | None:
        known = set(self.tags)
        coded = [to_bioes(sentence) for sentence in data.tags] if self.span_scheme else data.tags
        strange = Counter(tag for sentence in coded for tag in sentence if tag not in known)
        if not strange:
            return None
        names = ", ".join(strange)
        return f"{strange.total()} words of the test file have a tag that training never showed ({names}); they count as wrong."

    def rows(self, data: TaggedData, encoder: Encoder, training: bool) -> Rows:
        """Windows of whole words. For each piece `tag`, and on the host `word`, its number in the sentence; both NO_WORD where no word is scored."""
        index = {tag: i for i, tag in enumerate(self.tags)}
        coded = [to_bioes(sentence) for sentence in data.tags] if self.span_scheme else data.tags
        begin, _, end = frame(encoder)
        room = self.length(encoder) - len(begin) - len(end)
        ids, tags, words, sentences = [], [], [], []
        for number, pieces in enumerate(word_pieces(data.words, encoder)):
            for first, last in windows([len(word) for word in pieces], room):
                row, row_tags, row_words = list(begin), [NO_WORD] * len(begin), [NO_WORD] * len(begin)
                for word in range(first, last):
                    part = pieces[word][:room]  # a word longer than a whole window
                    marks = [NO_WORD] * len(part)
                    at = len(part) - 1 if encoder.causal else 0  # a causal network has seen the whole word only at its last piece
                    marks[at] = word
                    row += part
                    row_words += marks
                    tag = index.get(coded[number][word], 0)  # a tag that training never had: scoring reads the data itself
                    row_tags += [tag if mark != NO_WORD else NO_WORD for mark in marks]
                row, row_tags, row_words = row + end, row_tags + [NO_WORD] * len(end), row_words + [NO_WORD] * len(end)
                ids.append(row)
                tags.append(row_tags)
                words.append(row_words)
                sentences.append(number)
        values = {"tag": tags, "token_type_ids": [[1] * len(row) for row in ids]}  # segment 1, as in the official tagging task
        return make_rows(ids, values, {"sentence": sentences}, {"tag": NO_WORD}, {"word": words})

    def head(self, encoder: Encoder) -> TaggingHead:
        return TaggingHead(encoder.hidden_size, len(self.tags), self.config.dropout)

    def predictions(self, outputs: dict[str, np.ndarray], rows: Rows, data: TaggedData) -> list[list[str]]:
        found = [[""] * len(words) for words in data.words]
        for i, sentence in enumerate(rows.row_values["sentence"]):
            words = rows.host_values["word"][rows.offsets[i] : rows.offsets[i + 1]]
            for at in np.flatnonzero(words != NO_WORD):
                found[sentence][words[at]] = self.tags[outputs["tag"][i, at]]
        return found

    def score(self, predictions: list[list[str]], data: TaggedData) -> dict[str, float]:
        if self.span_scheme and self.config.tagging.f1 == "blue":
            return phrase_f1(predictions, data.tags)
        if self.span_scheme:
            return span_metrics(predictions, [to_bioes(sentence) for sentence in data.tags])
        pairs = [(p, t) for mine, gold in zip(predictions, data.tags, strict=True) for p, t in zip(mine, gold, strict=True)]
        return {"accuracy": sum(p == t for p, t in pairs) / len(pairs)}

    def records(self, predictions: list[list[str]], data: TaggedData) -> Records | None:
        """Of each sentence; none where they are scored together."""
        if self.span_scheme and self.config.tagging.f1 == "blue":
            return None  # a phrase may reach over several
        gold = [to_bioes(sentence) for sentence in data.tags] if self.span_scheme else data.tags
        counts = span_counts(predictions, gold)
        return without_each(lambda kept: span_scores(counts[kept])[self.metric], len(counts))

    def stuck(self, predictions: list[list[str]]) -> str | None:
        (tag, count), *_ = Counter(tag for sentence in predictions for tag in sentence).most_common(1)
        return f"it gives the tag {tag!r} to every word" if count == sum(map(len, predictions)) > 1 else None

    def to_json(self) -> dict[str, Any]:
        return {"tags": self.tags, "span_scheme": self.span_scheme}


def word_pieces(sentences: list[list[str]], encoder: Encoder) -> list[list[list[int]]]:
    """The pieces of each word of each sentence, at least one a word ([UNK] where the tokenizer leaves nothing).

    The words are tokenised joined by spaces, as running text is, and a piece goes to the word that its last character lies in: so a byte-level
    vocabulary meets the same leading spaces as in training.
    """
    tokenizer = plain_tokenizer(encoder)
    unknown = encoder.tokenizer.unk_token_id
    if unknown is None:
        unknown = 0
    encodings = tokenizer.encode_batch([" ".join(words) for words in sentences], add_special_tokens=False)
    result = []
    for words, encoding in zip(sentences, encodings, strict=True):
        ends = np.cumsum([len(word) + 1 for word in words]) - 1  # character after each word
        pieces: list[list[int]] = [[] for _ in words]
        for piece, (_, stop) in zip(encoding.ids, encoding.offsets, strict=True):
            pieces[int(np.searchsorted(ends, max(stop, 1)))].append(piece)
        result.append([word or [unknown] for word in pieces])
    return result


def windows(lengths: list[int], room: int) -> list[tuple[int, int]]:
    """Cuts words of these numbers of pieces into windows of whole words with at most `room` pieces: (first word, word after the last) each."""
    found, first, used = [], 0, 0
    for word, length in enumerate(lengths):
        length = min(length, room)
        if used + length > room:
            found.append((first, word))
            first, used = word, 0
        used += length
    return [*found, (first, len(lengths))]
