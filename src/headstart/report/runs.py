"""A run folder as a section of the page: what it is, what it reached, its curves, what a person may look at, and how to repeat it."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart.core import words
from headstart.core.errors import HeadstartError
from headstart.core.run import PART_BITS, PART_LOSS, PART_SAMPLE, unit_of
from headstart.core.terminal import printable
from headstart.report.loose import listed, mapping, pair, text
from headstart.report.parts import TONES, Finding
from headstart.report.pictures import Picture, run_pictures
from headstart.report.thin import packed
from headstart.verbs._follow import Curves, Followed, Series, finite, newest
from headstart.verbs._parts import OLD
from headstart.verbs.forgetting import curves_of, is_one_rate, transient

AXES = ("tokens", "flops", "wall_s")
"""What a curve may be drawn against besides the step."""
SPEED = ("tokens_per_second", "data_wait_share", "mfu")
PART_CHARTS = {
    PART_LOSS: ("held-out loss of each part", "nats a token, on a fixed sample; a rise of old text at first is what re-warming does"),
    PART_BITS: ("bits per byte of each part", "comparable between tokenizers and kinds of text"),
}
"""Prefix of the probes of named parts -> title and explanation of the chart that shows all parts together."""
FIRST_PHASE = "causal_loss"
"""The loss of a causal phase (mlm, electra): it begins on the same plateau as the loss that the run is judged by, and leaves it first."""
MAX_SAMPLES = 8
MAX_LINES, MAX_LINE = 8, 1500
AXIS_POINTS = 100

EXPLAINED = {
    "loss": "training loss; held out where the dashed line runs",
    "mlm_loss": "masked tokens, nats",
    "mlm_loss_hidden": "masked tokens that the input hides, nats",
    "causal_loss": "every next token, nats: the causal phase that a run begins with",
    "gradient_norm": "before clipping",
    "learning_rate": "as the schedule sets it",
    "tokens_per_second": "over the last log steps",
    "data_wait_share": "share of the time spent waiting for data",
    "mfu": "model FLOPs against this machine's measured peak",
    "rankme": "effective rank of the features; near 1 means collapse",
    "knn_accuracy": "20 nearest neighbours on your labels",
    "linear_probe_accuracy": "logistic regression on frozen features, on your labels",
}
"""One line under the title of a chart; other metrics are explained on the page of their method."""


@dataclass
class Chart:
    """One picture: some series on one axis."""

    title: str
    about: str
    series: list[tuple[str, Series]]
    plateau: float | None = None
    large: bool = False


@dataclass
class RunSection:
    """All that the page says of one run."""

    folder: Path
    name: str
    anchor: str
    status: str = "unreadable"
    error: str = ""
    method: str = ""
    preset: str = ""
    seed: str = ""
    unit: str = "tokens"
    plateau_words: str = ""
    sentence: str = ""
    loss: float = math.nan
    held_out: float = math.nan
    entropy: float = math.nan
    left_plateau_at: int | None = None
    finding: Finding | None = None
    flops: float = math.nan
    seconds: float = math.nan
    step: int = 0
    total_steps: int = 0
    facts: list[tuple[str, str]] = field(default_factory=list)
    changed: list[tuple[str, str, str]] = field(default_factory=list)
    """Setting, value, who set it."""
    origin_known: bool = False
    settings: list[tuple[str, str]] = field(default_factory=list)
    command: str = ""
    snippet: str = ""
    samples: list[tuple[int, list[str]]] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    curves: Curves = field(default_factory=Curves)

    @property
    def tone(self) -> str:
        return {"done": "good", "running": "live", "failed": "bad", "unreadable": "bad", "killed": "bad"}.get(self.status, "open")

    def data(self, columns: int) -> dict[str, Any]:
        """What the page's script draws: thinned to `columns` pixel columns a curve."""
        phases = self.curves.phases if len(self.curves.phases) > 1 else []
        return {
            "charts": [
                {
                    "title": chart.title,
                    "large": chart.large,
                    "plateau": chart.plateau,
                    "series": [{"label": label, **packed(series.steps, series.values, columns)} for label, series in chart.series],
                }
                for chart in self.charts
            ],
            "axes": {name: packed(s.steps, s.values, AXIS_POINTS) for name in AXES if (s := self.curves.series.get(name))},
            "phases": [(printable(name), first, last) for name, first, last in phases[:50]],
            "spikes": self.curves.spikes[:200],
            "restarts": self.curves.restarts[:200],
        }


