"""The runs of the D-CPT law's claim: one upstream checkpoint a size, shared by the seeds; a sweep of nine ratios a seed; the recommended ratios.

Losses are of 300 fixed windows of each test split, the same for all runs; those of the val splits decide the recommended ratio and nothing else.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from headstart.claims import _continual
from headstart.core.files import atomic_write
from headstart.core.run import read_run
from headstart.data.text.config import TextConfig
from headstart.data.text.tokenizer import load_tokenizer
from headstart.planning.dcpt_law.plan import evaluation_steps
from headstart.planning.dcpt_law.points import LossTable, read_points
from headstart.verbs._sweep import DOMAIN, GENERAL, Origin, Sweep, origin_of
from headstart.verbs._sweep_points import losses_of, points_of_runs

WINDOWS = 300
VAL_WINDOWS = 150
"""The val splits have no more (19,000 tokens)."""
NARROW, PEAK_NARROW, PEAK = 64, 4e-3, 3e-3
"""Up to this width networks take the higher peak."""
THIRD = 2
"""The size that the recommendation is made for."""
SPLITS: Mapping[str, tuple[str, str]] = {"test": (DOMAIN, GENERAL), "val": (f"{DOMAIN}-val", f"{GENERAL}-val")}
"""Split -> names of the measured parts."""


class Case(NamedTuple):
    """A trained recommendation: general loss before; general and domain loss at r_d; the same at r_d + 0.1."""

    before: float
    general: float
    domain: float
    more_general: float
    more_domain: float


class MeasuredSweep:
    """The sweeps of a claim's folder; what is missing is trained.

    Args:
        options: of the scale: "network" (cpu, gpu), "sizes" ((layers, width), ...), "heads", "steps", "domain".
        folder: of the claim.
        ratios: fitted and held out.
    """

    def __init__(self, options: Mapping[str, Any], folder: Path, ratios: Sequence[float], say: Callable[[str], None]) -> None:
        base = {"cpu": _continual.CPU, "gpu": _continual.GPU, "smoke": _continual.SMOKE}[options["network"]]
        self.networks = [
            dataclasses.replace(base, layers=layers, width=width, heads=options["heads"], peak=PEAK_NARROW if width <= NARROW else PEAK)
            for layers, width in options["sizes"]
        ]
        self.folder, self.ratios, self.say, self.domain = folder, tuple(ratios), say, str(options["domain"])
        self.steps = int(options["steps"])
        self.evaluate_at = evaluation_steps(self.steps)
        self.tables: dict[tuple[int, str], LossTable] = {}

    # --- text ----------------------------------------------------------------------------------------------------------------------------------

    @property
    def shared(self) -> Path:
        """Where the claims on continued training keep what they share."""
        return _continual.shared_data(self.folder / "data")

    @cached_property
    def tokenizer(self) -> Path:
        return _continual.tokenizer(self.networks[0], self.shared)

    def text(self, name: str, split: str) -> list[Path]:
        return _continual.text(name, self.networks[0], split, self.shared)

    @cached_property
    def entries(self) -> tuple[str, ...]:
        """--data of every run."""
        found = []
        for part, name in ((DOMAIN, self.domain), (GENERAL, "textgen")):
            found += [f"{part}={path}" for path in self.text(name, "train")]
        return (*found, *(f"{part}:held-out={path}" for part, path in self.held_out().items()))

    def held_out(self) -> dict[str, Path]:
        """Measured part -> its text, cut after the document that fills its windows."""
        found = {}
        for split, parts in SPLITS.items():
            for part, name in zip(parts, (self.domain, "textgen"), strict=True):
                count = WINDOWS if split == "test" else VAL_WINDOWS
                found[part] = cut(self.text(name, split), self.folder / "data" / f"{name}-{split}.jsonl", self, count)
        return found

    def files(self) -> tuple[Path, ...]:
        return tuple(self.held_out().values())

    def facts(self) -> dict[str, Any]:
        return {
            "name": f"textgen and {self.domain}",
            "source": "SOURCE.md of the two data sets",
            "train": {name: sum(1 for _ in _continual.texts_of(self.text(name, "train"))) for name in ("textgen", self.domain)},
            "test": {"windows of each": WINDOWS, "tokens of a window": self.networks[0].context},
            "split": "by document, as the data sets are; whole runs are held out from the fits",
        }

    # --- runs ----------------------------------------------------------------------------------------------------------------------------------

    def origins(self, device: str) -> list[Origin]:
        """The upstream checkpoints, the smallest first."""
        return [origin_of(run, None, None, None) for run in self.upstream(device)]

    def upstream(self, device: str) -> list[Path]:
        quiet = lambda line: None  # noqa: E731
        return [_continual.upstream(network, 0, self.folder.parent, device, quiet).folder for network in self.networks]

    def sweep(self, device: str) -> Sweep:
        settings = {
            "device": device,
            "precision": self.networks[0].precision,
            "text.tokenizer": str(self.tokenizer),
            "trainer.micro_batch": self.networks[0].batch,
            "trainer.checkpoint_every": self.steps,
            "trainer.log_every": 50,
        }
        return Sweep(self.folder / "sweep", self.entries, self.steps, self.evaluate_at, settings, False, self.say)

    def runs(self, ratios: Iterable[float], seed: int, device: str, sizes: slice = slice(None)) -> list[Path]:
        """The runs of some ratios, of all sizes."""
        sweep = self.sweep(device)
        return [sweep.constant(origin, ratio, seed) for origin in self.origins(device)[sizes] for ratio in ratios]

    def table(self, seed: int, split: str, device: str) -> LossTable:
        """All cells of a seed."""
        if (seed, split) not in self.tables:
            found, _ = points_of_runs(self.runs(self.ratios, seed, device), DOMAIN, GENERAL, SPLITS[split])
            self.tables[seed, split] = read_points(found)
        return self.tables[seed, split]

    def seeds(self) -> list[int]:
        """The seeds that have runs, those of an earlier call included."""
        return sorted({int(run.name.rpartition("-")[2]) for run in self.made()})

    @property
    def device(self) -> str:
        """Where the runs were made."""
        made = self.made()
        return str(read_run(made[0])["config"]["device"]) if made else "cpu"

    def made(self) -> list[Path]:
        return sorted((self.folder / "sweep" / "runs").glob("n*-seed-*"))

    def before(self, seed: int, split: str, device: str) -> float:
        """The general loss of the third checkpoint."""
        run = self.runs(self.ratios[:1], seed, device, slice(THIRD, THIRD + 1))[0]
        return losses_of(run, SPLITS[split])[0][SPLITS[split][1]]

    def case(self, ratio: float, more: float, seed: int, device: str) -> Case:
        """Trains the third size at a ratio and at one above it."""
        found = []
        for run in self.runs((round(ratio, 4), round(more, 4)), seed, device, slice(THIRD, THIRD + 1)):
            losses = losses_of(run, SPLITS["test"])[self.steps]
            found += [losses[GENERAL], losses[DOMAIN]]
        return Case(self.before(seed, "test", device), *found)

    def flops(self, ratios: Iterable[float], seed: int, device: str) -> float:
        """Training FLOPs of the runs of these ratios, all sizes."""
        return float(sum(read_run(run)["totals"]["flops"] for run in self.runs(ratios, seed, device)))

    def upstream_doubts(self) -> list[str]:
        """The guards of the upstream checkpoints that fail."""
        found = [(network, _continual.upstream_guards(run)) for network, run in zip(self.networks, self.upstream(self.device), strict=True)]
        return [f"{network.layers} x {network.width}: {guard.sentence()}" for network, guards in found for guard in guards if not guard.passed]


def cut(files: Sequence[Path], path: Path, sweep: MeasuredSweep, count: int) -> Path:
    """The first documents of `files` that fill `count` windows, the last one cut."""
    if path.is_file():
        return path
    tokenizer, _ = load_tokenizer(str(sweep.tokenizer), TextConfig())
    left, kept = count * sweep.networks[0].context + 1, []
    for text in _continual.texts_of(files):
        encoding = tokenizer.encode(text, add_special_tokens=False)
        if len(encoding.ids) >= left:
            text = text[: encoding.offsets[left - 1][1]]
        kept.append(json.dumps({"text": text}, ensure_ascii=False) + "\n")
        left -= len(encoding.ids) + 1  # with its end of text
        if left <= 0:
            break
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as file:
        file.write("".join(kept).encode())
    return path
