"""A method that makes its data itself runs like any other: kill -9 changes nothing, and every verb works on it."""

from __future__ import annotations

import csv
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from headstart.core.errors import BadInput, UsageError
from headstart.core.rng import Rng
from headstart.data.environments.rewards import read_reward
from headstart.data.environments.scores import Scores
from headstart.data.environments.sequences import Dna
from headstart.methods.oc_gfn.baselines import Scratch
from headstart.methods.oc_gfn.conversion import exact_policy
from headstart.methods.oc_gfn.exact import end_distribution
from headstart.methods.oc_gfn.saved import ADAPTER, read_adapter
from headstart.methods.oc_gfn.trajectories import roll, ways_to
from headstart.verbs._adapt_settings import AdaptSettings
from headstart.verbs.adapt import adapt, way_beside
from headstart.verbs.peek import peek
from headstart.verbs.prepare import prepare
from headstart.verbs.pretrain import pretrain
from headstart.verbs.sample import load_run, sample
from tests.at import At, after
from tests.cli.test_flags import without_torch
from tests.running import assert_same_run, flags, headstart, records, run_info, start

BASKETS = Path(__file__).parents[2] / "examples" / "baskets.py"
STEPS = 120
SMALL: dict[str, Any] = {
    "batch": 8,
    "device": "cpu",
    "precision": "fp32",
    "method.hidden_size": 16,
    "budget.steps": STEPS,
    "trainer.log_every": 3,
    "trainer.checkpoint_every": 20,
    "trainer.evaluate_every": 20,
    "trainer.evaluate_rows": 8,
}


def command(out: Path, data: str | Path = "builtin:tfbind8", **settings: Any) -> list[str | Path]:
    return ["pretrain", "oc_gfn", "--data", data, "--out", out, *flags({**SMALL, **settings})]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody stopped. Read it, do not write into it."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    return pretrain("oc_gfn", "builtin:tfbind8", out=out, say=lambda line: None, **SMALL).folder


@pytest.mark.slow
@pytest.mark.promise("A method that makes its data online continues after SIGKILL with the same bits: it collects the same trajectories again.")
def test_killed_at_any_moment_it_ends_with_the_same_bits(undisturbed: Path, tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    for at in (At((signal.SIGKILL,), "state-*.safetensors", run=str(run), step=50), after(85, run, signal.SIGKILL)):
        process = start(*command(run), log=log, at=at)
        assert process.wait(timeout=240) == -signal.SIGKILL
    done = headstart(*command(run))
    assert done.returncode == 0, done.stderr
    assert "Continuing from step" in log.read_text() + done.stdout
    assert_same_run(run, undisturbed)


@pytest.mark.slow
def test_micro_batches_change_nothing_but_rounding(undisturbed: Path, tmp_path: Path) -> None:
    cut = pretrain("oc_gfn", "builtin:tfbind8", out=tmp_path / "cut", say=lambda line: None, **SMALL, **{"trainer.micro_batch": 2}).folder
    pairs = list(zip(records(undisturbed, "metrics")[:10], records(cut, "metrics")[:10], strict=True))
    assert all(ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3) for ours, theirs in pairs)
    assert [ours["success"] for ours, _ in pairs] == pytest.approx([theirs["success"] for _, theirs in pairs])


def test_a_run_says_what_it_builds_and_how_to_go_on(undisturbed: Path) -> None:
    info = run_info(undisturbed)
    assert info["unit"] == "trajectories"
    assert info["totals"]["tokens"] == 8 * STEPS
    assert info["totals"]["flops"] == STEPS * sum(info["decisions"]["flops_per_step"].values()) > 0
    names = {line["probe"] for line in records(undisturbed, "probes")}
    assert {"held_out/success", "held_out/log_flow_of_start"} <= names
    assert "asked for " in records(undisturbed, "samples")[0]["lines"][0]
    card = (undisturbed / "export" / "README.md").read_text()
    assert "read_flow" in card
    assert "AutoModel" not in card


