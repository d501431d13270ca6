"""Extractive question answering (ELECTRA, google-research/electra finetune/qa): SQuAD 1.1 and 2.0.

- Windows of [CLS] question [SEP] document [SEP]; the answer is a span of the document, position 0 stands for none.
- The end is predicted given the start: the gold one in training, a beam of starts at prediction.
- Where the training file has questions without an answer, a further logit says "has no answer".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from headstart.core.errors import UsageError
from headstart.interop.transformers_io import Encoder
from headstart.tasks.config import FinetuneConfig
from headstart.tasks.data import Question, QuestionData, read_questions
from headstart.tasks.metrics import Records, answer_metrics, answer_values, token_f1
from headstart.tasks.rows import Rows, make_rows
from headstart.tasks.task import Head, Task, frame, linear, plain_tokenizer, real_positions

HIDDEN = 512  # width of the two small networks for ends and answerability
MAX_BEAM = 512  # starts that are tried, and as many ends for each


class SpanHead(Head):
    """Start: H -> 1. End: concat(h_start, h_t), 2H -> 512, GELU, 512 -> 1. Answerability: the same of concat(h_CLS, expected h_start)."""

    def __init__(self, hidden_size: int, beam_size: int = 20, answerable: bool = False, answerable_weight: float = 0.5) -> None:
        super().__init__()
        self.beam_size, self.answerable, self.answerable_weight = beam_size, answerable, answerable_weight
        self.start = linear(hidden_size, 1)
        self.end_hidden, self.end = linear(2 * hidden_size, HIDDEN), linear(HIDDEN, 1)
        if answerable:
            self.answerable_hidden, self.answerable_output = linear(2 * hidden_size, HIDDEN), linear(HIDDEN, 1)

    def loss(self, hidden: Tensor, batch: dict[str, Tensor]) -> Tensor:
        mask = answer_mask(real_positions(batch), batch["token_type_ids"])
        start_logits = mask_logits(self.start(hidden)[..., 0].float(), mask)
        gold = hidden[torch.arange(len(hidden), device=hidden.device), batch["start"]][:, None]  # [batch, 1, H]
        end_logits = mask_logits(self._end_logits(hidden, gold)[:, 0], mask)
        loss = (F.cross_entropy(start_logits, batch["start"], reduction="sum") + F.cross_entropy(end_logits, batch["end"], reduction="sum")) / 2
        if self.answerable:
            no_answer = self._no_answer_logit(hidden, start_logits)
            loss = loss + self.answerable_weight * F.binary_cross_entropy_with_logits(no_answer, batch["impossible"].float(), reduction="sum")
        return loss

    def outputs(self, hidden: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """`start` [batch, beam], `end` [batch, beam, beam], `log_prob` of each pair [batch, beam, beam], `no_answer` [batch]."""
        mask = answer_mask(real_positions(batch), batch["token_type_ids"])
        start_logits = mask_logits(self.start(hidden)[..., 0].float(), mask)
        beam = min(self.beam_size, hidden.shape[1])
        start_log_prob, start = start_logits.log_softmax(-1).topk(beam)  # [batch, beam]
        chosen = hidden.gather(1, start[..., None].expand(-1, -1, hidden.shape[2]))  # [batch, beam, H]
        end_logits = mask_logits(self._end_logits(hidden, chosen), mask[:, None])  # [batch, beam, length]
        end_log_prob, end = end_logits.log_softmax(-1).topk(beam)  # [batch, beam, beam]
        short = self.beam_size - beam  # rows shorter than the beam
        found = {
            "start": F.pad(start, (0, short)),
            "end": F.pad(end, (0, short, 0, short)),
            "log_prob": F.pad(start_log_prob[..., None] + end_log_prob, (0, short, 0, short), value=-torch.inf),
        }
        found["no_answer"] = self._no_answer_logit(hidden, start_logits) if self.answerable else start_logits.new_full((len(hidden),), -torch.inf)
        return found

    def _end_logits(self, hidden: Tensor, starts: Tensor) -> Tensor:
        """[batch, length, H], [batch, starts, H] -> [batch, starts, length]. The wide layer is split into its two halves, so that nothing of size
        starts x length x 2H exists."""
        size = hidden.shape[2]
        of_start = F.linear(starts, self.end_hidden.weight[:, :size], self.end_hidden.bias)  # [batch, starts, 512]
        of_end = F.linear(hidden, self.end_hidden.weight[:, size:])  # [batch, length, 512]
        logits = [self.end(F.gelu(of_end + of_start[:, i, None]))[..., 0] for i in range(starts.shape[1])]
        return torch.stack(logits, 1).float()

    def _no_answer_logit(self, hidden: Tensor, start_logits: Tensor) -> Tensor:
        expected = (start_logits.softmax(-1).to(hidden.dtype)[:, None] @ hidden)[:, 0]  # [batch, H]
        return self.answerable_output(F.gelu(self.answerable_hidden(torch.cat([hidden[:, 0], expected], -1))))[:, 0].float()


def answer_mask(real: Tensor, segments: Tensor) -> Tensor:
    """bool [batch, length]: where an answer may begin or end: the document with its final [SEP], and position 0 for "none"."""
    mask = real.bool() & (segments == 1)
    mask[:, 0] = True
    return mask


def mask_logits(logits: Tensor, mask: Tensor) -> Tensor:
    """1000 off where no answer may stand."""
    return logits - 1000.0 * (~mask)


@dataclass
class Answer:
    """What the network says to one question."""

    text: str  # the best span
    no_answer: float  # logit of "has no answer", the least over the windows; -inf if it was never trained
    n_best: list[tuple[str, float]] = field(default_factory=list)  # text and log-probability, best first


class QuestionAnswering(Task):
    """A span of a text for each question."""

    name: ClassVar[str] = "question-answering"
    metric = "f1"
    default_length = 512

    def __init__(self, config: FinetuneConfig, train: Any = None, answerable: bool = False) -> None:
        """`train`: the training file or data; or whether some questions have no answer (`answerable`), for a saved model."""
        super().__init__(config)
        if not 1 <= config.qa.beam_size <= MAX_BEAM:
            raise UsageError(f"qa.beam_size is {config.qa.beam_size}.", f"Give 1 to {MAX_BEAM}.")
        if train is not None:
            self.train = train if isinstance(train, QuestionData) else read_questions(train, training=True)
            answerable = any(question.impossible for question in self.train.questions)
        self.answerable = answerable

    def read(self, path: Any) -> QuestionData:
        return path if isinstance(path, QuestionData) else read_questions(path)

    def rows(self, data: QuestionData, encoder: Encoder, training: bool) -> Rows:
        """Windows; on the host char_start, char_end, max_context of each piece; for each row question and, for training, start, end, impossible."""
        begin, middle, end = frame(encoder)
        tokenizer = plain_tokenizer(encoder)
        contexts = list(dict.fromkeys(question.context for question in data.questions))
        encoded = dict(zip(contexts, tokenizer.encode_batch(contexts, add_special_tokens=False), strict=True))
        queries = tokenizer.encode_batch([question.question for question in data.questions], add_special_tokens=False)
        ids, segments, char_start, char_end, context = [], [], [], [], []
        values: dict[str, list[int]] = {"question": [], "start": [], "end": [], "impossible": []}
        for number, (question, query) in enumerate(zip(data.questions, queries, strict=True)):
            head = begin + query.ids[: self.config.qa.max_query_length] + middle
            document = encoded[question.context]
            offsets = np.asarray(document.offsets, dtype=np.int32).reshape(-1, 2)
            room = self.length(encoder) - len(head) - len(end)
            if room < 1:
                raise UsageError("Question and special tokens leave no room for the document.", "Raise max_length or lower qa.max_query_length.")
            spans = document_windows(len(document.ids), room, self.config.qa.document_stride)
            best = max_context(len(document.ids), spans)
            gold = answer_pieces(offsets, question) if training and not question.impossible else (-1, -1)
            for window, (first, last) in enumerate(spans):
                inside = first <= gold[0] and gold[1] < last
                before, after, size = [0] * len(head), [0] * len(end), last - first
                ids.append(head + document.ids[first:last] + end)
                segments.append(before + [1] * (size + len(end)))
                char_start.append(before + offsets[first:last, 0].tolist() + after)
                char_end.append(before + offsets[first:last, 1].tolist() + after)
                context.append(before + (best[first:last] == window).astype(int).tolist() + after)
                for name, value in (
                    ("question", number),
                    ("start", gold[0] - first + len(head) if inside else 0),
                    ("end", gold[1] - first + len(head) if inside else 0),
                    ("impossible", int(question.impossible)),
                ):
                    values[name].append(value)
        host = {"char_start": char_start, "char_end": char_end, "max_context": context}
        return make_rows(ids, {"token_type_ids": segments}, values, host_values=host)

    def head(self, encoder: Encoder) -> SpanHead:
        return SpanHead(encoder.hidden_size, self.config.qa.beam_size, self.answerable, self.config.qa.answerable_weight)

    def predictions(self, outputs: dict[str, np.ndarray], rows: Rows, data: QuestionData) -> list[Answer]:
        number = rows.row_values["question"]  # ascending: windows of a question follow each other
        bounds = np.searchsorted(number, np.arange(len(data) + 1))
        return [self._answer(question, range(bounds[i], bounds[i + 1]), outputs, rows) for i, question in enumerate(data.questions)]

    def _answer(self, question: Question, windows: range, outputs: dict[str, np.ndarray], rows: Rows) -> Answer:
        candidates: list[tuple[float, int, int]] = []  # log-probability, first and last character
        for row in windows:
            part = slice(rows.offsets[row], rows.offsets[row + 1])
            start_of, end_of, best = (rows.host_values[name][part] for name in ("char_start", "char_end", "max_context"))
            start = np.broadcast_to(outputs["start"][row][:, None], outputs["end"][row].shape)
            end, log_prob = outputs["end"][row], outputs["log_prob"][row]
            size = len(start_of)
            fits = np.isfinite(log_prob) & (start < size) & (end < size)
            start, end, log_prob = start[fits], end[fits], log_prob[fits]
            is_span = (best[start] == 1) & (end_of[end] > 0) & (end >= start) & (end - start < self.config.qa.max_answer_length)
            candidates += zip(log_prob[is_span].tolist(), start_of[start[is_span]].tolist(), end_of[end[is_span]].tolist(), strict=True)
        n_best: dict[str, float] = {}
        for log_prob, first, last in sorted(candidates, reverse=True):
            text = question.context[first:last].strip()
            if text:
                n_best.setdefault(text, log_prob)
            if len(n_best) == self.config.qa.n_best:
                break
        texts = list(n_best.items())
        return Answer(texts[0][0] if texts else "", float(outputs["no_answer"][windows].min()), texts)

    def said(self, answer: Answer) -> str:
        """The answer's text, or "" where "has no answer" wins."""
        return "" if self.answerable and answer.no_answer > self.config.qa.no_answer_threshold else answer.text

    def score(self, predictions: list[Answer], data: QuestionData) -> dict[str, float]:
        texts = [self.said(answer) for answer in predictions]
        found = answer_metrics(texts, [question.answers for question in data.questions])
        if any(question.impossible for question in data.questions):
            silent = [text == "" for text in texts]
            found["no_answer_accuracy"] = float(np.mean([s == q.impossible for s, q in zip(silent, data.questions, strict=True)]))
        return found

    def records(self, predictions: list[Answer], data: QuestionData) -> Records:
        return Records.of_shares(answer_values([self.said(answer) for answer in predictions], [q.answers for q in data.questions], token_f1))

    def stuck(self, predictions: list[Answer]) -> str | None:
        texts = [self.said(answer) for answer in predictions]
        return "it answers nothing to every question" if len(texts) > 1 and not any(texts) else None

    def to_json(self) -> dict[str, Any]:
        return {"answerable": self.answerable}


