"""Runs of the command line in two real processes: the same numbers as one, and nothing lost whatever ends them."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load

from headstart.verbs.pretrain import pretrain
from tests.running import (
    METHODS,
    TINY,
    assert_same_run,
    environment,
    flags,
    headstart,
    last_step,
    process_of_rank,
    records,
    run_info,
    start,
    start_torchrun,
    torchrun,
    untimed,
    wait_until,
    weight_files,
)

pytestmark = pytest.mark.slow

MODES = ("ddp", "fsdp")
OF_METHOD: dict[str, dict[str, Any]] = {
    "causal-lm": {"trainer.ema_decay": 0.9},
    "mlm": {"method.causal_start": 6},
    "electra": {"method.causal_start": 4, "method.generator_start": 6},
}
STEPS = 240
ALONE = "(Process . of 2 lost another process of this run|stopped)"
"""What a process says whose neighbour died: it saw that first, or torchrun's signal, which follows at once, did."""
LONG: dict[str, Any] = {
    **TINY,
    "budget.steps": STEPS,
    "trainer.log_every": 3,
    "trainer.checkpoint_every": 20,
    "trainer.evaluate_every": 20,
    "trainer.evaluate_rows": 8,
    "trainer.ema_decay": 0.9,
    "method.dropout": 0.1,
    "method.causal_start": 70,
}


def settings(slug: str) -> dict[str, Any]:
    return {**TINY, "budget.steps": 20, "method.num_layers": 2, "trainer.log_every": 1, **OF_METHOD[slug]}


