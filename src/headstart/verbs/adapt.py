"""`adapt`: a pre-trained sampler of objects -> a sampler for one reward, beside a flow network from scratch, at equal numbers of calls."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headstart.core.config import replace_nested
from headstart.core.errors import UsageError
from headstart.core.files import atomic_write
from headstart.core.progress import Reporter
from headstart.core.rng import Rng
from headstart.core.terminal import printable
from headstart.data.environments.scores import Scores, read_reward
from headstart.engine.device import resolve_device
from headstart.methods.oc_gfn.adapt import Adaptation
from headstart.methods.oc_gfn.baselines import Scratch, ScratchConfig
from headstart.methods.oc_gfn.method import OCGFN
from headstart.methods.oc_gfn.saved import ADAPTER, save_adapter
from headstart.methods.oc_gfn.training import RewardTraining, run_until
from headstart.methods.oc_gfn.trajectories import roll
from headstart.methods.oc_gfn.tune import FullTuning
from headstart.verbs._adapt_settings import AdaptSettings, check
from headstart.verbs.sample import load_run

DRAWN = 256
"""Objects that each trained policy builds in the end."""
TOP = 100
"""Of the best distinct objects whose mean is told."""


@dataclass(frozen=True)
class Found:
    """What one way of looking found.

    Attributes:
        calls: distinct objects scored while training (the last update may score more than was asked); updates; flops of all updates, counted.
        top: mean reward of the best 100 of the first `--calls` scored objects: equally many for every way.
        sampled: mean reward of what the trained policy builds in the end; these objects are scored too, and not counted among `calls`.
    """

    name: str
    calls: int
    updates: int
    flops: int
    top: float
    sampled: float

    def sentence(self) -> str:
        return (
            f"{self.name}: {self.calls:,} objects scored in {self.updates:,} updates ({self.flops:.2g} FLOPs);"
            f" best {TOP} have {self.top:.4g} on average, objects of its policy {self.sampled:.4g}."
        )


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
    scores = Scores(environment, reward, device)
    way = Adaptation if settings.adapter.way == "amortised" else FullTuning
    adaptation = way(method.flow.to(device), scores, settings.adapter, settings.seed)
    found = [looked("adapted", adaptation, settings)]
    if settings.baseline:
        config = ScratchConfig(settings.adapter.hidden_size, settings.adapter.num_layers, batch=settings.adapter.batch)
        others = Scores(environment, reward, device)
        found.append(looked("from scratch", Scratch(others, config, settings.seed), settings))
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


def looked(name: str, training: RewardTraining, settings: AdaptSettings) -> Found:
    """Trains until the calls are used up, and lets the policy build objects."""
    scores = training.scores
    with Reporter(name, total=settings.calls, unit="calls") as progress:

        def step() -> None:
            before = min(scores.distinct, settings.calls)
            training.advance()
            progress.advance(min(scores.distinct, settings.calls) - before)

        updates = run_until(step, scores, settings.calls)
    calls, best = scores.distinct, scores.seen(settings.calls)[1].sort(descending=True).values[:TOP]
    environment = scores.environment
    rows = torch.arange(DRAWN, device=scores.device)
    built = roll(environment, training.policy, Rng.at(settings.seed, 1 << 40, rows).uniform("built", environment.max_steps, environment.n_actions))
    return Found(name, calls, updates, training.flops, float(best.mean()), float(scores.reward(built.ends).mean()))


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
