"""The generated blocks of the documentation, and the site that is built from it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from headstart import _VERBS, catalog
from headstart.cli.main import VERBS
from headstart.data import stored
from headstart.tasks.config import RegulariserConfig
from headstart.verbs._finetune_settings import DENSE, TASKS
from tests.docs_commands import ROOT
from tests.running import environment, headstart
from tools.fill_docs import blocks, filled
from tools.pages import commands, comparison, failures, methods, recorded, results, settings
from tools.pages.diagrams import read, svg
from tools.pages.pointers import line_of, pointers

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]


def test_the_page_of_settings_names_every_task_of_finetune() -> None:
    line = next(line for line in (DOCS / "settings.md").read_text(encoding="utf-8").splitlines() if "the tasks are " in line)
    assert re.split(", | and ", line.split("the tasks are ")[1].rstrip(".")) == [*TASKS]


# --- pointers into the code ------------------------------------------------------------------------------------------------------------------


def test_every_pointer_of_every_page_finds_its_line() -> None:
    found = [(page, file, symbol) for page in PAGES for file, symbol in pointers(page.read_text(encoding="utf-8"))]
    assert len([symbol for _, _, symbol in found if symbol]) >= 40
    for page, file, symbol in found:
        assert (ROOT / file).is_file(), f"{page}: {file}"
        if symbol is not None:
            line = (ROOT / file).read_text(encoding="utf-8").splitlines()[line_of(file, symbol) - 1]
            name = symbol.split(".")[-1]
            assert re.match(rf"\s*(def|class) {name}\b|\s*@|{name}\b", line), f"{page}: {file}#{symbol} is not '{line}'"


def test_a_pointer_to_what_is_gone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("X = 1\n\n\nclass A:\n    y: int = 0\n\n    @staticmethod\n    def f():\n        pass\n")
    assert [line_of("a.py", name, tmp_path) for name in ("X", "A", "A.y", "A.f")] == [1, 4, 5, 7]
    with pytest.raises(ValueError, match=r"a\.py has no 'A\.g'; it has X, A, A\.y, A\.f"):
        line_of("a.py", "A.g", tmp_path)
    with pytest.raises(ValueError, match=r"there is no file b\.py"):
        line_of("b.py", "X", tmp_path)


# --- blocks ----------------------------------------------------------------------------------------------------------------------------------


def test_a_page_has_every_block_once() -> None:
    for page, name, _ in blocks():
        text = (ROOT / page).read_text(encoding="utf-8")
        assert filled(text, name, "NEW").count("NEW\n<!-- ") == 1, f"{page}: {name}"
    with pytest.raises(ValueError, match="0 blocks named demo"):
        filled("A page without markers.", "demo", "NEW")


def test_every_method_with_code_has_its_page_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for slug in [*methods.with_code(), *methods.interventions_with_code()]:
        assert f"methods/{slug}.md" in navigation


def test_the_python_page_has_every_verb() -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8").splitlines()
    for name, module in _VERBS.items():
        assert f"::: {module}.{name}" in page


def test_make_clean_leaves_the_runs_of_a_person() -> None:
    """Every verb writes into runs/ unless it is told otherwise."""
    done = subprocess.run(["make", "-n", "clean"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "site" in done.stdout.split()
    assert "runs" not in done.stdout.split()


def test_a_notebook_completes_the_verbs() -> None:
    """dir() showed `Any` and `annotations`, and not one of them: they are imported when first used."""
    code = "import headstart, sys; print(*dir(headstart)); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert {*_VERBS} <= {*done.stdout.split()}


def test_the_catalog_has_every_card_and_its_status() -> None:
    page = methods.catalog_block()
    for slug in catalog.CARDS | catalog.BASELINES:
        entry = page[page.index(f"### {slug} {{") :].split("\n\n###")[0]
        assert ("**Runs" in entry) is catalog.implemented(slug)
        assert "- needs: " in entry
        assert "- gives: " in entry


def pretrain_tables() -> str:
    return settings.pretrain_block() + methods.settings_block("causal-lm") + methods.settings_block("mae")


def image_tables() -> str:
    of_all = settings.finetune_block().split("### How")[0].replace("| `--recipe`", "")
    return of_all + settings.table(RegulariserConfig, "regulariser") + settings.image_finetune_block()


def dense_tables() -> str:
    return settings.finetune_block().split("### How")[0].replace("| `--recipe`", "") + settings.dense_finetune_block()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("commands", "tables"),
    [
        (["pretrain causal-lm", "pretrain mae"], pretrain_tables),
        (["finetune classification"], settings.finetune_block),
        (["finetune image-classification"], image_tables),
        ([f"finetune {task}" for task in DENSE], dense_tables),
    ],
    ids=["pretrain", "finetune", "finetune images", "finetune dense"],
)
def test_the_settings_are_the_flags_of_the_command_line(commands: list[str], tables: Callable[[], str]) -> None:
    told = set(re.findall(r"^\| `--([\w.-]+)`", tables(), re.MULTILINE))
    helps = [headstart(*command.split(), "--help").stdout for command in commands]
    assert told == {flag for page in helps for flag in re.findall(r"^[│ ]*--([\w.-]+)", page, re.MULTILINE)} - {"help"}


def test_what_a_setting_takes() -> None:
    from typing import Literal

    assert settings.takes(Literal["a", "b", "c"], mark="`") == "`a`, `b` or `c`"
    assert settings.takes(int | None) == "whole number"
    assert settings.takes(tuple[float, ...]) == "number, several"


def test_every_verb_has_a_section_with_its_example() -> None:
    page = commands.commands_block()
    for verb in VERBS:
        section = page[page.index(f"## {verb}\n") :].split("\n## ")[0]
        assert f"headstart {verb}" in section
    assert "`--step`" in page


def test_the_messages_are_those_of_the_source(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        'def f(x):\n    raise UsageError(f"There is no {x}.", "Give one.")\n'
        'def g(x):\n    raise BadInput("is empty." if x else "is odd.", mend=f"See {x}.")\n'
        "def h(x):\n    raise UsageError(x)\n"
    )
    assert list(failures.raised(tmp_path / "a.py")) == [("UsageError", "There is no ….", "Give one."), ("BadInput", "is empty.", "See ….")]
    assert "Out of memory on …: …" in failures.messages_block()


def test_a_text_that_has_a_name_is_read_where_it_was_named(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "from headstart.data.stored import REBUILD\n"
        'AGAIN = "Do it again."\n'
        "def f(x):\n"
        '    what = f"is {x}."\n'
        '    raise BadInput(what, AGAIN if x else "Stop.")\n'
        '    what = "is odd."\n'
        "    def g():\n"
        '        what = "is inner."\n'
        "        raise BadInput(what, REBUILD)\n"
        "    raise BadInput(what, mend=x)\n"
    )
    found = [("BadInput", "is ….", "Do it again."), ("BadInput", "is odd.", ""), ("BadInput", "is inner.", stored.REBUILD)]
    assert sorted(failures.raised(tmp_path / "a.py")) == sorted(found)


def test_nearly_every_message_says_what_to_do() -> None:
    """Those that do not are put together by functions, or say what is wanted by saying what is wrong."""
    rows = [line for line in failures.messages_block().splitlines() if line.startswith("| ")]
    assert sum(line.endswith("|  |") for line in rows) < 0.03 * len(rows)


def test_every_exit_code_says_what_to_do() -> None:
    rows = failures.exit_codes_block().splitlines()[2:]
    assert [int(row.split("|")[1]) for row in rows] == [0, 1, 2, 3, 4, 5, 130]
    assert all(len(row.split("|")[3]) > 5 for row in rows)
    assert "NaN" in rows[5]


def test_a_claim_that_did_not_run_is_said_not_to_have_run(tmp_path: Path) -> None:
    assert "Not run yet" in methods.claim_block("electra", tmp_path)


def test_a_claim_is_shown_with_its_interval_and_verdict_whatever_it_is(tmp_path: Path) -> None:
    metrics = {"a": (0.70, 0.71, 0.72), "b": (0.80, 0.81, 0.82)}
    arms = [{"arm": arm, "runs": [{"metric": metric, "train_flops": 2e13} for metric in found]} for arm, found in metrics.items()]
    comparison = {"a": "a", "b": "b", "difference": -0.1, "ci95": [-0.12, -0.08], "seeds": 3, "verdict": "not reproduced"}
    result = {"slug": "electra", "preset": "cpu", "metric": "accuracy", "data": {"name": "reviews"}, "arms": arms, "comparisons": [comparison]}
    result |= {"date": "2026-11-26T20:00:00", "command": "headstart claim electra --preset cpu"}
    (tmp_path / "electra-cpu.json").write_text(json.dumps(result))
    block = methods.claim_block("electra", tmp_path)
    assert "| a | 71.0 %, 70.0 % to 72.0 % | 2e+13 | 3 |" in block
    assert "- a - b: -10.0 points (95 % interval -12.0 to -8.0, 3 seeds): **not reproduced**" in block
    assert "`headstart claim electra --preset cpu`" in block


def test_the_effect_of_a_method_is_told_from_its_claim(tmp_path: Path) -> None:
    arms = [{"arm": arm, "runs": [{"metric": metric, "train_flops": 1.0}]} for arm, metric in (("a", 0.7), ("b", 0.8), ("c", 0.9))]
    pair = {"a": "a", "b": "b", "difference": -0.1, "ci95": [-0.12, -0.08], "seeds": 3, "verdict": "not reproduced"}
    result = {"slug": "electra", "preset": "cpu", "metric": "accuracy", "data": {"name": "reviews"}, "arms": arms, "comparisons": [pair]}
    assert "Not measured yet" in methods.effect_block("electra", ("a", "b"), tmp_path)
    (tmp_path / "electra-cpu.json").write_text(json.dumps(result))
    said = methods.effect_block("electra", ("a", "b"), tmp_path)
    assert said.startswith("Measured (accuracy, reviews; [below](#does-the-claim-hold)): a 70.0 %, b 80.0 %. ")
    assert said.endswith("a - b -10.0 points (95 % interval -12.0 to -8.0, 3 seeds).")


def test_a_sparse_run_is_shown_with_both_counts_of_flops_and_what_it_reached() -> None:
    dense = {"steps": 10, "flops": 1e12, "executed_flops": 1e12, "wall_s": 1.0, "mlm_loss_hidden": 5.0, "disc_auc": 0.7}
    sparse = dense | {"steps": 16, "executed_flops": 1.6e12, "mlm_loss_hidden": 4.5}
    arms = {"dense": [dense, dense | {"mlm_loss_hidden": 5.2}], "sparse": [sparse, sparse]}
    beside = {"mlm_loss_hidden": {"difference": -0.6, "ci95": [-0.7, -0.5]}, "disc_auc": {"difference": 0.0, "ci95": None}}
    info = results.read("comparison-movies") | {"pretraining": {"level": 0.5, "arms": arms, "sparse - dense": beside}}
    info["settings"]["budget"]["minutes"] = None
    text = comparison.sparse_text(info)
    assert "| dense | 10 | 1e+12 | 1e+12 | 5.100 (5.000 to 5.200) | 0.700 (0.700 to 0.700) |" in text
    assert "| sparse | 16 | 1e+12 | 1.6e+12 | 4.500 (4.500 to 4.500) |" in text
    assert "Sparse - dense: MLM loss -0.600 (95 % interval -0.700 to -0.500), AUC +0.000." in text
    assert info["sentence"] in text, "and the comparison on labels"


# --- what was printed --------------------------------------------------------------------------------------------------------------------------


def kinds(lines: list[str]) -> set[str]:
    """What the lines of a run are about: their first word, `Plan:`, `  data`, `step`, `Done:` ..."""
    return {words[0] for line in lines if not line.startswith("    ") and (words := line.split()) and words[0][0].isalpha()}


@pytest.mark.slow
def test_a_run_prints_what_the_quick_start_shows(corpus: Path, tmp_path: Path) -> None:
    """Else it is time for `python -m tools.record_docs`."""
    entry = next(step for step in recorded.quick_start()["steps"] if "--smoke" in step["command"])
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "texts").symlink_to(corpus)
    done = headstart("pretrain", "causal-lm", "--data", "my/texts", "--smoke", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown, printed = kinds(entry["lines"]), kinds(done.stdout.splitlines())
    assert {"Plan:", "data", "plateau", "step", "Done:"} - {"plateau"} <= shown
    assert shown - printed <= {"loss"}, "the verdict on the plateau may be another"


def test_a_long_output_says_that_it_is_cut() -> None:
    lines = [f"line {i}" for i in range(100)]
    cut = recorded.shortened(lines)
    assert len(cut) == recorded.LONG + 1
    assert sum("lines ...)" in line for line in cut) == 1
    assert recorded.shortened(lines[: recorded.LONG]) == lines[: recorded.LONG]


# --- charts and the site -------------------------------------------------------------------------------------------------------------------------


def test_a_chart_is_drawn_in_ranks() -> None:
    source = 'flowchart TD\n    a["one<br>two &amp; three"] --> b\n    a --> c\n    b --> d\n    c --> d'
    _, nodes = read(source)
    assert {name: node.rank for name, node in nodes.items()} == {"a": 0, "b": 1, "c": 1, "d": 2}
    drawn = svg(source)
    assert drawn.count("<rect") == 4
    assert drawn.count('marker-end="url(#tip)"') == 4
    assert "two &amp; three" in drawn
    tops = {name: float(y) for y, name in re.findall(r'<text x="\d+" y="(\d+)">(b|c|d)</text>', drawn)}
    assert tops["b"] == tops["c"] < tops["d"]
    with pytest.raises(ValueError, match="circle"):
        read("flowchart TD\n    a --> b\n    b --> a")


@pytest.mark.slow
def test_the_site_is_built_strictly_and_asks_nobody_for_anything(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    pages = {path.relative_to(tmp_path / "site"): path.read_text(encoding="utf-8") for path in (tmp_path / "site").rglob("*.html")}
    for name, text in pages.items():
        assert not re.findall(r'<(?:script|img|iframe)[^>]+src="(?:https?:)?//[^"]+"', text), name
        assert not re.findall(r'<link[^>]+rel="(?:stylesheet|preconnect|preload)"[^>]+href="(?:https?:)?//[^"]+"', text), name
        assert 'class="mermaid"' not in text, f"{name}: the theme would load a script from elsewhere"
    index = json.loads((tmp_path / "site" / "search" / "search_index.json").read_text(encoding="utf-8"))
    assert any("unigram entropy" in entry["text"] for entry in index["docs"])
    assert not any(entry["location"].startswith("source/") for entry in index["docs"])
    line = line_of("src/headstart/methods/electra/method.py", "Electra.mask")
    assert f'href="../source/headstart/methods/electra/method.html#__codelineno-0-{line}"' in pages[Path("methods/electra.html")]
    assert f'id="__codelineno-0-{line}"' in pages[Path("source/headstart/methods/electra/method.html")]


def test_navigation_and_pages_are_the_same() -> None:
    class Loader(yaml.SafeLoader):
        pass

    Loader.add_multi_constructor("tag:yaml.org,2002:python/name:", lambda loader, suffix, node: None)
    named = set(re.findall(r"[\w/-]+\.md", json.dumps(yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)["nav"])))
    assert named == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
