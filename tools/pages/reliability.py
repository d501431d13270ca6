"""docs/reliability.md: every promise of the tests with what came of it, and the torture."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any, TypeGuard

from tools.pages.results import ROOT, read, there, where


def sentences(folder: Path) -> dict[str, list[str]]:
    """Promise -> the tests that show it, in the order of files and lines, of all decorators `pytest.mark.promise("...")` under `folder`; mark
    and sentence may have a name in their module.

    Raises:
        ValueError: a promise is no plain string, or stands elsewhere than on a function.
    """
    found: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        named = {ast.unparse(node.targets[0]): node.value for node in tree.body if isinstance(node, ast.Assign)}
        used: set[int] = set()
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            for decorator in function.decorator_list:
                mark = named.get(decorator.id) if isinstance(decorator, ast.Name) else decorator
                if mark is not None and _is_promise(mark):
                    used.add(id(mark))
                    found.setdefault(_sentence(mark, named, path), []).append(f"{path.relative_to(folder)}::{function.name}")
        for node in ast.walk(tree):
            if _is_promise(node) and id(node) not in used:
                raise ValueError(f"{path}, line {node.lineno}: a promise stands on a test function")
    return found


def _is_promise(node: ast.AST) -> TypeGuard[ast.Call]:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.promise"


def _sentence(mark: ast.Call, named: dict[str, ast.expr], path: Path) -> str:
    sentence: ast.expr | None = mark.args[0] if mark.args else None
    if isinstance(sentence, ast.Name):
        sentence = named.get(sentence.id)
    if not (isinstance(sentence, ast.Constant) and isinstance(sentence.value, str)):
        raise ValueError(f"{path}, line {mark.lineno}: a promise is a plain string")
    return sentence.value


OUTCOMES = {"passed": "kept", "failed": "**broken**", "skipped": "not tested: skipped"}


def promise_rows(promises: dict[str, list[str]], result: dict[str, Any]) -> list[str]:
    """The table: what the tests promise now, beside what came of it when they were last run."""
    outcomes = {entry["promise"]: entry for entry in result["promises"]}
    rows = ["| promise | tested by | last run | seconds |", "| --- | --- | --- | --- |"]
    for sentence, tests in promises.items():
        entry = outcomes.get(sentence)
        runs = sum(test["runs"] for test in entry["tests"]) if entry else 0
        shown = "<br>".join(f"`{test}`" for test in tests) + (f" ({runs} cases)" if runs > len(tests) else "")
        outcome = OUTCOMES[entry["outcome"]] if entry else "not run yet"
        seconds = f"{sum(test['seconds'] for test in entry['tests']):.1f}" if entry else "-"
        rows.append(f"| {sentence.replace('|', chr(92) + '|')} | {shown} | {outcome} | {seconds} |")
    return rows


GROUPS = {
    "verbs": "A run",
    "tools": "Kills at any moment",
    "engine": "Steps and checkpoints",
    "failures": "Faults",
    "distributed": "Several processes",
    "data": "Data and its order",
    "core": "Files, locks, randomness",
    "fuzz": "Files from outside",
}
"""Folder of tests -> heading, in the order of the page; other folders follow under their own names."""


def promises_block() -> str:
    """Every promise of the tests, under the headings of their folders."""
    result = read("reliability") if there("reliability") else {"promises": []}
    of_group: dict[str, dict[str, list[str]]] = {name: {} for name in GROUPS}
    for sentence, tests in sentences(ROOT / "tests").items():
        of_group.setdefault(tests[0].split("/")[0], {})[sentence] = tests
    parts = []
    if result["promises"]:
        parts = [f"{result['kept']} of {result['promised']} promises were kept when `{result['command']}` last ran ({where(result)})."]
    for name, promises in of_group.items():
        if promises:
            parts += [f"### {GROUPS.get(name, name)}", "\n".join(promise_rows(promises, result))]
    return "\n\n".join(parts)


def torture_block() -> str:
    """How often runs were killed, where, and what was left."""
    if not (there("torture") and there("every_change-electra")):
        return "(`make torture` has not run on this version yet.)"
    result = read("torture")
    rows = ["| method | runs | kills | restarts | bit for bit equal |", "| --- | --- | --- | --- | --- |"]
    for method in dict.fromkeys(run["method"] for run in result["each"]):
        runs = [run for run in result["each"] if run["method"] == method]
        kills, restarts = sum(len(run["kills"]) for run in runs), sum(run["restarts"] for run in runs)
        rows.append(f"| {method} | {len(runs)} | {kills} | {restarts} | {sum(run['equal'] for run in runs)} |")
    stages = ", ".join(f"{stage} {count}" for stage, count in result["killed_while"].items())
    decided = sum(run["decided_by_trial"] != "given" for run in result["each"])
    minutes = f"{result['wall_s'] / 60:.0f} minutes"
    head = f"**{result['equal']} of {result['runs']}** runs, killed {result['kills']} times, ended equal ({where(result)}, {minutes})."
    tail = f"What they were at when the kill came: {stages}. {decided} of the runs let their trial decide precision, micro-batch or number of steps."
    every = read("every_change-electra")
    last = (
        f"**{every['equal']} of {every['changes']}** kills of a short run of ELECTRA, one before each change that it makes on the disk, "
        f"ended equal ({every['wall_s'] / 60:.0f} minutes)."
    )
    return f"{head}\n\n" + "\n".join(rows) + f"\n\n{tail}\n\n{last}"
