"""What `export` and `import` take, looked at before anything heavy is loaded. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from headstart.core.bounds import COUNT
from headstart.core.errors import BadInput, UsageError
from headstart.core.places import refuse_folder

EXPORT = {"step": COUNT}
IMPORT = {"heads": COUNT}
Precision = Literal["as-trained", "bf16"]
Format = Literal["auto", "cerebras", "electra-tf1", "pre-norm-bert", "vit"]
Activation = Literal["gelu", "gelu_new", "relu"]
PRECISIONS, FORMATS, ACTIVATIONS = get_args(Precision), get_args(Format), get_args(Activation)


def refuse_other(flag: str, value: str | None, known: Sequence[str]) -> None:
    """Raises UsageError for a word that a flag does not take."""
    if value is not None and value not in known:
        raise UsageError(f"{flag} is {value}.", f"Give one of {', '.join(known)}.")


def refuse_absent(source: str | Path) -> None:
    """Raises BadInput where neither a file nor a folder nor a TensorFlow checkpoint of this name is there."""
    path = Path(source)
    if not path.exists() and not path.with_name(f"{path.name}.index").is_file():
        raise BadInput("there is no such file, folder or TensorFlow checkpoint.", "Give the checkpoint file itself.", file=path)


def refuse_place(out: str | Path, flag: str) -> None:
    """Refuses a place where no new folder can be made.

    Raises:
        UsageError: something lies there, or nothing can be written there.
    """
    refuse_folder(out, flag)
    if Path(out).is_dir() and any(Path(out).iterdir()):
        raise UsageError(f"{out} is there and holds files.", f"Give {flag} a new folder.")
