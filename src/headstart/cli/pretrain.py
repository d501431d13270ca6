"""`headstart pretrain METHOD --data ...`: flags come from the dataclasses of `verbs.config` and of the method."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from headstart.cli import _flags
from headstart.core.terminal import printable, silence

HELP = "pre-train a method on your data; the same command continues after a stop"
EXAMPLE = "headstart pretrain causal-lm --data my/texts --preset tiny --budget.minutes 3"
CONFIG_MARK = b"# Settings of headstart pretrain"
"""The first line of a file that --write-config wrote, which it writes again."""


@dataclass
class Arguments:
    """What the command line said."""

    slug: str
    config: Any
    origin: dict[str, str]
    write_config: Path | None
    read_config: Path | None = None


def parse(argv: list[str], verb: str = "pretrain", about: str = HELP, example: str = EXAMPLE) -> Arguments:
    """METHOD, then flags: defaults < preset < what the images decide < --config FILE < flags. Another verb with the same flags gives its own name,
    help and example."""
    first = _flags.Parser(prog=f"headstart {verb}", description=about, epilog=f"example: {example}", add_help=False)
    first.add_argument("slug", metavar="METHOD", help="a method, as `headstart list` names it")
    if not argv or argv[0].startswith("-"):
        first.add_argument("flags", nargs="*", metavar="--FLAG ...", help=f"`headstart {verb} METHOD --help` lists them")
        first.print_help()
        raise SystemExit(0 if argv and argv[0] in ("-h", "--help") else 2)
    slug, flags = argv[0], argv[1:]
    files = _flags.Parser(prog=f"headstart {verb} {slug}", add_help=False)
    files.add_argument("--preset")
    files.add_argument("--config", type=Path)
    files.add_argument("--write-config", type=Path)
    known, rest = files.parse_known_args(flags)

    from headstart import methods
    from headstart.core.config import dotted, provenance, read_yaml, replace_nested
    from headstart.verbs._same_run import without_removed
    from headstart.verbs._sizing import by_data
    from headstart.verbs.config import preset_config

    method = methods.settings(slug)
    values = without_removed(read_yaml(known.config)) if known.config is not None else {}
    preset = known.preset or values.get("preset", "tiny")
    defaults, chosen = preset_config(method, preset)
    from_file = replace_nested(chosen, values, where=str(known.config)) if values else chosen
    if known.preset:
        from_file = replace_nested(from_file, {"preset": known.preset})
    config = _flags.from_dataclass(
        from_file,
        rest,
        f"headstart {verb} {slug}",
        f"{method.card.title}. Also: --config FILE.yaml sets any of these (flags win), --write-config FILE writes them all,"
        f" explained.\nexample: {example}",
    )
    layers = [("default", defaults), ("preset", chosen), ("config", from_file), ("flag", config)]
    given = {"config": dotted(values), "flag": _flags.named(flags)}
    config, origin = by_data(slug, method, config, provenance(layers, given))
    return Arguments(slug, config, origin, known.write_config, known.config)


def refuse(args: Arguments) -> None:
    """Refuses what cannot be a run, before torch is imported."""
    from headstart import interventions, methods
    from headstart.core.run import read_run
    from headstart.verbs._mixture_file import with_mixture
    from headstart.verbs._same_run import refuse_changes, refuse_places
    from headstart.verbs.config import check, refuse_absent, refuse_unwritable, run_folder, smoke

    args.config = with_mixture(args.config)
    check(args.config)
    config, folder = smoke(args.config) if args.config.smoke else args.config, run_folder(args.slug, args.config)
    interventions.refuse(methods.settings(args.slug), config)
    refuse_places(config, folder)
    refuse_unwritable(config, folder)
    if not folder.exists():
        refuse_absent(config)  # a run that goes on has its store
    elif (folder / "run.json").is_file() and (info := read_run(folder)).get("checkpoint"):
        refuse_changes(folder, info, args.slug, config, args.origin)


def run(args: Arguments) -> int:
    from headstart.core.config import to_yaml
    from headstart.core.errors import UsageError
    from headstart.core.places import refuse_other_file

    if args.write_config is not None:
        if args.write_config != args.read_config:  # which loses nothing
            refuse_other_file(args.write_config, "--write-config", "configuration", CONFIG_MARK)
        try:
            args.write_config.write_bytes(CONFIG_MARK + f" {args.slug}, to be given with --config.\n".encode() + to_yaml(args.config).encode())
        except OSError as error:
            raise UsageError(f"{args.write_config} cannot be written: {error.strerror}.", "Give --write-config another file.") from None
        print(f"Wrote every setting, explained, to {args.write_config}.")
        return 0

    refuse(args)
    from headstart.verbs.pretrain import pretrain

    with screen(sys.stderr if args.config.json else sys.stdout) as (say, live):
        done = pretrain(args.slug, config=args.config, origin=args.origin, say=say, live=live)
    if args.config.json:
        print(json.dumps(done.info, indent=1))
    return 0


@contextmanager
def screen(stream: TextIO) -> Iterator[tuple[Callable[[str], None], Callable[[str], None] | None]]:
    """(say, live) for a stream: on a terminal lines scroll above one live line; elsewhere there are lines only."""
    if not stream.isatty():
        yield while_read(lambda line: print(line, file=stream, flush=True), stream), None
        return
    from rich.console import Console
    from rich.markup import escape

    console = Console(file=stream, highlight=False)
    with console.status("", spinner="dots") as status:
        yield (
            while_read(lambda line: console.print(line, markup=False, soft_wrap=True), stream),
            while_read(lambda line: status.update(escape(line)), stream),
        )


def while_read(show: Callable[[str], None], stream: TextIO) -> Callable[[str], None]:
    """`show`, which stops showing when nobody reads any more (`| head` has ended, the terminal was closed): the training goes on."""

    def say(line: str) -> None:
        try:
            show(printable(line))
        except OSError:
            silence(stream)

    return say
