"""`select`: the part of a pool that a model of good text finds most probable (strategy II of Guo et al. 2025, arXiv 2406.14833).

    OUT/selected.jsonl    the chosen documents, most probable first: id, source, text, perplexity; what `pretrain --data` reads
    OUT/scores.parquet    id, perplexity, words, tokens, unknown (share), fate: of every document of the pool
    OUT/scorer/           the trigram, if one was trained
    OUT/report.json       what was read, dropped and taken, and what to be careful of
    OUT/settings.json     what was asked for; a selection with other settings does not replace this one

The pool is read twice as a stream; between the passes only numbers are kept of it. Scoring is one pass: give several machines a part of the pool
each, without --quota, and choose with all their --scores.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from headstart.core.config import flag_names, replace_nested
from headstart.core.errors import BadInput, UsageError
from headstart.core.files import atomic_write, locked, write_json
from headstart.core.flags import in_words_of
from headstart.core.places import SETTINGS, refuse_other_settings
from headstart.core.progress import progress
from headstart.core.words import first_line
from headstart.data import parquet
from headstart.data.permute import draw
from headstart.data.text.config import TextConfig
from headstart.data.text.ngram import Scorer, Trigram, open_scorer, words_of
from headstart.data.text.pool import Document, read_pool
from headstart.data.text.quality import (
    KEPT,
    REASONS,
    SHORT_REFERENCE,
    STRANGE,
    Guards,
    Looker,
    Seen,
    apply_bounds,
    fates,
    find_duplicates,
    halves_agree,
    take,
)
from headstart.data.text.tokenizer import load_tokenizer
from headstart.verbs._select_settings import SelectSettings, asked, check, selection_folder

__all__ = ["SelectSettings", "Selection", "select", "select_with"]

AT_ONCE = 512  # documents scored together
SAMPLE = 1000
"""Documents of the pool by which halves of a short reference are compared."""
SHOWN = 5
METADATA = b"headstart"
UNIT = "whole document as one text, end counted, normalised by words + 1"


@dataclass(frozen=True)
class Selection:
    """What `select` found.

    Attributes:
        folder: where it lies.
        ids: of the chosen documents, most probable first; empty without a quota.
        tokens: of them.
        warnings: what to be careful of.
        report: report.json.
    """

    folder: Path
    ids: list[str]
    tokens: int
    warnings: list[str]
    report: dict[str, Any]


@dataclass
class _Pool:
    """What is kept of the pool between the passes: a number or name a document."""

    ids: list[str]
    sources: list[str]
    perplexity: np.ndarray
    words: np.ndarray
    tokens: np.ndarray
    unknown: np.ndarray
    seen: Seen


def select(pool: str | Path | Sequence[str | Path], *, say: Callable[[str], None] = print, **settings: Any) -> Selection:
    """Scores a pool of texts, and takes the best of it.

    Args:
        pool: files, folders or globs.
        settings: those of `SelectSettings`: `reference="good.jsonl", quota=0.25, tokenizer="runs/mine"`.

    Raises:
        BadInput: a record or score that cannot be used. UsageError: a setting, or a pool smaller than the quota.
    """
    lists: dict[str, Any] = {"pool": pool, **{name: settings.pop(name) for name in ("reference", "scores") if name in settings}}
    lists = {name: [str(given)] if isinstance(given, str | Path) else [str(entry) for entry in given] for name, given in lists.items()}
    return select_with(replace_nested(SelectSettings(), {**lists, **settings}), say)


@in_words_of(flag_names(SelectSettings()))
def select_with(settings: SelectSettings, say: Callable[[str], None] = print) -> Selection:
    """As `select`, from settings."""
    check(settings)
    guards = Guards(settings.min_words, settings.near_duplicates, settings.drop_lowest, settings.lower, settings.upper)
    reference = [document.text for document in read_pool(settings.reference, settings.text_field)] if settings.reference else []
    scorer = _scorer(settings, reference)
    pool = _read(settings, scorer)
    if not pool.ids:
        raise BadInput("holds no document.", "Give texts to choose from.", file=settings.pool[0])
    order = np.array(sorted(range(len(pool.ids)), key=pool.ids.__getitem__), np.int64)
    looked = Looker().look(reference, guards.near_duplicates)
    fate = apply_bounds(pool.perplexity, find_duplicates(pool.seen, order, pool.words, looked, guards), guards)
    chosen = np.zeros(0, np.int64)
    if settings.quota is not None:
        quota = int(settings.quota) if settings.quota > 1 else max(1, round(settings.quota * int(pool.tokens.sum())))
        if 1 < settings.quota < pool.tokens.min():
            what = f"--quota {quota} is {quota} tokens, and the shortest document has {int(pool.tokens.min()):,}."
            raise UsageError(what, "Give more tokens, or a share: 0.25 is a quarter of the pool.")
        chosen = take(pool.perplexity, pool.tokens, order, fate, quota)
    folder = selection_folder(settings)
    identity = _identity(settings, scorer)
    warnings = _warnings(settings, scorer, reference, pool)
    report = _report(settings, pool, fate, chosen, identity, warnings)
    with locked(folder / ".lock", "selects into this folder"):
        refuse_other_settings(folder, "a selection", asked(settings))  # of a call that was faster
        write_json(folder / SETTINGS, asked(settings))
        _write_scores(folder / "scores.parquet", pool, fate, identity)
        if isinstance(scorer, Trigram) and settings.scorer is None:
            scorer.save(folder / "scorer")
        if settings.quota is not None:
            _write_chosen(folder / "selected.jsonl", settings, pool, chosen)
        write_json(folder / "report.json", report)
    for line in _lines(report, folder):
        say(line)
    return Selection(folder, [pool.ids[i] for i in chosen], int(pool.tokens[chosen].sum()), warnings, report)


def _scorer(settings: SelectSettings, reference: Sequence[str]) -> Scorer | None:
    if settings.scores:
        return None
    return Trigram.train(reference, settings.min_count) if settings.scorer is None else open_scorer(settings.scorer, settings.kenlm_words)


# --- reading and scoring --------------------------------------------------------------------------------------------------------------------------


def _read(settings: SelectSettings, scorer: Scorer | None) -> _Pool:
    """The first pass."""
    count = _token_counter(settings.tokenizer)
    known = _read_scores(settings.scores, scorer) if settings.scores else None
    looker, names, sources, figures, seen = Looker(), [], [], [], []
    stream = read_pool(settings.pool, settings.text_field)
    for documents in progress(iter(lambda: list(islice(stream, AT_ONCE)), []), what="score", unit=f"x {AT_ONCE} documents"):
        texts = [document.text for document in documents]
        names += [document.id for document in documents]
        sources += [document.source for document in documents]
        seen.append(looker.look(texts, settings.near_duplicates))
        if scorer is not None:
            of = scorer.score(texts)
            figures.append(np.array([of.perplexity, of.words, of.words + 1 if count is None else count(texts), of.unknown]))
        else:
            assert known is not None
            own = np.array([_known(known, document) for document in documents]).T
            if count is not None:
                own[2] = count(texts)
            figures.append(own)
    if twice := [name for name, times in Counter(names).most_common(1) if times > 1]:
        raise BadInput(f"two documents have the id {twice[0]!r}.", "Give each an id of its own, or none.", file=settings.pool[0])
    perplexity, words, tokens, unknown = np.concatenate(figures, axis=1) if figures else np.zeros((4, 0))
    return _Pool(names, sources, perplexity, words.astype(np.int64), tokens.astype(np.int64), unknown, Seen.joined(seen))


def _token_counter(path: Path | None) -> Callable[[Sequence[str]], list[int]] | None:
    """Texts -> their training tokens, the one that ends a text counted."""
    if path is None:
        return None
    folder = path / "export" if (path / "export").is_dir() else path
    tokenizer, _ = load_tokenizer(folder, TextConfig())
    return lambda texts: [len(encoding.ids) + 1 for encoding in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


def _read_scores(paths: Sequence[Path], scorer: Scorer | None) -> dict[str, tuple[float, int, int, float]]:
    """Id -> perplexity, words, tokens, share of unknown words, of several files of one scorer.

    Raises:
        BadInput: a column is missing or holds no such number, an id comes twice, or the files are of different scorers.
    """
    found: dict[str, tuple[float, int, int, float]] = {}
    made_by: dict[Any, Path] = {}
    for path in paths:
        if not path.is_file():
            raise BadInput("is not there.", "Give a .parquet file that `headstart select` wrote, or one like it.", file=path)
        try:
            schema = parquet.schema(path)
            if missing := [name for name in ("id", "perplexity", "words", "tokens") if name not in schema.names]:
                mend = "A file of scores has id, perplexity, words and tokens."
                raise BadInput(f"has no column {missing[0]!r} (its columns: {', '.join(schema.names[:8])}).", mend, file=path)
            about = json.loads((schema.metadata or {}).get(METADATA, b"{}"))
            made_by[about.get("identity"), about.get("normalisation")] = path
            columns = [name for name in ("id", "perplexity", "words", "tokens", "unknown") if name in schema.names]
            for number, row in enumerate(parquet.rows(path, columns), 1):
                values = [row["perplexity"], row["words"], row["tokens"], row.get("unknown", 0.0)]
                if not all(isinstance(value, int | float) and np.isfinite(value) and value >= 0 for value in values):
                    raise BadInput("holds a value that is no number of at least 0.", "Score this document again.", file=path, record=number)
                if str(row["id"]) in found:
                    raise BadInput(f"the id {str(row['id'])!r} comes twice.", "Give each document one score.", file=path, record=number)
                found[str(row["id"])] = tuple(values)
        except parquet.ERRORS as error:
            raise BadInput(f"is no readable parquet file ({first_line(error)}).", "Write it again.", file=path) from None
    if len(made_by) > 1:
        (_, how), other = list(made_by), list(made_by.values())
        what = f"is of another scorer than {other[0]} ({how[1] or 'unknown normalisation'})."
        raise BadInput(what, "Perplexities of different vocabularies or words are not comparable: score all with one --scorer.", file=other[1])
    return found


def _known(known: dict[str, tuple[float, int, int, float]], document: Document) -> tuple[float, int, int, float]:
    if document.id not in known:
        raise BadInput(f"the document {document.id!r} has no score.", "Score the whole pool.", file=document.file, record=document.number)
    return known[document.id]


def _identity(settings: SelectSettings, scorer: Scorer | None) -> dict[str, Any]:
    """Which scorer a file of scores is of."""
    if scorer is not None:
        return {"identity": scorer.identity, "normalisation": scorer.normalisation, "unit": UNIT}
    stated: dict[str, Any] = json.loads((parquet.schema(settings.scores[0]).metadata or {}).get(METADATA, b"{}"))
    return stated or {"identity": None, "normalisation": None, "unit": f"as {settings.scores[0].name} has it"}


# --- writing --------------------------------------------------------------------------------------------------------------------------------------


def _write_scores(path: Path, pool: _Pool, fate: np.ndarray, identity: dict[str, Any]) -> None:
    table = pa.table(
        {
            "id": pool.ids, "perplexity": pool.perplexity, "words": pool.words, "tokens": pool.tokens, "unknown": pool.unknown,
            "fate": pa.array([REASONS[number] for number in fate.tolist()]),
        }
    )  # fmt: skip
    with atomic_write(path) as file:
        pq.write_table(table.replace_schema_metadata({METADATA: json.dumps(identity).encode()}), file)


def _write_chosen(path: Path, settings: SelectSettings, pool: _Pool, chosen: np.ndarray) -> None:
    """The second pass: the texts that were chosen, in their order."""
    wanted = {int(index): rank for rank, index in enumerate(chosen)}
    texts: list[str] = [""] * len(wanted)
    for number, document in enumerate(read_pool(settings.pool, settings.text_field)):
        if (rank := wanted.get(number)) is not None:
            if document.id != pool.ids[number]:
                raise BadInput("changed while it was read.", "Let its writer finish, then start again.", file=document.file)
            texts[rank] = document.text
    with atomic_write(path) as file:
        for index, text in zip(chosen.tolist(), texts, strict=True):
            record = {"id": pool.ids[index], "source": pool.sources[index], "text": text, "perplexity": float(pool.perplexity[index])}
            file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")


# --- what is said -----------------------------------------------------------------------------------------------------------------------------------


def _warnings(settings: SelectSettings, scorer: Scorer | None, reference: list[str], pool: _Pool) -> list[str]:
    found = []
    size = sum(len(words_of(text)) for text in reference)
    if scorer is not None and settings.scorer is None and size < SHORT_REFERENCE:
        sample = set(draw(len(pool.ids), SAMPLE, 0).tolist())
        texts = [document.text for number, document in enumerate(read_pool(settings.pool, settings.text_field)) if number in sample]
        agreement = halves_agree(reference, texts, settings.min_count)
        said = "" if agreement is None else f" Its two halves rank the pool with a correlation of {agreement:.2f}."
        found.append(f"The reference has {size:,} words, fewer than {SHORT_REFERENCE:,}: the ranking is unstable.{said}")
    if len(strange := np.flatnonzero(pool.unknown > STRANGE)):
        names = ", ".join(pool.ids[index] for index in strange[:SHOWN]) + (" ..." if len(strange) > SHOWN else "")
        found.append(f"{len(strange):,} documents have more than {STRANGE:.0%} unknown words (another language or kind?): {names}.")
    if settings.tokenizer is None and settings.quota is not None and not settings.scores:
        found.append("Tokens are counted as the scorer's words: give --tokenizer MODEL to count those of the training.")
    return found


def _report(
    settings: SelectSettings, pool: _Pool, fate: np.ndarray, chosen: np.ndarray, identity: dict[str, Any], warnings: list[str]
) -> dict[str, Any]:
    kept = fate == KEPT
    report: dict[str, Any] = {
        "pool": {"documents": len(pool.ids), "words": int(pool.words.sum()), "tokens": int(pool.tokens.sum()), "unknown": _mean(pool.unknown)},
        "scorer": identity,
        "fates": fates(fate),
        "perplexity": {f"{share:.0%}": float(value) for share, value in zip(SHARES, np.quantile(pool.perplexity[kept], SHARES), strict=True)}
        if kept.any()
        else {},
        "warnings": warnings,
    }
    if settings.quota is not None:
        by_source: Counter[str] = Counter()
        for index in chosen.tolist():
            by_source[pool.sources[index]] += int(pool.tokens[index])
        report["chosen"] = {
            "documents": len(chosen),
            "tokens": int(pool.tokens[chosen].sum()),
            "highest_perplexity": float(pool.perplexity[chosen].max()),
            "tokens_by_source": dict(by_source.most_common()),
        }
    return report


SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else 0.0


def _lines(report: dict[str, Any], folder: Path) -> Iterator[str]:
    pool, counted = report["pool"], report["fates"]
    yield f"pool       {pool['documents']:,} documents, {pool['tokens']:,} tokens, {pool['unknown']:.1%} of the words unknown"
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in counted.items() if reason != REASONS[KEPT])
    yield f"guards     {counted[REASONS[KEPT]]:,} left" + (f"; {dropped}" if dropped else "")
    if report["perplexity"]:
        yield "perplexity " + ", ".join(f"{value:,.0f} ({share})" for share, value in report["perplexity"].items())
    if "chosen" in report:
        chosen = report["chosen"]
        yield f"chosen     {chosen['documents']:,} documents, {chosen['tokens']:,} tokens, perplexity up to {chosen['highest_perplexity']:,.0f}"
        if len(chosen["tokens_by_source"]) > 1:
            shares = [f"{source or 'no source'} {tokens / chosen['tokens']:.1%}" for source, tokens in chosen["tokens_by_source"].items()]
            yield f"sources    {', '.join(shares[:8])}"
    for warning in report["warnings"]:
        yield f"WARNING: {warning}"
    if "chosen" in report:
        yield f"Train on it: headstart pretrain causal-lm --init MODEL --data {folder / 'selected.jsonl'} ..."
    else:
        yield f"Scores: {folder / 'scores.parquet'}; choose with --scores and --quota."
