"""Files of a language for other programs, in the layout of the official scripts: a corpus, masked samples, labelled tasks, a grammar."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np

from headstart.core.files import atomic_write
from headstart.data.languages.grammar import Grammar
from headstart.data.languages.language import PAD, Ints, Language

SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[MASK]")
"""Of masked samples: the first words of their vocabulary."""
MASK_SHARE, MOST_MASKED = 0.15, 5
"""Of the places of a sentence, its specials counted; at least one is masked."""

MOST_DRAWS = 64
"""Rounds of draws after which a language has no more distinct sentences to give."""


def write_corpus(language: Language, path: Path, count: int, seed: int = 0) -> None:
    """corpus.txt: a sentence a line, and a blank line between sentences, so that each is a document (`--text.document-split blank-line`)."""
    sentences = language.draw(count, np.random.default_rng([seed, 4]))
    with atomic_write(path) as file:
        file.write("\n\n".join(language.spell(sentences)).encode() + b"\n")


def distinct_sentences(language: Language, count: int, shortest: int, rng: np.random.Generator) -> Ints | None:
    """The first `count` distinct sentences of at least so many words, in the order of their first draw; None where the language has fewer."""
    found = np.empty((0, language.longest), dtype=np.int64)
    for _ in range(MOST_DRAWS):
        drawn = language.draw(4 * count, rng)
        both = np.concatenate([found, drawn[language.lengths(drawn) >= shortest]])
        found = both[np.sort(np.unique(both, axis=0, return_index=True)[1])]
        if len(found) >= count:
            return found[:count]
    return None


def write_masked(language: Language, path: Path, sentences: Ints, copies: int = 5, seed: int = 0) -> None:
    """masked.npz: every sentence as [CLS] words [SEP] with fixed masks, `copies` times over with others, under the official names.

    int32 [n, longest + 2] input_ids, input_mask and segment_ids, [n, 5] masked_lm_positions and masked_lm_ids (0 behind the last); and `vocabulary`,
    the words of all ids.

    Of a place that is predicted 80 % are [MASK], 10 % a word of the language, 10 % stay (Liuhong99/implicitbiasmlmcode, dup_factor).
    """
    rng = np.random.default_rng([seed, 5])
    rows = np.repeat(sentences, copies, axis=0)
    count, lengths = len(rows), (rows != PAD).sum(1)
    ids = np.zeros((count, language.longest + 2), np.int32)  # [PAD]
    ids[:, 0], ids[:, 1:-1] = SPECIAL.index("[CLS]"), np.where(rows == PAD, 0, rows + len(SPECIAL))
    ids[np.arange(count), lengths + 1] = SPECIAL.index("[SEP]")
    mask = (np.arange(ids.shape[1]) < lengths[:, None] + 2).astype(np.int32)
    n_masked = np.clip(np.rint(MASK_SHARE * (lengths + 2)).astype(np.int64), 1, MOST_MASKED)
    keys = np.where(rows == PAD, np.inf, rng.random(rows.shape))
    chosen = np.argsort(keys, axis=1)[:, :MOST_MASKED] + 1  # [n, up to 5]: words in a random order
    predicted = np.arange(chosen.shape[1]) < n_masked[:, None]
    row = np.broadcast_to(np.arange(count)[:, None], chosen.shape)[predicted]
    place = np.sort(np.where(predicted, chosen, ids.shape[1]), axis=1)[predicted]
    positions = np.zeros((count, MOST_MASKED), np.int32)
    targets = np.zeros_like(positions)
    positions[:, : chosen.shape[1]][predicted], targets[:, : chosen.shape[1]][predicted] = place, ids[row, place]
    fate = rng.random(len(row))
    words = rng.integers(len(language.words), size=len(row)) + len(SPECIAL)
    ids[row, place] = np.where(fate < 0.8, SPECIAL.index("[MASK]"), np.where(fate < 0.9, words, ids[row, place]))
    data = io.BytesIO()
    vocabulary = np.array([*SPECIAL, *language.words])
    np.savez_compressed(data, input_ids=ids, input_mask=mask, segment_ids=np.zeros_like(ids), masked_lm_positions=positions, masked_lm_ids=targets,
                        vocabulary=vocabulary)  # fmt: skip
    with atomic_write(path) as file:
        file.write(data.getvalue())


def write_task(language: Language, task: str, path: Path, sentences: Ints) -> None:
    """task_A.csv: text, label; for the task `classification` of `finetune`."""
    label = language.tasks[task]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["text", "label"])
    writer.writerows((spelled, label.classes[int(of)]) for spelled, of in zip(language.spell(sentences), label.of(sentences), strict=True))
    with atomic_write(path) as file:
        file.write(text.getvalue().encode())


def write_grammar(grammar: Grammar, path: Path) -> None:
    """As JSON where the name ends so, otherwise in NLTK's text form; `read_grammar` is the inverse."""
    text = json.dumps(grammar.to_json(), indent=1) + "\n" if path.suffix == ".json" else grammar.to_text()
    with atomic_write(path) as file:
        file.write(text.encode())