def test_an_export_is_the_trained_network(undisturbed: Path) -> None:
    method, store, _ = load_run(undisturbed)
    config = json.loads((undisturbed / "export" / "config.json").read_text())
    assert config["environment"]["letters"] == ["A", "C", "G", "T"]
    assert config["fail_floor"] == 1e-4
    again = method.reload(undisturbed / "export")
    batch = {"trajectory": torch.arange(5)}
    assert torch.equal(again.embed(batch), method.embed(batch))
    assert store.environment.name == "tfbind8"


def test_objects_of_ones_own_are_asked_for(undisturbed: Path) -> None:
    method, _, _ = load_run(undisturbed)
    from tests.methods.test_oc_gfn import context

    lines = method.show(method.encode(["ACGTACGT", "TTTTTTTT"]), context(torch.arange(2)))
    assert [line.split(",")[0] for line in lines] == ["asked for ACGTACGT", "asked for TTTTTTTT"]
    assert len(sample(undisturbed, count=3)) == 3


@pytest.fixture(scope="module")
def baskets_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of an environment of one's own, hardly trained. Read it, do not write into it."""
    out = tmp_path_factory.mktemp("runs") / "baskets"
    return pretrain("oc_gfn", BASKETS, out=out, say=lambda line: None, **{**SMALL, "budget.steps": 20}).folder


@pytest.mark.slow
def test_an_environment_of_ones_own_from_its_file_to_a_reward(baskets_run: Path, tmp_path: Path) -> None:
    run = baskets_run
    said: list[str] = []
    ways = ("scratch", "scratch-db", "scratch-subtb", "mcmc", "dqn", "random")
    more = {"calls": 30, "out": tmp_path / "adapted", "device": "cpu", "adapter.batch": 4, "against": ways}
    found = adapt(run, reward=f"{BASKETS}:sweetness", say=said.append, **more)
    scratch = ["from scratch", "from scratch, detailed balance", "from scratch, sub-trajectory balance"]
    assert [arm["name"] for arm in found["arms"]] == ["adapted", *scratch, "Markov chains", "Q-learning", "chance"]
    assert all(30 <= arm["calls"] <= 56 for arm in found["arms"])
    trained = [True, True, True, True, False, True, False]
    assert [arm["flops"] > 0 for arm in found["arms"]] == [arm["sampled"] is not None for arm in found["arms"]] == trained
    lines = (tmp_path / "adapted" / "objects.csv").read_text().splitlines()
    assert lines[0] == "sequence,value,step"
    values = [float(line.split(",")[1]) for line in lines[1:]]
    assert values == sorted(values, reverse=True)
    assert len(values) == found["arms"][0]["calls"] + found["arms"][0]["more"]
    assert json.loads((tmp_path / "adapted" / "adapter.json").read_text())["environment"]["name"] == "baskets"
    assert any(line.startswith("adapted: ") for line in said)
    baskets = load_run(run)[0].environment
    again = read_adapter(tmp_path / "adapted", baskets)
    built = roll(baskets, again.policy, Rng.at(0, 0, torch.arange(64)).uniform("b", baskets.max_steps, baskets.n_actions))
    assert bool((built.ends.sum(-1) == 3).all())
    with pytest.raises(UsageError, match=r"'baskets'.*'tfbind8'"):
        read_adapter(tmp_path / "adapted", Dna())


