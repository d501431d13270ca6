"""What the benchmarks compute with; nothing here is timed."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks.gpu import SHAPES, Bench, compiles, covered, once, promised, ratios, sides
from benchmarks.growth import AXES, draw, write_sentences
from benchmarks.parts import IdRows, exponent, in_turns, median_ratio, method_of, steps_of, trainer_of
from benchmarks.result import origin, verdict, write_result
from benchmarks.training_step import last_json
from headstart.methods.causal_lm.config import CausalLMConfig


def test_an_exponent_is_that_of_the_power() -> None:
    assert exponent([1, 2, 4, 8], [3, 6, 12, 24]) == pytest.approx(1)
    assert exponent([1, 2, 4], [5, 20, 80]) == pytest.approx(2)
    assert exponent([1, 10], [7, 7]) == pytest.approx(0)


def test_a_slow_moment_that_meets_both_sides_does_not_count() -> None:
    ours, peer = [1.0, 1.0, 50.0, 1.0], [2.0, 2.0, 100.0, 2.0]
    assert median_ratio(ours, peer) == 0.5
    with pytest.raises(ValueError, match="longer"):
        median_ratio([1.0], [1.0, 2.0])


def test_ways_take_turns() -> None:
    order: list[str] = []
    found = in_turns({"a": lambda: order.append("a") or 1.0, "b": lambda: order.append("b") or 2.0}, 3)
    assert order == ["a", "b"] * 3
    assert found == {"a": [1.0] * 3, "b": [2.0] * 3}


@pytest.mark.parametrize(
    ("ratio", "higher", "outcome"),
    [(1.19, True, "missed"), (1.2, True, "reached"), (1.5, True, "aim reached"), (1.6, False, "missed"), (1.3, False, "reached")],
)
def test_a_verdict_is_of_the_figure_as_written(ratio: float, higher: bool, outcome: str) -> None:
    must, aim = (1.2, 1.5) if higher else (1.5, 1.2)
    assert verdict({"ratio": ratio, "must": must, "aim": aim, "higher_is_better": higher}) == outcome


def test_a_result_says_where_it_comes_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sides_of: dict[str, Any] = {"ours": {"x": 1}, "peer": {"x": 2}}
    write_result(tmp_path / "a" / "r.json", name="r", what="w", **sides_of, ratio=0.99961, must=1.0, command="c", aim=2.0, more={"y": 3})
    result = json.loads((tmp_path / "a" / "r.json").read_text())
    assert result["ratio"] == 1.0
    assert result["more"] == {"y": 3}
    assert {"hardware", "versions", "command", "date", "commit"} <= result.keys()
    assert "reached" in capsys.readouterr().out


def test_overlapping_kernels_count_once() -> None:
    assert covered([(0, 4), (1, 2), (3, 6), (10, 11)]) == 7
    assert covered([]) == 0


def test_the_faster_of_our_ways_counts() -> None:
    def side(rate: float, mib: float) -> dict[str, float]:
        return {"tokens_per_s": rate, "peak_mib": mib}

    figures = {"plain": side(100, 1000), "ours, plain": side(300, 400), "ours": side(250, 500)}
    assert ratios(figures) == {"best": "ours, plain", "times_plain": 3.0, "memory_of_plain": 0.4}
    assert ratios({**figures, "compiled": side(200, 600)})["times_compiled"] == 1.5
    assert ratios({"plain": side(100, 1000)}) == {}
    assert ratios({"ours": {**side(300, 400), "mfu": 0.4}, "compiled": side(200, 600)}) == {"best": "ours", "times_compiled": 1.5, "mfu": 0.4}


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_compiled_ahead_is_what_is_timed(name: str) -> None:
    """The same shapes and flags: else the compiler's cache has nothing of it."""
    commands = sides(name, trying=False)
    assert set(promised(name)) <= commands.keys()
    assert compiles(commands["ours"]) == ("compiled" in promised(name))  # the peer compiled is no opponent of what is not
    assert not compiles(commands["plain"])
    for command in commands.values():
        few = once(command)
        assert [part for part in command if part not in few] == [part for part in command if part in ("6", "10", "15", "3", "--mfu")]
        assert few[few.index("--steps") + 1] == "1"