@pytest.fixture(scope="module")
def on_two(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of METHOD-MODE runs of two processes."""
    folder = tmp_path_factory.mktemp("two")
    plan = [
        {"slug": slug, "data": str(store), "out": str(folder / f"{slug}-{mode}"), **settings(slug), "trainer.parallel": mode}
        for slug in METHODS
        for mode in MODES
    ]
    (folder / "plan.json").write_text(json.dumps(plan))
    done = torchrun(2, "tests.distributed.runs", folder / "plan.json")
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def alone(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same runs of one process."""
    folder = tmp_path_factory.mktemp("one")
    for slug in METHODS:
        pretrain(slug, store, out=folder / slug, say=lambda line: None, **settings(slug))
    return folder


@pytest.mark.promise("Every method trains in two processes (DDP, FSDP2) as in one: metrics, probes and the export's weights over 20 steps.")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("slug", METHODS)
def test_two_processes_give_the_run_of_one(slug: str, mode: str, on_two: Path, alone: Path) -> None:
    one, two = alone / slug, on_two / f"{slug}-{mode}"
    compare(one, two, "metrics", rel=1e-3)
    compare(one, two, "probes", rel=1e-2)
    assert_ended_alike(one, two)
    totals = [run_info(run)["totals"] for run in (one, two)]
    assert totals[0]["flops"] == totals[1]["flops"]
    assert run_info(two)["decisions"]["parallel"] == mode


def assert_ended_alike(one: Path, two: Path) -> None:
    """Twenty steps of one process and of two: the weights of the export, and what was counted."""
    assert len(records(one, "metrics")) == 20
    mine, theirs = weight_files(one), weight_files(two)
    assert mine.keys() == theirs.keys()
    for name in mine:
        expected, found = load(mine[name]), load(theirs[name])
        assert expected.keys() == found.keys()
        for key in expected:
            torch.testing.assert_close(found[key], expected[key], atol=2e-3, rtol=0)
    totals = [run_info(run)["totals"] for run in (one, two)]
    assert all(totals[0][key] == totals[1][key] for key in ("steps", "tokens"))
    assert run_info(two)["decisions"]["world"] == 2


def compare(one: Path, two: Path, name: str, rel: float, absolute: float = 0.0) -> None:
    """The same records, the numbers within float tolerance."""
    for mine, theirs in zip(untimed(records(one, name)), untimed(records(two, name)), strict=True):
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            expected = pytest.approx(value, rel=rel, abs=absolute) if isinstance(value, float) else value
            assert theirs[key] == expected, (name, mine["step"], key)


@pytest.mark.promise("Two torchrun agents, as on two machines, each with a process of its own, give the run of two processes of one, bit for bit.")
def test_two_agents_give_the_run_of_two_processes(store: Path, on_two: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = tmp_path / "run"
    arguments = ["pretrain", "electra", "--data", store, "--out", run, *flags({**settings("electra"), "trainer.parallel": "fsdp"})]
    where = ["--nnodes", "2", "--nproc_per_node", "1", "--master_addr", "127.0.0.1", "--master_port", str(port)]
    agents = [
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *where, "--node_rank", str(node), "-m", "headstart", *map(str, arguments)],
            env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for node in range(2)
    ]  # fmt: skip
    said = [agent.communicate(timeout=240)[0] for agent in agents]
    assert [agent.returncode for agent in agents] == [0, 0], said
    same = on_two / "electra-fsdp"
    assert untimed(records(run, "metrics")) == untimed(records(same, "metrics"))
    assert weight_files(run) == weight_files(same)


def command(store: Path, out: Path, **more: Any) -> list[str | Path]:
    return ["pretrain", "mlm", "--data", store, "--out", out, *flags({**LONG, **more})]


def ended(process: Any, log: Path) -> None:
    """torchrun ends soon after a process of its own."""
    assert process.wait(timeout=240) != 0, log.read_text()
    assert "This is a bug" not in log.read_text()


@pytest.mark.promise(
    "A process of a distributed run dies, or torchrun is told to stop: all end with a message; torchrun --max-restarts or the same command goes on"
    " to the same bits."
)
def test_a_dead_process_and_a_signal_cost_nothing(store: Path, tmp_path: Path) -> None:
    undisturbed, run, log = tmp_path / "undisturbed", tmp_path / "run", tmp_path / "log"
    process = start_torchrun(2, *command(store, undisturbed), log=tmp_path / "undisturbed.log")
    assert process.wait(timeout=240) == 0, (tmp_path / "undisturbed.log").read_text()

    process = start_torchrun(2, *command(store, run), log=log, restarts=1)
    wait_until(lambda: last_step(run) >= 50, process, log)
    process_of_rank(process, 1).kill()
    wait_until(lambda: "Continuing from step" in log.read_text() and last_step(run) >= 90, process, log)  # by itself
    assert re.search(ALONE, log.read_text())
    process.send_signal(signal.SIGTERM)
    ended(process, log)
    assert run_info(run)["status"] == "stopped"
    stopped_at = max(int(path.name[5:]) for path in (run / "checkpoints").glob("step-*"))
    assert f"Stopped after step {stopped_at} of {STEPS}; a checkpoint is written." in log.read_text()

    process = start_torchrun(2, *command(store, run), log=log)
    wait_until(lambda: last_step(run) >= 150, process, log)
    process_of_rank(process, 0).kill()
    ended(process, log)
    assert re.search(rf"\[process 1\] headstart pretrain: {ALONE}", log.read_text())

    process = start_torchrun(2, *command(store, run), log=log)
    assert process.wait(timeout=240) == 0, log.read_text()
    assert_same_run(run, undisturbed)


@pytest.mark.promise("A run goes on with another number of processes (1, 2 with DDP, 2 with FSDP2, 1): the same samples, the same curve.")
def test_a_run_continues_on_another_number_of_processes(store: Path, tmp_path: Path) -> None:
    plain = {"method.dropout": 0.0}  # dropout is equal for equal layouts only
    undisturbed, run, log = tmp_path / "undisturbed", tmp_path / "run", tmp_path / "log"
    done = headstart(*command(store, undisturbed, **plain))
    assert done.returncode == 0, done.stderr
    process = start(*command(store, run, **plain), log=log)
    wait_until(lambda: last_step(run) >= 30, process, log)
    process.terminate()
    assert process.wait(timeout=240) == 130, log.read_text()
    for mode, until in (("ddp", 90), ("fsdp", 150)):
        process = start_torchrun(2, *command(store, run, **plain, **{"trainer.parallel": mode}), log=log)
        wait_until(lambda until=until: last_step(run) >= until, process, log)  # type: ignore[misc]
        assert run_info(run)["decisions"]["world"] == 2
        process.send_signal(signal.SIGTERM)
        ended(process, log)
    done = headstart(*command(store, run, **plain))
    assert done.returncode == 0, done.stderr + log.read_text()
    assert run_info(run)["decisions"]["world"] == 1
    compare(undisturbed, run, "metrics", rel=0.02, absolute=0.02)
    first = [line["loss"] for line in records(undisturbed, "metrics")][:25]
    assert [line["loss"] for line in records(run, "metrics")][:25] == pytest.approx(first, rel=1e-4)


def test_a_batch_that_cannot_be_shared_is_refused_with_one_message(store: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = start_torchrun(2, *command(store, tmp_path / "run", batch=7), log=log)
    ended(process, log)
    assert "The global batch of 7 rows cannot be shared by 2 processes." in log.read_text()


def test_a_refusal_of_the_first_process_is_said_once(store: Path, tmp_path: Path) -> None:
    log, run = tmp_path / "log", tmp_path / "run"
    run.mkdir()
    (run / "mine.txt").write_text("a person's file")
    process = start_torchrun(2, *command(store, run), log=log)
    ended(process, log)
    assert log.read_text().count("holds other files") == 1