@pytest.mark.slow
def test_the_conversion_without_training_is_a_way_to_adapt(baskets_run: Path, tmp_path: Path) -> None:
    """Over all objects every one is scored; over random ones as many as there are calls, and nothing else is built. No network is written,
    and the folder of another way is refused."""
    method = load_run(baskets_run)[0]
    environment, reward = method.environment, read_reward(f"{BASKETS}:sweetness", method.environment)
    given = {"reward": f"{BASKETS}:sweetness", "device": "cpu", "baseline": False, "adapter.batch": 4}
    said: list[str] = []
    sampled = adapt(baskets_run, say=said.append, calls=20, out=tmp_path / "out", **given, **{"adapter.way": "sampled"})["arms"][0]
    assert (sampled["updates"], sampled["more"], sampled["flops"]) == (0, 0, 0)
    assert 10 < sampled["calls"] <= 20, "a basket may be drawn twice"
    assert not (tmp_path / "out" / ADAPTER).exists()
    assert said[-1].endswith("no network was trained.")
    with pytest.raises(UsageError, match=r"objects of another search .calls: 20 -> 56; way: 'sampled' -> 'exact'"):
        adapt(baskets_run, say=said.append, calls=56, out=tmp_path / "out", **given, **{"adapter.way": "exact"})
    more = {"out": tmp_path / "exact", "adapter.way": "exact"}
    exact = adapt(baskets_run, say=lambda line: None, calls=56, **given, **more)["arms"][0]
    assert (exact["calls"], exact["updates"], exact["more"], exact["flops"]) == (56, 0, 0, 0)
    ends = end_distribution(environment, exact_policy(environment, method.flow, reward))
    assert exact["sampled"] == pytest.approx(float(ends @ reward(environment.objects()).double()), rel=0.1)
    assert exact["sampled"] != sampled["sampled"]
    with pytest.raises(BadInput, match="of no amortised predictor"):
        read_adapter(tmp_path / "out", environment)
    with pytest.raises(UsageError, match="exact scores all 56 objects, --calls is 20"):
        adapt(baskets_run, say=lambda line: None, calls=20, out=tmp_path / "less", **given, **{"adapter.way": "exact"})