def test_a_command_that_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "child"
    child = f"import time, pathlib; at = pathlib.Path({str(mark)!r}); at.with_suffix('.begun').touch(); time.sleep(6); at.touch()"
    parent = f"import subprocess, sys; print('begun', flush=True); subprocess.run([sys.executable, '-c', {child!r}])"
    with pytest.raises(SystemExit, match="was ended after 3 s"):
        last_json([sys.executable, "-c", parent], 3)
    assert mark.with_suffix(".begun").exists(), "the machine is too busy to tell"
    time.sleep(6)
    assert not mark.exists()
    assert last_json([sys.executable, "-c", "print('words'); print('{\"a\": 1}')"], 60) == {"a": 1}


def test_a_side_that_fails_costs_nothing_but_itself(tmp_path: Path) -> None:
    shown = {"plain": {"tokens_per_s": 100.0, "peak_mib": 10}, "ours": {"tokens_per_s": 400.0, "peak_mib": 5, "mfu": 0.5}}
    commands = {side: [sys.executable, "-c", f"print({json.dumps(entry)!r})"] for side, entry in shown.items()}
    failing = {"compiled": [sys.executable, "-c", "raise SystemExit('no compiler')"]}
    bench = Bench(tmp_path / "made" / "gpu.json", seconds=60, trying=False)
    bench.shape("mae-base", {**commands, **failing})
    found = json.loads(bench.out.read_text())
    assert found["figures"]["mae-base"]["times_plain"] == 4.0
    assert "no compiler" in found["left_out"]["mae-base: compiled"]
    bench.shape("droppos-base", {"plain": failing["compiled"], "ours": commands["ours"]})  # its peer is timed already
    assert bench.figures["droppos-base"]["times_plain"] == 4.0
    bench.ends = 0.0
    bench.shape("electra-small", commands)
    assert bench.left_out["electra-small: plain"] == "the time was over"


@pytest.mark.parametrize("name", SHAPES)
def test_both_sides_of_the_gpu_script_have_the_same_shape(name: str) -> None:
    def setting(command: list[str], flag: str) -> str | None:
        return command[command.index(flag) + 1] if flag in command else None

    for trying in (False, True):
        commands = sides(name, trying)
        for flag in ("--batch", "--seq", "--precision", "--device", "--steps", "--repeats", "--warmup"):
            assert len({setting(command, flag) for command in commands.values()}) == 1
        assert all((setting(command, "--seq") is None) == ("mae" in command or "droppos" in command) for command in commands.values())
        assert ("compiled" in commands) is not trying
        assert setting(commands["ours"], "--device") == ("cpu" if trying else "cuda")


def test_random_rows_make_a_run(tmp_path: Path) -> None:
    """The trainer of a benchmark is that of a run: its steps are logged."""
    config = CausalLMConfig(hidden_size=16, num_layers=1, num_heads=1, intermediate_size=16, sequence_length=8)
    rows = IdRows.random(64, 8, 50)
    assert rows.batch(rows.ids[:3, 0] * 0)["input_ids"].shape == (3, 8)
    trainer = trainer_of(method_of("causal-lm", config, 50), rows, 4, tmp_path / "run", steps=100)
    with steps_of(trainer) as run:
        cost = run(20)
    assert trainer.step == 20
    assert cost.wall > 0
    assert cost.cpu > 0
    assert [json.loads(line)["step"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()] == [10, 20]


def test_the_figure_is_the_same_twice_and_names_its_exponents() -> None:
    curve = {"sizes": [1, 4], "seconds": [1.0, 4.0], "mib": [2.0, 4.0], "exponents": {"seconds": 1.0, "mib": 0.5}}
    figure = draw({"length": curve, "data": curve})
    assert figure == draw({"length": curve, "data": curve})
    text = figure.decode()
    assert text.count("size^1.00") == 2
    assert text.count("size^0.50") == 2
    assert AXES["length"][0] in text


def test_text_of_any_size_is_the_same_text(tmp_path: Path) -> None:
    write_sentences(tmp_path / "small", 1)
    write_sentences(tmp_path / "large", 2)
    small, large = (tmp_path / "small").read_bytes(), (tmp_path / "large").read_bytes()
    assert large.startswith(small)
    assert 1e6 <= len(small) < 1.01e6
    assert 2e6 <= len(large) < 2.01e6


def test_a_machine_without_git_names_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(origin("measure")["commit"]) == 40
    monkeypatch.setenv("PATH", "/nowhere")
    assert origin("measure")["commit"] == ""
