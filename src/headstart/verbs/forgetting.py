"""What a continued run learned and forgot, from the held-out losses of its parts (probes.jsonl): transient, recovery, pay-back step, final
forgetting.

- transient: how far the loss on old text rose above that of the model it began with, at its highest. A rise of some tenths within the first steps is
  what re-warming does (erfanzar/EasyDeL#46 asks whether it is normal: it is).
- recovery: where it is first back, after that: the transient and this are the stability gap of minus the loss (tasks.gap).
- final forgetting: what is left of that at the end, on the whole held-out text.
- pay-back step: where the loss on new text first is below that of the run at a constant small rate; never, where the rise cost more than it gained.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from headstart.core.files import write_json
from headstart.core.run import PART_BITS, PART_LOSS, PART_SAMPLE, read_lines, read_run
from headstart.core.words import aligned
from headstart.tasks.gap import gap
from headstart.verbs._parts import OLD

RECORD = "rewarm.json"
"""Beside the export of a run that was re-warmed."""
FLAT = 1.001
"""Rates of a run whose largest is no more than this many times its smallest are one rate: the run to compare with."""


@dataclass(frozen=True)
class Curve:
    """The held-out loss of one part over a run, in nats a token where its method says nothing else (`Method.part_unit`).

    Args:
        steps, losses: of a fixed sample of its rows, from step 0 on.
        whole: step -> loss of the whole split, where that was scored.
        bits_per_byte: step -> the same in bits a byte of text; empty for a loss that says nothing of bytes.
    """

    steps: list[int]
    losses: list[float]
    whole: Mapping[int, float]
    bits_per_byte: Mapping[int, float] = field(default_factory=dict)

    @property
    def first(self) -> float:
        """Before the first update, of the whole split."""
        return self.whole[min(self.whole)]

    @property
    def last(self) -> float:
        return self.whole[max(self.whole)]


@dataclass(frozen=True)
class Transient:
    """The rise of a loss above its value at step 0."""

    height: float
    """Nats; 0 where it never rose."""
    step: int
    forgetting: float
    """Last minus first, on the whole split."""
    recovery: int | None = None
    """The first step after the highest point at which the loss is back where it began; 0 where it never rose; None: not within this run."""

    def sentence(self, rate_rose: bool) -> str:
        """For a person who sees the rise and is alarmed."""
        normal = ", which is normal when a rate rises" if rate_rose else ""
        side = "above" if self.forgetting >= 0 else "below"
        rise = f"The loss on old text rose by {self.height:.3f} until step {self.step:,}{normal}"
        back = "was not back within the run" if self.recovery is None else f"was back at step {self.recovery:,}"
        return f"{rise}, and {back}; at the end it lies {abs(self.forgetting):.3f} {side} where it began."


def transient(steps: Sequence[int], losses: Sequence[float], forgetting: float | None = None) -> Transient:
    """The highest point of a curve above its first one, and where the curve is back.

    Args:
        forgetting: of the whole split; None: that of the curve.
    """
    highest = max(range(len(losses)), key=lambda i: losses[i])
    back = gap(steps, [-loss for loss in losses]).recovery if len(losses) > 1 else 0.0  # a run that has just begun has one point
    left = losses[-1] - losses[0] if forgetting is None else forgetting
    return Transient(losses[highest] - losses[0], steps[highest], left, None if back is None else int(back))


def pay_back_step(curve: Curve, constant: Curve) -> int | None:
    """The first step at which the loss is below that of the constant run; None: at none. Step 0, where both are the same model, does not count."""
    other = dict(zip(constant.steps, constant.losses, strict=True))
    return next((step for step, loss in zip(curve.steps, curve.losses, strict=True) if step > 0 and step in other and loss < other[step]), None)


def curves(run: Path) -> dict[str, Curve]:
    """Part -> its curve; empty where a run has no named parts, or is not at its first point yet."""
    path = run / "probes.jsonl"
    values: dict[str, dict[int, float]] = {}
    for line in read_lines(path) if path.is_file() else ():
        name, value = line.get("probe"), line.get("value")
        if isinstance(name, str) and isinstance(value, int | float) and math.isfinite(value):
            values.setdefault(name, {})[line["step"]] = float(value)
    return curves_of(values)


def curves_of(probes: Mapping[str, Mapping[int, float]]) -> dict[str, Curve]:
    """As `curves`, from probe -> step -> value."""
    found = {}
    for probe, losses in probes.items():
        if not probe.startswith(PART_LOSS):
            continue
        name = probe.removeprefix(PART_LOSS)
        sample = probes.get(PART_SAMPLE + name, {})
        on_sample = dict(sorted({**losses, **sample}.items()))
        whole = {step: losses[step] for step in sorted(sample) if step in losses} or dict(sorted(losses.items()))
        if 0 in on_sample:
            found[name] = Curve(list(on_sample), list(on_sample.values()), whole, dict(sorted(probes.get(PART_BITS + name, {}).items())))
    return found


def is_constant(run: Path) -> bool:
    """Whether a run had one rate from beginning to end."""
    path = run / "metrics.jsonl"
    return is_one_rate([line["learning_rate"] for line in read_lines(path) if "learning_rate" in line] if path.is_file() else [])


def is_one_rate(rates: Sequence[float]) -> bool:
    """Whether learning rates are all the same, and above 0."""
    return bool(rates) and 0 < max(rates) <= FLAT * min(rates)


@dataclass(frozen=True)
class Outcome:
    """What one run learned and forgot."""

    run: str
    parts: dict[str, dict[str, float]]
    """Part -> first and last loss of the whole held-out text, and bits a byte where they are known."""
    transient: Transient | None
    """Of the old text; None where it was not measured."""
    pay_back_step: int | None
    """Against the constant run; None: never, or there is none."""
    total_steps: int

    def advice(self, compared: bool) -> str:
        """One sentence for a person.

        Args:
            compared: whether there was a constant run to compare with.
        """
        if not compared:
            return "Whether the rise paid back is seen beside a run at the old rate: repeat it with --rewarm.preset constant and another --out."
        if self.pay_back_step is None:
            return "The rise never paid back within this budget: a constant rate was better for it. Lower the peak, or train longer."
        return f"The rise paid back after {self.pay_back_step / max(1, self.total_steps):.0%} of the budget (step {self.pay_back_step:,})."


def outcome(run: Path, constant: Path | None = None, new: str | None = None) -> Outcome | None:
    """What a run with named parts learned and forgot; None where it has none.

    Args:
        constant: a run at a constant rate on the same data.
        new: the part whose loss pays back; None: the first that is not `old`.
    """
    found = curves(run)
    if not found:
        return None
    info = read_run(run)
    steps = int((info.get("decisions") or {}).get("total_steps", 0))
    names = {name: ends(curve) for name, curve in found.items()}
    old = found.get(OLD)
    rise = None if old is None else transient(old.steps, old.losses, old.last - old.first)
    learned = new or next((name for name in found if name != OLD), None)
    paid = None
    if constant is not None and learned is not None and learned in (other := curves(constant)):
        paid = pay_back_step(found[learned], other[learned])
    return Outcome(run.name, names, rise, paid, steps)


def ends(curve: Curve) -> dict[str, float]:
    """First and last loss, and bits a byte."""
    values = {"first": curve.first, "last": curve.last}
    if curve.bits_per_byte:
        points = sorted(set(curve.whole) & set(curve.bits_per_byte))
        values |= {"first_bits_per_byte": curve.bits_per_byte[points[0]], "last_bits_per_byte": curve.bits_per_byte[points[-1]]}
    return values


def outcomes(runs: Sequence[Path]) -> tuple[list[Outcome], Path | None]:
    """(of each run with named parts, the constant run among them that the others are compared with)."""
    constant = next((run for run in runs if is_constant(run) and curves(run)), None)
    found = [outcome(run, None if run == constant else constant) for run in runs]
    return [one for one in found if one is not None], constant


def lines(found: Sequence[Outcome], constant: Path | None) -> list[str]:
    """A table of runs: losses before and after of each part, transient and recovery, pay-back step; and the advice."""
    if not found:
        return []
    names = list(dict.fromkeys(name for one in found for name in one.parts))
    rows = [["run", *(f"{name}: loss before -> after" for name in names), "transient of old", "at step", "back at step", "pays back at step"]]
    for one in found:
        losses = [f"{one.parts[name]['first']:.3f} -> {one.parts[name]['last']:.3f}" if name in one.parts else "-" for name in names]
        rise = ["-", "-", "-"] if one.transient is None else _rise_cells(one.transient)
        is_base = constant is not None and one.run == constant.name
        paid = "constant rate" if is_base else "-" if constant is None else "never" if one.pay_back_step is None else f"{one.pay_back_step:,}"
        rows.append([one.run, *losses, *rise, paid])
    advised = [f"{one.run}: {one.advice(constant is not None)}" for one in found if constant is None or one.run != constant.name]
    return ["Held-out loss of each part (nats a token); a rise at first is what re-warming does:", *aligned(rows), *advised]


def _rise_cells(rise: Transient) -> list[str]:
    back = "-" if rise.height <= 0 else "never" if rise.recovery is None else f"{rise.recovery:,}"
    return [f"{rise.height:+.3f}", f"{rise.step:,}", back]


def closing_lines(run: Path) -> list[str]:
    """What the end of a run with named parts says of them."""
    found = outcome(run)
    if found is None:
        return []
    told = ", ".join(f"{name} {part['first']:.3f} -> {part['last']:.3f}" for name, part in found.parts.items())
    lines = [f"Held-out loss ({read_run(run).get('part_unit', 'nats a token')}): {told}."]
    if found.transient is not None and found.transient.height > 0:
        rate_rose = not is_constant(run)
        lines.append(found.transient.sentence(rate_rose))
        if rate_rose:
            lines.append(found.advice(compared=False))
    return lines


def write_record(export: Path, run: Path, info: Mapping[str, Any]) -> None:
    """rewarm.json beside an export: schedule, losses before and after, and the hashes of the model that the run began with.

    Args:
        info: run.json of the finished run.
    """
    config, found = info["config"], outcome(run)
    record = {
        "format_version": 1,
        "schedule": config["rewarm"],
        "peak": config["optimizer"]["learning_rate"],
        "steps": info["totals"]["steps"],
        "upstream": info.get("began_with"),
        "losses": None if found is None else found.parts,
        "transient": None if found is None or found.transient is None else asdict(found.transient),
    }
    write_json(export / RECORD, record)
