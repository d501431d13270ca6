"""`adapt`: a pre-trained sampler of objects -> a sampler for one reward, beside other ways of looking, at equal numbers of calls."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

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
from headstart.engine.device import resolve_device
from headstart.methods.oc_gfn.adapt import Adaptation
from headstart.methods.oc_gfn.baselines import Chains, Chance, QLearning, QLearningConfig, Scratch, ScratchConfig
from headstart.methods.oc_gfn.method import OCGFN
from headstart.methods.oc_gfn.saved import ADAPTER, save_adapter
from headstart.methods.oc_gfn.training import RewardTraining, run_until
from headstart.methods.oc_gfn.trajectories import roll
from headstart.methods.oc_gfn.tune import FullTuning
from headstart.verbs._adapt_settings import AdaptSettings, check
from headstart.verbs.sample import load_run

Looking: TypeAlias = RewardTraining | QLearning | Chains | Chance

DRAWN = 256
"""Objects that each trained policy builds in the end."""
NAMES = {"scratch": "from scratch", "mcmc": "Markov chains", "dqn": "Q-learning", "random": "chance"}
"""`AdaptSettings.against`, for a person."""
TOP = 100
"""Of the best distinct objects whose mean is told."""


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
    device = resolve_device(settings.device)
    environment, reward = method.environment, read_reward(settings.reward, method.environment)
    out = settings.out or Path("runs") / "adapted" / run.absolute().name
    if isinstance(reward, Described):
        say(printable(f"Reward: {reward.words}"))
    scores = Scores(environment, reward, device)
    way = Adaptation if settings.adapter.way == "amortised" else FullTuning
    adaptation = way(method.flow.to(device), scores, settings.adapter, settings.seed)
    found = [looked("adapted", adaptation, settings)]
    for other in dict.fromkeys(settings.against) if settings.baseline else ():
        found.append(looked(NAMES[other], way_of(other, Scores(environment, reward, device), settings), settings))
    for one in found:
        say(printable(one.sentence()))
    network = adaptation.adapter if isinstance(adaptation, Adaptation) else adaptation.network
    save_adapter(network, out, environment, settings.adapter, reward=settings.reward, seed=settings.seed)
    objects, rewards = ranked(scores)
    write_objects(out / "objects.csv", environment.to_text(objects), rewards)
    for text, value in zip(environment.to_text(objects[: settings.best]), rewards[: settings.best].tolist(), strict=True):
        say(printable(f"  {value:.4g}  {text}", one_line=True))
    say(f"All {len(objects):,} scored objects: {out / 'objects.csv'}; the networks of the reward: {out / ADAPTER}.")
    return {"folder": str(out), "arms": [asdict(one) for one in found]}


def way_of(name: str, scores: Scores, settings: AdaptSettings) -> Looking:
    """A way of looking for objects that was not pre-trained, of the adapter's sizes."""
    config = settings.adapter
    size: dict[str, Any] = {"hidden_size": config.hidden_size, "num_layers": config.num_layers, "batch": config.batch}
    if name == "mcmc":
        return Chains(scores, config.batch, settings.seed)
    if name == "random":
        return Chance(scores, config.batch, settings.seed)
    if name == "dqn":
        return QLearning(scores, QLearningConfig(**size), settings.seed)
    return Scratch(scores, ScratchConfig(**size), settings.seed)


def looked(name: str, way: Looking, settings: AdaptSettings) -> Found:
    """Looks until the calls are used up, and lets the policy, where there is one, build objects."""
    scores = way.scores
    with Reporter(name, total=settings.calls, unit="calls") as progress:

        def step() -> None:
            before = min(scores.distinct, settings.calls)
            way.advance()
            progress.advance(min(scores.distinct, settings.calls) - before)

        updates = run_until(step, scores, settings.calls)
    calls, top = scores.distinct, float(scores.seen(settings.calls)[1].sort(descending=True).values[:TOP].mean())
    if not isinstance(way, RewardTraining | QLearning):
        return Found(name, calls, updates, 0, top)
    environment, rows = scores.environment, torch.arange(DRAWN, device=scores.device)
    built = roll(environment, way.policy, Rng.at(settings.seed, 1 << 40, rows).uniform("built", environment.max_steps, environment.n_actions))
    sampled = float(scores(built.ends).mean())
    return Found(name, calls, updates, way.flops, top, sampled, scores.distinct - calls)


def ranked(scores: Scores) -> tuple[Tensor, Tensor]:
    """(objects, rewards) of all that was scored, the best first, on the CPU."""
    objects, rewards = scores.seen()
    order = rewards.argsort(descending=True, stable=True)
    return objects[order].cpu(), rewards[order].cpu()


def write_objects(path: Path, texts: list[str], rewards: Tensor) -> None:
    """A .csv with the columns sequence and value: `--reward` reads it again."""
    lines = io.StringIO()
    table = csv.writer(lines, lineterminator="\n")
    table.writerow(["sequence", "value"])
    table.writerows(zip(texts, rewards.tolist(), strict=True))
    with atomic_write(path) as file:
        file.write(lines.getvalue().encode())
