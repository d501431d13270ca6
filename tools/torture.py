"""Kills training runs at random moments, starts them again with the same command, and compares what is left with a run that nobody stopped.

    python -m tools.torture [--runs 50] [--seed 0] [--method mlm ...] [--out FOLDER] [--workers 2]

Each run begins with raw text: it prepares the store, tries and rehearses, trains, exports. It is killed with SIGKILL one to four times, and then left
to finish. A kill comes in one of three ways:

- time: at a moment drawn over the whole life of a process;
- sight: as soon as something appears on the disk (a half-written store, checkpoint or export, a metrics line), or some milliseconds later;
- change: just before a change of the disk drawn among all of them (`kill_at.py`), so that the kill falls between two renames however close they are.

Every tenth run is one of two processes under torchrun (DDP); the kill takes all of them, or one rank and torchrun ends the other.

Afterwards these must be equal, bit for bit: the records of metrics, probes and samples (but for the fields that a clock decides), the weights of the
export, the state of the last checkpoint, every file of the store; and no other file may lie in the run or beside it.

Half of the runs are told precision, micro-batch and steps. The others decide by their trial, whose timings never repeat: a quarter precision and
micro-batch, a quarter the number of steps within their minutes. Such a run has no twin that is known beforehand; so the twin is made afterwards, an
undisturbed run that is given, as flags, what the killed run recorded. And from the first checkpoint on, no restart may change what was recorded.
(Before it, a restarted run has nothing to continue, begins anew and decides anew.)
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.result import origin
from headstart.core.files import write_json
from headstart.engine.checkpoint import load_checkpoint
from headstart.engine.checkpoint_state import as_bytes
from tests.corpus import write_corpus
from tests.running import METHODS, TINY, environment, files, flags, records, run_info, torchrun_command, untimed, weight_files

ROOT = Path(__file__).parents[1]
STEPS = 60
DOCUMENTS = 6000  # 1.5 MB: a store of two parts
STARTING = 0.05
"""Share of the kills by time that come before a process has touched the disk."""
PATIENCE = 600  # seconds; a process that takes longer hangs

SETTINGS: dict[str, Any] = {
    **TINY,
    "method.hidden_size": 64,
    "method.sequence_length": 64,
    "trainer.log_every": 3,  # does not divide the next one: means go on over a checkpoint
    "trainer.evaluate_every": 20,
    "trainer.checkpoint_every": 10,
    "trainer.evaluate_rows": 8,
}
OF_METHOD: dict[str, dict[str, Any]] = {
    "causal-lm": {"trainer.ema_decay": 0.9},
    "mlm": {"method.causal_start": 20, "method.dropout": 0.1},
    "electra": {"method.causal_start": 14, "method.generator_start": 14, "method.dropout": 0.1},
}
GIVEN: dict[str, Any] = {"budget.steps": STEPS, "precision": "fp32", "trainer.micro_batch": 4}
DECISIONS: dict[str, dict[str, Any]] = {
    "given": GIVEN,
    "precision": {"budget.steps": STEPS, "precision": "auto"},
    "steps": {"budget.minutes": 0.04, "precision": "fp32", "trainer.micro_batch": 4},
}
"""Who decides -> the settings for it."""

SIGHTS: list[tuple[str, float]] = [
    ("stores/*/.work/plan.json", 0.5),
    ("stores/*/.work/parts/*.tmp", 0.0),
    ("stores/*/.work/parts/*.safetensors", 0.1),
    ("stores/*/.work/tokens.npy", 0.1),
    ("stores/*/tokens.npy", 0.0),
    ("stores/*/manifest.json", 0.0),
    ("stores/*/rows/*/ids.npy", 0.05),
    ("run/.rehearsal-*", 0.1),
    ("run/metrics.jsonl", 1.5),
    ("run/checkpoints/.writing-*", 0.03),
    ("run/checkpoints/step-00000030", 0.3),
    ("run/.export-writing", 0.05),
    ("run/export", 0.0),
]
"""In the order of their appearance: what may be seen, and how many seconds later the kill comes at most."""


@dataclass(frozen=True)
class Kill:
    """One kill that is planned.

    Attributes:
        how: "time", "sight" or "change".
        at: share of a process's life; index of SIGHTS; share of a process's changes of the disk.
        delay: seconds after the sight.
        victim: under torchrun, the rank that is killed; None: all processes.
    """

    how: str
    at: float
    delay: float = 0.0
    victim: int | None = None


@dataclass(frozen=True)
class Case:
    """One run of the torture."""

    number: int
    method: str
    processes: int
    decides: str
    kills: tuple[Kill, ...]


@dataclass
class Life:
    """An undisturbed process: what a kill can fall into."""

    work: Path
    began: float  # seconds until it touched the disk
    seconds: float
    changes: int


@dataclass
class Outcome:
    """What became of a case."""

    case: Case
    decided: dict[str, Any] = field(default_factory=dict)
    kills: list[dict[str, Any]] = field(default_factory=list)
    starts: int = 0
    different: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def record(self) -> dict[str, Any]:
        """As torture.json keeps it."""
        case = self.case
        return {
            "run": case.number,
            "method": case.method,
            "processes": case.processes,
            "decided_by_trial": case.decides,
            "decided": self.decided,
            "kills": self.kills,
            "restarts": self.starts - 1,
            "equal": not self.different,
            "different": self.different,
            "seconds": round(self.seconds, 1),
        }


def plan(number: int, methods: Sequence[str], seed: int) -> Case:
    """The case of this number: the same for the same seed."""
    rng = random.Random(f"{seed}/{number}")
    turn, processes = number // len(methods), 2 if number % 10 == 9 else 1
    decides = "given" if turn % 2 == 0 or processes > 1 else ("precision", "steps")[turn // 2 % 2]
    ways = rng.choices(("time", "sight", "change") if processes == 1 else ("time", "sight"), k=rng.randint(1, 4))
    sights = sorted(rng.sample(range(len(SIGHTS)), ways.count("sight")))  # a restarted process does not go back behind what it has done
    kills = []
    for way in ways:
        at, delay = rng.random(), 0.0
        if way == "sight":
            at = sights.pop(0)
            delay = rng.uniform(0, SIGHTS[at][1])
        kills.append(Kill(way, at, delay, rng.choice([None, 0, 1]) if processes > 1 else None))
    return Case(number, methods[number % len(methods)], processes, decides, tuple(kills))


class Torture:
    """Runs cases in `folder`, each in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.corpus = write_corpus(folder / "corpus", DOCUMENTS)
        self._lives: dict[str, Life] = {}
        self._locks = {method: threading.Lock() for method in METHODS}

    def settings(self, method: str, decided: dict[str, Any]) -> list[str]:
        return ["pretrain", method, "--data", str(self.corpus), *flags({**SETTINGS, **OF_METHOD[method], **decided})]

    def undisturbed(self, method: str, processes: int, decided: dict[str, Any]) -> Life:
        """The run that nobody stops; made once for each method, number of processes and decisions."""
        key = "-".join([method, f"{processes}p", *(str(value) for value in decided.values())])
        with self._locks[method]:
            if key not in self._lives:
                self._lives[key] = self._live(self.folder / f"undisturbed-{key}", processes, self.settings(method, decided))
            return self._lives[key]

    def _live(self, work: Path, processes: int, command: list[str]) -> Life:
        work.mkdir()
        process = Process(work, command, processes, change=0 if processes == 1 else None)
        process.wait_until("run/run.json")
        began = time.time() - process.started
        if process.wait() != 0:
            raise RuntimeError(f"the undisturbed run failed: {process.said()[-2000:]}")
        return Life(work, began, time.time() - process.started, int(process.changed()) if processes == 1 else 0)

    def run(self, case: Case) -> Outcome:
        """Kills and restarts until the run is done, then compares. A fault of any kind is a difference."""
        life = self.undisturbed(case.method, case.processes, GIVEN)
        outcome, start = Outcome(case), time.monotonic()
        work = self.folder / f"{case.number:03d}-{case.method}"
        work.mkdir()
        try:
            self._disturb(case, life, work, outcome)
            decided = run_info(work / "run")["decisions"]
            names = {"budget.steps": "total_steps", "precision": "precision", "trainer.micro_batch": "micro_batch"}
            outcome.decided = {setting: decided[name] for setting, name in names.items()}
            outcome.different += differences(work, self.undisturbed(case.method, case.processes, outcome.decided).work)
        except Exception as error:
            outcome.different.append(f"{type(error).__name__}: {error}")
        outcome.seconds = time.monotonic() - start
        if not outcome.different:
            shutil.rmtree(work)
        return outcome

    def _disturb(self, case: Case, life: Life, work: Path, outcome: Outcome) -> None:
        command = self.settings(case.method, DECISIONS[case.decides])
        planned, recorded = list(case.kills), None
        while True:
            kill = planned.pop(0) if planned else None
            left = 1.0 if not outcome.kills else 0.5  # a process that continues has less to do than the first
            change = 1 + int(kill.at * left * life.changes) if kill is not None and kill.how == "change" else None
            process = Process(work, command, case.processes, change)
            outcome.starts += 1
            hit = kill is not None and self._hit(kill, process, life, left)
            if not hit and process.wait() != 0:
                raise RuntimeError(f"exit {process.wait()}: {process.said()[-2000:]}")
            if not hit and not outcome.kills:  # the first process was quicker than the kill: begin anew, with an earlier one
                shutil.rmtree(work)
                work.mkdir()
                planned.insert(0, Kill("time", random.Random(case.number + outcome.starts).uniform(0.0, 0.7)))
                continue
            if any((work / "run" / "checkpoints").glob("step-*")):
                decisions = run_info(work / "run")["decisions"]
                if decisions != (recorded or decisions):
                    outcome.different.append("a restart changed what was decided")
                recorded = decisions
            if not hit:
                return
            assert kill is not None
            more = {"before": process.changed()} if kill.how == "change" else {} if kill.victim is None else {"rank": kill.victim}
            doing = what_it_did(work, process.started)
            outcome.kills.append({"how": kill.how, "doing": doing, **more, "after_s": round(time.time() - process.started, 2)})

    def _hit(self, kill: Kill, process: Process, life: Life, left: float) -> bool:
        """Kills the process at its moment; False if it ended before."""
        if kill.how == "change":
            return process.wait() == -signal.SIGKILL
        if kill.how == "time" and kill.at < STARTING:  # a start takes long and changes nothing: few kills suffice there
            process.wait_at_most(kill.at / STARTING * life.began)
        elif kill.how == "time":
            process.wait_until("run/run.json")
            process.wait_at_most((kill.at - STARTING) / (1 - STARTING) * left * (life.seconds - life.began))
        elif kill.how == "sight":
            process.wait_until(SIGHTS[int(kill.at)][0])
            process.wait_at_most(kill.delay)
        return process.kill(kill.victim)


