"""`adapt`: a pre-trained sampler of objects -> a sampler for one reward, beside other ways of looking, at equal numbers of calls."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from headstart.core.config import replace_nested
from headstart.core.errors import UsageError
from headstart.core.files import atomic_write
from headstart.core.progress import Reporter
from headstart.core.rng import Rng
from headstart.core.terminal import printable
from headstart.data.environments.rewards import Described, read_reward
from headstart.data.environments.scores import Scores
from headstart.engine.device import use_device
from headstart.methods.oc_gfn.adapt import Adaptation
from headstart.methods.oc_gfn.baselines import Chains, Chance, QLearning, QLearningConfig, Scratch, ScratchConfig
from headstart.methods.oc_gfn.conversion import Converted
from headstart.methods.oc_gfn.method import OCGFN
from headstart.methods.oc_gfn.network import ConditionalFlow
from headstart.methods.oc_gfn.saved import ADAPTER, save_adapter
from headstart.methods.oc_gfn.training import RewardTraining, run_until
from headstart.methods.oc_gfn.trajectories import Policy, roll
from headstart.methods.oc_gfn.tune import FullTuning
from headstart.verbs._adapt_settings import AdaptSettings, adapted_folder, asked, check
from headstart.verbs.sample import load_run

Looking: TypeAlias = RewardTraining | QLearning | Chains | Chance

DRAWN = 256
"""Objects that each trained policy builds in the end."""
NAMES = {
    "scratch": "from scratch",
    "scratch-db": "from scratch, detailed balance",
    "scratch-subtb": "from scratch, sub-trajectory balance",
    "mcmc": "Markov chains",
    "dqn": "Q-learning",
    "random": "chance",
}
"""`AdaptSettings.against`, for a person."""
OBJECTIVES: dict[str, Literal["tb", "db", "subtb"]] = {"scratch": "tb", "scratch-db": "db", "scratch-subtb": "subtb"}
TOP = 100
"""Of the best distinct objects whose mean is told."""
OBJECTS, BUILT = "objects.csv", "built.csv"
"""Every scored object, and those that the policy builds in the end."""


@dataclass(frozen=True)
class Found:
    """What one way of looking found.

    Attributes:
        calls: distinct objects scored while looking (the last update may score more than was asked); updates; flops of all updates, counted.
        top: mean reward of the best 100 of the first `--calls` scored objects: equally many for every way.
        sampled: mean reward of what the trained policy builds in the end; None where there is no policy.
        more: distinct objects that were scored for that, on top of `calls`.
    """

    name: str
    calls: int
    updates: int
    flops: int
    top: float
    sampled: float | None = None
    more: int = 0

    def sentence(self) -> str:
        cost = f" ({self.flops:.2g} FLOPs)" if self.flops else ""
        told = f"{self.name}: {self.calls:,} objects scored in {self.updates:,} updates{cost}; best {TOP} have {self.top:.4g} on average"
        if self.sampled is None:
            return f"{told}."
        return f"{told}, objects of its policy {self.sampled:.4g} ({self.more:,} more scored for that)."


@dataclass(frozen=True)
class Built:
    """What a trained policy builds in the end.

    Attributes:
        objects: int64 [DRAWN, state_size].
        rewards: float32 [DRAWN].
        log_pf: float32 [DRAWN], log P_F of the way that each was built on; where a state has one way to it, that of the object.
    """

    objects: Tensor
    rewards: Tensor
    log_pf: Tensor


def adapt(run: str | Path, *, say: Callable[[str], None] = print, **settings: Any) -> dict[str, Any]:
    """Adapts the sampler of `run` to a reward.

    Args:
        run: a run of oc_gfn.
        settings: fields of `AdaptSettings`: reward, calls, ...

    Raises:
        BadInput: the reward cannot be read, or says something that no reward can be.
        UsageError: a setting is wrong.
    """
    return adapt_with(Path(run), replace_nested(AdaptSettings(), settings), say)


def adapt_with(run: Path, settings: AdaptSettings, say: Callable[[str], None] = print) -> dict[str, Any]:
    """As `adapt`, from settings."""
    check(run, settings)
    assert settings.reward is not None
    method, _, _ = load_run(run)
    if not isinstance(method, OCGFN):
        raise UsageError(f"{run} is a run of {method.card.slug}, which samples no objects.", "Give a run of oc_gfn.")
    device = use_device(settings.device)
    environment, reward = method.environment, read_reward(settings.reward, method.environment)
    out = adapted_folder(run, settings)
    if isinstance(reward, Described):
        say(printable(f"Reward: {reward.words}"))
    scores = Scores(environment, reward, device)
    way = way_to(method.flow.to(device), scores, settings)
    ours, counts, built = looked("adapted", way, settings)
    found = [ours]
    for other in dict.fromkeys(settings.against) if settings.baseline else ():
        found.append(looked(NAMES[other], way_beside(other, Scores(environment, reward, device), settings), settings)[0])
    for one in found:
        say(printable(one.sentence()))
    if ours.top == 0:
        say("WARNING: every object that was scored has the reward 0: nothing told the objects apart, and nothing was learned.")
    network = way.adapter if isinstance(way, Adaptation) else way.network if isinstance(way, FullTuning) else None
    save_adapter(network, out, environment, settings.adapter, **asked(run, settings))
    objects, rewards, steps = ranked(scores, counts)
    texts = environment.to_text(objects)
    write_columns(out / OBJECTS, {"sequence": texts, "value": rewards.tolist(), "step": steps.tolist()})
    assert built is not None
    ends = {"sequence": environment.to_text(built.objects), "value": built.rewards.tolist(), "log_pf": built.log_pf.tolist()}
    write_columns(out / BUILT, ends)
    for text, value in zip(texts[: settings.best], rewards[: settings.best].tolist(), strict=True):
        say(printable(f"  {value:.4g}  {text}", one_line=True))
    kept = "no network was trained" if network is None else f"the networks of the reward: {out / ADAPTER}"
    say(f"All {len(objects):,} scored objects: {out / OBJECTS}; {DRAWN} of the policy: {out / BUILT}; {kept}.")
    return {"folder": str(out), "arms": [asdict(one) for one in found]}


def way_to(flow: ConditionalFlow, scores: Scores, settings: AdaptSettings) -> Adaptation | FullTuning | Converted:
    """How the pre-trained network is adapted.

    Raises:
        UsageError: the conversion over all objects asks for more scores than there are calls, or there are too many objects to list.
    """
    config, every = settings.adapter, scores.environment.n_objects
    if config.way == "amortised":
        return Adaptation(flow, scores, config, settings.seed)
    if config.way == "full":
        return FullTuning(flow, scores, config, settings.seed)
    if config.way == "exact" and every is not None and every > settings.calls:
        what = f"--adapter.way exact scores all {every:,} objects, --calls is {settings.calls:,}."
        raise UsageError(what, f"Give --calls {every}, or --adapter.way sampled.")
    return Converted(flow, scores, settings.calls if config.way == "sampled" else None, settings.seed)


def way_beside(name: str, scores: Scores, settings: AdaptSettings) -> Looking:
    """A way of looking for objects that was not pre-trained, of the adapter's sizes."""
    config = settings.adapter
    size: dict[str, Any] = {"hidden_size": config.hidden_size, "num_layers": config.num_layers, "batch": config.batch}
    if name == "mcmc":
        return Chains(scores, config.batch, settings.seed)
    if name == "random":
        return Chance(scores, config.batch, settings.seed)
    if name == "dqn":
        return QLearning(scores, QLearningConfig(**size), settings.seed)
    return Scratch(scores, ScratchConfig(**size, objective=OBJECTIVES[name]), settings.seed)


