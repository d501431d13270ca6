"""A GPU that is lent for minutes, on a machine without a network: everything is brought, one call does all, and each part has its limit.

    python3 tools/gpu_day.py pack [--data NAME ...]    # where there is a network: .gpu/ gets the wheels, the peers and the data that will lack
    python3 tools/gpu_day.py run --out FOLDER [--seconds 570] [--parts bench check]                    # there, in the same checkout with its .gpu/

Parts, in the order in which they are named (by default `bench check`; a second call may make the others):

    bench      benchmarks/gpu.py, at most 460 s              FOLDER/gpu.json
    check      tools/check_cuda.py                           FOLDER/cuda_check.json
    continue   benchmarks/continue_step.py, plain, compiled  FOLDER/continue-lm-gpt2-cuda-bf16.json and ...-compiled.json
    smoke      the smoke preset of every claim               FOLDER/day.json says which passed
    claim      the preset gpu of --claim, as far as it comes FOLDER/claim-SLUG.json when it is whole

Everything is written as it comes, so a machine that is taken back keeps what it has. Results belong into benchmarks/results, and
`python tools/fill_docs.py` writes the pages anew. `--device cpu --try` runs the same without a GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BROUGHT = ROOT / ".gpu"
WHEELS = ("tyro", "docstring_parser", "typeguard")
"""What the core needs and an image with torch and transformers lacks."""
PARTS = ("bench", "check", "continue", "smoke", "claim")
BENCH_SECONDS = 460
PAGES = "docs"
"""What is trained on, seen from ROOT, and read at once: the docstrings of all packages of a machine would take minutes of its GPU."""
LEAST = 20.0
"""Seconds of the day below which nothing is begun."""


def pack(data: list[str]) -> int:
    """Fills .gpu/, which git ignores."""
    shutil.rmtree(BROUGHT, ignore_errors=True)
    peers = Path(os.environ.get("HEADSTART_PEERS", ROOT.parent / "shared" / "peers"))
    shutil.copytree(peers, BROUGHT / "peers", ignore=shutil.ignore_patterns("__pycache__"))
    lying = Path(os.environ.get("HEADSTART_DATA", ROOT.parent / "shared" / "data"))
    for name in data:
        shutil.copytree(lying / name, BROUGHT / "data" / name)
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version", "3.12"]
    done = subprocess.run([*fetch, "--dest", str(BROUGHT / "wheels"), *WHEELS], check=False)
    size = sum(path.stat().st_size for path in BROUGHT.rglob("*") if path.is_file())
    print(f"{BROUGHT}: {size / 2**20:.1f} MiB: {', '.join(sorted(path.name for path in BROUGHT.iterdir()))}")
    return done.returncode


@dataclass
class Day:
    """What is left of the time, and what came of the parts."""

    out: Path
    seconds: float
    device: str
    trying: bool
    work: Path
    env: dict[str, str]
    began: float = field(default_factory=time.perf_counter)
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def left(self) -> float:
        return self.seconds - (time.perf_counter() - self.began)

    def call(self, name: str, *command: str, limit: float | None = None) -> bool:
        """Runs a command within its limit and the day's; whether it ended well."""
        limit = self.left if limit is None else min(limit, self.left)
        start = time.perf_counter()
        outcome = "the time was over"
        if self.left >= LEAST:
            print(f"--- {name}: {' '.join(command)} (at most {limit:.0f} s)", flush=True)
            process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=self.env, process_group=0)
            try:
                outcome = f"exit {process.wait(limit)}"
            except subprocess.TimeoutExpired:
                outcome = f"ended after {limit:.0f} s"
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        self.parts[name] = {"outcome": outcome, "seconds": round(time.perf_counter() - start, 1)}
        day = self.out / "day.json"
        before = json.loads(day.read_text(encoding="utf-8"))["parts"] if day.exists() else {}  # of an earlier call
        day.write_text(json.dumps({"device": self.device, "parts": before | self.parts}, indent=1) + "\n", encoding="utf-8")
        return outcome == "exit 0"

    # --- the parts ----------------------------------------------------------------------------------------------------------------------------

    def bench(self) -> None:
        seconds = min(BENCH_SECONDS, self.left - 5)
        told = ["--try", "--only", "tiny", "loader"] if self.trying else []
        self.call("bench", "-m", "benchmarks.gpu", "--seconds", f"{seconds:.0f}", "--out", str(self.out / "gpu.json"), *told, limit=seconds + 15)

    def check(self) -> None:
        told = ["--steps", "20", "--methods", "causal-lm"] if self.trying else []
        places = ["--out", str(self.out / "cuda_check.json"), "--work", str(self.work / "check"), "--device", self.device]
        places += ["--data", PAGES]
        self.call("check", "tools/check_cuda.py", "--seconds", f"{max(1.0, self.left - 30):.0f}", *places, *told)

    def continued(self) -> None:
        size = ["--batch", "1", "--seq", "32", "--warmup", "1", "--steps", "2", "--repeats", "1", "--rounds", "1"]
        if not self.trying:
            size = ["--batch", "32", "--seq", "1024", "--warmup", "4", "--steps", "5", "--repeats", "3", "--rounds", "1"]
        for more in ([], ["--compile"]):
            name = f"continue-lm-gpt2-{self.device}-bf16" + ("-compiled" if more else "")
            told = [*size, "--data", PAGES, "--device", self.device, "--precision", "bf16", *more, "--out", str(self.out / f"{name}.json")]
            self.call(name, "-m", "benchmarks.continue_step", *told, limit=180)

    def smoke(self) -> None:
        for slug in claims()[: 1 if self.trying else None]:
            told = ["--preset", "smoke", "--device", self.device, "--out", str(self.work / f"smoke-{slug}")]
            self.call(f"smoke {slug}", "-m", "headstart", "claim", slug, *told, limit=90)

    def claim(self, slug: str, seeds: int | None) -> None:
        folder = self.work / f"claim-{slug}"
        told = ["--preset", "gpu", "--device", self.device, "--out", str(folder), "--results", str(self.work / "results")]
        self.call(f"claim {slug}", "-m", "headstart", "claim", slug, *told, *([] if seeds is None else ["--seeds", str(seeds)]))
        if (folder / "result.json").exists():
            shutil.copy(folder / "result.json", self.out / f"claim-{slug}.json")