class Process:
    """One start of the command line.

    Args:
        processes: more than one: under torchrun.
        change: it is to be killed before its n-th change of the disk; 0: changes are only counted; None: plainly `python -m headstart`.
    """

    def __init__(self, work: Path, command: list[str], processes: int, change: int | None) -> None:
        self.work, self.log, self.report = work, work.with_name(f"{work.name}.log"), work.with_name(f"{work.name}.change")
        command = [*command, "--out", str(work / "run")]
        if processes > 1:
            arguments = torchrun_command(processes, "headstart", *command)
        elif change is None:
            arguments = [sys.executable, "-m", "headstart", *command]
        else:
            arguments = [sys.executable, str(ROOT / "tools" / "kill_at.py"), str(change), str(work), str(self.report), *command]
        self.started = time.time()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(arguments, stdout=log, stderr=log, env=environment())

    def alive(self) -> bool:
        return self._process.poll() is None

    def wait_until(self, pattern: str) -> None:
        """Returns when a path that matches appears or is written, or when the process has ended."""
        while self.alive() and not fresh(self.work, pattern, self.started):
            time.sleep(0.001)

    def wait_at_most(self, seconds: float) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)

    def kill(self, rank: int | None = None) -> bool:
        """SIGKILL for the process and what it started, or for one rank of it; returns when all have ended. False if it had ended before."""
        if not self.alive():
            return False
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(self._process.pid)
            started = parent.children(recursive=True)
            victims = [child for child in started if rank is not None and child.environ().get("RANK") == str(rank)]
            for victim in victims or [parent, *started]:  # a rank that has not started yet: all of them
                victim.kill()
            psutil.wait_procs(started, PATIENCE)
        return self.wait() != 0

    def wait(self) -> int:
        """The exit status; raises TimeoutExpired if the process hangs."""
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def changed(self) -> str:
        """What kill_at.py reported."""
        return self.report.read_text()


