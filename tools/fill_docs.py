"""Writes figures from committed JSON into the documentation, between markers: nobody types a figure.

    python tools/fill_docs.py            rewrite
    python tools/fill_docs.py --check    exit 1 when a page is stale
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import re
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeGuard

from headstart.verbs.demo import table_lines

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def there(name: str) -> bool:
    """Whether a result was made. The others always are: they are committed."""
    return (RESULTS / f"{name}.json").exists()


def demo_block() -> str:
    """The table and the sentence of the committed demonstration."""
    result = read("demo")
    minutes = result["wall_s"] / 60
    where = f"{result['hardware']['cpu']}, {result['hardware']['cores']} cores"
    return "```\n" + "\n".join([*table_lines(result["arms"]), "", result["sentence"]]) + f"\n```\n\n({minutes:.1f} minutes in all on {where}.)"


def plateau_block() -> str:
    """When each recipe left the plateau."""
    rows = ["| recipe | tokens predicted a step | steps to leave | tokens predicted until then |", "| --- | --- | --- | --- |"]
    result = read("plateau")
    for arm in result["arms"]:
        left = arm["left_at"]
        until = "-" if left is None else f"{arm['predicted_until_then']:,.0f}"
        steps = f"not within {arm['steps']:,}" if left is None else f"{left:,}"
        rows.append(f"| {arm['recipe']} | {arm['predicted_per_step']:,.0f} | {steps} | {until} |")
    return "\n".join(rows) + f"\n\nUnigram entropy of this corpus: {result['unigram_entropy']:.2f} nats. {result['what']}"


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


def where(result: dict[str, Any]) -> str:
    """Machine, versions and date of a result."""
    hardware, versions = result["hardware"], result["versions"]
    return f"{hardware['cpu']}, {hardware['cores']} cores, torch {versions['torch']}, Python {versions['python']}, {result['date'][:10]}"


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


LIMITS = {
    "core.files": ("MAX_JSON_BYTES", "MAX_JSON_VALUES"),
    "core.config": ("MAX_YAML_BYTES",),
    "core.run": ("MAX_LINE",),
    "core.errors": ("MAX_MESSAGE",),
    "data.compressed": ("FREE_BYTES", "MAX_RATIO"),
    "data.text.tokenizer": ("MAX_TOKENIZER_BYTES", "MAX_VOCABULARY", "MAX_EXPANSION", "MAX_WORD_SEARCH"),
    "data.text.rows": ("MAX_LENGTH",),
    "interop.model_folder": ("MAX_CONFIG_BYTES", "MAX_LAYERS", "MAX_LABELS", "FREE_BYTES", "MAX_GROWTH"),
    "tasks.data": ("MAX_CLASSES", "MAX_NAME", "MEMORY_SHARE"),
}
"""Module -> constants that bound what is read from outside; each has a docstring."""


def limits_block() -> str:
    """The constants with their values and docstrings."""
    rows = ["| limit | value | of what |", "| --- | --- | --- |"]
    for module, names in LIMITS.items():
        body = ast.parse((ROOT / "src/headstart" / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8")).body
        docs = {ast.unparse(a.targets[0]): b.value for a, b in pairwise(body) if isinstance(a, ast.Assign) and isinstance(b, ast.Expr)}
        for name in names:
            value, text = getattr(importlib.import_module(f"headstart.{module}"), name), ast.literal_eval(docs[name])
            rows.append(f"| `{module}.{name}` | {value:,} | {' '.join(text.split())} |")
    return "\n".join(rows)


def checkpoint_block() -> str:
    """What a save costs the training, ours and the peers'."""
    result = read("checkpoint")
    arms = {"ours": result["ours"], "`torch.save`, not flushed": result["peer"], "`dcp.async_save`": result["peer"]["dcp.async_save"]}
    rows = ["| a save | pause | first pause | written after | steps beside it took longer by |", "| --- | --- | --- | --- | --- |"]
    for name, arm in arms.items():
        rows.append(f"| {name} | " + " | ".join(f"{arm[key]:.2f} s" for key in ("pause_s", "first_pause_s", "written_s", "slower_steps_s")) + " |")
    where = f"{result['hardware']['cpu']}, {result['hardware']['cores']} cores"
    return "\n".join(rows) + f"\n\n{result['what']} ({where}). Our pause is {100 * result['ratio']:.1f} % of the blocking one's."


BLOCKS: dict[str, tuple[str, Callable[[], str]]] = {
    "demo": ("README.md", demo_block),
    "plateau": ("docs/plateau.md", plateau_block),
    "checkpoint": ("docs/decisions/0009-distributed-checkpoints.md", checkpoint_block),
    "promises": ("docs/reliability.md", promises_block),
    "torture": ("docs/reliability.md", torture_block),
    "pause": ("docs/reliability.md", checkpoint_block),
    "limits": ("docs/security.md", limits_block),
}


def filled(text: str, name: str, block: str) -> str:
    """`text` with what lies between the markers of `name` replaced.

    Raises:
        ValueError: the page has no such markers.
    """
    begin, end = f"<!-- {name}: begin (python tools/fill_docs.py) -->", f"<!-- {name}: end -->"
    new, count = re.subn(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{block}\n{end}", text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{count} blocks named {name}, one expected")
    return new


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale = []
    for name, (page, block) in BLOCKS.items():
        path = ROOT / page
        text = path.read_text(encoding="utf-8")
        new = filled(text, name, block())
        if new != text:
            stale.append(page)
            if not check:
                path.write_text(new, encoding="utf-8")
    print(f"{'stale' if check else 'rewritten'}: {', '.join(stale) or 'none'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
