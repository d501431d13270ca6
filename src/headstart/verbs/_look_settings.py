"""Bounds of the numbers of verbs with few flags, for the command line, which refuses at once, and for Python. No torch here."""

from __future__ import annotations

from headstart.core.bounds import ABOVE_0, COUNT, SEED_FROM_0, SEEDS

PEEK = {"count": COUNT, "seed": SEED_FROM_0}
SAMPLE = {"count": COUNT, "seed": SEED_FROM_0}
EMBED = {"shown": COUNT, "neighbours": COUNT, "seed": SEED_FROM_0}
REPLAY = {"step": COUNT}
DEMO = {"minutes": ABOVE_0, "seeds": SEEDS}