def fresh(work: Path, pattern: str, since: float) -> list[Path]:
    """The paths that match and were made or written since then; an earlier process may have left others."""
    found = []
    for path in work.glob(pattern):
        try:
            if path.stat().st_mtime >= since:
                found.append(path)
        except FileNotFoundError:  # it was there a moment ago
            continue
    return found


def what_it_did(work: Path, since: float) -> str:
    """What the killed process was at, by what it left on the disk: the latest stage that shows."""
    if fresh(work, "run/.export-writing", since):
        return "export"
    for beside in fresh(work, "run/checkpoints/.*", since):
        step = beside.name.rpartition("-")[2]
        return f"checkpoint of step {int(step)}" if "removed" not in beside.name else "removing an old checkpoint"
    if fresh(work, "run/run.json", since) and run_info(work / "run")["status"] == "done":
        return "after the end"
    if fresh(work, "run/export", since):
        return "export in place"
    if fresh(work, "run/metrics.jsonl", since):
        raw = (work / "run" / "metrics.jsonl").read_bytes()
        if raw and not raw.endswith(b"\n"):
            return "in a metrics line"
        steps = records(work / "run", "metrics")
        return f"past step {steps[-1]['step'] if steps else 0}"
    if fresh(work, "run/.rehearsal-*", since):
        return "rehearsal"
    if any(work.glob("stores/*/.work")) or not any(work.glob("stores/*/manifest.json")):
        touched = fresh(work, "stores/*/.work", since) or fresh(work, "stores/*/.work/*", since) or fresh(work, "stores/*/.work/parts/*", since)
        return "preparing the store" if touched else "starting"
    if fresh(work, "stores/*/rows/*/*", since) and len(list(work.glob("stores/*/rows/*/rows.json"))) < len(list(work.glob("stores/*/rows/*.lock"))):
        return "making rows"
    return "before step 1" if fresh(work, "run/run.json", since) else "starting"


