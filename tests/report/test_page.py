"""The page as text: escaped, bounded, made without torch; and what goes into its sections."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import headstart
from headstart.core.errors import BadInput, UsageError
from headstart.report import report
from headstart.report.collect import Collector
from headstart.report.evidence import read_evidence
from headstart.report.page import MAX_PAGE_BYTES, Contents, asset, headline, render, safe_json
from headstart.report.parts import Evidence, Finding
from headstart.report.runs import RunSection, read_section, repeat_command
from headstart.verbs._follow import Followed
from tests.report.folders import ENTROPY, HOSTILE, advice_result, claim_result, comparison_result, demo_result, png, write_run
from tests.running import environment


def embedded(page: str) -> dict[str, Any]:
    """The data of the charts in a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


def sections(*places: Path) -> dict[str, RunSection]:
    return {run.name: run for run in Collector(places).contents().runs}


def test_the_vendored_library_is_the_published_one() -> None:
    for name in ("uPlot.iife.min.js", "uPlot.min.css"):
        digest = hashlib.sha256(asset(f"vendor/{name}").encode()).hexdigest()
        assert f"| {name} | {digest} |" in asset("vendor/README.md")
    assert "MIT" in asset("vendor/uPlot.LICENSE")


def test_nothing_hostile_comes_through_as_markup(page: Path) -> None:
    text = page.read_text()
    assert "<script>document.title" not in text
    assert "<img src=x" not in text
    assert text.count("<script") == 2
    assert text.count("</script>") == 2
    phases = [phase for run in embedded(text).values() for phase, _, _ in run.get("phases", [])]
    assert any(phase.startswith(HOSTILE.split("\u2028")[0]) for phase in phases), "the text itself is there"


def test_json_in_a_script_element_has_nothing_that_html_knows() -> None:
    told = {"</script><!--": ["&", "\u2028", "\ud800"]}
    assert not set("<>&\u2028") & set(safe_json(told))
    assert json.loads(safe_json(told)) == told


def test_the_policy_names_the_hash_of_the_only_script_and_forbids_the_network(page: Path) -> None:
    text = page.read_text()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    script = re.search(r"<script>(.*?)</script>", text, re.DOTALL)
    assert policy is not None
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src &#39;sha256-{digest}&#39;" in policy[1]
    assert "default-src &#39;none&#39;" in policy[1]
    assert "connect-src &#39;none&#39;" in policy[1]
    assert "unsafe" not in policy[1]


def test_fifty_runs_fit_into_two_megabytes_and_keep_their_spikes(tmp_path: Path) -> None:
    for number in range(50):
        write_run(tmp_path / f"run-{number:02}", steps=3000, every=2, seed=number, spike_at=1500 if number == 17 else None)
    page = render(Collector([tmp_path]).contents())
    assert len(page.encode()) <= MAX_PAGE_BYTES
    data = embedded(page)
    assert len([anchor for anchor in data if anchor.startswith("r-")]) == 50, "every run has its section"
    loss = data["r-run-17"]["charts"][0]["series"][0]
    assert max(loss["y"]) == pytest.approx(max(json.loads(line)["loss"] for line in (tmp_path / "run-17" / "metrics.jsonl").open()), rel=1e-4)
    assert data["r-run-17"]["spikes"] == [1500]


def test_of_too_many_runs_the_older_ones_stay_in_the_table(tmp_path: Path) -> None:
    for number in range(8):
        write_run(tmp_path / f"run-{number}", seed=number)
    contents = Collector([tmp_path]).contents()
    small = render(contents, limit=len(render(Contents()).encode()) + 60_000)
    assert "older runs stand in the table only" in small
    shown = [anchor for anchor in embedded(small) if anchor.startswith("r-")]
    assert shown == ["r-run-4", "r-run-5", "r-run-6", "r-run-7"] or shown == ["r-run-6", "r-run-7"]
    assert all(f"run-{number}" in small for number in range(8))


