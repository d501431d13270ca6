"""What came of a planned run: predicted and measured losses, the price in old skills, the transient, and the naive run beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from headstart.core.errors import BadInput
from headstart.core.words import share, signed
from headstart.engine.device import resolve_device
from headstart.tasks.generation import Decoder
from headstart.tasks.multiple_choice import metric_of, pick, read_items, score_items
from headstart.verbs._exports import newest_export
from headstart.verbs._sweep import DOMAIN, GENERAL
from headstart.verbs.forgetting import Outcome, Transient, outcome

LOSSES = {"general_loss": GENERAL, "domain_loss": DOMAIN}


@dataclass(frozen=True)
class Told:
    """One run of the report.

    Attributes:
        outcome: its losses before and after, transient and pay-back step.
        items: (right before, right after, of how many) multiple-choice items of old knowledge; None: none were given.
    """

    name: str
    outcome: Outcome
    items: tuple[int, int, int] | None = None

    def change(self, part: str) -> float:
        """Bits a byte of held-out text, after minus before: of old text the price in old skills."""
        found = self.outcome.parts[part]
        return found["last_bits_per_byte"] - found["first_bits_per_byte"]

    def to_json(self) -> dict[str, Any]:
        return {"name": self.name, **asdict(self.outcome), "items": self.items, "forgetting_bits_per_byte": self.change(GENERAL)}


def told(name: str, run: Path, constant: Path | None = None, items: tuple[int, int, int] | None = None) -> Told:
    """A finished run.

    Args:
        constant: the run that it has to pay back against.

    Raises:
        BadInput: its held-out losses are not there.
    """
    found = outcome(run, constant, DOMAIN)
    if found is None or not {DOMAIN, GENERAL} <= found.parts.keys():
        raise BadInput("lacks held-out losses of both texts.", "Delete this run; the same command makes it again.", file=run)
    return Told(name, found, items)


def report(
    recommended: Path,
    naive: Path | None,
    info: Mapping[str, Any],
    right: Callable[[Path], tuple[int, int, int] | None],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """The entry "report" of cpt.json, said as well.

    Args:
        naive: what stands beside it.
        info: cpt.json so far.
        right: run -> items of old knowledge that were and are right, and how many there are; None: none were given.
    """
    found = [told("recommended", recommended, naive, right(recommended))]
    found += [] if naive is None else [told("naive", naive, None, right(naive))]
    parts = found[0].outcome.parts
    measured = {name: parts[part]["last"] for name, part in LOSSES.items()}
    errors = {name: measured[name] - info["predicted"][name]["value"] for name in measured}
    kept = measured["general_loss"] <= (1 + info["limit"]) * info["before"][GENERAL]
    for line in lines(found, info, errors, kept):
        say(line)
    return {
        "measured": measured,
        "measured_minus_predicted": errors,
        "limit_kept": kept,
        "runs": [one.to_json() for one in found],
    }


class OldItems:
    """Multiple-choice items of old knowledge, asked of the model before training and of what became of it."""

    def __init__(self, file: Path | None, before: Path, device: str) -> None:
        self.items = [] if file is None else read_items(file)
        self.device = resolve_device(device)
        self.right_before = self._right(before) if self.items else 0

    def of(self, run: Path) -> tuple[int, int, int] | None:
        """(right before, right after, of how many); None: none were given."""
        return (self.right_before, self._right(newest_export(run)), len(self.items)) if self.items else None

    def _right(self, export: Path) -> int:
        scored = score_items(Decoder.load(export), self.items, self.device)
        pairs = zip(scored.items, scored.log_probs, strict=True)
        return sum(pick(sums, item.choices, metric_of(item.task)) == item.answer for item, sums in pairs)


def rise_words(rise: Transient) -> str:
    """The stability gap of the old loss: how far it rose, and when it was back."""
    if rise.height <= 0:
        return "the old loss never rose"
    back = "not back within the run" if rise.recovery is None else f"back at step {rise.recovery:,}"
    return f"the old loss rose by up to {rise.height:.3f} (step {rise.step:,}), {back}"


def lines(found: Sequence[Told], info: Mapping[str, Any], errors: Mapping[str, float], kept: bool) -> list[str]:
    """What a person reads."""
    parts = found[0].outcome.parts
    said = ["", "What came of it:"]
    for name, part in LOSSES.items():
        predicted, before, after = info["predicted"][name], parts[part]["first"], parts[part]["last"]
        low, high = predicted["low"], predicted["high"]
        inside = "" if low is None else ", within its interval" if low <= after <= high else ", outside its interval"
        what = name.replace("_", " ")
        said.append(f"  {what}: {before:.4f} before, {after:.4f} after; predicted {predicted['value']:.4f} ({signed(errors[name])}{inside})")
    rise = parts[GENERAL]["last"] / parts[GENERAL]["first"] - 1
    said.append(f"  The limit of {share(info['limit'])} is {'kept' if kept else 'BROKEN'}: the general loss changed by {signed(100 * rise)} %.")
    for one in found:
        items = "" if one.items is None else f", {one.items[0] - one.items[1]} of {one.items[2]} items of old knowledge lost"
        dip = "" if one.outcome.transient is None else f"; {rise_words(one.outcome.transient)}"
        price = f"price in old skills {signed(one.change(GENERAL))} bits a byte{items}"
        said.append(f"  {one.name}: {price}; new text {signed(one.change(DOMAIN))} bits a byte{dip}")
    if len(found) > 1:
        step = found[0].outcome.pay_back_step
        said.append(f"  On new text it is below the naive run {'at no step' if step is None else f'from step {step:,} on'}.")
    return said
