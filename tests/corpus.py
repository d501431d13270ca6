"""A small language for tests: documents on four topics, written by a seeded grammar, so that a tiny model learns something within seconds.

A topic has its own nouns and verbs; grammar and adjectives are shared. So the topic of a sentence can be learned from few labels, and better by a
network that has read the documents before.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

TOPICS = {
    "harbour": (["boat", "sailor", "anchor", "net", "lighthouse", "crane"], ["sails", "drifts", "returns", "waits"]),
    "kitchen": (["cook", "oven", "kettle", "onion", "knife", "soup"], ["boils", "burns", "cools", "steams"]),
    "forest": (["fox", "owl", "birch", "path", "hunter", "moss"], ["grows", "hides", "listens", "rustles"]),
    "school": (["teacher", "pupil", "lesson", "bell", "map", "chalk"], ["begins", "writes", "answers", "counts"]),
}
ADJECTIVES = ["old", "small", "quiet", "bright", "heavy", "grey", "tired", "new"]
PLACES = ["near the river", "in the morning", "after the rain", "without a sound", "before noon", "once more"]


def sentence(rng: random.Random, topic: str) -> str:
    nouns, verbs = TOPICS[topic]
    first, second = rng.sample(nouns, 2)
    parts = [f"the {rng.choice(ADJECTIVES)} {first} {rng.choice(verbs)}"]
    if rng.random() < 0.5:
        parts.append(f"and the {second} {rng.choice(verbs)}")
    if rng.random() < 0.6:
        parts.append(rng.choice(PLACES))
    return " ".join(parts).capitalize() + "."


def documents(count: int, seed: int = 0) -> list[str]:
    """`count` documents of 3 to 9 lines, one sentence a line, topics in turn."""
    rng = random.Random(seed)
    topics = list(TOPICS)
    return ["\n".join(sentence(rng, topics[i % len(topics)]) for _ in range(rng.randint(3, 9))) for i in range(count)]


def write_corpus(folder: Path, count: int = 320, seed: int = 0) -> Path:
    """A folder with two .txt files (documents between blank lines) and one .jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = documents(count, seed)
    third = count // 3
    (folder / "first.txt").write_text("\n\n".join(texts[:third]) + "\n", encoding="utf-8")
    (folder / "second.txt").write_text("\n\n".join(texts[third : 2 * third]) + "\n", encoding="utf-8")
    write_jsonl(folder / "third.jsonl", [{"text": text} for text in texts[2 * third :]])
    return folder


def write_old_and_new(folder: Path, count: int = 60) -> Path:
    """old.jsonl and new.jsonl in the folder, of `count` documents each: what is continued, and on what."""
    for seed, name in enumerate(("old", "new")):
        write_jsonl(folder / f"{name}.jsonl", [{"text": text} for text in documents(count, seed)])
    return folder


def labelled(count: int, seed: int) -> list[dict[str, str]]:
    """`count` sentences with their topic, topics in turn."""
    rng = random.Random(seed)
    topics = list(TOPICS)
    return [{"text": sentence(rng, topics[i % len(topics)]), "label": topics[i % len(topics)]} for i in range(count)]


def write_jsonl(path: Path, records: list[dict[str, str]]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path