def document_windows(n: int, room: int, stride: int) -> list[tuple[int, int]]:
    """Windows of at most `room` of `n` pieces, each beginning `stride` (or, if shorter, a window) after the one before: (first, after the last)."""
    found, first = [], 0
    while True:
        last = min(first + room, n)
        found.append((first, last))
        if last == n:
            return found
        first += min(room, stride)


def max_context(n: int, spans: list[tuple[int, int]]) -> np.ndarray:
    """int [n]: for each piece the window where it has most context on its poorer side (a longer window counts 0.01 a piece), the first of equals."""
    place = np.arange(n)
    scores = np.full((len(spans), n), -np.inf)
    for window, (first, last) in enumerate(spans):
        inside = slice(first, last)
        scores[window, inside] = np.minimum(place[inside] - first, last - 1 - place[inside]) + 0.01 * (last - first)
    return scores.argmax(0)


def answer_pieces(offsets: np.ndarray, question: Question) -> tuple[int, int]:
    """First and last piece that share a character with the first answer.

    Args:
        offsets: int [pieces, 2], first character and character after the last.
    """
    stop = question.start + len(question.answers[0])
    touching = np.flatnonzero((offsets[:, 1] > question.start) & (offsets[:, 0] < stop))
    return (int(touching[0]), int(touching[-1])) if len(touching) else (-1, -1)