def differences(work: Path, undisturbed: Path) -> list[str]:
    """In what a finished run and its store differ from the undisturbed ones; empty if in nothing."""
    run, other = work / "run", undisturbed / "run"
    found = [f"{name}.jsonl" for name in ("metrics", "probes", "samples") if untimed(records(run, name)) != untimed(records(other, name))]
    if weight_files(run) != weight_files(other):
        found.append("weights of the export")
    (step, state), (other_step, other_state) = (load_checkpoint(sorted((folder / "checkpoints").glob("step-*"))[-1]) for folder in (run, other))
    if step != other_step or not same(state, other_state):
        found.append("last checkpoint")
    if run_info(run)["status"] != "done":
        found.append("status")
    totals, other_totals = run_info(run)["totals"], run_info(other)["totals"]
    found += [f"total {name}" for name in ("steps", "tokens", "flops") if totals[name] != other_totals[name]]
    left = {name for name in files(work) if not name.startswith("run/tb/")}  # TensorBoard begins a file at every start
    expected = {name for name in files(undisturbed) if not name.startswith("run/tb/")}
    found += [f"left over: {name}" for name in sorted(left - expected)] + [f"missing: {name}" for name in sorted(expected - left)]
    stores = [name for name in sorted(left & expected) if name.startswith("stores/")]
    return found + [f"bytes of {name}" for name in stores if (work / name).read_bytes() != (undisturbed / name).read_bytes()]


