"""`import`: an official checkpoint as a folder that `--init` and transformers' `from_pretrained` take.

    OUT/                  config.json, model.safetensors, tokenizer (of ELECTRA in discriminator/ and generator/)
    OUT/README.md         what it was made of
    OUT/import.json       the same for programs: format, files with their SHA-256, what was said of it
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart import __version__
from headstart.core.bounds import refuse_outside
from headstart.core.errors import UsageError
from headstart.core.files import atomic_write, called_by, sha256_file, whole_folder, write_json
from headstart.core.progress import progress
from headstart.core.words import counted
from headstart.engine.export_hashes import write_hashes
from headstart.interop.conversion import Asked, Converted, convert
from headstart.interop.official import Checkpoint, open_checkpoint
from headstart.verbs._card import CARD, escaped
from headstart.verbs._export_settings import ACTIVATIONS, FORMATS, IMPORT, Activation, Format, refuse_absent, refuse_other, refuse_place

RECORD = "import.json"
FORMAT_VERSION = 1

WHAT = {
    "cerebras": "a GPT of Cerebras' modelzoo",
    "electra-tf1": "an ELECTRA of google-research (TensorFlow 1)",
    "pre-norm-bert": "a pre-norm BERT of academic-budget-bert",
    "vit": "a vision transformer with the names of timm, MAE, DropPos or SatMAE++",
}
NEXT = {
    "cerebras": "headstart pretrain causal-lm --init {} --data TEXTS",
    "electra-tf1": "headstart pretrain electra --init {} --data TEXTS",
    "pre-norm-bert": "headstart pretrain mlm --init {} --data TEXTS",
    "vit": "headstart pretrain mae --init {} --data IMAGES",
}
AS_IT_IS = {"croco": "CroCo", "satmae-groups": "SatMAE or SatMAE++ with groups of bands"}
"""What transformers has no network for -> what it is. The methods read these files themselves."""
_METHOD = {"croco": "croco", "satmae-groups": "satmaepp"}


@dataclass(frozen=True)
class Imported:
    """What `import_checkpoint` wrote.

    Attributes:
        folder: the result.
        model: the folder in it that tasks and `AutoModel` take: `folder`, or of ELECTRA its discriminator.
        info: import.json.
        load: Python that loads it, in one line.
    """

    folder: Path
    model: Path
    info: dict[str, Any]
    load: str


def import_checkpoint(
    source: str | Path,
    out: str | Path,
    *,
    format: Format = "auto",
    tokenizer: str | Path | None = None,
    heads: int | None = None,
    activation: Activation | None = None,
    say: Callable[[str], None] = print,
) -> Imported:
    """Converts an official checkpoint, whole or not at all. On the command line: `headstart import`.

    Args:
        source: a checkpoint file (.mdl, .pt, .pth, .bin, .safetensors, .npz), the name that a TensorFlow checkpoint's files begin with, or a folder
            with one checkpoint.
        out: a new folder.
        format: what it is; auto: it is recognised by the names of its weights.
        tokenizer: of a network of texts: a tokenizer.json, a vocab.txt, or a folder; None: what lies beside the checkpoint.
        heads: of attention, where the file does not say it.
        activation: of a GPT of Cerebras; None: gelu, the exact one.

    Raises:
        BadInput: it is of no format that is known (the names of its weights are told), is damaged, or has weights missing or left over.
        UsageError: something lies at `out`; the number of heads or a tokenizer must be given; or nothing needs to be converted, or can be.
    """
    refuse_outside({"heads": heads}, IMPORT)
    refuse_other("--format", format, FORMATS)
    refuse_other("--activation", activation, ACTIVATIONS)
    refuse_absent(source)
    refuse_place(out, "--out")
    out, checkpoint = Path(out), open_checkpoint(Path(source))
    kind = checkpoint.format() if format == "auto" else format
    if kind in AS_IT_IS:
        mend = f"Its method takes the file itself: headstart pretrain {_METHOD[kind]} --init {source} --data IMAGES."
        raise UsageError(f"{source} is a checkpoint of {AS_IT_IS[kind]}, for which transformers has no network.", mend)
    if activation is not None and kind != "cerebras":
        raise UsageError(f"{source} is {WHAT[kind]}, whose activation is known.", "Leave out --activation.")
    say(f"{source}: {WHAT[kind]}, {len(checkpoint.names):,} tensors{' (recognised by their names)' if format == 'auto' else ''}.")
    with whole_folder(out) as new, called_by(new, out):
        asked = Asked(None if tokenizer is None else Path(tokenizer), heads, activation or "gelu")
        done = convert(checkpoint, kind, asked, new)
        info = described(checkpoint, kind, done)
        write_json(new / RECORD, info)
        with atomic_write(new / CARD) as file:
            file.write(card_text(info, done).encode())
        write_hashes(new)
    model = out / done.used
    load = f"from transformers import {done.loader}; model = {done.loader}.from_pretrained({str(model)!r})"
    for line in (*done.notes, f"{out}: {counted(done.parameters)} weights, none missing, none left over; loaded again, they are the same."):
        say(line)
    say(f"Load it:   {load}")
    say(f"Go on:     {NEXT[kind].format(out)}")
    return Imported(out, model, info, load)


def described(checkpoint: Checkpoint, kind: str, done: Converted) -> dict[str, Any]:
    """import.json. No paths: the folder is made to be published."""
    hashed = progress(checkpoint.files, what="hash", unit="files")
    files = {file.name: {"bytes": file.stat().st_size, "sha256": sha256_file(file)} for file in hashed}
    return {
        "format_version": FORMAT_VERSION,
        "headstart": __version__,
        "format": kind,
        "files": files,
        "tensors": len(checkpoint.names),
        "parameters": done.parameters,
        "notes": done.notes,
    }


def card_text(info: dict[str, Any], done: Converted) -> str:
    """README.md of the folder."""
    files = "\n".join(f"| {escaped(name)} | {entry['bytes']:,} | {entry['sha256'][:16]} |" for name, entry in info["files"].items())
    place = "FOLDER" if not done.used else f"FOLDER/{done.used}"
    return (
        "---\nlibrary_name: transformers\nlicense: other\nlicense_name: that-of-the-original\ntags: [headstart, converted]\n---\n\n"
        f"# {WHAT[info['format']][2:]}, as a folder of transformers\n\nConverted with headstart; nothing was trained. "
        f"{info['tensors']:,} tensors became {info['parameters']:,} weights, none missing, none left over; loaded again, they are the same.\n\n"
        f"| file | bytes | SHA-256 |\n| --- | --- | --- |\n{files}\n\n" + "\n".join(f"- {escaped(note)}" for note in done.notes) + "\n\n"
        f"## How to load it\n\n```python\nfrom transformers import {done.loader}\n\n"
        f'model = {done.loader}.from_pretrained("{place}")\n```\n\n'
        "## Licence\n\nThe weights belong to whoever trained them; the licence of the original holds for this folder too.\n"
    )
