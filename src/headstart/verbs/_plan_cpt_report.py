"""What came of a planned run: predicted and measured losses, the price in old skills, the transient, and the naive run beside it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from headstart.core.errors import BadInput
from headstart.core.run import read_lines
from headstart.core.words import share, signed
from headstart.verbs._sweep import DOMAIN, GENERAL

BITS = "bits_per_byte/"
NAMES = {"general": GENERAL, "domain": DOMAIN}


@dataclass(frozen=True)
class Comparison:
    """A run that is reported. The first one is what was recommended."""

    name: str
    run: Path


@dataclass(frozen=True)
class Outcome:
    """One run, beside the model that it began with.

    Attributes:
        loss, bits: part -> (before, after), nats a token and bits a byte, on the whole held-out text.
        transient, transient_step: by how much the general loss rose at most over step 0, and where.
        payback_step: from where on the domain loss stays below that of the naive run; None: never, or nothing to compare with.
        items: (right before, right after, of how many) multiple-choice items of old knowledge; None: none were given.
    """

    name: str
    loss: dict[str, tuple[float, float]]
    bits: dict[str, tuple[float, float]]
    transient: float
    transient_step: int
    payback_step: int | None = None
    items: tuple[int, int, int] | None = None

    @property
    def forgetting(self) -> float:
        """The price in old skills: general bits a byte, after minus before."""
        before, after = self.bits[GENERAL]
        return after - before

    @property
    def gain(self) -> float:
        """Domain bits a byte, after minus before: below 0 it learned something."""
        before, after = self.bits[DOMAIN]
        return after - before


def curve(run: Path, probe: str) -> dict[int, float]:
    """Step -> value of a probe."""
    found = ((line.get("step"), line.get("value")) for line in read_lines(run / "probes.jsonl") if line.get("probe") == probe)
    return {int(step): float(value) for step, value in found if isinstance(step, int) and isinstance(value, float) and math.isfinite(value)}


def outcome(name: str, run: Path) -> Outcome:
    """What a finished run says of itself.

    Raises:
        BadInput: its held-out losses are not there.
    """
    losses = {part: curve(run, f"held_out_loss/{part}") for part in NAMES.values()}
    bits = {part: curve(run, BITS + part) for part in NAMES.values()}
    if not all(0 in of_part and len(of_part) > 1 for of_part in (*losses.values(), *bits.values())):
        raise BadInput("lacks held-out losses of both texts.", "Delete this run; the same command makes it again.", file=run)
    general = losses[GENERAL]
    highest = max(general, key=lambda step: (general[step], -step))
    ends = lambda of_part: (of_part[0], of_part[max(of_part)])  # noqa: E731
    return Outcome(
        name,
        {part: ends(of_part) for part, of_part in losses.items()},
        {part: ends(of_part) for part, of_part in bits.items()},
        transient=general[highest] - general[0],
        transient_step=highest,
    )


def payback(run: Path, naive: Path) -> int | None:
    """From which measured step on the domain loss of `run` stays below that of `naive`; None: it does not."""
    ours, theirs = (curve(place, f"held_out_loss/{DOMAIN}") for place in (run, naive))
    below: int | None = None
    for step in sorted(ours.keys() & theirs.keys() - {0}):
        if ours[step] < theirs[step]:
            below = step if below is None else below
        else:
            below = None
    return below


def report(
    runs: Sequence[Comparison],
    info: Mapping[str, Any],
    items: Path | None,
    device: str,
    folder: Path,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """The entry "report" of cpt.json, said as well.

    Args:
        runs: the recommended one first, then what stands beside it.
        info: cpt.json so far.
    """
    found = [outcome(one.name, one.run) for one in runs]
    if len(runs) > 1:
        found[0] = Outcome(**{**asdict(found[0]), "payback_step": payback(runs[0].run, runs[1].run)})
    measured = {name: found[0].loss[part][1] for name, part in (("general_loss", GENERAL), ("domain_loss", DOMAIN))}
    errors = {name: measured[name] - info["predicted"][name]["value"] for name in measured}
    kept = measured["general_loss"] <= (1 + info["asked"]["limit"]) * info["before"][GENERAL]
    for line in lines(found, info, errors, kept):
        say(line)
    return {
        "measured": measured,
        "measured_minus_predicted": errors,
        "limit_kept": kept,
        "runs": [asdict(one) | {"forgetting_bits_per_byte": one.forgetting} for one in found],
    }


def lines(found: Sequence[Outcome], info: Mapping[str, Any], errors: Mapping[str, float], kept: bool) -> list[str]:
    """What a person reads."""
    first, limit = found[0], info["asked"]["limit"]
    said = ["", "What came of it:"]
    for name, part in (("general_loss", GENERAL), ("domain_loss", DOMAIN)):
        predicted, (before, after) = info["predicted"][name], first.loss[part]
        low, high = predicted["low"], predicted["high"]
        inside = "" if low is None else ", within its interval" if low <= after <= high else ", outside its interval"
        what = name.replace("_", " ")
        said.append(f"  {what}: {before:.4f} before, {after:.4f} after; predicted {predicted['value']:.4f} ({signed(errors[name])}{inside})")
    rise = first.loss[GENERAL][1] / first.loss[GENERAL][0] - 1
    said.append(f"  The limit of {share(limit)} is {'kept' if kept else 'BROKEN'}: the general loss changed by {signed(100 * rise)} %.")
    for one in found:
        items = "" if one.items is None else f"; {one.items[0] - one.items[1]:+d} of {one.items[2]} items of old knowledge lost"
        said.append(
            f"  {one.name}: price in old skills {signed(one.forgetting)} bits a byte{items}; new text {signed(one.gain)} bits a byte; the old loss"
            f" rose by up to {one.transient:.3f} (step {one.transient_step:,})"
        )
    if len(found) > 1:
        after = "never" if first.payback_step is None else f"from step {first.payback_step:,} on"
        said.append(f"  On new text the recommended run is below the {found[1].name} one {after}.")
    return said
