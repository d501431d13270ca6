"""What `fit` takes: the same fields in Python and on the command line. No NumPy here, so that a wrong flag is refused at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headstart.core.bounds import ABOVE_0, MOST, Bounds, refuse_outside
from headstart.core.errors import BadInput, UsageError
from headstart.core.files import read_json
from headstart.core.places import Folder, refuse_folder
from headstart.core.words import did_you_mean

LAWS = ("dcpt-law",)
RESULT = Folder("law.json", ("slug", "laws"), ("predictions.csv", "bootstrap.csv", "*.svg"))
"""What --out holds."""
LIMIT = Bounds(0, 1, "Give a share: 0.03 for 3 %.", below=True)
DRAWS = Bounds(0, MOST, "Give 0 for none, or 200.")
RATIO = Bounds(0, 1, "A ratio is from 0 to 1.")
BOUNDS = {
    **dict.fromkeys(("unit_n", "unit_d", "general_loss", "at_n", "at_d", "domain_tokens", "flops", "unique_tokens", "k1", "k2"), ABOVE_0),
    **dict.fromkeys(("sizes", "target"), ABOVE_0),
    "at_r": RATIO,
    "limit": LIMIT,
    "draws": DRAWS,
}


@dataclass
class FitSettings:
    """A law, fitted to losses of short runs."""

    law: str = "dcpt-law"
    """Which law: dcpt-law, of continued pre-training on a mixture."""
    points: tuple[Path, ...] = ()
    """.csv, .tsv, .jsonl or .parquet files with columns N, D, r_d, loss_domain, loss_general; optional run, seed, domain, k1, k2. Or runs
    of `pretrain` with --init and --mix at a constant rate, or a folder of such runs."""
    held_out: tuple[Path, ...] = ()
    """Files of further points that are only predicted: the error on them is printed."""
    columns: Path | None = None
    """A YAML file that maps our names of columns to those of the files: `loss_domain: val/med`."""
    unit_n: float = 1.0
    """How many parameters a 1 in column N stands for: 1e9 for billions. --at-n and --sizes count alike."""
    unit_d: float = 1.0
    """How many tokens a 1 in column D stands for. --at-d, --domain-tokens and --unique-tokens count alike."""
    domain_part: str = "new"
    """Of runs: the part of `pretrain`'s --data whose share is r_d."""
    general_part: str = "old"
    """Of runs: the part that stands for the old text."""
    domain: str | None = None
    """Of a table with several domains, fit this one."""
    across_domains: bool = False
    """One law of the domain loss for all domains of the table, which then needs k1 and k2: the cross-domain law."""
    without: Literal["N"] | None = None
    """N: leave out A / N^alpha, for runs of one size."""
    fix: tuple[str, ...] = ()
    """Parameters that keep a value: `--fix alpha=0.25 eta=1.3`; of the general loss too."""
    allow_nonmonotone: bool = False
    """Fit although the loss rises with the size in most cells."""
    keep_transient: bool = False
    """Keep the points before the general loss of the run without domain text has passed its maximum."""
    draws: int = 200
    """Refits on resampled runs, for intervals; 0: none."""
    limit: tuple[float, ...] = ()
    """Question 1: by how much the general loss may rise, 0.03 for 3 %: which r_d? Needs --general-loss, --at-n, --at-d."""
    general_loss: float | None = None
    """General loss of the checkpoint before training, measured on the same windows as the points."""
    at_n: float | None = None
    """Size of the planned run; may be left out where all points are of one size."""
    at_d: float | None = None
    """Tokens of the planned run."""
    at_r: float | None = None
    """Share r_d of the planned run: with --at-d both losses are predicted; of questions 3 and 4."""
    domain_tokens: float | None = None
    """Question 2: with so many domain tokens, each read once, which r_d? Needs --at-n."""
    flops: float | None = None
    """Question 3: for so many FLOPs (6 N D), which size and how many tokens? Needs --at-r."""
    sizes: tuple[float, ...] = ()
    """The sizes that there are, for question 3; none: any."""
    target: tuple[float, ...] = ()
    """Question 4: how many tokens for this domain loss? Needs --at-n and --at-r."""
    unique_tokens: float | None = None
    """Domain tokens that there are, to count the epochs of question 1."""
    anneal_general: float = 0.0
    """By how much annealing lowers the general loss, where the points are of a constant rate and the planned run is annealed."""
    anneal_domain: float = 0.0
    """The same of the domain loss."""
    k1: float | None = None
    """Of a new domain, with --across-domains: its loss before training."""
    k2: float | None = None
    """Its decline per 1,000 steps in a short run at r_d = 1 on the smallest size."""
    out: Path | None = None
    """The folder of the law; None: runs/laws/NAME, NAME being that of the first file."""
    json: bool = False
    """Print law.json."""
    debug: bool = False
    """Show tracebacks."""

    def fixed(self) -> dict[str, float]:
        """Name -> value of --fix.

        Raises:
            UsageError: not of the form name=value.
        """
        found = {}
        for entry in self.fix:
            name, equals, value = entry.partition("=")
            try:
                found[name.strip()] = float(value)
            except ValueError:
                equals = ""
            if not equals or not math.isfinite(found[name.strip()]):
                raise UsageError(f"--fix {entry}.", "Write a name and a value: --fix alpha=0.25.")
        return found