def claims() -> list[str]:
    """The claims there are, by their files: this process imports nothing of the library."""
    return sorted(path.stem for path in (ROOT / "src/headstart/claims").glob("*.py") if not path.stem.startswith("_"))


def environment(site: Path) -> dict[str, str]:
    """Of the parts: the library from this checkout, what .gpu/ brings, and nothing from a network."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT), str(site)]), "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
    env |= {name: str(BROUGHT / folder) for name, folder in (("HEADSTART_PEERS", "peers"), ("HEADSTART_DATA", "data")) if (BROUGHT / folder).exists()}
    return env


def install(site: Path) -> None:
    """Unpacks the wheels that are brought; those of a package that is there already do no harm behind it."""
    wheels = [str(path) for path in sorted((BROUGHT / "wheels").glob("*.whl"))]
    if wheels:
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--no-cache-dir", "--target", str(site)]
        subprocess.run([*pip, *wheels], check=True)


def lines(day: Day) -> Iterator[str]:
    """The table at the end: what a call whose last lines alone are read must say, of its own parts."""
    for name, part in day.parts.items():
        yield f"{name:<40} {part['seconds']:>7.1f} s  {part['outcome']}"
    if "bench" in day.parts and (day.out / "gpu.json").exists():
        found = json.loads((day.out / "gpu.json").read_text(encoding="utf-8"))
        for name, figures in found["figures"].items():
            short = {key: value for key, value in figures.items() if isinstance(value, int | float | str)}
            yield f"{name:<18} {json.dumps(short)}"
        for name, why in found["left_out"].items():
            yield f"left out: {name}: {why[-300:]}"
    if "check" in day.parts and (day.out / "cuda_check.json").exists():
        found = json.loads((day.out / "cuda_check.json").read_text(encoding="utf-8"))
        for name, check in found["checks"].items():
            yield f"{'ok  ' if check['passed'] else 'FAIL'} {name} ({check['seconds']} s) {check.get('error', '')[:300]}"


def run(arguments: argparse.Namespace) -> int:
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        install(work / "site")
        day = Day(arguments.out.resolve(), arguments.seconds, arguments.device, arguments.trying, work, environment(work / "site"))
        day.call("doctor", "-m", "headstart", "doctor", limit=60)
        for part in arguments.parts:
            if part == "claim":
                day.claim(arguments.claim, arguments.seeds)
            else:
                {"bench": day.bench, "check": day.check, "continue": day.continued, "smoke": day.smoke}[part]()
    print("\n".join(["", *lines(day)]), flush=True)
    return 0 if all(part["outcome"] == "exit 0" for part in day.parts.values()) else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    packing = verbs.add_parser("pack", help="fill .gpu/")
    packing.add_argument("--data", nargs="*", default=[], metavar="NAME", help="folders of HEADSTART_DATA that a claim needs")
    running = verbs.add_parser("run", help="run the parts")
    running.add_argument("--out", type=Path, required=True)
    running.add_argument("--seconds", type=float, default=570)
    running.add_argument("--parts", nargs="+", choices=PARTS, default=["bench", "check"])
    running.add_argument("--claim", help="of the part claim")
    running.add_argument("--seeds", type=int, help="of the part claim; with fewer than the preset's its result is partial")
    running.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    running.add_argument("--try", action="store_true", dest="trying", help="small shapes")
    arguments = parser.parse_args()
    if arguments.verb == "pack":
        return pack(arguments.data)
    if "claim" in arguments.parts and arguments.claim is None:
        parser.error("the part claim needs --claim")
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
