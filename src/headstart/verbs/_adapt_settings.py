"""What `adapt` takes: the same fields in Python and on the command line. No torch here: the command line refuses at once."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from headstart.core.bounds import ABOVE_0, COUNT, COUNT_FROM_0, SEED, SHARE, refuse_outside
from headstart.core.config import differences
from headstart.core.errors import BadInput, UsageError
from headstart.core.files import read_json
from headstart.core.places import Folder, refuse_folder
from headstart.data.environments.config import HOW_TO_GIVE, reward_file
from headstart.methods.oc_gfn.config import AdaptConfig

BOUNDS = {
    **dict.fromkeys(("calls", "best", "adapter.hidden_size", "adapter.num_layers", "adapter.batch", "adapter.outcomes"), COUNT),
    **dict.fromkeys(("adapter.learning_rate", "adapter.temperature", "adapter.clip_norm"), ABOVE_0),
    "adapter.epsilon": SHARE,
    "adapter.replay": COUNT_FROM_0,
    "seed": SEED,
}
RESULT = Folder("adapter.json", ("environment", "way", "reward"), ("objects.csv", "built.csv", "adapter.safetensors"))
"""What --out holds."""


@dataclass
class AdaptSettings:
    """Adapting a pre-trained sampler of objects to a reward."""

    reward: str | None = None
    """FILE.py:FUNCTION (a list of strings in, as many numbers of at least 0 out); a .csv, .tsv or .parquet file with the columns sequence and value;
    FILE.npz:NAME, one factor of a file like that of TF-Bind-8; or builtin:NAME (corners, sparse, modes, rna:TARGETS.tsv, amp), a reward of the
    paper's tasks."""
    calls: int = 2000
    """Distinct objects to score while training; the last update is finished, and may score more. In the end each trained policy builds 256 objects,
    which are scored too; what they cost is said."""
    best: int = 20
    """Of the best objects that are printed."""
    baseline: bool = True
    """Also look in the other ways of `against`, with as many calls."""
    against: tuple[Literal["scratch", "scratch-db", "scratch-subtb", "mcmc", "dqn", "random"], ...] = ("scratch", "random")
    """scratch: a flow network from scratch, by trajectory balance; scratch-db, scratch-subtb: by detailed or sub-trajectory balance; mcmc: Markov
    chains that change one letter; dqn: Q-learning, which looks for the best object alone; random: chance, no small opponent among few objects."""
    seed: int = 0
    """Decides first weights and every draw."""
    out: Path | None = None
    """The folder for objects and networks; None: runs/adapted/RUN."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto, cpu or cuda."""
    json: bool = False
    """Print the result as JSON."""
    debug: bool = False
    """Show tracebacks."""
    adapter: AdaptConfig = field(default_factory=AdaptConfig)


def check(run: Path, settings: AdaptSettings) -> None:
    """Refuses, before anything is loaded, what cannot be done.

    Raises:
        UsageError: something is not given, or no number for it. BadInput: something is not there.
    """
    refuse_outside(settings, BOUNDS)
    if settings.reward is None:
        raise UsageError("--reward is missing.", "example: headstart adapt runs/oc_gfn-tiny-0 --reward score.py:score --calls 2000")
    if not run.is_dir():
        raise BadInput("is not a folder.", "Give a run of oc_gfn.", file=run)
    file = reward_file(settings.reward)
    if file is not None and not file.exists():
        raise BadInput("does not exist.", HOW_TO_GIVE, file=file)
    refuse_folder(adapted_folder(run, settings), ours=RESULT)
    _refuse_other_search(run, settings)


def adapted_folder(run: Path, settings: AdaptSettings) -> Path:
    """Where objects and networks go."""
    return settings.out or Path("runs") / "adapted" / run.absolute().name


def asked(run: Path, settings: AdaptSettings) -> dict[str, Any]:
    """What decides the objects that are found, beside the settings of the adapter; `RESULT` has it."""
    return {"run": str(run), "reward": settings.reward, "calls": settings.calls, "seed": settings.seed}


def _refuse_other_search(run: Path, settings: AdaptSettings) -> None:
    """Refuses a folder with the objects of another search: each was a call, which may have cost more than a second."""
    path = adapted_folder(run, settings) / RESULT.file
    if not path.is_file():
        return
    before, now = read_json(path), asked(run, settings) | asdict(settings.adapter)
    if changed := differences({name: before[name] for name in before if name in now}, {name: now[name] for name in now if name in before}):
        listed = "; ".join(f"{name}: {old!r} -> {new!r}" for name, old, new in changed[:6])
        raise UsageError(f"{path.parent} holds the objects of another search ({listed}).", "Give another --out, or the settings of before.")
