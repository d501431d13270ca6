"""The table of every claim that was run to its end."""

from __future__ import annotations

from headstart.claims._committed import table_lines


def claims_block() -> str:
    """One row a comparison, good or bad."""
    return "\n".join(table_lines())
