"""tools/reliability.py: what came of the tests of a promise, and tools/pages/reliability.py: how the page shows it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.running import environment
from tools.pages.reliability import promise_rows, sentences

ROOT = Path(__file__).parents[2]

TESTS = '''
import pytest

@pytest.mark.promise("Nothing breaks.")
@pytest.mark.parametrize("n", [1, 2])
def test_one(n):
    pass

@pytest.mark.promise("Nothing breaks.")
def test_two():
    pass

@pytest.mark.promise("It holds "
                     "in water.")
@pytest.mark.parametrize("n", [1, 2, 3])
def test_three(n):
    assert n != 2

@pytest.mark.promise("It flies.")
def test_four():
    pytest.skip("no wings")

@pytest.fixture
def water():
    raise OSError("dry")

@pytest.mark.promise("It sails.")
def test_five(water):
    pass

def test_that_promises_nothing():
    assert False
'''


@pytest.fixture(scope="module", params=[[], ["-n", "2"]], ids=["one process", "two processes"])
def results(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """reliability.json of a folder with one file of tests, and how the tool ended."""
    folder = tmp_path_factory.mktemp("promises")
    (folder / "test_it.py").write_text(TESTS)
    command = [sys.executable, "-m", "tools.reliability", "--result", str(folder / "result.json"), str(folder), *request.param]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=100, check=False)
    return {**json.loads((folder / "result.json").read_text()), "code": done.returncode, "said": done.stdout}


def of(results: dict[str, Any], promise: str) -> dict[str, Any]:
    return next(entry for entry in results["promises"] if entry["promise"] == promise)


def test_a_promise_is_kept_if_all_of_its_tests_passed(results: dict[str, Any]) -> None:
    kept = of(results, "Nothing breaks.")
    assert kept["outcome"] == "passed"
    assert [(test["test"].split("::")[1], test["runs"]) for test in kept["tests"]] == [("test_one", 2), ("test_two", 1)]
    assert (results["kept"], results["promised"]) == (1, 4)


def test_one_failed_parameter_breaks_a_promise(results: dict[str, Any]) -> None:
    broken = of(results, "It holds in water.")
    assert broken["outcome"] == "failed"
    assert (broken["tests"][0]["runs"], broken["tests"][0]["failed"]) == (3, 1)


def test_a_test_that_could_not_begin_has_failed_and_a_skipped_one_shows_nothing(results: dict[str, Any]) -> None:
    assert of(results, "It sails.")["outcome"] == "failed"
    assert of(results, "It flies.")["outcome"] == "skipped"


def test_the_tool_runs_only_what_promises_and_ends_with_1_when_something_is_not_kept(results: dict[str, Any]) -> None:
    assert results["code"] == 1
    assert "test_that_promises_nothing" not in results["said"]
    assert "FAILED: It holds in water." in results["said"]
    assert "SKIPPED: It flies." in results["said"]
    assert "1 of 4 promises kept" in results["said"]


def test_the_page_has_a_row_for_every_promise_of_the_tests_with_or_without_a_result(results: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(TESTS + '\n@pytest.mark.promise("It is new.")\ndef test_six():\n    pass\n')
    rows = promise_rows(sentences(tmp_path), results)
    told = {row.split("|")[1].strip(): row.split("|")[3].strip() for row in rows[2:]}
    assert told == {
        "Nothing breaks.": "kept", "It holds in water.": "**broken**", "It flies.": "not tested: skipped",
        "It sails.": "**broken**", "It is new.": "not run yet",
    }  # fmt: skip


def test_a_promise_that_left_the_tests_leaves_the_page(results: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text('import pytest\n@pytest.mark.promise("It is new.")\ndef test_six():\n    pass\n')
    assert len(promise_rows(sentences(tmp_path), results)) == 3


def test_a_promise_may_have_a_name(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        'safe = pytest.mark.promise("It is safe.")\n@safe\ndef test_a():\n    pass\n@safe\ndef test_b():\n    pass\n'
        'FAST = "It is fast."\n@pytest.mark.promise(FAST)\ndef test_c():\n    pass\n'
    )
    assert sentences(tmp_path) == {"It is safe.": ["test_it.py::test_a", "test_it.py::test_b"], "It is fast.": ["test_it.py::test_c"]}


def test_a_promise_on_no_test_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text('import pytest\npytestmark = pytest.mark.promise("It is safe.")\ndef test_a():\n    pass\n')
    with pytest.raises(ValueError, match=r"test_it\.py, line 2: a promise stands on a test function"):
        sentences(tmp_path)


def test_a_sentence_that_is_no_plain_string_is_refused(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text("import pytest\n@pytest.mark.promise(SENTENCE)\ndef test_six():\n    pass\n")
    with pytest.raises(ValueError, match=r"test_it\.py, line 2"):
        sentences(tmp_path)
