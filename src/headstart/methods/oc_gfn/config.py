"""Settings and presets of OC-GFN: the sizes of its experiments, and what two minutes on a CPU can do."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from headstart import catalog
from headstart.core.bounds import FROM_0, SHARE, Bounds, refuse_outside
from headstart.core.errors import UsageError
from headstart.data.environments.config import EnvironmentConfig
from headstart.engine.config import Preset, Settings

BOUNDS = {
    "fail_floor": Bounds(0, 1, "Give a number between 0 and 1, for example 1e-4.", above=True, below=True),
    "epsilon": SHARE,
    "novelty": Bounds(0, math.inf, "Give a positive number, or take --method.explore uniform.", above=True, below=True),
    "explorer_rate": FROM_0,
    "log_z_rate": FROM_0,
}


@dataclass
class OCGFNConfig:
    """Networks, losses, and where requested outcomes come from."""

    hidden_size: int = 256
    """Width of the hidden layers."""
    num_layers: int = 2
    """Hidden layers of the trunk."""
    objective: Literal["ot", "db"] = "ot"
    """ot: the reward of the end enters every transition (outcome teleportation, the paper's); db: detailed balance, where it enters the last."""
    contrastive: bool = True
    """Learn from a success for each outcome beside the own attempt (Algorithm 1); off: from attempts alone."""
    explore: Literal["gafn", "uniform"] = "gafn"
    """Who proposes outcomes. gafn: a flow network of its own that is paid for novelty; uniform: random actions."""
    backward: Literal["uniform", "learned"] = "uniform"
    """P_B where a state has several parents; a tree has none to choose."""
    fail_floor: float = 1e-4
    """What an attempt that misses its outcome is worth instead of 0, whose logarithm does not exist. GAFN's constant: 1e-8."""
    mask_fail: bool = False
    """Learn nothing from attempts that miss. It does not work (specification, check 4); kept to show that."""
    reduction: Literal["sum", "mean_transitions"] = "sum"
    """Of the transitions of a trajectory. Over trajectories it is always the mean."""
    epsilon: float = 0.0
    """Share of uniform actions in attempts. With outcome teleportation each failure that it causes pulls down log F of a good beginning."""
    anneal_epsilon: bool = False
    """Let epsilon fall to 0 over the first half of the run."""
    novelty: float | None = None
    """gafn: eta, the weight of the intrinsic reward. None: 0.005, on grids of 32 and 128 cells a side 0.001, as in GAFN's code."""
    explorer_rate: float = 1.0
    """gafn: learning rate of its networks, in learning rates of the run. The paper's neighbours: 1e-3."""
    log_z_rate: float = 100.0
    """gafn: learning rate of its log Z, in learning rates of the run. The code: 0.1 beside 1e-3."""

    def check(self, data: EnvironmentConfig | None = None) -> None:
        """Refuses what no run can have, before an environment is made. Raises UsageError."""
        self.check_own()
        if self.hidden_size < 1 or self.num_layers < 1:
            raise UsageError(f"A network of {self.num_layers} layers of width {self.hidden_size} cannot be built.", "Give at least 1 of each.")

    def check_own(self) -> None:
        """The same of what a model of --init does not bring."""
        refuse_outside({name: getattr(self, name) for name in BOUNDS}, BOUNDS, "method.")


@dataclass
class AdaptConfig:
    """How a pre-trained sampler is adapted to a reward."""

    hidden_size: int = 256
    """Width of N and Q."""
    num_layers: int = 2
    """Their hidden layers."""
    batch: int = 8
    """Trajectories of an update. The specification: 32, which leaves 9 updates of 2,000 calls (8: 34) and a mean of the best 100 of .54 instead of
    .59 (three tasks of TF-Bind-8, 1 outcome)."""
    learning_rate: float = 1e-3
    """Adam's."""
    outcomes: int = 1
    """m: outcomes that Q draws for each edge; the one that the trajectory reached comes on top. Each is a call unless it is known: with 4, the
    specification's for all but TF-Bind-8, a batch of 32 spends 2,000 calls in 3 updates."""
    temperature: float = 2.0
    """Q's logits are divided by it when it draws."""
    epsilon: float = 0.05
    """Share of uniform actions when N builds objects. Peptides: 0.01."""
    clip_norm: float = 10.0
    """Gradients are scaled down to this global norm."""
    replay: int = 0
    """Further updates for each, on objects that are scored already: they cost no call."""
    way: Literal["amortised", "full", "sampled", "exact"] = "amortised"
    """amortised: N and Q beside the frozen network (Algorithm 2); full: a copy of the network, its outcome left empty, taught the conversion and then
    trained by trajectory balance; sampled, exact: nothing is trained, the conversion (Eq. 6) sums over as many random objects as there are calls, or
    over all there are."""


def _preset(hidden_size: int, batch: int, rate: float, steps: int, log_z: float = 0.1, **data: object) -> Preset:
    """A column of the specification's table; the exploration networks learn at 1e-3 always."""
    config = OCGFNConfig(hidden_size=hidden_size, explorer_rate=1e-3 / rate, log_z_rate=log_z / rate)
    return Preset(
        config,
        batch=batch,
        optimizer={"learning_rate": rate, "weight_decay": 0.0, "clip_norm": 10.0},
        schedule={"name": "constant", "warmup_share": 0.0},
        data=data,
        steps=steps,
    )


PRESETS: dict[str, Preset] = {
    "tiny": _preset(256, 32, 1e-3, 2_000),
    "grid": _preset(256, 16, 1e-3, 20_000, side=32),
    "bits": _preset(512, 32, 1e-3, 50_000, length=40, word_bits=4),
    "tfbind8": _preset(256, 32, 1e-3, 10_000),
    "rna": _preset(512, 32, 5e-4, 30_000),
    "amp": _preset(1024, 32, 1e-4, 50_000, log_z=5e-3),
}

SETTINGS = Settings(catalog.card("oc_gfn"), OCGFNConfig, PRESETS, EnvironmentConfig, "environment")
