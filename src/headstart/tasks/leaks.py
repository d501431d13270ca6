"""Whether test records stand in what a model was trained on: in a labelled file, and in the text of its pre-training.

Three degrees: character for character; but for case, punctuation and spaces; nearly, that is at least half of a record's spans of 8 words (in a
store: 8 tokens) stand there. A record of fewer words must stand there alone, as a whole record or line: "well done" in a novel is no leak.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.errors import BadInput
from headstart.core.run import read_run
from headstart.core.words import agree, plural
from headstart.data.text.overlap import training_shares
from headstart.data.text.spans import WantedTexts
from headstart.data.text.store import open_text_store

_WORD = re.compile(r"[^\W_]+")
SHOWN = 5
NEARLY = 0.5
"""The share of its spans from which on a record stands there nearly; also what keeps training documents apart from held-out ones."""
_AT_ONCE = 4096  # texts hashed together
_LONGEST_CHAIN = 8  # runs that began with each other's weights


@dataclass
class Overlap:
    """What of the test set stands in the other texts."""

    n_test: int
    exact: int | None  # test records whose text is there character for character; None: not known
    normalised: int  # that are there after normalisation, the exact ones included
    near: int  # that are there nearly, and not wholly
    examples: list[int] = field(default_factory=list)  # the first such records, counted from 1

    @property
    def share(self) -> float:
        """Of the test records that are there, wholly or nearly."""
        return (self.normalised + self.near) / self.n_test if self.n_test else 0.0

    def sentence(self, where: str) -> str:
        """One line for the result."""
        if not self.normalised and not self.near:
            return f"None of the {plural(self.n_test, 'test record')} stands in {where}."
        found = self.normalised + self.near
        which = ", ".join(map(str, self.examples)) + (" and more" if found > len(self.examples) else "")
        degrees = ([f"{self.exact} of them exactly"] if self.exact is not None else []) + ([f"{self.near} nearly"] if self.near else [])
        share = f"{found} of {plural(self.n_test, 'test record')} ({100 * self.share:.1f} %)"
        stand = f"{agree(found, 'stands', 'stand')} in {where}{''.join(', ' + d for d in degrees)}"
        return f"{share} {stand}: {agree(found, 'record', 'records')} {which}."

    def to_json(self) -> dict[str, Any]:
        return {"n_test": self.n_test, "exact": self.exact, "normalised": self.normalised, "near": self.near, "examples": self.examples}


def normalise(text: str) -> str:
    """Lower case, and every run of spaces and punctuation one space."""
    return " ".join(_words(text))


def find_overlap(test: Sequence[str], others: Iterable[str]) -> Overlap:
    """Which test texts occur among `others`.

    Args:
        others: read once, as a stream; only hashes of the test texts are kept.
    """
    exact = {_key(text) for text in test}
    seen_exact: set[bytes] = set()
    wanted = WantedTexts([_numbers(text) for text in test] or [_numbers("")])
    whole = {_key(plain) for text in test if (plain := normalise(text))}
    seen_whole: set[bytes] = set()
    stream = iter(others)
    while part := list(islice(stream, _AT_ONCE)):
        numbers = [_numbers(text) for text in part]
        wanted.look_into(np.concatenate(numbers), np.repeat(np.arange(len(part)), list(map(len, numbers))))
        seen_exact.update(exact.intersection(map(_key, part)))
        seen_whole.update(whole.intersection(_key(normalise(text)) for text in part))
    is_exact = np.array([_key(text) in seen_exact for text in test], bool)
    is_whole = is_exact | np.array([_key(normalise(text)) in seen_whole for text in test], bool)
    return _overlap(is_whole, wanted.shares()[: len(test)], int(is_exact.sum()))


def training_leaks(test: Sequence[str], model: Path, name: str | None = None) -> list[str]:
    """Sentences on the test texts that stand in what a model was pre-trained on, one for each entry of `training_overlaps`.

    Args:
        name: what to call the model.
    """
    return leak_sentences(training_overlaps(test, model), model, name)


def leak_sentences(overlaps: Sequence[tuple[Path, Overlap | None]], model: Path, name: str | None = None) -> list[str]:
    """What `training_leaks` says of overlaps that are known already."""
    found = []
    for run, overlap in overlaps:
        where = f"the pre-training text of {name or run}" if run == _run_of(model) else f"the pre-training text of {run}, which it began with"
        if overlap is None:
            found.append(f"Whether test records stand in {where} cannot be checked: its store is gone or made anew.")
        else:
            found.append(overlap.sentence(where))
    return found


def training_overlaps(test: Sequence[str], model: Path) -> list[tuple[Path, Overlap | None]]:
    """(run, what of the test texts stands in its text) for the run that made a model and the runs whose weights it began with, in so far as they were
    trained on text; a run with None too where a store of it is gone or made anew. Empty for a model that no run of ours made: nothing is known of its
    data.

    Args:
        model: a run, or an export in one.
    """
    found: list[tuple[Path, Overlap | None]] = []
    for run, info in runs_behind(model):
        stores = [_shares_in(entry, test) for entry in info.get("data", []) if entry.get("kind") == "text"]
        if known := [shares for shares in stores if shares is not None]:
            shares = np.max(known, axis=0)  # of the store that has most of a text: several parts are one training text
            found.append((run, _overlap(shares >= 1.0, shares, None)))
        if len(known) < len(stores):
            found.append((run, None))
    return found


def _shares_in(entry: dict[str, Any], test: Sequence[str]) -> np.ndarray | None:
    """`training_shares` of a store as run.json names it; None where it is gone or made anew."""
    try:
        store = open_text_store(Path(entry["store"]))
        if store.manifest["tokenizer_sha256"] != entry.get("tokenizer_sha256"):
            raise BadInput("was made anew since.", "", file=store.folder)
    except (BadInput, LookupError, TypeError, OSError):
        return None
    return training_shares(store, test)


def _overlap(whole: np.ndarray, shares: np.ndarray, exact: int | None) -> Overlap:
    near = (shares >= NEARLY) & ~whole
    examples = np.flatnonzero(whole | near)[:SHOWN] + 1
    return Overlap(len(whole), exact, int(whole.sum()), int(near.sum()), examples.tolist())


def _run_of(model: Path) -> Path | None:
    """The run folder that a model folder is, or lies in: RUN, RUN/export/..., RUN/checkpoints/step-N/export/..."""
    folders = [folder for path in (model, model.absolute()) for folder in [path, *path.parents[:5]]]  # as the user spells it, where that suffices
    return next((folder for folder in folders if (folder / "run.json").is_file()), None)


def runs_behind(model: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """The run that made a model, then the run whose weights that one began with, and so on."""
    for _ in range(_LONGEST_CHAIN):
        run = _run_of(model)
        if run is None:
            return
        info = read_run(run)
        yield run, info
        init = info.get("config", {}).get("init")
        if not isinstance(init, str):
            return
        model = Path(init)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _numbers(text: str) -> np.ndarray:
    """int64 [words]: a number for each word, the same in one process."""
    return np.fromiter(map(hash, _words(text)), np.int64)


def _key(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
