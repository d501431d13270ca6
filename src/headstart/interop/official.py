"""Official checkpoints, opened and recognised by the names of their weights.

A name is all that a file says of itself: `transformer_decoder.layers.0...` is no one's but Cerebras', `electra/embeddings/word_embeddings` no one's
but google-research's. What is not known is refused with the names that were found; nothing is guessed from sizes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from torch import Tensor

from headstart.core.errors import BadInput, UsageError
from headstart.core.files import own_file, read_json
from headstart.interop.array_files import ArrayFile
from headstart.interop.electra_tf1 import is_state
from headstart.interop.model_folder import MAX_CONFIG_BYTES, WEIGHTS, refuse_strange_entries, weight_files
from headstart.interop.tensorflow_bundle import open_bundle, prefix_of
from headstart.interop.vit import TIMM_FILE, read_state

SUFFIXES = (".mdl", ".pt", ".pth", ".bin", ".ckpt", ".tar", ".safetensors", ".npz")
SHOWN = 8
_WRAPPERS = ("module.", "_orig_mod.")
_MARKS = {
    "electra-tf1": re.compile(r"electra/embeddings/word_embeddings"),
    "cerebras": re.compile(r"(.*\.)?transformer_decoder\.layers\.\d+\..+"),
    "pre-norm-bert": re.compile(r"bert\.encoder\.layer\.\d+\.PreAttentionLayerNorm\.weight"),
    "croco": re.compile(r"enc_blocks\.0\.attn\.qkv\.weight"),
    "satmae-groups": re.compile(r"patch_embed\.0\.proj\.weight"),
    "vit": re.compile(r"(backbone\.)?patch_embed\.proj\.weight|(.*\.)?embeddings\.patch_embeddings\.projection\.weight"),
}
"""Format -> the name of a weight that this format alone has; the first one counts."""


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint.

    Attributes:
        path: what was given.
        folder: where its vocabulary may lie.
        files: that it consists of.
        names: of its weights, those of the optimiser left out.
        read: one of them.
    """

    path: Path
    folder: Path
    files: tuple[Path, ...]
    names: tuple[str, ...]
    read: Callable[[str], Any]

    @property
    def weights(self) -> Path:
        """The file that holds them, or most of them: for messages, and sizes."""
        return max(self.files, key=lambda file: file.stat().st_size)

    def format(self) -> str:
        """The format whose mark is among the names.

        Raises:
            BadInput: none is. UsageError: transformers loads it as it is.
        """
        found = next((name for name, mark in _MARKS.items() if any(map(mark.fullmatch, self.names))), None)
        if found in (None, "vit") and self.path.is_dir() and _of_transformers(self.path):
            raise UsageError(f"{self.path} is a folder of transformers already.", f"--init {self.path} takes it as it is.")
        if found is None:
            shown = ", ".join(sorted(self.names)[:SHOWN]) + (f" and {len(self.names) - SHOWN:,} more" if len(self.names) > SHOWN else "")
            mend = "Read are: Cerebras' GPTs, google-research's ELECTRA, academic-budget-bert's pre-norm BERT, plain vision transformers."
            raise BadInput(f"is of no format that is known; it holds {shown or 'no weights'}.", mend, file=self.path)
        return found

    def tensors(self) -> dict[str, Tensor]:
        """All of them, of a file of torch or safetensors."""
        return {name: found for name in self.names if isinstance(found := self.read(name), Tensor)}

    def arrays(self) -> dict[str, np.ndarray]:
        """All of them, of a TensorFlow checkpoint or .npz."""
        return {name: found.float().numpy() if isinstance(found := self.read(name), Tensor) else found for name in self.names}


def open_checkpoint(path: Path) -> Checkpoint:
    """Opens a file, the name that a TensorFlow checkpoint's files begin with, or a folder with one checkpoint in it.

    Raises:
        BadInput: there is none, or it cannot be read.
        UsageError: a folder holds several, or something that needs no import.
    """
    if path.is_dir():
        return _of_folder(path)
    if (prefix := prefix_of(path)) is not None:
        bundle = open_bundle(prefix)
        files = (bundle.index, *(bundle.data_file(shard) for shard in range(bundle.files)))
        return Checkpoint(path, prefix.parent, files, _kept(bundle.variables), bundle.read)
    if not path.is_file():
        raise BadInput("there is no such file, folder or TensorFlow checkpoint.", "Give the checkpoint file itself.", file=path)
    return _of_files(path, [path])


def _of_folder(folder: Path) -> Checkpoint:
    if (folder / "run.json").is_file():
        raise UsageError(f"{folder} is a run of headstart.", f"Give: headstart export {folder} --to FOLDER.")
    refuse_strange_entries(folder)
    if (folder / TIMM_FILE).is_file():
        raise UsageError(f"{folder} is an export of headstart already.", f"--init {folder} takes it as it is.")
    raw = read_json(folder / "config.json", MAX_CONFIG_BYTES) if (folder / "config.json").is_file() else {}
    if any((folder / name).is_file() for name in WEIGHTS):
        return _of_files(folder, weight_files(folder, raw if isinstance(raw, dict) else {}))
    bundles = sorted({prefix for path in folder.glob("*.index") if (prefix := prefix_of(path)) is not None})
    if len(bundles) > 1 and (newest := _newest(folder)) in bundles:
        bundles = [newest]
    found = bundles or sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES)
    if len(found) != 1:
        what = f"holds {len(found)} checkpoints ({', '.join(one.name for one in found[:SHOWN])})" if found else "holds no checkpoint"
        raise BadInput(f"{what}.", "Give the checkpoint file itself.", file=folder)
    return open_checkpoint(found[0])


def _of_transformers(folder: Path) -> bool:
    """Whether it says a kind of model that transformers knows."""
    raw = read_json(folder / "config.json", MAX_CONFIG_BYTES) if (folder / "config.json").is_file() else {}
    kind = raw.get("model_type") if isinstance(raw, dict) else None
    return isinstance(kind, str) and kind in transformers.CONFIG_MAPPING


def _newest(folder: Path) -> Path | None:
    """The checkpoint that TensorFlow's file `checkpoint` names, by its last part: the rest is a path of the machine that wrote it."""
    if not (folder / "checkpoint").is_file():
        return None
    with own_file(folder, "checkpoint").open(encoding="utf-8", errors="replace") as file:
        found = re.search(r'^model_checkpoint_path: "(?:[^"\n]*/)?([^"/\n]+)"', file.read(2**16), re.MULTILINE)
    return folder / found[1] if found else None


def _of_files(path: Path, files: Sequence[Path]) -> Checkpoint:
    folder = path if path.is_dir() else path.parent
    if path.suffix == ".npz":
        arrays = ArrayFile(path)
        return Checkpoint(path, folder, (path,), _kept(arrays.names), arrays.read)
    state: dict[str, Tensor] = {}
    for file in files:
        state |= read_state(file)
    for wrapper in _WRAPPERS:
        if state and all(name.startswith(wrapper) for name in state):
            state = {name.removeprefix(wrapper): value for name, value in state.items()}
    return Checkpoint(path, folder, tuple(files), tuple(state), state.__getitem__)


def _kept(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in names if not is_state(name))