def read_section(followed: Followed, name: str, anchor: str) -> RunSection:
    """The section of a run; a broken folder gives one with the error."""
    section = RunSection(followed.folder, printable(name, one_line=True), anchor)
    try:
        followed.refresh()
        _fill(section, followed)
    except HeadstartError as error:
        section.error = str(error)
    except Exception as error:  # a stranger's run.json: any type anywhere
        section.error = f"{followed.folder} has a form that this version does not know ({type(error).__name__}: {error})."
    if section.error:
        section.status = "unreadable"
    return section


def _fill(section: RunSection, followed: Followed) -> None:
    info, curves = followed.info, followed.curves
    section.curves, section.unit = curves, unit_of(info)
    section.method, section.preset, section.seed = text(info.get("method")), text(info.get("preset")), text(info.get("seed"))
    section.status = "killed" if followed.abandoned() else text(info.get("status")) or "unknown"
    totals, verdict = mapping(info.get("totals")), mapping(info.get("verdict"))
    section.step = curves.step()
    section.total_steps = followed.total_steps()
    section.flops = finite(totals.get("flops")) if "flops" in totals else newest(curves.series, "flops")
    section.seconds = finite(totals.get("wall_s")) if "wall_s" in totals else newest(curves.series, "wall_s")

    metric, section.entropy = followed.plateau()
    section.loss = newest(curves.series, metric)
    section.held_out = newest(curves.probes, f"held_out/{metric}")
    left_at = verdict.get("left_plateau_at")
    section.left_plateau_at = left_at if isinstance(left_at, int) else None
    section.plateau_words, section.sentence = text(verdict.get("plateau")), text(verdict.get("sentence"))
    section.finding = _probe_finding(section, verdict)
    section.charts = _charts(curves, metric, section.entropy)
    section.facts = _facts(section, info, curves)
    section.changed, section.origin_known = _changed(info)
    section.settings = [(setting, _setting(value)) for setting, value in _flat(mapping(info.get("config")))]
    section.command = repeat_command(info)
    section.snippet = load_snippet(followed.folder)
    shown = curves.samples[:1] + curves.samples[1:][-(MAX_SAMPLES - 1) :]
    section.samples = [(step, [printable(line[:MAX_LINE]) for line in lines[:MAX_LINES]]) for step, lines in reversed(shown)]
    section.pictures, section.notes = run_pictures(followed.folder)
    section.notes += [f"{name}.jsonl is damaged at line {line:,}: what follows is not shown." for name, line in followed.damaged.items()]
    section.notes += _rise(curves)
    if section.status == "killed":
        section.notes.insert(0, "Its process is gone, and it was not done. The same command continues it.")
    if error := text(info.get("error")):
        section.notes.insert(0, error)
    if skipped := sum(value for value in curves.series.get("skipped", Series()).values if math.isfinite(value)):
        section.notes.append(f"{skipped:,.0f} updates were left out: loss or gradient was no finite number.")


def _probe_finding(section: RunSection, verdict: dict[str, Any]) -> Finding | None:
    interval = pair(verdict.get("ci95"))
    gain = finite(verdict.get("gain"))
    if not math.isfinite(gain) or interval is None:
        return None
    word = "helps" if interval[0] > 0 else "hurts" if interval[1] < 0 else "open"
    began = text(verdict.get("began_with")) or "its start"
    where, slugs = f"linear probe, {section.name}", (section.method,)
    return Finding(
        section.method, began, "accuracy", where, gain, interval, word, TONES.get(word, "open"), section.anchor, "probe", slugs,
        section.flops, section.seconds, percent=True, reached=finite(verdict.get("trained")),
        over_start=began == "a random start",
    )  # fmt: skip


def _charts(curves: Curves, metric: str, entropy: float) -> list[Chart]:
    """The plateau's metric first and large, then the other losses, what is measured on the backbone, and how the machine was used."""
    held_out = {name.removeprefix("held_out/"): series for name, series in curves.probes.items() if name.startswith("held_out/")}
    names = [name for name in curves.series if name not in (*AXES, *SPEED, "skipped")]
    names += [name for name in held_out if name not in names]
    names.sort(key=lambda name: (name != metric, name != "loss", "loss" not in name, name in ("gradient_norm", "learning_rate")))
    charts: list[Chart] = []
    for name in names:
        pieces = [("training", curves.series.get(name)), ("held out", held_out.get(name))]
        series = [(label, piece) for label, piece in pieces if piece is not None]
        first = not charts
        plateau = entropy if name in (metric, FIRST_PHASE) and math.isfinite(entropy) else None
        charts.append(Chart(printable(name), EXPLAINED.get(name, ""), series, plateau, first))
    charts += _part_charts(curves)
    probes = {name: series for name, series in curves.probes.items() if not name.startswith(("held_out/", *PART_CHARTS, PART_SAMPLE))}
    charts += [Chart(printable(name), EXPLAINED.get(name, ""), [("probe", series)]) for name, series in probes.items()]
    return charts + [Chart(name, EXPLAINED[name], [("training", _known_speed(curves, name))]) for name in SPEED if name in curves.series]


