"""What a claim has measured so far: `measured.json` in its folder, written anew after every measurement, so that a killed claim repeats at most one.

    format_version, slug, preset, identity, scores {key: {value, stuck, items}}, guards {key: [{what, value, limit, passed}]}

`identity` is what the figures depend on. Where one of its parts has changed, the old figures are never mixed with new ones: the folder is refused.
Item scores lie beside it as .npy files.
"""

from __future__ import annotations

import ast
import dataclasses
import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from headstart.claims._claim import Claim, Data, Guard, Scale, Score
from headstart.core.config import differences, plain
from headstart.core.errors import UsageError
from headstart.core.files import atomic_write, own_file, read_json, sha256_file, write_json

FORMAT_VERSION = 1
MEASURED = "measured.json"


class Record:
    """The measurements of one claim folder."""

    def __init__(self, folder: Path, claim: Claim, preset: str, identity: dict[str, Any]) -> None:
        self.folder, self.path = folder, folder / MEASURED
        fresh = {"format_version": FORMAT_VERSION, "slug": claim.slug, "preset": preset, "identity": identity, "scores": {}, "guards": {}}
        if not self.path.exists():
            self.content: dict[str, Any] = fresh
            write_json(self.path, fresh)
            return
        self.content = read_json(self.path)
        head = {key: value for key, value in fresh.items() if key not in ("scores", "guards")}
        if changed := differences({key: self.content.get(key) for key in head}, head):
            listed = "; ".join(f"{name}: {_short(old)} -> {_short(new)}" for name, old, new in changed[:6])
            raise UsageError(
                f"{folder} holds measurements of this claim as it was before a change ({listed}).",
                "They are not mixed with new ones: give another --out, or delete that folder.",
            )

    def score(self, key: str, measure: Callable[[], Score]) -> Score:
        """The score under this key: from the file, or measured now and written down."""
        known = self.content["scores"].get(key)
        if known is None:
            score = measure()
            known = {"value": score.value, "stuck": score.stuck, "items": None, "beside": dict(score.beside)}
            if score.items is not None:
                known["items"] = hashlib.sha256(key.encode()).hexdigest()[:16] + ".npy"
                (self.folder / "items").mkdir(exist_ok=True)
                with atomic_write(self.folder / "items" / known["items"]) as file:
                    np.save(file, np.asarray(score.items, dtype=np.float64), allow_pickle=False)
            self.content["scores"][key] = known
            write_json(self.path, self.content)
        items = None if known["items"] is None else np.load(own_file(self.folder / "items", known["items"]), allow_pickle=False)
        return Score(known["value"], items, known["stuck"], known.get("beside", {}))

    def guards(self, key: str, look: Callable[[], list[Guard]]) -> list[Guard]:
        """The guards of a model, looked at once."""
        if key not in self.content["guards"]:
            self.content["guards"][key] = [dataclasses.asdict(guard) for guard in look()]
            write_json(self.path, self.content)
        return [Guard(**guard) for guard in self.content["guards"][key]]


def refuse_other_claim(folder: Path, slug: str, preset: str) -> None:
    """Raises UsageError where the folder holds another claim, or another preset: before anything is written there."""
    if not (folder / MEASURED).is_file():
        return
    content = read_json(folder / MEASURED)
    whose = [content.get("slug"), content.get("preset")] if isinstance(content, dict) else [None, None]
    if whose != [slug, preset]:
        raise UsageError(f"{folder} is the folder of the claim {whose[0]} at preset {whose[1]}.", "Give another --out.")


def identity(claim: Claim, scale: Scale, data: Data, device: str) -> dict[str, Any]:
    """What the figures depend on: scale, code of the claim file, bytes of the data, kind of device. Not the number of seeds, which may grow."""
    declared = {name: value for name, value in plain(scale).items() if name != "seeds"}
    return {
        "scale": {**declared, "arms": {arm["name"]: arm for arm in declared["arms"]}},
        "code": code_hash(claim),
        "data": {path.name: sha256_file(path) for path in data.files},
        "device": device.split(":")[0],
    }


def code_hash(claim: Claim) -> str:
    """Of the claim file without the CLAIM itself (its scale is compared field by field) and without comments."""
    source = inspect.getsourcefile(claim.open_data)
    assert source is not None
    tree = ast.parse(Path(source).read_text(encoding="utf-8"))
    kept = [node for node in tree.body if not (isinstance(node, ast.Assign | ast.AnnAssign) and "CLAIM" in ast.unparse(node).split("=")[0])]
    return hashlib.sha256("\n".join(ast.unparse(node) for node in kept).encode()).hexdigest()[:16]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
