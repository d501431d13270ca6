"""Runs the tests that show a promise and keeps what came of them; docs/reliability.md shows it.

    python -m tools.reliability [--result FILE] [PYTEST ARGUMENTS]

A promise is a sentence in `@pytest.mark.promise("...")`. Several tests may show one promise: it is kept if all of them passed. A skipped test shows
nothing. Exit 1 when a promise is not kept.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import tools.promises
from benchmarks.result import origin
from headstart.core.files import write_json

ROOT = Path(__file__).parents[1]


@dataclass
class Shown:
    """A test function of a promise, over its parameters."""

    runs: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0


@dataclass(eq=False)  # pytest keeps its plugins in sets
class Recorder:
    """A pytest plugin: promise -> test function -> what came of it."""

    promises: dict[str, dict[str, Shown]] = field(default_factory=dict)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        for promise in tools.promises.of_report(report):
            shown = self.promises.setdefault(promise, {}).setdefault(report.nodeid.split("[")[0], Shown())
            shown.runs += report.when == "setup"
            shown.seconds += report.duration
            shown.failed += report.failed  # a test that fails and then fails in its teardown counts twice: failed all the same
            shown.skipped += report.skipped

    def results(self) -> list[dict[str, Any]]:
        """As reliability.json keeps them."""
        found = []
        for promise, tests in sorted(self.promises.items(), key=lambda entry: min(entry[1])):  # two processes finish in any order
            of_tests = [
                {"test": name, "runs": test.runs, "failed": test.failed, "skipped": test.skipped, "seconds": round(test.seconds, 2)}
                for name, test in sorted(tests.items())
            ]
            if any(test.failed for test in tests.values()):
                outcome = "failed"
            elif any(test.skipped for test in tests.values()):
                outcome = "skipped"
            else:
                outcome = "passed"
            found.append({"promise": promise, "outcome": outcome, "tests": of_tests})
        return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--result", type=Path, default=ROOT / "benchmarks" / "results" / "reliability.json")
    options, rest = parser.parse_known_args(argv)
    recorder = Recorder()
    code = pytest.main(["-p", "tools.promises", "-m", "promise", *(rest or [str(ROOT / "tests")])], plugins=[recorder])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        print(f"pytest ended with {code!s}; nothing is written.", file=sys.stderr)
        return int(code)
    results = recorder.results()
    kept = sum(result["outcome"] == "passed" for result in results)
    what = "The promises of docs/reliability.md and what came of the tests that show them."
    head = {"name": "reliability", "what": what, "kept": kept, "promised": len(results)}
    write_json(options.result, head | origin("python -m tools.reliability") | {"promises": results})
    for result in results:
        if result["outcome"] != "passed":
            print(f"{result['outcome'].upper()}: {result['promise']}")
    print(f"{kept} of {len(results)} promises kept")
    return 0 if kept == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
