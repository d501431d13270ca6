"""`headstart curate RECIPE DATA ... --out DIR`: from a web crawl to a corpus; `headstart curate --report DIR` shows what came of it."""

from __future__ import annotations

import json
import sys
from itertools import takewhile
from pathlib import Path
from typing import Any

from headstart.cli import _flags

HELP = "from a web crawl to a corpus: mathematical pages with images, plain text, or one stage of these"
EXAMPLE = "headstart curate webmath crawl/*.warc.gz --out corpus"


def parse(argv: list[str]) -> Any:
    """The recipe and the data come first; `--recipe` and `--data` say the same."""
    if not argv:
        print(f"usage: headstart curate RECIPE DATA ... --out DIR [...]\n       headstart curate --report DIR\n\n{HELP}\n\nexample: {EXAMPLE}")
        raise SystemExit(2)
    from headstart.verbs._curate_settings import settings_of

    words = list(takewhile(lambda argument: not argument.startswith("-"), argv))
    flags = [*(["--data", *words[1:]] if words[1:] else []), *argv[len(words) :]]
    standard = settings_of(words[0]) if words else settings_of("webmath")
    return _flags.from_dataclass(standard, flags, "headstart curate", f"{HELP}.\nexample: {EXAMPLE}")


def run(settings: Any) -> int:
    from headstart.report.funnel import write_funnel

    if settings.report is not None:
        page = write_funnel(settings.report, settings.out)
        print(f"{page}: {page.stat().st_size / 1000:,.0f} kB. Open it in a browser; it needs no network.")
        return 0
    from headstart.verbs._curate_settings import check

    check(settings)  # before Daft is imported
    from headstart.verbs.curate import curate_with, refuse_nothing

    curation = curate_with(settings, say=lambda line: print(line, file=sys.stderr if settings.json else sys.stdout, flush=True))
    page = write_funnel(curation.folder, None)
    if settings.json:
        counted = json.loads(Path(curation.folder / "counts.json").read_text())
        print(json.dumps({"folder": str(curation.folder), **counted, "seconds": curation.seconds}, indent=1))
    else:
        print(f"{page}: what each stage kept and dropped, with examples")
    refuse_nothing(curation)
    return 0