def _part_charts(curves: Curves) -> list[Chart]:
    """The held-out losses of the named parts of the data together, old and new; and their bits a byte."""
    found = []
    for prefix, (title, about) in PART_CHARTS.items():
        values = {name.removeprefix(prefix): series for name, series in curves.probes.items() if name.startswith(prefix)}
        if prefix == PART_LOSS:  # a curve is read on one set of rows
            values = {name: _on_sample(series, curves.probes.get(PART_SAMPLE + name)) for name, series in values.items()}
        if values:
            found.append(Chart(title, about, [(printable(name), series) for name, series in values.items()]))
    return found


def _on_sample(series: Series, sample: Series | None) -> Series:
    """A curve with the points of the sample where those of the whole split stand."""
    values = dict(zip(series.steps, series.values, strict=True))
    values |= {} if sample is None else dict(zip(sample.steps, sample.values, strict=True))
    kept = Series()
    for step, value in sorted(values.items()):
        kept.add(step, value)
    return kept


def _rise(curves: Curves) -> list[str]:
    """What the curve of the old text says of a continued run."""
    probes = {name: dict(zip(series.steps, series.values, strict=True)) for name, series in curves.probes.items()}
    old = curves_of(probes).get(OLD)
    if old is None:
        return []
    rise = transient(old.steps, old.losses, old.last - old.first)
    rates = curves.series.get("learning_rate", Series()).values
    return [rise.sentence(rate_rose=not is_one_rate(list(rates)))] if rise.height > 0 else []


def _known_speed(curves: Curves, name: str) -> Series:
    """Without the zeros of log steps at which a process did not know its speed yet."""
    unknown = {step for step, value in zip(*_pairs(curves, "tokens_per_second"), strict=True) if value == 0}
    kept = Series()
    for step, value in zip(*_pairs(curves, name), strict=True):
        if step not in unknown:
            kept.add(step, value)
    return kept


def _pairs(curves: Curves, name: str) -> tuple[Any, Any]:
    series = curves.series.get(name, Series())
    return series.steps, series.values


def _facts(section: RunSection, info: dict[str, Any], curves: Curves) -> list[tuple[str, str]]:
    decisions, totals = mapping(info.get("decisions")), mapping(info.get("totals"))
    hardware, versions = mapping(info.get("hardware")), mapping(info.get("versions"))
    speed = curves.series.get("tokens_per_second", Series())
    known = sorted(value for value in speed.values if value > 0)
    waiting = _known_speed(curves, "data_wait_share").values
    devices = [text(mapping(device).get("name")) for device in listed(hardware.get("devices"))]
    machine = [*devices, text(hardware.get("cpu")), f"{text(hardware.get('cores'))} cores", words.gibibytes(hardware.get("memory_bytes"))]
    counts = [mapping(mapping(entry).get("counts")) for entry in listed(info.get("data"))]
    unit = section.unit
    tokens = [count[f"training_{unit}"] for count in counts if isinstance(count.get(f"training_{unit}"), int)]
    documents = [count["documents"] for count in counts if isinstance(count.get("documents"), int)]
    seen = finite(totals.get("tokens")) if totals else newest(curves.series, "tokens")
    epochs = f", {seen / sum(tokens):.2g} epochs" if tokens and sum(tokens) and math.isfinite(seen) else ""
    steps = f"{section.step:,}" + (f" of {section.total_steps:,}" if section.total_steps > section.step else "")
    precision = [text(decisions.get("precision")), "compiled" if decisions.get("compile") is True else "",
                 "CUDA graph" if decisions.get("cuda_graph") is True else ""]  # fmt: skip
    rows = [
        ("Steps", steps),
        (unit.capitalize(), f"{words.counted(seen)}{epochs}" if math.isfinite(seen) else ""),
        ("Training FLOPs", words.flops(section.flops)),
        ("Time", words.duration(section.seconds)),
        ("Throughput", f"{words.counted(known[len(known) // 2])} {unit}/s (median)" if known else ""),
        ("Waiting for data", words.share(sum(waiting) / len(waiting)) if len(waiting) else ""),
        ("Peak memory", words.gibibytes(totals.get("peak_memory_bytes"))),
        ("Data", ", ".join([f"{sum(documents):,} documents"] * bool(documents) + [f"{sum(tokens):,} {unit}"] * bool(tokens))),
        ("Batch", f"{text(mapping(info.get('config')).get('batch'))} rows, in parts of {text(decisions.get('micro_batch'))}"
         if decisions.get("micro_batch") is not None else ""),
        ("Precision", ", ".join(filter(None, precision))),
        ("Machine", ", ".join(part for part in machine if part not in ("", "–", " cores"))),
        ("Processes", text(decisions.get("world")) if decisions.get("world") not in (None, 1) else ""),
        ("Versions", ", ".join(f"{text(name)} {text(version)}" for name, version in list(versions.items())[:12])),
        ("Code", text(info.get("commit"))[:12]),
        ("Started", text(info.get("started"))),
        ("Finished", text(info.get("finished"))),
        ("Folder", printable(str(section.folder))),
    ]  # fmt: skip
    return [(label, value) for label, value in rows if value and value != "–"]


