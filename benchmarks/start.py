"""How long a person waits for the first sign of life: `headstart list`, `import headstart` with its `pretrain`, and the first step of a tiny run.

    python -m benchmarks.start

Every figure is the wall time of a new process, files in the page cache; the ways take turns. For comparison: an empty Python, and torch with
transformers, which no training can do without. The first step of a run has the tokenizer, the store, the rows and the trial of the machine before it.
The ratio is that of the slowest to what it must be.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.parts import in_turns
from benchmarks.result import write_result

MUST = {"headstart list": 0.5, "import headstart and its pretrain": 3.0, "first step of a tiny run": 15.0}
AIM = {"headstart list": 0.2, "import headstart and its pretrain": 2.0, "first step of a tiny run": 8.0}
LIMIT_S = 120


def seconds_of(*arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def seconds_to_first_step(folder: Path) -> float:
    """From the command on raw text to the first line of metrics.jsonl."""
    shutil.rmtree(folder / "runs", ignore_errors=True)
    out = folder / "runs" / "first"
    flags = {"--data": str(folder / "text.txt"), "--out": str(out), "--budget.steps": "100000", "--trainer.log-every": "1"}
    began = time.perf_counter()
    command = [sys.executable, "-m", "headstart", "pretrain", "causal-lm", *(word for pair in flags.items() for word in pair)]
    run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        metrics = out / "metrics.jsonl"
        while not (metrics.exists() and metrics.stat().st_size):
            if run.poll() is not None or time.perf_counter() - began > LIMIT_S:
                raise SystemExit(f"{' '.join(command)}: no step within {LIMIT_S} s, exit {run.poll()}")
            time.sleep(0.01)
        return time.perf_counter() - began
    finally:
        run.kill()
        run.wait()


def write_text(path: Path, megabytes: float) -> None:
    """Sources of this Python's standard library: text that is everywhere."""
    size = 0
    with path.open("w", encoding="utf-8") as out:
        for file in sorted(Path(os.__file__).parent.glob("*.py")):
            size += out.write(file.read_text(encoding="utf-8", errors="ignore") + "\n\n")
            if size > megabytes * 1e6:
                return


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--mb", type=float, default=1.0, help="of text for the run")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/start.json"))
    args = parser.parse_args()
    os.environ.setdefault("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_text(folder / "text.txt", args.mb)
        ways = {
            "python -c pass": lambda: seconds_of("-c", "pass"),
            "import torch, transformers": lambda: seconds_of("-c", "import torch, transformers"),
            "headstart list": lambda: seconds_of("-m", "headstart", "list"),
            "import headstart and its pretrain": lambda: seconds_of("-c", "import headstart; headstart.pretrain"),
            "first step of a tiny run": lambda: seconds_to_first_step(folder),
        }
        for way in ways.values():
            way()  # into the page cache
        found = {way: round(statistics.median(times), 3) for way, times in in_turns(ways, args.repeats).items()}
    ours = {way: found.pop(way) for way in MUST}
    write_result(
        args.out,
        name="start",
        what=f"seconds of new processes, median of {args.repeats}; the run is causal-lm tiny on {args.mb:g} MB of raw text",
        ours=ours,
        peer=found,
        ratio=max(ours[way] / must for way, must in MUST.items()),
        must=1.0,
        aim=max(AIM[way] / must for way, must in MUST.items()),
        higher_is_better=False,
        musts=MUST,
        aims=AIM,
        command=f"python -m benchmarks.start --repeats {args.repeats} --mb {args.mb:g}",
    )


if __name__ == "__main__":
    main()