@pytest.mark.slow
def test_a_table_that_lacks_an_object_stops_by_its_name(undisturbed: Path, tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("sequence,value\nACGTACGT,1\n")
    done = headstart("adapt", undisturbed, "--reward", tmp_path / "scores.csv", "--calls", "10", "--device", "cpu", cwd=tmp_path)
    assert done.returncode == 3
    assert "has no entry for" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 2


def test_adapt_refuses_what_cannot_be(undisturbed: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--reward is missing"):
        adapt(undisturbed)
    (tmp_path / "score.py").write_text("def score(words):\n    return [1.0] * len(words)\n")
    with pytest.raises(UsageError, match="at least 1"):
        adapt(undisturbed, reward=f"{tmp_path / 'score.py'}:score", calls=0)


@pytest.mark.slow
def test_the_default_settings_leave_updates_enough_to_learn_and_every_score_is_counted(undisturbed: Path, tmp_path: Path) -> None:
    """With the specification's batch of 32 and 4 outcomes 2,000 calls were used up in 3 updates. What the policy builds in the end is paid for as
    well, so it is counted and kept."""
    (tmp_path / "score.py").write_text("def score(words):\n    return [word.count('G') + 1 for word in words]\n")
    said: list[str] = []
    found = adapt(undisturbed, reward=f"{tmp_path / 'score.py'}:score", out=tmp_path / "adapted", device="cpu", baseline=False, say=said.append)
    (ours,) = found["arms"]
    assert ours["updates"] >= 30
    assert ours["more"] > 100
    assert any(f"({ours['more']:,} more scored for that)" in line for line in said)
    with (tmp_path / "adapted" / "objects.csv").open(newline="") as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert len(steps) == ours["calls"] + ours["more"]
    assert sum(step == ours["updates"] + 1 for step in steps) == ours["more"], "what the policy built in the end comes after all updates"
    assert set(steps) == set(range(1, ours["updates"] + 2)), "every update scored something new"
    word, value, _ = lines_of(tmp_path / "adapted" / "objects.csv")[0]
    again = read_reward(str(tmp_path / "adapted" / "objects.csv"), Dna())
    assert again(Dna().from_text([word])).tolist() == [float(value)]


@pytest.mark.slow
def test_what_the_policy_builds_is_written_with_its_log_probability(undisturbed: Path, tmp_path: Path) -> None:
    """Letters have one way to them: log P_F of the way is that of the word."""
    (tmp_path / "score.py").write_text("def score(words):\n    return [word.count('G') + 1 for word in words]\n")
    given = {"reward": f"{tmp_path / 'score.py'}:score", "out": tmp_path / "adapted", "device": "cpu", "baseline": False, "say": lambda line: None}
    (ours,) = adapt(undisturbed, calls=200, **given)["arms"]
    rows = lines_of(tmp_path / "adapted" / "built.csv")
    words = Dna().from_text([row[0] for row in rows])
    assert len(words) == 256
    assert [float(row[1]) for row in rows] == [row[0].count("G") + 1 for row in rows]
    assert sum(float(row[1]) for row in rows) / 256 == pytest.approx(ours["sampled"])
    adapter = read_adapter(tmp_path / "adapted", Dna())
    leaving = ways_to(Dna(), words, torch.zeros(256, 8, 4)).states[:, :-1]
    with torch.no_grad():
        log_pf = adapter.policy(leaving, Dna().valid(leaving)).gather(-1, words[..., None])[..., 0].sum(1)
    assert [float(row[2]) for row in rows] == pytest.approx(log_pf.tolist(), abs=1e-4)


def lines_of(table: Path) -> list[list[str]]:
    """The rows of a .csv, without its header."""
    with table.open(newline="") as file:
        return list(csv.reader(file))[1:]


@pytest.mark.parametrize(("name", "objective"), [("scratch", "tb"), ("scratch-db", "db"), ("scratch-subtb", "subtb")])
def test_a_network_from_scratch_learns_by_the_loss_that_is_asked_for(name: str, objective: str) -> None:
    way = way_beside(name, Scores(Dna(2), lambda objects: torch.ones(len(objects))), AdaptSettings())
    assert isinstance(way, Scratch)
    assert way.config.objective == objective


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["adapt", "nowhere", "--reward", "score.py:score"], "nowhere: is not a folder."),
        (["adapt", ".", "--reward", "nowhere.csv"], "nowhere.csv: does not exist."),
        (["adapt", ".", "--reward", "builtin:rna:nowhere.tsv"], "nowhere.tsv: does not exist."),
        (["adapt", ".", "--reward", "a.csv", "--adapter.epsilon", "2"], "--adapter.epsilon is 2."),
        (["adapt", "."], "--reward is missing."),
        (["pretrain", "oc_gfn", "--data", "builtin:tfbind8"], "No budget is given."),
    ],
)
def test_wrong_usage_is_refused_before_torch_is_imported(arguments: list[str], says: str, tmp_path: Path) -> None:
    assert says in without_torch(arguments, tmp_path)


def test_a_run_continues_another_of_the_same_environment_only(undisturbed: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="of the environment"):
        pretrain("oc_gfn", "builtin:rna", out=tmp_path / "run", init=undisturbed, say=lambda line: None, **SMALL)
    fewer = {**SMALL, "budget.steps": 2}
    run = pretrain("oc_gfn", "builtin:tfbind8", out=tmp_path / "on", init=undisturbed, say=lambda line: None, **fewer)
    assert run.info["status"] == "done"


def test_other_sizes_are_another_run(undisturbed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    with pytest.raises(UsageError, match="length"):
        pretrain("oc_gfn", "builtin:tfbind8", out=run, say=lambda line: None, **SMALL, **{"environment.length": 4})


def test_prepare_and_peek_show_the_environment(tmp_path: Path) -> None:
    said: list[str] = []
    prepare("oc_gfn", "builtin:amp", tmp_path / "store", say=said.append)
    assert said[0] == "amp: too many objects to list, 21 actions, at most 50 steps"
    assert len(peek(tmp_path / "store", count=3).objects) == 3
    with pytest.raises(UsageError, match=r"store holds an environment, which has no contact sheet"):
        peek(tmp_path / "store", sheet=tmp_path / "sheet.png")
    with pytest.raises(UsageError, match=r"Two environments|2 entries"):
        pretrain("oc_gfn", ["builtin:amp", "builtin:rna"], out=tmp_path / "run", say=lambda line: None, **SMALL)