@pytest.mark.slow
def test_a_run_of_100_000_log_lines_makes_a_small_page(tmp_path: Path) -> None:
    write_run(tmp_path / "long", steps=1_000_000, spike_at=654_320)
    page = render(Collector([tmp_path]).contents())
    assert len(page.encode()) < 1_200_000
    assert embedded(page)["r-long"]["spikes"] == [654_320]


def test_the_report_imports_no_torch(everything: Path, tmp_path: Path) -> None:
    code = f"import sys, headstart; headstart.report({str(everything)!r}, out={str(tmp_path / 'r.html')!r}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_the_verb_in_python_may_be_called_again_and_again(everything: Path, tmp_path: Path) -> None:
    verb: Any = headstart  # a type checker sees the package of this name
    for _ in range(2):
        assert verb.report([everything / "causal-lm-tiny-0"], out=tmp_path / "r.html").is_file()


# what is found


def test_without_arguments_all_of_runs_and_the_claims_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(tmp_path / "runs" / "mine")
    write_run(tmp_path / "runs" / "claims" / "electra-cpu" / "electra-0")
    (tmp_path / "runs" / "advice" / "reviews").mkdir(parents=True)
    (tmp_path / "runs" / "advice" / "reviews" / "advice.json").write_text(json.dumps(advice_result()))
    (tmp_path / "claims" / "results").mkdir(parents=True)
    (tmp_path / "claims" / "results" / "electra-cpu.json").write_text(json.dumps(claim_result()))
    monkeypatch.chdir(tmp_path)
    contents = Collector().contents()
    assert [run.name for run in contents.runs] == ["mine", "claims/electra-cpu/electra-0"]
    assert [entry.kind for entry in contents.evidence] == ["advice", "claim"]


