"""Runs the commands of the quick start on real data and keeps what they print, for docs/quick-start.md: no output on a page is typed.

    python -m tools.record_docs --data ../shared/data/movies            about 10 minutes on 2 cores; writes docs/recorded/quick-start.json
    python -m tools.record_docs --data FOLDER --only list               that command alone, anew; the others stay as they were recorded
    python tools/fill_docs.py                                           writes it into the page

The folder holds `corpus.jsonl.zst` (film reviews, one a line) and `sentences.jsonl.zst` (sentences with "subj" 0 or 1 and a split): Pang and Lee.
The commands run in an empty folder, on `my/texts`, `train.jsonl` and `test.jsonl` made from them, as a reader types them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pty
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from headstart.core import hardware
from headstart.core.files import read_json, write_json
from headstart.core.run import now
from headstart.verbs.pretrain import versions

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "docs" / "recorded" / "quick-start.json"
LABELLED, TESTED = 200, 1000
COMMANDS = (
    "headstart list --data my/texts",
    "headstart pretrain causal-lm --data my/texts --smoke",
    "headstart pretrain causal-lm --data my/texts --budget.minutes 3 --probe.labels train.jsonl",
    "headstart finetune classification --init runs/causal-lm-tiny-0 --train train.jsonl --test test.jsonl",
    "headstart sample runs/causal-lm-tiny-0",
)


def records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a .jsonl.zst file."""
    with pa.input_stream(str(path), compression="zstd") as stream:
        yield from map(json.loads, stream.read().decode().splitlines())


def write_folder(data: Path, folder: Path) -> dict[str, int]:
    """The folder of a person: unlabelled reviews, few labelled sentences, many to test on. Gives their numbers."""
    texts = folder / "my" / "texts"
    texts.mkdir(parents=True)
    reviews = list(records(data / "corpus.jsonl.zst"))
    (texts / "reviews.jsonl").write_text("".join(json.dumps({"text": review["text"]}) + "\n" for review in reviews), encoding="utf-8")
    counts = {"documents": len(reviews)}
    sentences = [entry for entry in records(data / "sentences.jsonl.zst") if entry["subj"] is not None]
    for name, split, number in (("train", "train", LABELLED), ("test", "test", TESTED)):
        chosen = [entry for entry in sentences if entry["split"] == split][:number]
        lines = [json.dumps({"text": entry["text"], "label": ("plot", "review")[entry["subj"]]}) for entry in chosen]
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        counts[name] = len(chosen)
    return counts


def record(command: str, folder: Path) -> dict[str, Any]:
    """One command as typed, and what it printed."""
    began = time.monotonic()
    words = [sys.executable, "-m", *shlex.split(command)]
    environment = os.environ | {"COLUMNS": "110", "PYTHONPATH": str(ROOT / "src"), "TERM": "dumb"}
    code, printed = (on_a_terminal if words[3] == "list" else to_a_file)(words, folder, environment)
    if code:
        raise SystemExit(f"{command} ended with {code}:\n{printed}")
    return {"command": command, "lines": printed.splitlines(), "wall_s": round(time.monotonic() - began, 1), "date": now()}


def to_a_file(words: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run(words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.returncode, done.stdout


def on_a_terminal(words: list[str], folder: Path, environment: dict[str, str]) -> tuple[int, str]:
    """As `to_a_file`, but a program finds a terminal of 110 columns and shows its table as to a person."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(words, cwd=folder, env=environment, stdout=theirs, stderr=theirs)
    os.close(theirs)
    parts = []
    with contextlib.suppress(OSError):  # the other end was closed
        while part := os.read(ours, 1 << 16):
            parts.append(part)
    os.close(ours)
    return process.wait(), "\n".join(line.rstrip() for line in b"".join(parts).decode().splitlines())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder with corpus.jsonl.zst and sentences.jsonl.zst")
    parser.add_argument("--only", metavar="VERB", help="record this verb alone: one that needs nothing of the others, such as list")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    before = [] if args.only is None else read_json(args.out)["steps"]
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        counts = write_folder(args.data, folder)
        steps = []
        for i, command in enumerate(COMMANDS):
            if args.only in (None, shlex.split(command)[1]):
                print(command, flush=True)
                steps.append(record(command, folder))
            else:
                steps.append(before[i])
    data = {"name": "film reviews (Pang and Lee 2004), sentences of reviews or of plot summaries", **counts}
    result = {"name": "quick-start", "data": data, "steps": steps, "hardware": hardware.describe(), "versions": versions(), "date": now()}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(args.out, result)


if __name__ == "__main__":
    main()
