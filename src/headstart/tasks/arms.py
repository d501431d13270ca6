"""The arms of a fine-tuning, pretrained and random: every seed of each, the learning rate chosen with the first."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from headstart.core.errors import UsageError
from headstart.core.words import agree, plural
from headstart.tasks.kept import Kept
from headstart.tasks.metrics import Records
from headstart.tasks.result import PRETRAINED, RANDOM, Arm, SeedRun

Say: TypeAlias = Callable[[str], None]
M = TypeVar("M")
D = TypeVar("D")


@dataclass
class Trained(Generic[M]):
    """One training.

    Attributes:
        scores: part ("test", "dev") -> its metrics.
        loss: mean training loss over the last epoch.
        stuck: what is the matter with predictions that are all the same.
        records: what each test record adds to the metric that decides; None: it cannot be said.
        notes: sentences for the person who reads the result.
    """

    model: M
    scores: dict[str, dict[str, float]]
    loss: float
    steps: int
    stuck: str | None
    records: Records | None
    notes: list[str] = field(default_factory=list)


def seeds_and_draws(seeds: int | Sequence[int], train: Any, what: str) -> tuple[list[int], list[Any]]:
    """The seeds, and the draws of labelled records: one, or one for each seed.

    Args:
        seeds: how many (0, 1, ...), or which.
        what: the draws in words, for the message.

    Raises:
        UsageError: there is no seed, or another number of draws.
    """
    seed_list = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not seed_list:
        raise UsageError("There is no seed.", "Give at least one.")
    draws = list(train) if isinstance(train, list | tuple) else [train]
    if len(draws) not in (1, len(seed_list)):
        raise UsageError(f"There are {len(draws)} {what} for {len(seed_list)} seeds.", "Give one, or one for each seed.")
    return seed_list, draws


def of_each_seed(seeds: Sequence[int], prepared: Sequence[D]) -> dict[int, D]:
    """What each seed trains on: its own draw, prepared, or the one that all share."""
    return dict(zip(seeds, prepared if len(prepared) == len(seeds) else [prepared[0]] * len(seeds), strict=True))


def refuse_choosing_on_test(rates: Sequence[float], dev: Any) -> None:
    """Raises UsageError where several learning rates are to be tried and there is no dev data."""
    if len(rates) > 1 and dev is None:
        raise UsageError("Several learning rates need dev data.", "Give it, or one learning rate: nothing is ever chosen on test data.")


def run_arms(
    train: Callable[[str, int, float, Say], Trained[M]],
    seeds: Sequence[int],
    rates: Sequence[float],
    metric: str,
    baseline: bool,
    say: Say,
    higher_is_better: bool = True,
    kept: Kept | None = None,
) -> tuple[list[Arm], Callable[[], M]]:
    """Trains the pretrained arm and, with `baseline`, the random one.

    Args:
        train: (arm, seed, learning rate, what to call with lines of progress) -> one training.
        rates: learning rates to try; with several each arm takes the one that is best on dev with the first seed.
        kept: the trainings that an earlier call of the same command finished, which are not made again; None: none are.

    Returns:
        the arms, and what gives the pretrained arm's model of the first seed: one that an earlier call trained is trained again.
    """
    names = [PRETRAINED, RANDOM] if baseline else [PRETRAINED]
    total, done = len(names) * (len(seeds) + len(rates) - 1), 0
    first: dict[float, M] = {}  # learning rate -> the pretrained arm's model of the first seed

    def trained(arm: str, seed: int, rate: float) -> SeedRun:
        started = time.perf_counter()
        found = train(arm, seed, rate, lambda text: say(f"{named(arm, seed, rate)}: {text}"))
        if (arm, seed) == (PRETRAINED, seeds[0]):
            first[rate] = found.model
        wall_s, scores = time.perf_counter() - started, found.scores
        return SeedRun(seed, scores["test"], scores.get("dev"), found.loss, found.stuck, found.steps, wall_s, found.records, found.notes)

    def named(arm: str, seed: int, rate: float) -> str:
        return f"{arm}, seed {seed}" + (f", learning rate {rate:g}" if len(rates) > 1 else "")

    def run(arm: str, seed: int, rate: float) -> SeedRun:
        nonlocal done
        made = partial(trained, arm, seed, rate)
        one, known = (made(), False) if kept is None else kept.get(arm, seed, rate, made)
        done += 1
        took = "from an earlier call" if known else f"{one.wall_s:.1f} s"
        say(f"{named(arm, seed, rate)}: {metric} {one.metrics[metric]:.4f}, loss {one.loss:.4f}, {took} ({done} of {plural(total, 'run')})")
        return one

    def all_of(arm: str) -> Arm:
        trials = [run(arm, seeds[0], rate) for rate in rates]
        scores = [trial.dev_metrics[metric] if trial.dev_metrics else 0.0 for trial in trials]
        best = (max if higher_is_better else min)(range(len(rates)), key=lambda place: scores[place])
        runs = [trials[best], *(run(arm, seed, rates[best]) for seed in seeds[1:])]
        tried = {f"{rate:g}": score for rate, score in zip(rates, scores, strict=True)} if len(rates) > 1 else {}
        if arm == PRETRAINED:
            for rate in set(first) - {rates[best]}:
                del first[rate]
        return Arm(arm, rates[best], runs, tried)

    arms = [all_of(name) for name in names]
    rate = arms[0].learning_rate

    def model() -> M:
        if rate not in first:
            say(f"{named(PRETRAINED, seeds[0], rate)}: trained again for its model, which was not kept")
            trained(PRETRAINED, seeds[0], rate)
        return first[rate]

    return arms, model


def stuck_warnings(arms: Sequence[Arm], mend: str) -> list[str]:
    """A sentence for each arm with runs whose predictions are all the same."""
    found = []
    for arm in arms:
        if stuck := [run for run in arm.runs if run.stuck]:
            which = ", ".join(str(run.seed) for run in stuck)
            runs = f"{len(stuck)} of {plural(len(arm.runs), f'{arm.arm} run')} {agree(len(stuck), 'is', 'are')} stuck"
            found.append(f"{runs} (seed {which}): {stuck[0].stuck}. {mend}")
    return found