def test_a_place_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such run"):
        report(tmp_path / "nowhere", out=tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_a_folder_of_other_things_makes_no_page_of_nothing(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").touch()
    with pytest.raises(BadInput, match="photos: no run and no result lies there"):
        report(tmp_path / "photos", out=tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_what_cannot_be_read_is_named_and_takes_no_good_page(everything: Path, tmp_path: Path) -> None:
    labels, page, said = tmp_path / "train.jsonl", tmp_path / "r.html", list[str]()
    labels.write_text('{"text": "a"}\n{"text": "b"}\n')
    page.write_text(good := '<a class="brand" href="#top">an earlier page</a>')
    with pytest.raises(BadInput, match=r"Nothing that was named can be read: .*train.jsonl: is not valid JSON"):
        report(labels, out=page)
    assert page.read_text() == good
    report([labels, everything / "causal-lm-tiny-0"], out=page, say=said.append)
    assert [line.partition("train.jsonl")[2][:19] for line in said] == [": is not valid JSON"]
    assert said[0].startswith("Not readable: ")


def test_a_run_named_twice_is_shown_once(everything: Path) -> None:
    contents = Collector([everything / "causal-lm-tiny-0", everything / "causal-lm-tiny-0" / "run.json"]).contents()
    assert len(contents.runs) == 1


# broken and hostile folders

BROKEN: dict[str, str] = {
    "no JSON": '{"format_version": 1, ',
    "a list": "[1, 2]",
    "another version": '{"format_version": 99}',
    "types": '{"format_version": 1, "decisions": {"total_steps": "many"}, "verdict": {"ci95": ["a", {}], "gain": {}}, "origin": [1]}',
    "types within": '{"format_version": 1, "hardware": [], "versions": "new", "commit": {"a": 1}, "config": {"data": 5}, "command": {"a": 1}}',
    "huge numbers": '{"format_version": 1, "decisions": {"total_steps": 1e999}, "totals": {"flops": ' + "9" * 400 + "}}",
    "counts beyond floats": '{"format_version": 1, "totals": {"tokens": 1}, "data": [{"store": "s", "counts": {"training_tokens": '
    + "9" * 400
    + "}}]}",
    "deep": '{"format_version": 1, "config": ' + '{"a": ' * 500 + "1" + "}" * 500 + "}",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_run_gives_a_section_and_no_end(tmp_path: Path, kind: str) -> None:
    write_run(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "run.json").write_text(BROKEN[kind])
    page = render(Collector([tmp_path]).contents())
    assert ">bad</h3>" in page
    assert ">good</h3>" in page
    assert "r-good" in embedded(page)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metrics", '{"step": 1, "loss": 1}\n{"step": "two"}\n{"step": 3, "loss": 3}\n'),
        ("metrics", '{"step": 1, "loss": 1}\nnull\n'),
        ("metrics", '{"step": 1, "loss": 1}\n{"step": -5, "loss": 1}\n'),
        ("probes", '{"step": 1, "probe": "a", "value": 1}\n{\n'),
        ("samples", '{"step": 1, "lines": ["a"]}\n' + "[" * 100_000 + "\n"),
    ],
)
def test_a_damaged_line_is_named_and_what_stands_before_it_shown(tmp_path: Path, name: str, content: str) -> None:
    run = write_run(tmp_path / "run")
    (run / f"{name}.jsonl").write_text(content)
    section = sections(tmp_path)["run"]
    assert any(f"{name}.jsonl is damaged at line 2" in note for note in section.notes)
    shown = {"metrics": section.curves.series, "probes": section.curves.probes, "samples": section.curves.samples}[name]
    assert len(shown) == 1


@pytest.mark.parametrize("name", ["metrics.jsonl", "run.json"])
def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path, name: str) -> None:
    outside = write_run(tmp_path / "elsewhere") / name
    run = write_run(tmp_path / "runs" / "run")
    (run / name).unlink()
    (run / name).symlink_to(outside)
    section = sections(tmp_path / "runs")["run"]
    if name == "metrics.jsonl":
        assert section.error
        assert section.charts == []


def test_hostile_results_give_an_entry_and_no_end(tmp_path: Path) -> None:
    for number, content in enumerate(
        (
            {"kind": "claim", "slug": [], "claim": {}, "comparisons": [5, None, {"a": {}, "ci95": "x"}], "arms": [[], {"runs": [{"metric": "x"}]}]},
            {"kind": "advice", "arms": [{"points": ["x", {"values": {}}], "full": {"value": []}, "gain": {"value": 1e999}}], "verdict": []},
            {"kind": "comparison", "arms": "x", "compared": [{"value": []}], "comparisons": [{"difference": None}], "worth": {"a": 1}},
            {"task": 5, "metric": [], "arms": 7, "ci95": [1]},
            {"kind": ["claim"], "slug": "a", "claim": "b", "comparisons": []},
        )
    ):
        path = tmp_path / f"{number}" / "result.json"
        path.parent.mkdir()
        path.write_text(json.dumps(content).replace("Infinity", "1e999"))
    contents = Collector([tmp_path]).contents()
    assert len(contents.evidence) == 5
    assert render(contents)


# what the sections say


def test_a_run_that_was_killed_is_told_from_one_that_goes_on(tmp_path: Path) -> None:
    import fcntl
    import os
    import time

    for name in ("killed", "alive"):
        run = write_run(tmp_path / name, status="running")
        (run / ".lock").touch()
        for path in run.iterdir():
            os.utime(path, (time.time() - 60, time.time() - 60))
    with (tmp_path / "alive" / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = sections(tmp_path)
    assert (found["killed"].status, found["alive"].status) == ("killed", "running")


def test_phases_spikes_restarts_and_the_plateau_of_a_run(everything: Path) -> None:
    found = sections(everything)
    first = found["causal-lm-tiny-0"]
    assert (first.curves.spikes, first.curves.restarts) == ([300], [200])
    assert (first.entropy, first.left_plateau_at) == (ENTROPY, 80)
    assert [phase for phase, _, _ in found["electra-tiny-0"].curves.phases] == ["generator", "joint"]
    assert first.changed == [("budget.steps", "400", "flag"), ("optimizer.learning_rate", "0.004", "preset")]


def test_the_causal_phase_of_a_masked_run_has_the_plateau_line_too(tmp_path: Path) -> None:
    """Its loss is the one that is there while the run leaves the plateau; mlm_loss begins afterwards."""
    run = write_run(tmp_path / "runs" / "mlm-tiny-0", method="mlm")
    info = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(info | {"plateau": {"metric": "mlm_loss", "entropy": ENTROPY}}))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines = [{**line, ("causal_loss" if line["step"] <= 200 else "mlm_loss"): line["loss"]} for line in lines]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    charts = {chart.title: chart.plateau for chart in sections(tmp_path / "runs")["mlm-tiny-0"].charts}
    assert {title for title, plateau in charts.items() if plateau == ENTROPY} == {"mlm_loss", "causal_loss"}
    (run / "run.json").write_text(json.dumps(info | {"plateau": None}))
    assert all(chart.plateau is None for chart in sections(tmp_path / "runs")["mlm-tiny-0"].charts), "given weights begin elsewhere"


def test_the_command_to_repeat_is_what_was_typed_or_the_same_settings() -> None:
    typed = {"method": "mlm", "command": ["/usr/bin/headstart", "pretrain", "mlm", "--data", "my texts"]}
    assert repeat_command(typed) == "headstart pretrain mlm --data 'my texts'"
    from_python = {
        "method": "mlm",
        "command": ["train.py"],
        "config": {"data": ["my texts"], "budget": {"minutes": 3.0}, "optimizer": {"learning_rate": 0.01}, "smoke": True},
        "origin": {"budget.minutes": "argument", "smoke": "argument", "optimizer.learning_rate": "preset", "data": "argument"},
    }
    assert repeat_command(from_python) == "headstart pretrain mlm --data 'my texts' --budget.minutes 3.0 --smoke"


def test_the_headline_says_what_helped_and_admits_when_nothing_did(tmp_path: Path) -> None:
    def said(*gains: tuple[float, float, float] | None) -> str:
        runs = [sections(write_run(tmp_path / f"{len(list(tmp_path.iterdir()))}" / "run", gain=gain).parent)["run"] for gain in gains]
        return headline(Contents(runs).findings(), runs)

    helps = "causal-lm helps: +4.1 points of accuracy over a random start (+2.0 to +6.2), for 1"
    assert said((0.041, 0.02, 0.062), (0.1, -0.2, 0.4)).startswith(helps)
    assert said((0.041, -0.02, 0.1)).startswith("Not enough evidence yet")
    assert said((-0.041, -0.06, -0.02)).startswith("Nothing here helped")
    assert said(None) == "1 run; no gain measured yet."


def test_a_claim_is_read_with_its_interval_cost_and_figure(everything: Path) -> None:
    entry = read_evidence(everything / "claims" / "results" / "electra-cpu.json", "a")
    assert entry is not None
    (finding,) = entry.findings
    assert (finding.what, finding.verdict, finding.tone) == ("electra over mlm", "inconclusive", "open")
    assert (finding.shown(finding.difference), finding.interval_words()) == ("+1.2", "−0.4 to +2.8")
    assert (finding.flops, finding.seconds, finding.reached_words()) == (2e12, 95.0, "reaches 80.9\u202f%")
    assert entry.figure.startswith("data:image/svg+xml;base64,")


def test_a_comparison_that_goes_on_has_no_verdict_and_no_empty_charts(tmp_path: Path) -> None:
    whole = comparison_result()
    begun = whole | {"status": "running", "winner": None, "sentence": "", "compared": [], "comparisons": []}
    begun["arms"] = [arm | {"points": []} for arm in whole["arms"]]
    (tmp_path / "comparison.json").write_text(json.dumps(begun))
    entry = read_evidence(tmp_path / "comparison.json", "a")
    assert entry is not None
    assert (entry.verdict, entry.sentence, entry.arms, entry.charts) == ("running", "The comparison is going on.", [], [])
    begun["arms"][0] = whole["arms"][0]
    (tmp_path / "comparison.json").write_text(json.dumps(begun))
    entry = read_evidence(tmp_path / "comparison.json", "a")
    assert entry is not None
    assert ([arm.name for arm in entry.arms], len(entry.charts)) == ([whole["arms"][0]["arm"]], 3)


def test_a_claim_in_its_folder_and_the_committed_copy_are_one(tmp_path: Path) -> None:
    for path in (tmp_path / "claims" / "electra-cpu" / "result.json", tmp_path / "claims" / "results" / "electra-cpu.json"):
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(claim_result()))
    assert len(Collector([tmp_path]).contents().evidence) == 1


