"""docs/security.md: the constants that bound what is read from outside."""

from __future__ import annotations

import ast
import importlib
from itertools import pairwise

from tools.pages.results import ROOT

LIMITS = {
    "core.files": ("MAX_JSON_BYTES", "MAX_JSON_VALUES"),
    "core.config": ("MAX_YAML_BYTES",),
    "core.run": ("MAX_LINE",),
    "core.errors": ("MAX_MESSAGE",),
    "data.compressed": ("FREE_BYTES", "MAX_RATIO"),
    "data.text.tokenizer": ("MAX_TOKENIZER_BYTES", "MAX_VOCABULARY", "MAX_EXPANSION", "MAX_WORD_SEARCH"),
    "data.text.rows": ("MAX_LENGTH",),
    "interop.model_folder": ("MAX_CONFIG_BYTES", "MAX_LAYERS", "MAX_SIDE", "MAX_LABELS", "FREE_BYTES", "MAX_GROWTH"),
    "data.tables": ("MEMORY_SHARE",),
    "tasks.data": ("MAX_CLASSES", "MAX_NAME"),
}
"""Module -> constants that bound what is read from outside; each has a docstring."""


def limits_block() -> str:
    """The constants with their values and docstrings."""
    rows = ["| limit | value | of what |", "| --- | --- | --- |"]
    for module, names in LIMITS.items():
        body = ast.parse((ROOT / "src/headstart" / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8")).body
        docs = {ast.unparse(a.targets[0]): b.value for a, b in pairwise(body) if isinstance(a, ast.Assign) and isinstance(b, ast.Expr)}
        for name in names:
            value, text = getattr(importlib.import_module(f"headstart.{module}"), name), ast.literal_eval(docs[name])
            rows.append(f"| `{module}.{name}` | {value:,} | {' '.join(text.split())} |")
    return "\n".join(rows)