# settings and commands


def _flat(config: dict[str, Any], prefix: str = "", depth: int = 0) -> list[tuple[str, Any]]:
    """(dotted name, value) of every setting."""
    found: list[tuple[str, Any]] = []
    for name, value in list(config.items())[:500]:
        if isinstance(value, dict) and value and depth < 4:
            found += _flat(value, f"{prefix}{name}.", depth + 1)
        else:
            found.append((prefix + name, value))
    return found


def _setting(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, list):
        return ", ".join(_setting(item) for item in value[:50]) or "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else printable(str(value)[:300])


def _changed(info: dict[str, Any]) -> tuple[list[tuple[str, str, str]], bool]:
    """The settings that differ from the defaults, and whether run.json says which they are."""
    origin = info.get("origin")
    if not isinstance(origin, dict):
        return [], False
    values = dict(_flat(mapping(info.get("config"))))
    by = {name: text(where) for name, where in origin.items() if name in values and name not in ("data", "out")}
    rows = [(name, _setting(values[name]), where) for name, where in by.items()]
    return sorted(rows, key=lambda row: (row[2] == "preset", row[0])), True


def repeat_command(info: dict[str, Any]) -> str:
    """The line that gives this run again: what was typed, or the same settings as flags when Python started it."""
    typed = [str(word) for word in listed(info.get("command"))]
    if len(typed) > 2 and Path(typed[0]).name in ("__main__.py", "headstart") and typed[1] == "pretrain":
        return printable(shlex.join(["headstart", *typed[1:]]))
    if not info.get("method"):
        return ""
    config = mapping(info.get("config"))
    values, origin = dict(_flat(config)), mapping(info.get("origin"))
    line = ["headstart", "pretrain", text(info["method"])]
    for entry in listed(config.get("data")):
        line += ["--data", str(entry)]
    names = [name for name, where in origin.items() if where not in ("preset", "default") and name in values] or [
        name for name, value in values.items() if name in ("preset", "seed", "out") or (name.startswith("budget.") and value is not None)
    ]
    for name in names:
        value = values[name]
        if name == "data" or value is None or isinstance(value, list | dict):
            continue
        flag = "--" + name.replace("_", "-")
        line += ([flag] if value else ["--no-" + name.replace("_", "-")]) if isinstance(value, bool) else [flag, str(value)]
    return printable(shlex.join(line))


def load_snippet(folder: Path) -> str:
    """How Python loads the export, when there is one."""
    exports = [folder / "export", *sorted((folder / "checkpoints").glob("step-*/export"), reverse=True)]
    export = next((path for path in exports if path.is_dir()), None)
    if export is None:
        return ""
    model = export / "discriminator" if (export / "discriminator").is_dir() else export
    return (
        "from transformers import AutoModel, AutoTokenizer\n\n"
        f"folder = {str(model)!r}\nmodel = AutoModel.from_pretrained(folder)\ntokenizer = AutoTokenizer.from_pretrained(folder)"
    )


def progress_words(section: RunSection) -> str:
    """How far a run is, in a few words."""
    if section.status != "running" or not section.total_steps:
        return section.status
    return f"running, {100 * section.step / section.total_steps:.0f}{words.NARROW}%"