def same(one: Any, other: Any) -> bool:
    """Equality to the bit of nested states, but for the seconds they took."""
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and one.shape == other.shape and bytes_of(one) == bytes_of(other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[key], other[key]) for key in one if key != "wall_s")
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


def bytes_of(tensor: torch.Tensor) -> bytes:
    return as_bytes(tensor.contiguous()).tobytes()


def line(outcome: Outcome, done: int, total: int) -> str:
    """What is printed of a run."""
    kills = "; ".join(kill["doing"] for kill in outcome.kills)
    verdict = "equal" if not outcome.different else f"DIFFERENT: {'; '.join(outcome.different)}"
    case = outcome.case
    what = f"{case.method}, {case.processes} process{'es' if case.processes > 1 else ''}, {case.decides}"
    return f"[{done:>{len(str(total))}}/{total}] run {case.number}, {what}: killed {len(outcome.kills)}x ({kills}): {verdict}"


def summary(outcomes: list[Outcome]) -> dict[str, Any]:
    """The figures of all runs."""
    kills = [kill for outcome in outcomes for kill in outcome.kills]
    stages = Counter("training" if kill["doing"].startswith("past step") else kill["doing"].split(" of step ")[0] for kill in kills)
    return {
        "equal": sum(not outcome.different for outcome in outcomes),
        "runs": len(outcomes),
        "kills": len(kills),
        "killed_while": dict(stages.most_common()),
        "killed_by": dict(Counter(kill["how"] for kill in kills).most_common()),
    }


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0, help="decides methods, moments and ways of the kills")
    parser.add_argument("--only", type=int, nargs="+", help="repeat only the runs with these numbers")
    parser.add_argument("--method", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--out", type=Path, help="where the runs lie; by default a folder that is removed when all are equal")
    parser.add_argument("--workers", type=int, default=2, help="runs at the same time")
    parser.add_argument("--result", type=Path, default=ROOT / "benchmarks" / "results" / "torture.json")
    options = parser.parse_args(argv)
    folder = Path(tempfile.mkdtemp(prefix="torture-")) if options.out is None else options.out
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    torture = Torture(folder)
    cases = [plan(number, options.method, options.seed) for number in options.only or range(options.runs)]
    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(options.workers) as pool:
        for outcome in pool.map(torture.run, cases):
            outcomes.append(outcome)
            print(line(outcome, len(outcomes), len(cases)), flush=True)
    what = "Runs killed with SIGKILL and started again with the same command, compared bit for bit with undisturbed ones."
    result = {"name": "torture", "what": what, **summary(outcomes), "wall_s": round(time.monotonic() - start, 1)}
    command = f"python -m tools.torture --runs {options.runs} --seed {options.seed} --method {' '.join(options.method)}"
    write_json(options.result, result | origin(command) | {"each": [outcome.record() for outcome in outcomes]})
    print("killed while: " + ", ".join(f"{stage} {count}" for stage, count in result["killed_while"].items()))
    print(f"{result['equal']} of {result['runs']}: killed {result['kills']} times in {result['wall_s'] / 60:.1f} minutes")
    if result["equal"] < result["runs"]:
        print(f"What differs lies in {folder}.", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
