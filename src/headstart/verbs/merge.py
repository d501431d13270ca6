"""`merge`: an old model and what it became, averaged into one that keeps part of what each is good at. No training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from headstart.core.config import replace_nested, several
from headstart.core.files import atomic_write, sha256_file, whole_folder, write_json
from headstart.core.run import read_run
from headstart.core.words import counted, share
from headstart.engine.export_hashes import write_hashes
from headstart.interop.merge import KIN, Merged, merge_folders
from headstart.interop.model_folder import weight_files
from headstart.interop.transformers_io import load_encoder
from headstart.verbs._card import CARD, escaped
from headstart.verbs._exports import resolve_init
from headstart.verbs._merge_settings import MergeSettings, check, checked_shares, merged_folder

MERGE = "merge.json"


@dataclass(frozen=True)
class MergedModel:
    """What `merge` made.

    Attributes:
        folder: a transformers folder, with a card and merge.json.
        info: merge.json.
    """

    folder: Path
    info: dict[str, Any]


def merge(models: Sequence[str | Path], *, say: Callable[[str], None] = print, **settings: Any) -> MergedModel:
    """Averages the weights of text models.

    Args:
        models: runs, exports or transformers folders of one architecture and tokenizer, of which each became another or all began alike.
        settings: fields of `MergeSettings`: shares, out.

    Raises:
        BadInput: the models do not fit each other. UsageError: the shares, or a folder that is there already.
    """
    return merge_with([Path(model) for model in several(models)], replace_nested(MergeSettings(), settings), say)


def merge_with(models: Sequence[Path], settings: MergeSettings, say: Callable[[str], None] = print) -> MergedModel:
    """As `merge`, from settings."""
    check(models, settings)
    shares, out = checked_shares(settings.shares, len(models)), merged_folder(models, settings)
    folders = [resolve_init(model) or model for model in models]
    with whole_folder(out) as new:
        merged = merge_folders(folders, shares, new)
        info = described(models, folders, shares, merged)
        write_json(new / MERGE, info)
        with atomic_write(new / CARD) as file:
            file.write(card_text(info).encode())
        load_encoder(new)  # a folder that does not load is no result
        write_hashes(new)
    for line in lines(info, models, out):
        say(line)
    return MergedModel(out, info)


def described(models: Sequence[Path], folders: Sequence[Path], shares: Sequence[float], merged: Merged) -> dict[str, Any]:
    """merge.json: what was averaged, known by its bytes. No paths: the folder is made to be published."""
    parts = []
    for model, folder, part in zip(models, folders, shares, strict=True):
        hashes = {file.name: sha256_file(file) for file in weight_files(folder)}
        entry: dict[str, Any] = {"name": model.absolute().name, "share": part, "sha256": hashes}
        if (model / "run.json").is_file():
            info = read_run(model)
            entry["run"] = {"method": info.get("method"), "preset": info.get("preset"), "steps": info.get("totals", {}).get("steps")}
        parts.append(entry)
    kin = [asdict(one) for one in merged.kin]
    return {"format_version": 1, "models": parts, "tensors": merged.tensors, "parameters": merged.parameters, "beside_the_first": kin}


def lines(info: dict[str, Any], models: Sequence[Path], out: Path) -> list[str]:
    """What a person reads: how far the models are from each other, whether their mean can mean something, what to do next."""
    said = [f"Averaged {counted(info['parameters'])} weights in {info['tensors']} tensors: {_mix(info)}."]
    for model, kin in zip(models[1:], info["beside_the_first"], strict=True):
        name, farthest = kin["farthest"]
        said.append(
            f"  {model} is {share(kin['distance'])} of its length away from {models[0]} (cosine {kin['cosine']:.3f});"
            f" farthest: {name or 'nothing'}, {share(farthest)}."
        )
        if kin["cosine"] < KIN:
            said.append("  WARNING: these weights hardly have a beginning in common; the mean of independently trained networks is noise.")
    return [*said, f"{out}: a transformers folder. It is not measured: look at its losses on old and on new text before you use it."]


def card_text(info: dict[str, Any]) -> str:
    """README.md of the folder."""
    rows = []
    for part in info["models"]:
        run = part.get("run")
        of = f"{escaped(run['method'])} ({escaped(run['preset'])}), {run['steps']} steps" if run else "a transformers folder"
        rows.append(f"| {escaped(part['name'])} | {part['share']:g} | {of} | {next(iter(part['sha256'].values()))[:16]} |")
    kin = "; ".join(f"{share(one['distance'])} of the first one's length away, cosine {one['cosine']:.3f}" for one in info["beside_the_first"])
    return (
        "---\nlibrary_name: transformers\nlicense: other\nlicense_name: weights-of-the-user\ntags: [headstart, merge, weight-averaging]\n---\n\n"
        "# A weighted mean of models\n\nMade with headstart: each tensor is the weighted mean of those of the models below. Nothing was trained.\n\n"
        "| model | share | what it is | weights, SHA-256 |\n| --- | --- | --- | --- |\n" + "\n".join(rows) + "\n\n"
        f"{info['tensors']} tensors, {info['parameters']:,} weights. Further models: {kin}.\n\n"
        "## How to load it\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")\nmodel = AutoModelForCausalLM.from_pretrained("FOLDER")\n```\n\n'
        "## Licence\n\nThe weights belong to whoever trained the models; their licences, and those of their data, hold for the mean too.\n"
    )


def _mix(info: dict[str, Any]) -> str:
    return " + ".join(f"{part['share']:g} x {part['name']}" for part in info["models"])
