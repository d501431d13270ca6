"""Kills a piece of work just before each single change that it makes on the disk, one after the other, and starts it again each time.

    python -m tools.kill_everywhere electra [--every 1] [--result FILE]     a run: rehearsal, three checkpoints, export
    python -m tools.kill_everywhere prepare                                 a store of texts and its rows
    python -m tools.kill_everywhere prepare-images                          a store of images

The torture (`torture.py`) draws its moments; this tries them all. Processes are forked from one that has imported everything, so that a start costs
nothing; the kill is a real SIGKILL. Exit 1 when anything differs from the work that nobody stopped.
"""

from __future__ import annotations

import argparse
import importlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from benchmarks.result import origin
from headstart.core.files import write_json
from tests.corpus import documents, write_corpus, write_jsonl
from tests.running import METHODS, TINY, headstart
from tools.kill_at import kill_before
from tools.torture import differences as run_differences

Work = Callable[[Path], object]
"""What is done in a folder."""


def forked(work: Work, folder: Path, change: int, report: Path) -> int:
    """The exit code of a process of its own that does the work and is killed before this change of `folder` (0: never)."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    said = os.open(report.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(said, stream)
    try:
        kill_before(change, folder, report)
        work(folder)
        if change == 0:
            report.with_suffix(".modules").write_text("\n".join(sorted(sys.modules)))
    except BaseException as error:
        os.write(said, f"{type(error).__name__}: {error}\n".encode())
        os._exit(1)
    os._exit(0)


def everywhere(
    work: Work, folder: Path, differences: Callable[[Path, Path], list[str]], every: int = 1
) -> tuple[list[str], dict[str, list[str]]]:
    """Kills the work before its first, second, third ... change (or each `every`-th), lets it finish, and compares.

    Args:
        differences: (folder, folder of the undisturbed work) -> in what they differ.

    Returns:
        What each kill came before; and the same -> differences, for those that had any.
    """
    undisturbed, place, report = folder / "undisturbed", folder / "work", folder / "report"
    undisturbed.mkdir(parents=True)
    if forked(work, undisturbed, 0, report) != 0:
        raise RuntimeError(f"the undisturbed work failed: {report.with_suffix('.log').read_text()[-2000:]}")
    for module in report.with_suffix(".modules").read_text().split():  # what the work imports late, not anew in each of hundreds of processes
        with suppress(Exception):
            importlib.import_module(module)
    killed: list[str] = []
    different: dict[str, list[str]] = {}
    change = 1
    while True:
        place.mkdir()
        code = forked(work, place, change, report)
        if code == 0:
            return killed, different
        before = f"{change}: {report.read_text()}"
        killed.append(before)
        found = [f"exit {code}"] if code != -signal.SIGKILL else []
        if (code := forked(work, place, 0, report)) != 0:
            found.append(f"then exit {code}: {report.with_suffix('.log').read_text()[-500:].strip()}")
        elif there := differences(place, undisturbed):
            found += there
        if found:
            different[before] = found
        shutil.rmtree(place)
        change += every
        if len(killed) % 25 == 0:
            print(f"{len(killed)} kills, {len(different)} ended different", flush=True)


def unequal_files(folder: Path, undisturbed: Path) -> list[str]:
    """Names that only one of them has, or of files with other bytes."""
    mine, other = (
        {str(path.relative_to(root)): path.read_bytes() if path.is_file() else b"" for path in root.rglob("*")} for root in (folder, undisturbed)
    )
    return [name for name in sorted(mine | other) if mine.get(name) != other.get(name)]


def preparation(folder: Path) -> Work:
    """A store of a corpus with a bad line, and training rows."""
    from headstart.data.text.config import TextConfig
    from headstart.data.text.rows import packed_rows
    from headstart.data.text.store import prepare_text

    data = write_jsonl(folder / "data.jsonl", [{"text": text} for text in documents(200)])
    with data.open("a", encoding="utf-8") as file:
        file.write("no JSON\n")  # so that there is a quarantine
    config = TextConfig(vocab_size=300, workers=1, on_bad_input="quarantine")
    return lambda place: packed_rows(prepare_text([data], place / "store", config), 32)


def preparation_of_images(folder: Path) -> Work:
    """A store of 1,100 images, which are three parts, and a bad one."""
    from headstart.data.image.config import ImageConfig
    from headstart.data.image.prepare import prepare_images

    data = folder / "data"
    data.mkdir()
    (data / "bad.png").write_bytes(b"no image")
    np.savez(data / "images.npz", images=np.random.default_rng(0).integers(0, 256, (1100, 8, 8), dtype=np.uint8), labels=np.arange(1100) % 3)
    config = ImageConfig(size=8, workers=1, on_bad_input="quarantine")
    return lambda place: prepare_images([data], place / "store", config)


PREPARATIONS = {"prepare": preparation, "prepare-images": preparation_of_images}


def run_of(method: str, folder: Path) -> Work:
    """A whole run on a prepared store; the last of its three checkpoints pushes out the first."""
    from headstart import methods
    from headstart.verbs.pretrain import pretrain

    methods.load(method)
    store = folder / "store"
    corpus = write_corpus(folder / "corpus")
    done = headstart("prepare", method, "--data", corpus, "--out", store, "--text.vocab-size", "300")  # not here: a fork must find no threads
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    phases = {"mlm": {"method.causal_start": 4}, "electra": {"method.causal_start": 3, "method.generator_start": 3}}
    settings = TINY | {"budget.steps": 18, "trainer.micro_batch": 4, "trainer.evaluate_every": 9} | phases.get(method, {})
    return lambda place: pretrain(method, store, out=place / "run", say=lambda line: None, **settings)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*PREPARATIONS, *METHODS])
    parser.add_argument("--every", type=int, default=1, help="try each n-th change only")
    parser.add_argument("--result", type=Path)
    options = parser.parse_args(argv)
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="killed-") as name:
        folder = Path(name)
        if options.what in PREPARATIONS:
            killed, different = everywhere(PREPARATIONS[options.what](folder), folder / "places", unequal_files, options.every)
        else:
            killed, different = everywhere(run_of(options.what, folder), folder / "places", run_differences, options.every)
    what = "Killed with SIGKILL before each change of the disk, started again, compared bit for bit with the work that nobody stopped."
    result = {"name": f"every_change-{options.what}", "what": what, "changes": len(killed), "equal": len(killed) - len(different)}
    result |= {"wall_s": round(time.monotonic() - start, 1), "different": different, "killed_before": killed}
    if options.result:
        write_json(options.result, result | origin(f"python -m tools.kill_everywhere {options.what} --every {options.every}"))
    for before, how in different.items():
        print(f"DIFFERENT when killed before {before}: {'; '.join(how)}")
    print(f"{result['equal']} of {result['changes']} kills ended equal")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