def looked(name: str, way: Looking | Converted, settings: AdaptSettings) -> tuple[Found, list[int], Built | None]:
    """Looks until the calls are used up, and lets the policy, where there is one, build objects.

    Returns:
        what it found; how many objects were scored before its first update and after each; what its policy builds.
    """
    scores = way.scores
    counts = [scores.distinct] if isinstance(way, Converted) else used_up(name, way, settings.calls)
    calls, top = scores.distinct, float(scores.seen(settings.calls)[1].sort(descending=True).values[:TOP].mean())
    if isinstance(way, Chains | Chance):
        return Found(name, calls, len(counts) - 1, 0, top), counts, None
    built = of_policy(way.policy, scores, settings.seed)
    flops = 0 if isinstance(way, Converted) else way.flops
    found = Found(name, calls, len(counts) - 1, flops, top, float(built.rewards.mean()), scores.distinct - calls)
    return found, counts, built


def of_policy(policy: Policy, scores: Scores, seed: int) -> Built:
    """Lets a policy build `DRAWN` objects, and scores them."""
    environment, rows = scores.environment, torch.arange(DRAWN, device=scores.device)
    said: list[Tensor] = []

    def kept(states: Tensor, valid: Tensor) -> Tensor:
        said.append(policy(states, valid))
        return said[-1]

    uniform = Rng.at(seed, 1 << 40, rows).uniform("built", environment.max_steps, environment.n_actions)
    built = roll(environment, kept, uniform)
    log_pf = torch.stack(said, 1).gather(-1, built.actions[..., None])[..., 0]
    return Built(built.ends, scores(built.ends), torch.where(built.alive, log_pf, 0).sum(1))


def used_up(name: str, way: Looking, calls: int) -> list[int]:
    """Looks until so many distinct objects are scored. Returns how many were before the first update and after each."""
    counts = [way.scores.distinct]
    with Reporter(name, total=calls, unit="calls") as progress:

        def step() -> None:
            before = min(way.scores.distinct, calls)
            way.advance()
            counts.append(way.scores.distinct)
            progress.advance(min(way.scores.distinct, calls) - before)

        run_until(step, way.scores, calls)
    return counts


def ranked(scores: Scores, counts: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """(objects, rewards, steps) of all that was scored, the best first, on the CPU. The step is the update that an object was first scored in: 0 is
    before the first, one more than there were what the policy built in the end.

    Args:
        counts: as of `looked`.
    """
    objects, rewards = (part.cpu() for part in scores.seen())
    order = rewards.argsort(descending=True, stable=True)
    steps = torch.searchsorted(torch.tensor(counts), torch.arange(len(objects)), right=True)
    return objects[order], rewards[order], steps[order]


def write_columns(path: Path, columns: dict[str, list[Any]]) -> None:
    """A .csv, which `--reward` reads again where its columns are sequence and value (others are passed over)."""
    lines = io.StringIO()
    table = csv.writer(lines, lineterminator="\n")
    table.writerow(columns)
    table.writerows(zip(*columns.values(), strict=True))
    with atomic_write(path) as file:
        file.write(lines.getvalue().encode())
