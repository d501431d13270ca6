"""The card of an export: README.md in the form that the model hub reads, written beside the weights.

Everything in it comes from the run: its data, settings, cost, curve, and what it gave over its start. What came from outside (labels, values of
settings) is escaped, for a card is shown as HTML. Paths of this machine stay out of it, for a card is made to be published.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headstart import methods
from headstart.catalog import Card, card
from headstart.core.config import differences, plain
from headstart.core.files import atomic_write
from headstart.core.run import read_lines
from headstart.core.terminal import printable
from headstart.engine.metrics import duration
from headstart.verbs._kinds import Kind, kind_of
from headstart.verbs.config import preset_config

CARD = "README.md"
CURVE_ROWS = 8
PRIVATE = {"data", "out", "init", "json", "debug", "dry_run", "resume", "preset", "device", "smoke", "probe.labels", "trainer.checkpoint_folder"}
"""Settings that say where things lie on this machine, or how the run was watched; not what was learned."""
PIPELINES = {"ForCausalLM": "text-generation", "LMHeadModel": "text-generation", "ForMaskedLM": "fill-mask"}
"""End of the architecture's name in config.json -> the task that the hub files it under; any other gives vectors."""
_LOADERS = {"text-generation": "AutoModelForCausalLM", "fill-mask": "AutoModelForMaskedLM"}


def write_cards(export: Path, run: Path, info: dict[str, Any]) -> None:
    """A README.md into each model folder of an export.

    Args:
        run: the folder with metrics.jsonl.
        info: what run.json says of the finished run.
    """
    for config in sorted(export.rglob("config.json")):
        with atomic_write(config.parent / CARD) as file:
            file.write(model_card(config.parent, export, run, info).encode())


def model_card(folder: Path, export: Path, run: Path, info: dict[str, Any]) -> str:
    """The text of README.md for one model folder."""
    about, totals = card(info["method"]), info["totals"]
    name = f"{about.slug} ({info['preset']})" + ("" if folder == export else f": {folder.name}")
    paper = f"[{escaped(about.title)}](https://arxiv.org/abs/{about.arxiv}), {about.venue}" if about.arxiv else escaped(about.title)
    cost = {
        "steps": f"{totals['steps']:,}",
        "tokens or samples": f"{totals['tokens']:,}",
        "training FLOPs, counted": f"{totals['flops']:.4g}",
        "time": duration(totals["wall_s"]),
        "seed": str(info["seed"]),
        "versions": ", ".join(f"{package} {version}" for package, version in info["versions"].items()),
    }
    kind = kind_of(methods.load(about.slug))
    sections = [
        f"# {name}, pre-trained on own data",
        f"Made with headstart by the method of {paper}. The run gives {escaped(about.gives)}.",
        "## How to load it",
        _snippet(folder, kind),
        "## What the pre-training gave",
        _gain(info),
        "## Data",
        _data(info),
        "## Training",
        _table(["of the run", "value"], list(cost.items())),
        _settings(info),
        _curve(run, totals["steps"]),
        "## Licence and citation",
        "The weights belong to whoever trained them. What the licences of the training data ask for holds for them too.",
        _citation(about),
    ]
    return f"---\n{_metadata(name, folder, about, info)}\n---\n\n" + "\n\n".join(sections) + "\n"


def escaped(value: Any) -> str:
    """A value as text of one line that neither HTML nor Markdown obeys."""
    text = html.escape(printable(str(value), one_line=True), quote=False)
    return re.sub(r"([\\`*_\[\]|#!~$])", lambda found: f"&#{ord(found[0])};", text)


def _metadata(name: str, folder: Path, about: Card, info: dict[str, Any]) -> str:
    """The YAML head: library, task, and the measured result as the hub's model index has it."""
    from huggingface_hub import EvalResult, ModelCardData

    verdict, kind = info["verdict"], kind_of(methods.load(about.slug))
    results = None
    if "trained" in verdict:
        results = [
            EvalResult(
                task_type=kind.TASK,
                dataset_type="own",
                dataset_name="labelled records of the user",
                metric_type="accuracy",
                metric_name=verdict["metric"],
                metric_value=round(verdict["trained"], 4),
            )
        ]
    data = ModelCardData(
        library_name="transformers",
        license="other",
        license_name="weights-of-the-user",
        pipeline_tag=_pipeline(folder, kind),
        tags=["headstart", "pre-training", about.slug, *([f"arxiv:{about.arxiv}"] if about.arxiv else [])],
        model_name=name if results else None,
        eval_results=results,
    )
    return data.to_yaml()


