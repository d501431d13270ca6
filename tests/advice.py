"""Two languages whose right advice is known, and quick settings of `advise`.

In the first, words of a topic keep each other's company: a network that reads unlabelled text learns which belong together, so a few labels say much.
In the second, words are drawn one by one: there is nothing to learn from text, only from labels.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from tests.corpus import write_jsonl
from tests.running import TINY

WORDS = 160  # of a topic
LENGTH = 4  # words of a sentence

QUICK: dict[str, Any] = {name: value for name, value in TINY.items() if name not in ("device",) and not name.startswith("trainer.")} | {
    "text.vocab_size": 600,
    "batch": 64,
    "optimizer.learning_rate": 4e-3,
}
"""Settings of the candidates' runs: a step takes milliseconds."""


def vocabulary(seed: int = 0) -> list[str]:
    """2 * WORDS different words of three syllables."""
    rng = random.Random(seed)
    syllables = [a + b for a in "bdfgklmnprstv" for b in "aeiou"]
    found: dict[str, None] = {}
    while len(found) < 2 * WORDS:
        found["".join(rng.choices(syllables, k=3))] = None
    return list(found)


def sentences(count: int, seed: int, company: bool) -> list[tuple[str, str]]:
    """(text, label), labels in turn. `company`: a sentence has the words of its topic; otherwise any word stands anywhere; the label says of which
    half of the vocabulary the first word is."""
    words, rng = vocabulary(), random.Random(seed)
    halves = {"north": words[:WORDS], "south": words[WORDS:]}
    found = []
    for number in range(count):
        label = ("north", "south")[number % 2]
        chosen = rng.choices(halves[label] if company else words, k=LENGTH)
        found.append((" ".join(chosen if company else [rng.choice(halves[label]), *chosen[1:]]), label))
    return found


def write_language(folder: Path, company: bool, documents: int = 2000, labels: int = 60) -> tuple[Path, Path]:
    """(corpus folder, labelled file)."""
    (folder / "corpus").mkdir(parents=True)
    texts = [text for text, _ in sentences(documents, 1, company)]
    write_jsonl(folder / "corpus" / "texts.jsonl", [{"text": text} for text in texts])
    labelled = [{"text": text, "label": label} for text, label in sentences(labels, 2, company)]
    return folder / "corpus", write_jsonl(folder / "labels.jsonl", labelled)


def run_settings() -> tuple[str, ...]:
    """QUICK as --pretrain takes it."""
    return tuple(f"{name}={value}" for name, value in QUICK.items())