def check(settings: FitSettings) -> None:
    """Refuses, before a file is read, what cannot be fitted or asked.

    Raises:
        UsageError: a setting, or what a question lacks.
    """
    refuse_outside(settings, BOUNDS)
    if settings.law.replace("_", "-") not in LAWS:
        raise UsageError(f"There is no law '{settings.law}'.", f"{did_you_mean(settings.law, LAWS)}The laws: {', '.join(LAWS)}.")
    if not settings.points:
        raise UsageError("No points are given.", "example: headstart fit dcpt-law losses.csv")
    settings.fixed()
    _check_questions(settings)
    folder = law_folder(settings)
    refuse_folder(folder, ours=RESULT)
    _refuse_other_points(folder, settings.points)


def _refuse_other_points(folder: Path, points: Sequence[Path]) -> None:
    """A law may be fitted anew, of a table or a folder of runs that has grown too; not of others, whose law would be gone."""
    if not (folder / RESULT.file).is_file():
        return
    try:
        of = [str(entry.get("file", entry.get("run"))) for entry in read_json(folder / RESULT.file)["points"]["files"]]
    except (BadInput, KeyError, TypeError, AttributeError):  # of a claim, which has its own folder
        return
    asked = {path.absolute() for path in points}
    if gone := [one for one in of if asked.isdisjoint((Path(one).absolute(), *Path(one).absolute().parents))]:
        changed = f"{', '.join(gone[:6])} -> {', '.join(map(str, points[:6]))}"
        raise UsageError(f"{folder} holds a law of other points ({changed}).", "Give another --out.")


def law_folder(settings: FitSettings) -> Path:
    """Where the law goes."""
    return settings.out if settings.out is not None else Path("runs") / "laws" / settings.points[0].name.split(".")[0]


def _check_questions(settings: FitSettings) -> None:
    needs: list[tuple[bool, str, tuple[str, ...]]] = [
        (bool(settings.limit), "--limit", ("general_loss", "at_d")),
        (settings.flops is not None, "--flops", ("at_r",)),
        (bool(settings.target), "--target", ("at_r",)),
        (bool(settings.sizes), "--sizes", ("flops",)),
        (settings.unique_tokens is not None, "--unique-tokens", ("at_d",)),
        (settings.k1 is not None, "--k1", ("k2", "at_d", "at_r")),
        (settings.k2 is not None, "--k2", ("k1",)),
    ]
    for asked, flag, names in needs:
        if asked and (missing := [f"--{name.replace('_', '-')}" for name in names if getattr(settings, name) is None]):
            raise UsageError(f"{flag} needs {' and '.join(missing)}.", "`headstart fit --help` says what each question takes.")
    if settings.at_r is not None and settings.at_d is None and settings.flops is None and not settings.target:
        raise UsageError("--at-r alone asks nothing.", "Add --at-d for both losses at a point, or --flops or --target.")
    if settings.at_d is not None and settings.at_r is None and not settings.limit and settings.unique_tokens is None:
        raise UsageError("--at-d alone asks nothing.", "Add --at-r for both losses at a point, or --limit or --unique-tokens.")
    if settings.at_r == 0 and (settings.flops is not None or settings.target):
        raise UsageError("--at-r is 0.", "Questions 3 and 4 are of a run with domain text: give a share above 0.")
    if settings.k1 is not None and not settings.across_domains:
        raise UsageError("--k1 and --k2 are of the cross-domain law.", "Add --across-domains.")
    if settings.across_domains and (settings.limit or settings.domain_tokens or settings.flops or settings.target):
        raise UsageError("The cross-domain law answers no question but --at-r.", "Fit the sweep of one domain for the others: --domain NAME.")
    if settings.across_domains and (settings.domain or settings.without or settings.fix):
        raise UsageError("--across-domains is fitted whole.", "Leave out --domain, --without and --fix.")
