"""Labelled files: classification and regression (csv, tsv, jsonl, parquet; also .gz and .zst), tagged words (CoNLL, jsonl), questions (SQuAD json).

Nothing is guessed: a record that cannot be used stops the reading with its file and number, before any training time is spent. Questions for training
whose answer is not at its offset are dropped, named and counted, as every SQuAD reader does; more than 5 % of them stop it after all.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart.core.errors import BadInput
from headstart.data.tables import decoded, json_records, json_value, lines_of, records, suffix_of, wrong_delimiter
from headstart.data.text.read import why_no_text

MAX_DROPPED_SHARE = 0.05
MAX_CLASSES = 10_000
"""Classes or tags of a file; a head has a row of weights for each."""
MAX_NAME = 1000
"""Characters of the name of a class."""


@dataclass
class TextData:
    """Labelled texts, or pairs of texts."""

    texts: list[str]
    labels: list[int] | list[float]  # index into `classes`, or the number to predict
    classes: list[str] = field(default_factory=list)  # empty for regression
    seconds: list[str] | None = None  # the second text of each pair
    source: str = ""

    def __len__(self) -> int:
        return len(self.texts)

    def leak_texts(self) -> list[str]:
        return self.texts if self.seconds is None else [f"{a}\n{b}" for a, b in zip(self.texts, self.seconds, strict=True)]


@dataclass
class TaggedData:
    """Sentences as words, each with a tag."""

    words: list[list[str]]
    tags: list[list[str]]
    source: str = ""

    def __len__(self) -> int:
        return len(self.words)

    def leak_texts(self) -> list[str]:
        return [" ".join(words) for words in self.words]


@dataclass(frozen=True)
class Question:
    """One question on one text."""

    id: str
    question: str
    context: str
    answers: tuple[str, ...]  # accepted answers; empty if it cannot be answered
    start: int  # character offset of the first answer in `context`; -1 if it cannot be answered
    impossible: bool


@dataclass
class QuestionData:
    """Questions, and the places of those that were dropped."""

    questions: list[Question]
    dropped: list[str] = field(default_factory=list)
    source: str = ""

    def __len__(self) -> int:
        return len(self.questions)

    def leak_texts(self) -> list[str]:
        return [f"{question.question}\n{question.context}" for question in self.questions]


def read_classification(
    path: str | Path, text_field: str = "text", second_field: str | None = None, label_field: str = "label", classes: Sequence[str] | None = None,
    of: str = "",
) -> TextData:  # fmt: skip
    """Texts with a class each.

    Args:
        second_field: the field with the second text of a pair.
        classes: the class names; a label outside them is refused. None takes those found, sorted (as numbers if they are).
        of: what stands before the names of the fields in their flags: "probe." for --probe.text-field.

    Raises:
        BadInput: the file, a record or a label cannot be used; fewer than two classes.
    """
    texts, seconds, found = [], [], []
    known = None if classes is None else set(classes)
    for number, record in records(path):
        texts.append(_text(record, text_field, path, number, f"--{of}text-field"))
        if second_field is not None:
            seconds.append(_text(record, second_field, path, number, f"--{of}second-field"))
        found.append(_class_name(_value(record, label_field, path, number, f"--{of}label-field"), label_field, path, number))
        if known is not None and found[-1] not in known:
            raise BadInput(
                f"the label {found[-1]!r} is not one of {_some(list(classes or ()))}",
                "Correct the label, or add an example of it to the training file.",
                file=path,
                record=number,
            )
    names = list(classes) if classes is not None else _sorted_classes(found)
    if len(names) < 2:
        raise BadInput(f"has only the class {names[0]!r}", "Classification needs records of at least two classes.", file=path)
    refuse_many(names, "classes", path)
    index = {name: i for i, name in enumerate(names)}
    return TextData(texts, [index[name] for name in found], names, seconds if second_field is not None else None, str(path))


def read_regression(
    path: str | Path,
    text_field: str = "text",
    second_field: str | None = None,
    label_field: str = "label",
    minimum: float | None = None,
    maximum: float | None = None,
) -> TextData:
    """Texts with a number each.

    Args:
        minimum, maximum: a number outside them is refused.

    Raises:
        BadInput: the file or a record cannot be used.
    """
    texts, seconds, numbers = [], [], []
    for number, record in records(path):
        texts.append(_text(record, text_field, path, number, "--text-field"))
        if second_field is not None:
            seconds.append(_text(record, second_field, path, number, "--second-field"))
        raw = _value(record, label_field, path, number, "--label-field")
        try:
            value = float("nan") if isinstance(raw, bool) else float(raw)
        except (TypeError, ValueError, OverflowError):
            value = float("nan")
        if not math.isfinite(value):
            what = f"the field {label_field!r} is {raw!r}, which is not a finite number"
            raise BadInput(what, "Correct or remove the record.", file=path, record=number)
        if (minimum is not None and value < minimum) or (maximum is not None and value > maximum):
            raise BadInput(f"the number {value:g} lies outside {minimum} to {maximum}", "Correct the record or the range.", file=path, record=number)
        numbers.append(value)
    return TextData(texts, numbers, [], seconds if second_field is not None else None, str(path))


def read_tags(path: str | Path, tags: Sequence[str] | None = None) -> TaggedData:
    """Words with a tag each: CoNLL columns (the word first, its tag last, blank lines between sentences, -DOCSTART- lines skipped), or jsonl with
    `words` and `tags`, each a list or a string with spaces.

    Args:
        tags: the known tags; another one is refused.

    Raises:
        BadInput: the file or a record cannot be used; a word without a tag.
    """
    found = _read_jsonl_tags(path) if suffix_of(path) in (".jsonl", ".json") else _read_conll(path)
    words, labels, numbers = [], [], []
    known = None if tags is None else set(tags)
    for number, sentence, sequence in found:
        if known is not None and (strange := [tag for tag in sequence if tag not in known]):
            what = f"the tag {strange[0]!r} does not occur in the training file"
            raise BadInput(what, "Correct the tag, or add an example of it to the training file.", file=path, record=number)
        words.append(sentence)
        labels.append(sequence)
        numbers.append(number)
    if not words:
        raise BadInput("holds no sentence", "Give a file with words and tags.", file=path)
    refuse_many({tag for sequence in labels for tag in sequence}, "tags", path)
    return TaggedData(words, labels, str(path))


def read_questions(path: str | Path, training: bool = False) -> QuestionData:
    """SQuAD json, version 1.1 or 2.0.

    Args:
        training: drop questions whose answer does not stand at its offset; for testing the answer's text is enough.

    Raises:
        BadInput: no SQuAD file, a field is missing or wrong, or more than 5 % were dropped.
    """
    try:
        raw = json_value(decoded(path))
        entries = raw["data"]
        paragraphs = [paragraph for entry in entries for paragraph in entry["paragraphs"]]
    except (ValueError, RecursionError) as error:
        raise BadInput(f"is not valid JSON ({error})", "Give a SQuAD file.", file=path) from None
    except (KeyError, TypeError, AttributeError):
        what = "is no SQuAD file: it needs data, each with paragraphs, each with context and qas"
        raise BadInput(what, "Bring it into that form.", file=path) from None
    data = QuestionData([], source=str(path))
    number = 0
    for paragraph in paragraphs:
        context = _json_text(paragraph, "context", path, number + 1)
        questions = paragraph.get("qas", [])
        if not isinstance(questions, list):
            raise BadInput("paragraph whose qas is no list", "Correct or remove it.", file=path, record=number + 1)
        for qa in questions:
            number += 1
            question = _question(qa, context, path, number)
            if training and not question.impossible and not context.startswith(question.answers[0], question.start):
                data.dropped.append(f"question {number} (id {question.id}): answer {question.answers[0]!r} is not at character {question.start}")
            else:
                data.questions.append(question)
    if not number:
        raise BadInput("holds no question", "Give a SQuAD file with questions.", file=path)
    if len(data.dropped) > MAX_DROPPED_SHARE * number:
        what = f"{len(data.dropped)} of {number} questions have an answer that is not at its offset; the first: {data.dropped[0]}"
        raise BadInput(what, "Offsets count characters (code points) of the context, from 0.", file=path)
    return data


def _read_conll(path: str | Path) -> Iterator[tuple[int, list[str], list[str]]]:
    words: list[str] = []
    tags: list[str] = []
    start = 1
    for number, line in enumerate([*lines_of(decoded(path)), ""], start=1):
        columns = line.rstrip("\r").split("\t") if "\t" in line else line.split()
        if not any(columns):
            if words:
                yield start, words, tags
            words, tags, start = [], [], number + 1
        elif columns[0] != "-DOCSTART-":
            if len(columns) < 2 or not columns[-1].strip():
                raise BadInput(f"the word {columns[0]!r} has no tag", "Each line needs a word and its tag.", file=path, record=number)
            words.append(columns[0])
            tags.append(columns[-1].strip())


def _read_jsonl_tags(path: str | Path) -> Iterator[tuple[int, list[str], list[str]]]:
    for number, record in json_records(path):
        sequences = []
        for name in ("words", "tags"):
            value = _value(record, name, path, number)
            value = value.split() if isinstance(value, str) else value
            if not isinstance(value, list) or not value or not all(isinstance(item, str) and item and not why_no_text(item) for item in value):
                raise BadInput(f"the field {name!r} is neither a list of strings nor a string", "Correct the record.", file=path, record=number)
            sequences.append(value)
        words, tags = sequences
        if len(words) != len(tags):
            raise BadInput(f"has {len(words)} words but {len(tags)} tags", "Give each word one tag.", file=path, record=number)
        yield number, words, tags


def _question(qa: Any, context: str, path: str | Path, number: int) -> Question:
    text = _json_text(qa, "question", path, number)
    name = str(qa.get("id", number)).encode(errors="backslashreplace").decode()
    answers = qa.get("answers", [])
    impossible = qa.get("is_impossible", False)
    if impossible is True:
        return Question(name, text, context, (), -1, True)
    try:
        found = tuple(str(answer["text"]) for answer in answers)
        start = int(answers[0]["answer_start"])
        if not all(found) or start < 0 or any(map(why_no_text, found)):
            raise ValueError
    except (KeyError, TypeError, ValueError, IndexError, OverflowError):
        what = "question has no answer with text and answer_start, and is not marked is_impossible"
        raise BadInput(what, "Correct or remove the question.", file=path, record=number) from None
    return Question(name, text, context, found, start, False)


def _value(record: dict[str, Any], name: str, path: str | Path, number: int, flag: str | None = None) -> Any:
    """Args: flag: what names the field; None: it is always called so."""
    if name not in record:
        table = suffix_of(path) in (".csv", ".tsv", ".parquet")  # no record of it has the field
        mend = f"Name the right one: {flag}." if flag is not None and (table or number == 1) else "Correct or remove the record."
        raise BadInput(f"has no field {name!r}, only {_some(list(record))}", wrong_delimiter(path, record) or mend, file=path, record=number)
    return record[name]


def _text(record: dict[str, Any], name: str, path: str | Path, number: int, flag: str) -> str:
    value = _value(record, name, path, number, flag)
    if not isinstance(value, str) or not value.strip():
        what = f"the field {name!r} is {'empty' if isinstance(value, str) else type(value).__name__ + ', not text'}"
        raise BadInput(what, "Correct or remove the record.", file=path, record=number)
    if reason := why_no_text(value):
        raise BadInput(f"the field {name!r} {reason}", "Correct or remove the record.", file=path, record=number)
    return value


def _json_text(holder: Any, name: str, path: str | Path, number: int) -> str:
    value = holder.get(name) if isinstance(holder, dict) else None
    if not isinstance(value, str) or not value.strip() or why_no_text(value):
        raise BadInput(f"question or paragraph without {name}", "Correct or remove it.", file=path, record=number)
    return value


def _class_name(value: Any, name: str, path: str | Path, number: int) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str | int) and (text := str(value).strip()) and len(text) <= MAX_NAME and not why_no_text(text):
        return text
    raise BadInput(f"the field {name!r} is {value!r}, which names no class", "Correct or remove the record.", file=path, record=number)


def _sorted_classes(found: Sequence[str]) -> list[str]:
    names = set(found)
    if all(name.removeprefix("-").isdecimal() for name in names):
        return sorted(names, key=int)
    return sorted(names)


def refuse_many(names: Collection[str], what: str, file: str | Path | None) -> None:
    """Raises BadInput for more than `MAX_CLASSES` names: a column of numbers or titles that was taken for a class."""
    if len(names) > MAX_CLASSES:
        raise BadInput(f"has {len(names):,} {what}, more than {MAX_CLASSES:,}", "Name the field that holds the class.", file=file)


def _some(names: list[str]) -> str:
    return ", ".join(repr(name) for name in names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
