"""`fit`: a scaling law from a table of losses of short runs, and the answers that it was fitted for.

The folder (default runs/laws/NAME, NAME being that of the first file):

    law.json          the laws with their quality, the rival forms, the answers, the warnings
    predictions.csv   every point: measured, predicted, 90 % interval, what it was used for
    bootstrap.csv     the parameters of every refit
    domain.svg, general.svg    loss against the share of its own corpus (needs the extra `report`)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.core.config import read_yaml, replace_nested
from headstart.core.errors import BadInput, MissingDependency, UsageError
from headstart.core.files import atomic_write, sha256_file
from headstart.core.run import read_run
from headstart.core.words import share
from headstart.planning.dcpt_law import ask, figures
from headstart.planning.dcpt_law.answers import Ranges, largest_allowed, limit_of
from headstart.planning.dcpt_law.ask import Answer
from headstart.planning.dcpt_law.domains import beyond, fit_domains
from headstart.planning.dcpt_law.files import write_law, write_predictions
from headstart.planning.dcpt_law.fitted import Fitted, fit_loss, used
from headstart.planning.dcpt_law.forms import L3, Form
from headstart.planning.dcpt_law.points import TOPIC, LossTable, Record, Which, read_points, refuse_rising, rising_in_d, rising_in_n, settled
from headstart.planning.dcpt_law.refit import bootstrap, quality, resample
from headstart.planning.dcpt_law.rollout import errors
from headstart.tasks.data import records
from headstart.verbs import _fit_lines as lines
from headstart.verbs._fit_settings import FitSettings, check, law_folder
from headstart.verbs._sweep_points import is_runs, points_of_runs, runs_in

__all__ = ["FitSettings", "FittedLaw", "fit", "fit_with"]

BOTH: tuple[Which, Which] = ("domain", "general")
COLUMNS = "Write a line for each column that is called otherwise: `loss_domain: val/medicine`."
"""How a file of --columns is mended."""


@dataclass(frozen=True)
class FittedLaw:
    """What `fit` found.

    Attributes:
        folder: where it lies.
        laws: of the losses that the points have: "domain", "general".
        answers: to the questions that were asked, in their order.
        warnings: what to know when reading this.
        info: law.json.
    """

    folder: Path
    laws: dict[str, Fitted]
    answers: list[Answer]
    warnings: list[str]
    info: dict[str, Any]


def fit(law: str, points: str | Path | Sequence[str | Path], *, say: Callable[[str], None] = print, **settings: Any) -> FittedLaw:
    """Fits a law to losses of short runs.

    Args:
        law: "dcpt-law".
        points: a file or files with columns N, D, r_d, loss_domain, loss_general; or runs, or a folder of runs.
        settings: those of `FitSettings`: `limit=0.03, general_loss=2.86, at_n=1.8e9, at_d=1e10`.

    Raises:
        BadInput: a row that cannot be used, or points that cannot tell the parameters.
        UsageError: a setting, or a question that lacks something.
    """
    files = {"points": points, **{name: settings.pop(name) for name in ("held_out",) if name in settings}}
    lists = {name: [given] if isinstance(given, str | Path) else list(given) for name, given in files.items()}
    return fit_with(replace_nested(FitSettings(law=law), {**lists, **settings}), say)


def fit_with(settings: FitSettings, say: Callable[[str], None] = print) -> FittedLaw:
    """As `fit`, from settings."""
    check(settings)
    folder = law_folder(settings)
    table, warnings = read_table(settings)
    held_out = None if not settings.held_out else _topic(_read(settings.held_out, settings, table.unit_n)[0], settings)
    say(lines.points(table))
    _refuse_no_size(table, settings)
    _refuse_empty_question(table, settings)
    laws = _across(table, settings) if settings.across_domains else _laws(table, settings)
    for one in laws:
        say("\n".join(["", *lines.law(one), *lines.rivals(one)]))
    if not settings.across_domains and table.has("general") and not used(table, "general").all():
        say(_with_no_general_text(table, settings))
    if held_out is not None:
        for one in (one for one in laws if held_out.has(one.which)):
            say(lines.held_out(one.which, quality(one.law.predict(held_out.cells(one.which)), held_out.losses(one.which))))
    answers = questions(settings, {one.which: one for one in laws}, table)
    say("\n".join(["", *lines.answers(answers)]) if answers else lines.NO_QUESTION)
    folder.mkdir(parents=True, exist_ok=True)
    info: dict[str, Any] = {"answers": [answer.to_json() for answer in answers], "warnings": warnings}
    info["points"] = {"n": len(table), "runs": table.n_runs, "files": [entry for path in settings.points for entry in _known_by(path)]}
    record = write_law(folder, laws, **info)
    write_predictions(folder / "predictions.csv", {"fitted": table} | ({} if held_out is None else {"held out": held_out}), laws)
    drawn = _draw(folder, laws, table, held_out) if not settings.across_domains else []
    for line in [*warnings, *drawn]:
        say(f"note: {line}")
    say(f"{folder}: law.json, predictions.csv, bootstrap.csv")
    return FittedLaw(folder, {one.which: one for one in laws}, answers, warnings, record)


def read_table(settings: FitSettings) -> tuple[LossTable, list[str]]:
    """The points that can be fitted, and what was left out or is doubtful, in words."""
    table, warnings = _read(settings.points, settings)
    table = _topic(table, settings)
    if not settings.keep_transient and not settings.across_domains:
        table, left_out = settled(table)
        warnings += left_out
    for which in (which for which in BOTH if table.has(which) and settings.without is None):
        wrong, n_cells = rising_in_n(table, which)
        if not settings.allow_nonmonotone:
            refuse_rising(table, which)
        if wrong:
            cells = f"{len(wrong)} of {n_cells} cells ({wrong[0]}{' ...' if wrong[1:] else ''})"
            warnings.append(f"the {which} loss of the largest model is above that of the smallest in {cells}")
    for which in (which for which in BOTH if table.has(which)):
        rising, n_runs = rising_in_d(table, which)
        if 2 * rising >= max(n_runs, 1):
            warnings.append(
                f"the {which} loss ends higher than it began in {rising} of {n_runs} runs: they are in their transient still, or forget to the end."
                " The law falls in D and cannot say so: do not believe it of a longer run; give longer runs, a lower rate or more old text"
            )
    return table, warnings


def _read(places: Sequence[Path], settings: FitSettings, law_unit: float | None = None) -> tuple[LossTable, list[str]]:
    """The table of files and runs, and what of the runs was left out. Runs say their N and D as they are, whatever the units of files."""
    columns = {} if settings.columns is None else {str(name): str(column) for name, column in read_yaml(settings.columns, COLUMNS).items()}
    runs = [run for place in places if is_runs(place) for run in runs_in(place)]
    files = [place for place in places if not is_runs(place)]
    for place in files:
        if not place.exists():
            raise BadInput("is not there.", "Give a table of losses, or runs of `pretrain` with --init and --mix.", file=place)
        if place.is_dir():
            raise BadInput("holds no run.", "Give runs of `pretrain` with --init and --mix, a folder of them, or a table of losses.", file=place)
    if runs and files:
        raise UsageError(f"{files[0]} is a table, {runs[0]} a run.", "Fit tables or runs; `plan dcpt` writes the table of its runs, points.parquet.")
    if not runs:
        topic: Collection[str] = TOPIC if settings.across_domains else ("domain",) if settings.domain is not None else ()
        return read_points(_records(files), columns, settings.unit_n, settings.unit_d, law_unit, topic), []
    if columns or (settings.unit_n, settings.unit_d) != (1.0, 1.0):
        raise UsageError("--columns and units are of tables; runs say what they are.", "Leave them out.")
    found, notes = points_of_runs(runs, settings.domain_part, settings.general_part)
    return read_points(found, law_unit=law_unit), notes


def _records(files: Sequence[Path]) -> Iterator[Record]:
    for file in files:
        yield from ((str(file), place, record) for place, record in records(file))


def _known_by(path: Path) -> list[dict[str, str]]:
    """What law.json says of where points come from."""
    if not is_runs(path):
        return [{"file": str(path), "sha256": sha256_file(path)}]
    return [{"run": str(run), "id": str(read_run(run)["id"])} for run in runs_in(path)]


def _topic(table: LossTable, settings: FitSettings) -> LossTable:
    """The rows of the wanted domain."""
    names = [] if table.topic is None else sorted(set(table.topic.tolist()) - {""})
    if settings.domain is not None:
        if settings.domain not in names:
            raise BadInput(f"There is no domain '{settings.domain}' in the points.", f"They have: {', '.join(names) or 'no column domain'}.")
        return table[table.topic == settings.domain]
    if len(names) > 1 and not settings.across_domains:
        mend = "Choose one with --domain, or fit all: --across-domains."
        raise UsageError(f"The points are of {len(names)} domains: {', '.join(names[:6])}.", mend)
    return table


def _laws(table: LossTable, settings: FitSettings) -> list[Fitted]:
    """The law of each loss that the points have."""
    form: Form = L3 if settings.without is None else L3.without_n()
    draws = resample(table.n_runs, settings.draws) if settings.draws else None
    return [fit_loss(table, which, form, settings.fixed(), draws=draws, compare=True) for which in BOTH if table.has(which)]


def _across(table: LossTable, settings: FitSettings) -> list[Fitted]:
    """The cross-domain law of the domain loss."""
    cells, losses = table.cells("domain"), table.losses("domain")
    best = fit_domains(cells, losses)
    numbers = np.unique(table.run, return_inverse=True)[1]
    draws = bootstrap(best, cells, losses, resample(table.n_runs, settings.draws)[:, numbers]) if settings.draws else []
    found = quality(best.law.predict(cells), losses)
    return [Fitted("domain", best, found, Ranges.of(cells), table.unit_n, table.unit_d, tuple(draws), errors=errors(best, cells, losses))]


def _with_no_general_text(table: LossTable, settings: FitSettings) -> str:
    """The general law with the runs without general text in it, beside the one without."""
    form = L3 if settings.without is None else L3.without_n()
    one = fit_loss(table, "general", form, settings.fixed(), every_ratio=True)
    n_points = int((~used(table, "general")).sum())
    return f"  with the {n_points} points of r_g = 0, which it leaves out: R2 {one.quality.r2:.5f}, mean |error| {share(one.quality.error)}"


def _refuse_no_size(table: LossTable, settings: FitSettings) -> None:
    """Before the fit: a question about a size that nobody named."""
    at_a_point = settings.at_r is not None and settings.at_d is not None
    asked = settings.limit or settings.target or settings.domain_tokens is not None or at_a_point
    if asked and settings.at_n is None and len(np.unique(table.n)) > 1:
        raise UsageError("The question needs --at-n: the points are of several sizes.", "Give the size of the planned run.")


def _refuse_empty_question(table: LossTable, settings: FitSettings) -> None:
    """A limit on general loss asks nothing where training lowers it at every ratio."""
    if not settings.limit or settings.general_loss is None:
        return
    losses = table.losses("general")
    last = np.array([losses[table.run == run][table.d[table.run == run].argmax()] for run in np.unique(table.run)])
    if settings.general_loss > last.max():
        what = f"The general loss before training, {settings.general_loss:g}, is above that after it at every ratio ({last.max():.4f} at most)."
        raise BadInput(what, "The checkpoint was not converged on the general text: a limit asks nothing. Or is it of other windows?")


def questions(settings: FitSettings, laws: dict[str, Fitted], table: LossTable) -> list[Answer]:
    """The answers to what the settings ask."""
    domain, general = laws.get("domain"), laws.get("general")
    n = float(table.n[0]) * table.unit_n if settings.at_n is None else settings.at_n * settings.unit_n
    d = None if settings.at_d is None else settings.at_d * settings.unit_d
    found = []
    if settings.limit and d is not None and settings.general_loss is not None:
        unique = None if settings.unique_tokens is None else settings.unique_tokens * settings.unit_d
        anneal = (settings.anneal_general, settings.anneal_domain)
        for limit in settings.limit:
            answer = ask.best_ratio(domain, _needed(general, "general"), n, d, limit, settings.general_loss, anneal, unique)
            found.append(_beside_grid_search(answer, table, n, d, limit, settings.general_loss))
    if settings.domain_tokens is not None:
        found.append(ask.limited(_needed(domain, "domain"), n, settings.domain_tokens * settings.unit_d))
    if settings.flops is not None and settings.at_r is not None:
        choices = [size * settings.unit_n for size in settings.sizes]
        found.append(ask.best_size(_needed(domain, "domain"), settings.flops, settings.at_r, choices))
    if settings.at_r is not None:
        found += [ask.least_tokens(_needed(domain, "domain"), n, settings.at_r, target) for target in settings.target]
    if settings.at_r is not None and d is not None and (settings.k1 is not None or not settings.across_domains):
        answer = ask.predicted(list(laws.values()), n, d, settings.at_r, settings.k1, settings.k2)
        if settings.k1 is not None and settings.k2 is not None:
            more = beyond(_needed(domain, "domain").law, table.cells("domain"), settings.k1, settings.k2)
            answer = replace(answer, warnings=(*answer.warnings, *more))
        found.append(answer)
    return found


def _beside_grid_search(answer: Answer, table: LossTable, n: float, d: float, limit: float, general_loss: float) -> Answer:
    """With what the measured ratios alone would say, where they were measured at that size and length."""
    at = np.isclose(table.n * table.unit_n, n) & np.isclose(table.d * table.unit_d, d)
    if not at.any():
        return answer
    allowed = largest_allowed(table.r_d[at], table.losses("general")[at], general_loss, limit)
    said = f"none keeps {limit_of(general_loss, limit):.4f}" if allowed is None else f"{allowed:g}"
    return replace(answer, words=f"{answer.words} (of the ratios measured there: {said})")


def _needed(law: Fitted | None, which: str) -> Fitted:
    if law is None:
        raise BadInput(f"The points have no loss_{which}, which a question needs.", f"Add the column loss_{which}.")
    return law


def _draw(folder: Path, laws: Sequence[Fitted], table: LossTable, held_out: LossTable | None) -> list[str]:
    """Writes the figures; the sentence why not, where matplotlib is missing."""
    try:
        for one in laws:
            with atomic_write(folder / f"{one.which}.svg") as file:
                file.write(figures.draw(one, table, held_out if held_out is not None and held_out.has(one.which) else None))
    except MissingDependency as error:
        return [f"no figures: {error.what} {error.mend}"]
    return []