def _pipeline(folder: Path, kind: Kind) -> str:
    names = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("architectures") or [""]
    return next((task for end, task in PIPELINES.items() if names[0].endswith(end)), kind.FEATURES)


def _snippet(folder: Path, kind: Kind) -> str:
    if own := getattr(kind, "LOADER", ""):  # what transformers does not know
        return f"```python\n{own}\n```"
    loader, processor = _LOADERS.get(_pipeline(folder, kind), "AutoModel"), kind.PROCESSOR
    name = "tokenizer" if processor == "AutoTokenizer" else "processor"
    return (
        f'```python\nfrom transformers import {loader}, {processor}\n\n{name} = {processor}.from_pretrained("FOLDER")\n'
        f'model = {loader}.from_pretrained("FOLDER")\n```'
    )


def _gain(info: dict[str, Any]) -> str:
    verdict = info["verdict"]
    measured = verdict.get("sentence")
    if measured is None:
        measured = "Not measured in this run: `headstart finetune` trains it beside the same network from random initialisation."
    else:
        measured = escaped(measured)
    return "\n\n".join([measured, *([escaped(verdict["plateau"])] if "plateau" in verdict else [])])


def _data(info: dict[str, Any]) -> str:
    """What the stores count; no names of files."""
    rows = []
    for number, entry in enumerate(info["data"], 1):
        facts = {name.replace("_", " "): f"{value:,}" for name, value in entry["counts"].items() if isinstance(value, int)}
        if isinstance(entry.get("unigram_entropy"), float):
            facts["unigram entropy, nats"] = f"{entry['unigram_entropy']:.3f}"
        if "tokenizer_sha256" in entry:
            facts["tokenizer, SHA-256"] = str(entry["tokenizer_sha256"])[:16]
        prefix = f"store {number}: " if len(info["data"]) > 1 else ""
        rows += [(escaped(prefix + name), escaped(value)) for name, value in facts.items()]
    prepared = {"text": "text", "image": "images"}.get(str(info["data"][0].get("kind")) if info["data"] else "", "data")
    return _table([f"of the prepared {prepared}", "count"], rows)


def _settings(info: dict[str, Any]) -> str:
    _, preset = preset_config(methods.load(info["method"]), info["preset"])
    changed = [(name, value) for name, _, value in differences(plain(preset), info["config"]) if name not in PRIVATE]
    if not changed:
        return f"All settings are those of the preset `{info['preset']}`."
    return "Settings that differ from the preset:\n\n" + _table(["setting", "value"], [(escaped(name), escaped(value)) for name, value in changed])


def _curve(run: Path, steps: int) -> str:
    """The training loss at a few moments of the run, up to these steps."""
    records = [record for record in read_lines(run / "metrics.jsonl") if isinstance(record.get("loss"), float) and record["step"] <= steps]
    if not records:
        return ""
    last = len(records) - 1
    chosen = sorted({round(place * last / (CURVE_ROWS - 1)) for place in range(CURVE_ROWS)})
    rows = [(f"{r['step']:,}", f"{r['flops']:.3g}", escaped(r.get("phase", "")), f"{r['loss']:.4f}") for r in (records[i] for i in chosen)]
    return _table(["step", "FLOPs", "phase", "training loss"], rows)


def _citation(about: Card) -> str:
    if not about.arxiv:
        return ""
    key = f"{about.slug.replace('-', '_')}_{about.year}"
    return (
        f"```bibtex\n@misc{{{key},\n  title = {{{about.title}}},\n  year = {{{about.year}}},\n"
        f"  eprint = {{{about.arxiv}}},\n  archivePrefix = {{arXiv}}\n}}\n```"
    )


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
