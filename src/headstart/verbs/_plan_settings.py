"""What `plan` takes: the same fields in Python and on the command line. No torch here, so that a wrong flag is refused at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from headstart.core.bounds import ABOVE_0, COUNT, MINUTES, SEED, STEPS, TOKENS, Bounds, refuse_outside
from headstart.core.device_names import check_device
from headstart.core.errors import UsageError
from headstart.core.places import Folder, refuse_folder
from headstart.verbs._fit_settings import DRAWS, LIMIT, RATIO, RESULT
from headstart.verbs.config import refuse_absent_data, refuse_no_folder

PLANS = ("dcpt", "cpt")
MOST_PLANNING = 0.5
"""Share of a budget that may be planned with."""
BOUNDS = {
    "peak": ABOVE_0,
    **dict.fromkeys(("tokens", "at_d", "budget.tokens"), TOKENS),
    "budget.minutes": MINUTES,
    "budget.steps": STEPS,
    **dict.fromkeys(("batch", "sequence_length", "seeds"), COUNT),
    "ratios": RATIO,
    "limit": LIMIT,
    "held_out_share": Bounds(0, 1, "Give a share above 0 and below 1.", above=True, below=True),
    "planning_share": Bounds(0, MOST_PLANNING, f"Give a share above 0, at most {MOST_PLANNING:g}.", above=True),
    "draws": DRAWS,
    "seed": SEED,
}
"""Of both kinds of plan."""
SWEEP = Folder("law/law.json", RESULT.fields, ("law", "runs", "points.parquet"))
"""What --out of a sweep holds."""


@dataclass
class SweepSettings:
    """Short runs at several mixtures, and the law that is fitted to them."""

    general: tuple[str, ...] = ()
    """Text like what the models were trained on before: files, folders, globs or a prepared store."""
    domain: tuple[str, ...] = ()
    """The new text."""
    general_held_out: tuple[str, ...] = ()
    """Its held-out text, where that is a file of its own; none: --held-out-share of --general."""
    domain_held_out: tuple[str, ...] = ()
    """The same of the new text."""
    checkpoints: tuple[Path, ...] = ()
    """Models of one tokenizer to continue, one a size: runs, exports or transformers folders of causal language models."""
    ratios: tuple[float, ...] = (0.0, 0.1, 0.2, 0.5, 0.8, 1.0)
    """Shares r_d of new text. 0 shows where the transient ends; it and 1 take part in one law only."""
    tokens: float | None = None
    """Length of each run, D_max."""
    peak: float | None = None
    """The peak rate of the run that is planned; a sweep goes at half of it, constant. None: the peak that the run of a checkpoint recorded."""
    batch: int | None = None
    """Rows of an update; None: as the checkpoint's run, or 32."""
    sequence_length: int | None = None
    """Tokens of a row; None: as the checkpoint's run, or as many as a model from elsewhere has positions, at most 512."""
    seeds: int = 1
    """Orders of the data, from --seed on; each is a whole sweep."""
    seed: int = 0
    """Decides the order of the data."""
    held_out_share: float | None = None
    """Share of documents that is kept for the losses, where no held-out files are given; they should have 30,000 tokens or more. None: that of the
    run of the first checkpoint, which was then trained on none of them; of a model from elsewhere 0.05."""
    limit: tuple[float, ...] = ()
    """By how much the general loss may rise, 0.03 for 3 %: the best r_d for the largest checkpoint at --at-d."""
    at_d: float | None = None
    """Tokens of the run that is planned."""
    fix: tuple[str, ...] = ()
    """Parameters of the law that keep a value: with two checkpoints `--fix alpha=0.25`, which two sizes cannot tell."""
    draws: int = 200
    """Refits on resampled runs, for intervals; 0: none."""
    keep_weights: bool = False
    """Keep the models of the sweep; otherwise a finished run keeps its losses only."""
    out: Path | None = None
    """The folder of the sweep; None: runs/plans/dcpt-NAME, NAME being that of the new text."""
    device: str = "auto"
    """auto, cpu or cuda."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the runs."""
    text_field: str = "text"
    """Field of .jsonl records, column of tables, that holds the text."""
    json: bool = False
    """Print law.json and the commands."""
    debug: bool = False
    """Show tracebacks."""


@dataclass
class CptBudget:
    """What may be spent in all, planning included."""

    minutes: float | None = None
    """Minutes of training on this machine."""
    tokens: float | None = None
    """Tokens of training."""
    steps: int | None = None
    """Updates of --batch rows."""