def test_advice_is_read_with_its_ranking_curve_and_command(everything: Path) -> None:
    entry = read_evidence(everything / "advice" / "reviews" / "advice.json", "a")
    assert entry is not None
    assert [(finding.a, finding.verdict) for finding in entry.findings] == [("causal-lm", "should help"), ("mlm", "not enough evidence")]
    assert [series["label"] for series in entry.charts[0]["series"]] == ["causal-lm", "mlm", "random start"]
    assert entry.charts[0]["series"][0]["y"] == pytest.approx([0.62, 0.67, 0.72])
    assert entry.commands == ["headstart pretrain causal-lm --data reviews --budget.flops 2e13 --out runs/advice/reviews/c"]
    assert entry.tables[0][2][0][0] == "electra"
    assert entry.tables[0][2][0][2] == "95 min"


@pytest.mark.parametrize(("minutes", "said"), [(13.31, "14 min"), (95, "95 min"), (None, ""), (-1, "")], ids=str)
def test_a_budget_that_would_do_is_that_of_the_command_line(minutes: float | None, said: str, tmp_path: Path) -> None:
    """13.3 minutes were 14 for `advise` and 13 on the page, which the next `advise` refused."""
    result = advice_result() | {"left_out": [{"method": "electra", "why": "x", "minutes": minutes}]}
    (tmp_path / "advice.json").write_text(json.dumps(result))
    entry = read_evidence(tmp_path / "advice.json", "a")
    assert entry is not None
    assert entry.tables[0][2][0][2] == said


