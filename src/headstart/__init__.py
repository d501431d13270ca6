"""headstart gives a model a head start on your own data. `headstart list` on the command line shows what is here.

The verbs are the same in Python: `headstart.pretrain("causal-lm", data="docs/", **{"budget.minutes": 3})`. They are imported when first used, so that
`import headstart` is instant.
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"

_VERBS = {
    "advise": "headstart.verbs.advise",
    "pretrain": "headstart.verbs.pretrain",
    "prepare": "headstart.verbs.prepare",
    "select": "headstart.verbs.select",
    "finetune": "headstart.verbs.finetune",
    "evaluate": "headstart.verbs.evaluate",
    "rerank": "headstart.verbs.rerank",
    "adapt": "headstart.verbs.adapt",
    "fit": "headstart.verbs.fit",
    "plan": "headstart.verbs.plan",
    "measure": "headstart.verbs.measure",
    "merge": "headstart.verbs.merge",
    "export": "headstart.verbs.export",
    "import_checkpoint": "headstart.verbs.import_checkpoint",
    "probe": "headstart.verbs.probe",
    "compare": "headstart.verbs.compare",
    "peek": "headstart.verbs.peek",
    "sample": "headstart.verbs.sample",
    "embed": "headstart.verbs.embed",
    "replay": "headstart.verbs.replay",
    "claim": "headstart.claims._run",
    "watch": "headstart.verbs.watch",
    "report": "headstart.report",
}


def __getattr__(name: str) -> Any:
    if name not in _VERBS:
        raise AttributeError(f"module 'headstart' has no attribute '{name}'")
    import importlib

    from headstart.core.flags import in_python

    return in_python(getattr(importlib.import_module(_VERBS[name]), name))


__all__ = ["__version__", *_VERBS]


def __dir__() -> list[str]:
    """The verbs too, though none is imported yet: notebooks complete them."""
    return sorted({*globals(), *__all__})