@dataclass
class CptSettings:
    """A continued model, planned: which mixture, schedule, epochs; what it costs the old skills; and, with --run, the run itself."""

    init: Path | None = None
    """The causal language model to continue: a run, an export or a transformers folder."""
    domain: tuple[str, ...] = ()
    """The new text: files, folders, globs or a prepared store."""
    general: tuple[str, ...] = ()
    """Text like what the model was trained on before; none: the store of --init, where that is one of our runs."""
    domain_held_out: tuple[str, ...] = ()
    """Held-out text of the new domain, where that is a file of its own; none: --held-out-share of --domain."""
    general_held_out: tuple[str, ...] = ()
    """The same of the old text."""
    budget: CptBudget = field(default_factory=CptBudget)
    limit: float = 0.03
    """By how much the general loss may rise over that of --init: 0.03 is 3 %."""
    planning_share: float = 0.2
    """Of the budget, for the runs of the sweep, at most 0.5. At 0.2 the long run is 24 times as long as each of them, at 0.4 it is 9 times: the
    longer the sweep, the less is guessed."""
    reference: tuple[str, ...] = ()
    """A little good text of the domain: where there is more new text than the run reads, the part that is most like it is taken, several times."""
    peak: float | None = None
    """Peak rate of the run; None: that which the run of --init recorded."""
    batch: int | None = None
    """Rows of an update; None: as the run of --init, or 32."""
    sequence_length: int | None = None
    """Tokens of a row; None: as the run of --init, or as many as a model from elsewhere has positions, at most 512."""
    run: bool = False
    """Also run what is recommended, and report what came of it."""
    baseline: bool = True
    """With --run, beside it: the naive continuation (new text alone, all of it, at the old rate) with as many tokens."""
    flattest: bool = False
    """With --run: keep its last checkpoints, and of those whose losses are within 0.01 nat name the flattest (of `measure sharpness`)."""
    items: Path | None = None
    """With --run: multiple-choice items of old knowledge (.jsonl), to count how many are lost."""
    seed: int = 0
    """Decides the order of the data."""
    held_out_share: float | None = None
    """Share of documents that is kept for the losses, where no held-out files are given; they should have 30,000 tokens or more. None: that of the
    run of --init, which was then trained on none of them; of a model from elsewhere 0.05."""
    draws: int = 200
    """Refits on resampled runs, for intervals; 0: none."""
    keep_weights: bool = False
    """Keep the models of the sweep; otherwise a finished run of it keeps its losses only."""
    out: Path | None = None
    """The folder of the plan; None: runs/plans/cpt-NAME, NAME being that of the new text."""
    device: str = "auto"
    """auto, cpu or cuda."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the runs."""
    text_field: str = "text"
    """Field of .jsonl records, column of tables, that holds the text."""
    json: bool = False
    """Print cpt.json."""
    debug: bool = False
    """Show tracebacks."""


def check_sweep(settings: SweepSettings) -> None:
    """Refuses, before anything is read, what no sweep can have.

    Raises:
        UsageError: a setting. BadInput: an entry of the data that is not there.
    """
    example = "example: headstart plan dcpt --general old.jsonl --domain new.jsonl --checkpoints runs/small runs/large --tokens 1e6 --peak 3e-4"
    refuse_outside(settings, BOUNDS)
    check_device(settings.device)
    _needed({"--general": settings.general, "--domain": settings.domain, "--checkpoints": settings.checkpoints}, example)
    if settings.tokens is None:
        raise UsageError("--tokens is missing: how long each run is.", example)
    if len(set(settings.ratios)) != len(settings.ratios):
        raise UsageError("--ratios holds one twice.", "Give each once; --seeds repeats the sweep.")
    if len([ratio for ratio in settings.ratios if ratio < 1]) < 4 or len([ratio for ratio in settings.ratios if ratio > 0]) < 4:
        raise UsageError(f"{len(settings.ratios)} ratios.", "The law of each loss needs four at which its text has a share.")
    if settings.limit and settings.at_d is None:
        raise UsageError("--limit needs --at-d.", "Say how many tokens the planned run has.")
    for folder in settings.checkpoints:
        refuse_no_folder(folder)
    if len({folder.absolute() for folder in settings.checkpoints}) != len(settings.checkpoints):
        raise UsageError("--checkpoints holds one twice.", "Give each size once.")
    refuse_absent_data((*settings.general, *settings.domain, *settings.general_held_out, *settings.domain_held_out))
    refuse_folder(sweep_folder(settings), ours=SWEEP)


def sweep_folder(settings: SweepSettings) -> Path:
    """Where the sweep and its law go."""
    return settings.out or Path("runs") / "plans" / f"dcpt-{Path(settings.domain[0]).name.split('.')[0]}"


def check_cpt(settings: CptSettings) -> None:
    """As `check_sweep`, for a plan of one model."""
    example = "example: headstart plan cpt --init runs/causal-lm-tiny-0 --general old.jsonl --domain new.jsonl --budget.minutes 60"
    refuse_outside(settings, BOUNDS)
    check_device(settings.device)
    if settings.init is None:
        raise UsageError("--init is missing: which model to continue.", example)
    _needed({"--domain": settings.domain}, example)
    given = [name for name in ("minutes", "tokens", "steps") if getattr(settings.budget, name) is not None]
    if len(given) != 1:
        what = "No budget is given." if not given else "More than one budget is given."
        raise UsageError(what, "Give one of --budget.minutes, --budget.tokens, --budget.steps.")
    refuse_no_folder(settings.init)
    files = (*settings.general, *settings.domain, *settings.reference, *settings.general_held_out, *settings.domain_held_out)
    refuse_absent_data((*files, *([] if settings.items is None else [str(settings.items)])))
    refuse_folder(settings.out or "runs")


def _needed(given: dict[str, Sequence[object]], example: str) -> None:
    if missing := [name for name, value in given.items() if not value]:
        raise UsageError(f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing.", example)
