"""Zero-shot multiple choice: which choice a causal language model finds most probable after the context.

    found = score_items(Decoder.load("runs/causal-lm-tiny-0/export"), read_items("items.jsonl"), device)

- score(choice) = sum of log p(its tokens | context). `acc` takes the choice with the largest sum, `acc_norm` that with the largest sum a character
  of the choice, as lm-evaluation-harness counts them. Of equal ones the first.
- Context and choice are tokenised together and cut where the context's own tokens end; a choice usually begins with a blank.
- Every sequence starts with the end of text, so the first word of an item without context is scored too. What is too long loses the beginning of its
  context, never of its choice.
- The choices of an item share their context: it runs once, and its keys and values serve all of them. Items are taken by length, so nothing of a
  context is padding. An item that had to be cut runs whole for each choice.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from headstart.core.errors import BadInput
from headstart.core.words import plural
from headstart.data.tables import records, wrong_delimiter
from headstart.data.text.quality import Looker
from headstart.engine.update import Precision, autocast
from headstart.objectives.token_loss import token_nll
from headstart.tasks.generation import Decoder

BATCH_TOKENS = 4096
"""Tokens that run together: about the largest batch whose logits stay small beside a small network on a CPU."""
BY_LENGTH = "cont_"
"""Tasks whose name begins so are judged by `acc_norm`: their choices are whole sentences of different length."""
FIELDS = ("context", "choices", "answer")
_DRAWS = 1000


@dataclass(frozen=True)
class Item:
    """One question.

    Attributes:
        task: what it counts for.
        group: items of one group (a document) are not independent.
        answer: index of the right choice.
        file, number: where it stands, from 1.
    """

    id: str
    task: str
    group: str
    context: str
    choices: tuple[str, ...]
    answer: int
    file: str = ""
    number: int = 0


@dataclass(frozen=True)
class Scored:
    """Items and what a model says of their choices.

    Attributes:
        items: as they came.
        log_probs: of each item its choices' summed log-probabilities, in nats.
    """

    items: Sequence[Item]
    log_probs: list[np.ndarray]

    def right(self, by: str) -> np.ndarray:
        """bool [items]: whether the right choice is taken, by "acc" or "acc_norm"."""
        return np.array([pick(sums, item.choices, by) == item.answer for item, sums in zip(self.items, self.log_probs, strict=True)], bool)


def pick(sums: np.ndarray, choices: Sequence[str], by: str) -> int:
    """The choice that is taken; of equal ones the first."""
    return int(np.argmax(sums if by == "acc" else sums / [len(choice) for choice in choices]))


def metric_of(task: str) -> str:
    """Which of the two a task is judged by."""
    return "acc_norm" if task.startswith(BY_LENGTH) else "acc"


# --- items ------------------------------------------------------------------------------------------------------------------------------------------


def read_items(path: str | Path) -> list[Item]:
    """Items of a .jsonl, .csv, .tsv or .parquet file: `context`, `choices`, `answer` (index from 0), optional `id`, `task`, `group`; or records of
    PubMedQA: `question`, `context`, `label` (yes, no or maybe).

    Raises:
        BadInput: the first one that cannot be scored, by file and line.
    """
    path = Path(path)
    return [_item(record, path, number) for number, record in records(path)]


def _item(record: dict[str, Any], path: Path, number: int) -> Item:
    def refuse(what: str, mend: str) -> BadInput:
        return BadInput(what, mend, file=path, record=number)

    name = str(record.get("id", f"{path.name}:{number}"))
    if "choices" not in record and {"question", "label"} <= record.keys():
        return _pubmedqa(record, name, path, number, refuse)
    if missing := [field for field in FIELDS if field not in record]:
        mend = wrong_delimiter(path, record) or "An item has context, choices and answer."
        raise refuse(f"has no {missing[0]} (its fields: {', '.join(list(record)[:8])}).", mend)
    choices, answer, context = record["choices"], record["answer"], record["context"]
    if isinstance(choices, str):  # of a table
        try:
            choices = json.loads(choices)
        except ValueError:
            raise refuse("has choices that are no list.", "Write them as a JSON list.") from None
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise refuse("has choices that are no list of strings.", "Write a list of strings.")
    if len(choices) < 2:
        raise refuse(f"has {plural(len(choices), 'choice')}.", "Give at least two.")
    if empty := [place for place, choice in enumerate(choices) if not choice.strip()]:
        raise refuse(f"choice {empty[0]} is empty.", "Give it a text.")
    if (isinstance(answer, str) and answer.isdecimal()) or (isinstance(answer, float) and answer.is_integer()):  # of a table with gaps
        answer = int(answer)
    if not isinstance(answer, int) or isinstance(answer, bool) or not 0 <= answer < len(choices):
        raise refuse(f"the answer is {answer!r}, of {len(choices)} choices.", f"Give an index from 0 to {len(choices) - 1}.")
    if not isinstance(context, str):
        raise refuse("the context is no string.", 'Write a string; "" where there is none.')
    task, group = str(record.get("task", path.name.split(".")[0])), str(record.get("group", name))
    return Item(name, task, group, context, tuple(choices), answer, str(path), number)


PUBMEDQA = ("yes", "no", "maybe")


def _pubmedqa(record: dict[str, Any], name: str, path: Path, number: int, refuse: Any) -> Item:
    label, question, abstract = record["label"], record["question"], record.get("context", "")
    if label not in PUBMEDQA or not isinstance(question, str) or not isinstance(abstract, str):
        raise refuse(f"the label is {label!r}.", "Give yes, no or maybe, and strings as question and context.")
    context = (f"Abstract: {abstract}\n" if abstract else "") + f"Question: {question}\nAnswer:"
    return Item(name, "pubmedqa", name, context, tuple(f" {word}" for word in PUBMEDQA), PUBMEDQA.index(label), str(path), number)


def contaminated(items: Sequence[Item], pool: Iterable[str]) -> np.ndarray:
    """bool [items]: a window of 13 words of the context with its right choice stands in the pool. A shorter item must stand there as a whole text."""
    looker = Looker()
    owner, wanted = looker.windows([item.context + item.choices[item.answer] for item in items])
    unique, position = np.unique(wanted, return_inverse=True)
    seen = np.zeros(len(unique), bool)
    for text in pool:
        if len(unique) and len(windows := looker.windows([text])[1]):
            at = np.minimum(np.searchsorted(unique, windows), len(unique) - 1)
            seen[at[unique[at] == windows]] = True
    return np.bincount(owner, seen[position], minlength=len(items)) > 0 if len(owner) else np.zeros(len(items), bool)


# --- scoring ----------------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Encoded:
    """An item as token ids: of each choice the context before it (with the end of text in front) and its own tokens."""

    number: int
    contexts: list[list[int]]
    choices: list[list[int]]

    @property
    def shared(self) -> bool:
        return all(context == self.contexts[0] for context in self.contexts)


def encode(decoder: Decoder, items: Sequence[Item], max_length: int | None = None) -> list[_Encoded]:
    """Raises BadInput for a choice that is longer than the network."""
    room = min((limit for limit in (decoder.length, max_length) if limit is not None), default=None)
    contexts = decoder.ids([item.context for item in items])
    together = iter(decoder.ids([item.context + choice for item in items for choice in item.choices]))
    found = []
    for number, (item, context) in enumerate(zip(items, contexts, strict=True)):
        before, own = [], []
        for whole in (next(together) for _ in item.choices):
            at = min(len(context), len(whole) - 1)  # where the last token of the context grew into the choice
            choice = whole[at:]
            if room is not None and len(choice) > room:
                what = f"{item.id}: a choice of {len(choice)} tokens is longer than the {room} positions of the network."
                raise BadInput(what, "Leave the item out, or take a longer network.", file=item.file or None, record=item.number or None)
            kept = at if room is None else min(at, room - len(choice))  # inputs: end of text, context, choice without its last token
            before.append([decoder.end, *whole[at - kept : at]])
            own.append(choice)
        found.append(_Encoded(number, before, own))
    return found


@torch.no_grad()
def score_items(
    decoder: Decoder, items: Sequence[Item], device: torch.device, precision: Precision = "fp32", max_length: int | None = None, cached: bool = True
) -> Scored:
    """The log-probabilities of all choices.

    Args:
        max_length: tokens that a sequence may have; None: the positions of the network.
        cached: run a shared context once; off: every choice with its context, which gives the same up to rounding.
    """
    encoded = encode(decoder, items, max_length)
    model = decoder.model.to(device).eval()
    cached = cached and _shares_contexts(decoder, device)
    sums: list[np.ndarray] = [np.zeros(len(item.choices)) for item in items]
    shared = sorted((entry for entry in encoded if cached and entry.shared), key=lambda entry: len(entry.contexts[0]))
    with autocast(device, precision):
        for length, of_length in groupby(shared, key=lambda entry: len(entry.contexts[0])):
            for batch in _batches(list(of_length), length):
                _score_shared(model, batch, sums, device)
        whole = [entry for entry in encoded if not (cached and entry.shared)]
        alone = [(entry.number, place, *pair) for entry in whole for place, pair in enumerate(zip(entry.contexts, entry.choices, strict=True))]
        alone.sort(key=lambda entry: len(entry[2]) + len(entry[3]))
        for start, stop in _cuts([len(context) + len(choice) for _, _, context, choice in alone]):
            values = log_probs(model, [entry[2] for entry in alone[start:stop]], [entry[3] for entry in alone[start:stop]], device)
            for (number, place, _, _), value in zip(alone[start:stop], values, strict=True):
                sums[number][place] = value
    return Scored(items, sums)


def log_probs(model: Any, contexts: Sequence[list[int]], choices: Sequence[list[int]], device: torch.device) -> list[float]:
    """Summed log p of each choice after its context, in one padded batch."""
    rows = [context + choice[:-1] for context, choice in zip(contexts, choices, strict=True)]
    ids = _padded(rows, device)
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state  # padding is on the right, where no token looks
    pairs = enumerate(zip(contexts, choices, strict=True))
    wanted = [(row, len(context) - 1 + place) for row, (context, choice) in pairs for place in range(len(choice))]
    row, at = torch.tensor(wanted, device=device).T
    targets = torch.tensor([token for choice in choices for token in choice], device=device)
    nll = token_nll(model.get_output_embeddings()(hidden[row, at]), targets).double()
    return (-torch.zeros(len(rows), dtype=torch.float64, device=device).index_add(0, row, nll)).tolist()


def _score_shared(model: Any, batch: list[_Encoded], sums: list[np.ndarray], device: torch.device) -> None:
    """Contexts of one length once each; then every choice, padded, on the keys and values of its context."""
    output = model.get_output_embeddings()
    first = model.base_model(input_ids=torch.tensor([entry.contexts[0] for entry in batch], device=device), use_cache=True)
    owner = [index for index, entry in enumerate(batch) for _ in entry.choices]
    choices = [choice for entry in batch for choice in entry.choices]
    targets = _padded(choices, device)
    counted = torch.arange(targets.shape[1], device=device) < torch.tensor([len(choice) for choice in choices], device=device)[:, None]
    states = first.last_hidden_state[:, -1:][torch.tensor(owner, device=device)]  # what predicts the first token of each choice
    if targets.shape[1] > 1:
        name, cache = _cache_of(first)
        cache.reorder_cache(torch.tensor(owner, device=device))
        later = model.base_model(input_ids=targets[:, :-1], use_cache=True, **{name: cache}).last_hidden_state
        states = torch.cat([states, later], 1)
    nll = (token_nll(output(states), targets) * counted).double().sum(1).tolist()
    place = iter(nll)
    for entry in batch:
        sums[entry.number][:] = [-next(place) for _ in entry.choices]


def _cache_of(output: Any) -> tuple[str, Any]:
    """The keys and values of an output, and the name under which the network takes them: another one since transformers 5.24."""
    name = "cache" if "cache" in output else "past_key_values"
    return name, output[name]


def _shares_contexts(decoder: Decoder, device: torch.device) -> bool:
    """Whether the network keeps keys and values that can be given to several rows; one with a recurrent state may not."""
    output = decoder.model.base_model(input_ids=torch.tensor([[decoder.end]], device=device), use_cache=True)
    return ("cache" in output or "past_key_values" in output) and isinstance(_cache_of(output)[1], DynamicCache)


def _padded(rows: Sequence[list[int]], device: torch.device) -> Tensor:
    ids = torch.zeros(len(rows), max(map(len, rows)), dtype=torch.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
    return ids.to(device)


def _batches(entries: list[_Encoded], length: int) -> Iterable[list[_Encoded]]:
    """So many items of one context length that their choices, with their contexts, are about `BATCH_TOKENS`."""
    sizes = [max(len(entry.choices) * (length + max(map(len, entry.choices))), 1) for entry in entries]
    start = total = 0
    for index, size in enumerate(sizes):
        if index > start and total + size > 4 * BATCH_TOKENS:
            yield entries[start:index]
            start, total = index, 0
        total += size
    yield entries[start:]


def _cuts(lengths: Sequence[int]) -> Iterable[tuple[int, int]]:
    """Spans of rows that rise in length: as many as fill `BATCH_TOKENS`, padded to the longest."""
    start = 0
    while start < len(lengths):
        stop = start + 1
        while stop < len(lengths) and (stop + 1 - start) * lengths[stop] <= BATCH_TOKENS:
            stop += 1
        yield start, stop
        start = stop


# --- results ----------------------------------------------------------------------------------------------------------------------------------------


def results(scored: Scored) -> dict[str, dict[str, Any]]:
    """Task -> figures in the form of lm-evaluation-harness: "acc,none", "acc_stderr,none" and so on; and "acc_group_stderr,none", of a bootstrap over
    groups, which is the one to read where items of one document are alike."""
    found: dict[str, dict[str, Any]] = {}
    tasks = np.array([item.task for item in scored.items])
    for task in dict.fromkeys(tasks.tolist()):
        mine = np.flatnonzero(tasks == task)
        figures: dict[str, Any] = {"alias": task, "sample_len": len(mine)}
        for by in ("acc", "acc_norm"):
            right = scored.right(by)[mine].astype(float)
            groups = np.unique(np.array([scored.items[index].group for index in mine.tolist()]), return_inverse=True)[1]
            figures[f"{by},none"] = float(right.mean())
            figures[f"{by}_stderr,none"] = float(right.std(ddof=1) / np.sqrt(len(mine))) if len(mine) > 1 else "N/A"
            figures[f"{by}_group_stderr,none"] = group_stderr(right, groups)
        found[task] = figures
    return found


def group_stderr(right: np.ndarray, groups: np.ndarray) -> float | str:
    """Standard error of the mean when whole groups are drawn again; "N/A" of one group.

    Args:
        groups: int64 [items], 0 ... groups - 1.
    """
    n = int(groups.max()) + 1
    if n < 2:
        return "N/A"
    sums, sizes = np.bincount(groups, right, minlength=n), np.bincount(groups, minlength=n)
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=_DRAWS)  # how often each group comes
    return float(((drawn @ sums) / (drawn @ sizes)).std(ddof=1))