def test_a_comparison_is_read_with_its_table_curves_and_what_it_is_worth(everything: Path) -> None:
    entry = read_evidence(everything / "comparisons" / "two" / "comparison.json", "a")
    assert entry is not None
    assert [(f.a, f.b, f.verdict, f.tone) for f in entry.findings] == [
        ("causal-lm", "mlm", "not enough evidence", "open"),
        ("causal-lm", "random, llama", "better", "good"),
    ]
    assert [arm.name for arm in entry.arms] == ["causal-lm", "mlm", "random, llama"], "as the table is ordered, best first"
    assert entry.arms[0].values == pytest.approx([0.74, 0.75, 0.76])
    flops, seconds, labels = entry.charts
    assert seconds["series"][0]["x"] == [10, 20, 40]
    assert flops["series"][0]["x"] == [1e11, 2e11, 4e11]
    assert labels["series"][0]["x"] == [50, 100, 200]
    assert "With 200 labels causal-lm reaches what a random start needs 520 for." in entry.notes
    assert entry.verdict == "not enough evidence"


def test_the_demonstration_is_read_with_the_gain_over_each_random_start(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(demo_result()))
    entry = read_evidence(tmp_path / "result.json", "a")
    assert entry is not None
    (finding,) = entry.findings
    assert (finding.a, finding.b, finding.verdict) == ("causal-lm", "a random start", "helps")
    assert finding.difference == pytest.approx(0.08)
    assert finding.seconds == 90.0


