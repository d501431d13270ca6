"""`headstart profile`: the parts add up, every phase is there, nothing is left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headstart.verbs.profile import ELEMENTWISE, REST, kind_of, most_held
from tests.running import TINY, flags, headstart

SETTINGS = {name: value for name, value in TINY.items() if name != "budget.steps"}


@pytest.mark.slow
def test_every_phase_is_taken_apart_and_no_run_is_left(store: Path, tmp_path: Path) -> None:
    done = headstart("profile", "electra", "--data", store, "--json", *flags(SETTINGS), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [phase["phase"] for phase in found["phases"]] == ["causal", "generator", "joint"]
    assert sum(phase["share_of_run"] for phase in found["phases"]) == pytest.approx(1.0)
    for phase in found["phases"]:
        assert set(phase["parts"]) == {"forward", "backward", "optimizer"}
        assert phase["kinds"]["matrix products"] > 0
        assert phase["kinds"][REST] > 0
        times = [ms for _, ms, _ in phase["operations"]]
        assert times == sorted(times, reverse=True)
        assert sum(times) <= sum(phase["kinds"].values()) * 1.001
        assert phase["peak_bytes"]["backward"] > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_table_is_readable(store: Path, tmp_path: Path) -> None:
    done = headstart("profile", "causal-lm", "--data", store, *flags(SETTINGS), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "phase train:" in done.stdout
    assert "aten::mm" in done.stdout
    assert done.stdout.index("a step under torch's profiler, which slows it down to") < done.stdout.index("forward"), "the sums are no step's"
    assert max(map(len, done.stdout.splitlines())) < 130
    assert "USDT" not in done.stderr, "torch's profiler reports its own start and stop"
    assert "CPUAllocator" not in done.stderr


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("aten::addmm", "matrix products"),
        ("aten::_scaled_dot_product_flash_attention_for_cpu_backward", "attention"),
        ("void at::native::(anonymous namespace)::fused_adam_kernel", "optimiser"),
        ("aten::_log_softmax_backward_data", "softmax, cross-entropy"),
        ("aten::native_layer_norm", "normalisation"),
        ("ncclDevKernel_AllReduce_Sum_f32_RING_LL", "communication"),
        ("aten::copy_", "copies, casts, filling"),
        ("aten::gelu_backward", ELEMENTWISE),
    ],
)
def test_operations_and_kernels_have_their_kind(name: str, kind: str) -> None:
    assert kind_of(name) == kind


def test_the_peak_is_the_highest_sum_within_the_part() -> None:
    memory = [(1, 100), (3, 50), (5, -120), (7, 80)]
    assert most_held(memory, [(0, 4)]) == 150
    assert most_held(memory, [(4, 9)]) == 110
    assert most_held(memory, [(10, 11)]) == 0
