"""Writes figures, settings, cards and messages into the documentation, between markers: nobody types them.

    python tools/fill_docs.py            rewrite
    python tools/fill_docs.py --check    exit 1 when a page is stale
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # started as a file, Python looks beside it only

from tools.pages import (  # noqa: E402
    advice,
    claims,
    commands,
    comparison,
    continued,
    failures,
    limits,
    measured,
    methods,
    performance,
    recorded,
    reliability,
    settings,
)

BLOCKS: tuple[tuple[str, str, Callable[[], str]], ...] = (
    ("README.md", "demo", measured.demo_block),
    ("docs/plateau.md", "plateau", measured.plateau_block),
    ("docs/decisions/0009-distributed-checkpoints.md", "checkpoint", measured.checkpoint_block),
    ("docs/reliability.md", "promises", reliability.promises_block),
    ("docs/reliability.md", "torture", reliability.torture_block),
    ("docs/reliability.md", "pause", measured.checkpoint_block),
    ("docs/performance.md", "table", performance.table_block),
    ("docs/performance.md", "parts", performance.parts_block),
    ("docs/performance.md", "growth", performance.growth_block),
    ("docs/security.md", "limits", limits.limits_block),
    ("docs/methods/index.md", "catalog", methods.catalog_block),
    ("docs/claims.md", "claims", claims.claims_block),
    ("docs/settings.md", "pretrain settings", settings.pretrain_block),
    ("docs/settings.md", "finetune settings", settings.finetune_block),
    ("docs/settings.md", "image settings", settings.image_finetune_block),
    ("docs/settings.md", "dense settings", settings.dense_finetune_block),
    ("docs/methods/interleaved-lm.md", "data settings", settings.interleaved_block),
    ("docs/methods/webmath.md", "card", partial(methods.card_block, "webmath")),
    ("docs/methods/webmath.md", "claim", partial(methods.claim_block, "webmath")),
    ("docs/methods/webmath.md", "passes", measured.passes_block),
    ("docs/commands.md", "commands", commands.commands_block),
    ("docs/errors.md", "exit codes", failures.exit_codes_block),
    ("docs/errors.md", "messages", failures.messages_block),
    ("docs/guides/which-method.md", "folder", advice.folder_block),
    ("docs/guides/which-method.md", "advice movies", partial(advice.advice_block, "movies")),
    ("docs/guides/which-method.md", "advice dialog", partial(advice.advice_block, "dialog")),
    ("docs/guides/which-method.md", "measure", advice.measure_block),
    ("docs/guides/compare.md", "comparison movies", partial(comparison.comparison_block, "movies")),
    ("docs/methods/spdf.md", "electra", comparison.sparse_block),
    ("docs/methods/self_distill.md", "texts", comparison.distilled_block),
    ("docs/methods/bioptimus.md", "effect", partial(methods.effect_block, "bioptimus", ("contextual", "subword_mean", "random"))),
    ("docs/methods/prop.md", "visible", measured.visible_block),
    ("docs/methods/prop.md", "start", measured.start_block),
    ("docs/methods/prop.md", "drawing", measured.drawing_block),
    ("docs/methods/prop.md", "reranking settings", settings.reranking_block),
    ("docs/methods/prop.md", "effect", partial(methods.effect_block, "prop", ("prop", "mlm", "none"))),
    ("docs/methods/self_distill.md", "effect", partial(methods.effect_block, "self_distill", ("self_distill", "fpt_long", "finetune"))),
    ("docs/guides/web-crawl.md", "figures", measured.curation_block),
    ("docs/guides/continue-on-your-corpus.md", "guide", continued.guide_block),
    ("docs/quick-start.md", "recorded setting", recorded.setting_block),
    ("docs/quick-start.md", "recorded list", recorded.step("list")),
    ("docs/quick-start.md", "recorded pretrain", recorded.step("pretrain causal-lm --data my/texts --budget")),
    ("docs/quick-start.md", "recorded finetune", recorded.step("finetune")),
    ("docs/quick-start.md", "recorded sample", recorded.step("sample")),
)
"""(page, name of its markers, what stands between them)."""

METHOD_BLOCKS: dict[str, Callable[[str], str]] = {
    "card": methods.card_block,
    "data": methods.data_block,
    "presets": methods.presets_block,
    "settings": methods.settings_block,
    "claim": methods.claim_block,
}
"""What the page of every method has, by the name of its markers."""


OF_INTERVENTION = ("card", "settings", "claim")
"""Those of them that the page of an intervention has, which has no data and no presets of its own."""

OF_PLANNING = ("card", "data", "claim")
"""Those of the page of a way of planning, whose flags are those of its verb."""


def blocks() -> Iterator[tuple[str, str, Callable[[], str]]]:
    """All of them: those above, and those of every method and intervention that has code."""
    yield from BLOCKS
    for slug in methods.with_code():
        page = f"docs/methods/{slug}.md"
        for name, block in METHOD_BLOCKS.items():
            yield page, name, partial(block, slug)
    for slug in methods.interventions_with_code():
        for name in OF_INTERVENTION:
            yield f"docs/methods/{slug}.md", name, partial(METHOD_BLOCKS[name], slug)
    for slug in methods.planning_with_code():
        for name in OF_PLANNING:
            yield f"docs/methods/{slug}.md", name, partial(METHOD_BLOCKS[name], slug)


def filled(text: str, name: str, block: str) -> str:
    """`text` with what lies between the markers of `name` replaced.

    Raises:
        ValueError: the page has no such markers.
    """
    begin, end = f"<!-- {name}: begin (python tools/fill_docs.py) -->", f"<!-- {name}: end -->"
    new, count = re.subn(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _: f"{begin}\n{block}\n{end}", text, flags=re.DOTALL)
    if count != 1:
        raise ValueError(f"{count} blocks named {name}, one expected")
    return new


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    stale: set[str] = set()
    for page, name, block in blocks():
        path = ROOT / page
        text = path.read_text(encoding="utf-8")
        new = filled(text, name, block())
        if new != text:
            stale.add(page)
            if not check:
                path.write_text(new, encoding="utf-8")
    print(f"{'stale' if check else 'rewritten'}: {', '.join(sorted(stale)) or 'none'}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