def test_of_an_error_the_lower_one_has_helped_and_predictions_are_shown(tmp_path: Path) -> None:
    def arm(name: str, value: float) -> dict[str, Any]:
        return {"arm": name, "learning_rate": 1e-3, "runs": [{"seed": 0, "metrics": {"EPE": value}, "wall_s": 1.0}]}

    result = {"task": "flow", "metric": "EPE", "higher_is_better": False, "model": "m", "arms": [arm("pretrained", 1.0), arm("random", 1.5)]}
    result |= {"data": {}, "difference": -0.5, "ci95": [-0.7, -0.3], "verdict": "The head start helps.", "leaks": [], "warnings": [], "config": {}}
    (tmp_path / "result.json").write_text(json.dumps(result))
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "step-00000000-predictions.png").write_bytes(png())
    (tmp_path / "pictures" / "step-00000000-predictions.txt").write_text("From the left: both views.")
    entry = read_evidence(tmp_path / "result.json", "a")
    assert entry is not None
    (finding,) = entry.findings
    assert (finding.verdict, finding.tone, finding.higher_is_better) == ("helps", "good", False)
    assert entry.figure.startswith("data:image/png;base64,")
    assert entry.figure_alt == "From the left: both views."


def test_where_nothing_helped_the_best_comes_first() -> None:
    def one(name: str, value: float, low: float, high: float) -> Finding:
        source = "advice" if name == "mlm" else "fine-tuning"
        return Finding(name, "a random start", "accuracy", "here", value, (low, high), "open", "open", "", source)

    findings = [one("mlm", -0.072, -0.1, 0.1), one("causal-lm", -0.012, -0.3, 0.2)]
    found = Contents(evidence=[Evidence(Path("x"), "advice", "x", findings=findings)]).findings()
    assert [finding.a for finding in found] == ["causal-lm", "mlm"]
    assert headline(found, []).startswith("Not enough evidence yet: nothing looks like a gain, and the best that was seen is causal-lm")


def test_the_headline_is_about_random_starts_where_there_are_any(tmp_path: Path) -> None:
    """Two runs of which one is bad differ much; what a head start is worth is another difference."""
    result = comparison_result()
    result["comparisons"][0] |= {"difference": 0.4, "ci95": [0.3, 0.5], "verdict": "better"}
    result["comparisons"][1] |= {"difference": 0.028, "ci95": None, "verdict": "not enough evidence"}
    (tmp_path / "comparison.json").write_text(json.dumps(result))
    entry = read_evidence(tmp_path / "comparison.json", "a")
    assert entry is not None
    seen = "the most that was seen is causal-lm, +2.8 points of accuracy over random, llama; it has no interval."
    assert headline(Contents(evidence=[entry]).findings(), []) == f"Not enough evidence yet: {seen}"
    assert headline(entry.findings[:1], []).startswith("causal-lm is better: +40.0 points of accuracy over mlm"), "there is no random start"


@pytest.mark.parametrize("out", ["folder", "nowhere/report.html"])
def test_a_page_that_cannot_be_put_there_is_wrong_usage(out: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="--out"):
        report([tmp_path], out=tmp_path / out)


def test_parts_of_a_continued_run_are_one_chart_and_a_rise_is_called_normal(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run")
    losses = {"new": (2.0, 2.2, 1.5), "old": (9.0, 3.0, 9.5)}
    probes = [
        {"step": step, "probe": f"held_out_loss/{name}", "value": value}
        for name, values in losses.items() for step, value in zip((0, 1, 400), values, strict=True)
    ]  # fmt: skip
    probes += [{"step": step, "probe": "held_out_sample/old", "value": value} for step, value in ((0, 2.5), (400, 2.8))]
    with (folder / "probes.jsonl").open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in probes)
    section = read_section(Followed(folder), "run", "run")
    (chart,) = [chart for chart in section.charts if chart.title == "held-out loss of each part"]
    assert {label: list(series.values) for label, series in chart.series} == {"new": [2.0, 2.2, 1.5], "old": [2.5, 3.0, 2.8]}
    assert not [chart for chart in section.charts if chart.title.startswith("held_out_")]
    told = "rose by 0.500 until step 1, which is normal when a rate rises, and was not back within the run; at the end it lies 0.500 above"
    assert any(told in note for note in section.notes)
