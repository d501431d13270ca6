"""`headstart VERB ...`: finds the verb's module, imports it alone, and turns our errors into two lines and an exit code.

A verb's module has HELP, EXAMPLE, `run(args) -> exit code`, and either `add_arguments(parser)` or, where flags come from dataclasses, `parse(argv)`.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
import signal
import sys
import threading
import traceback
from types import FrameType
from typing import Any

from headstart import __version__
from headstart.cli._flags import Parser, flags_of
from headstart.core.errors import FirstRankFailed, HeadstartError, MachineError, UsageError
from headstart.core.flags import in_flags_of
from headstart.core.machine import CONTINUES, STARTS_AGAIN, ordinary
from headstart.core.terminal import escape_what_streams_lack, leave_terminal, open_closed_streams, printable, silence
from headstart.core.words import did_you_mean

VERBS = {
    "list": "the catalog: which methods there are, and which fit a folder",
    "show": "one method: its card, presets, data format and measured claim",
    "doctor": "what this machine has, what is missing, how fast it is",
    "advise": "which pre-training helps on your data, how much, at what cost",
    "curate": "from a web crawl to a corpus: filters, classifiers, duplicates, images",
    "prepare": "raw texts or images to a prepared store",
    "peek": "look at the records of a prepared store",
    "select": "the best part of a pool of texts, by a good reference",
    "pretrain": "pre-train a method on your data; the same command continues",
    "finetune": "train a downstream task beside a random start",
    "plan": "short runs before a long one: which mixture keeps the old skills, and what the run will reach",
    "evaluate": "what a language model knows without training: multiple choice, perplexity",
    "rerank": "the documents found for queries, in the order of a cross-encoder's scores",
    "fit": "a scaling law from losses of short runs: which mixture, size, how many tokens",
    "measure": "how sharp a minimum is, how far a model is from a known optimum",
    "export": "the usable model of a run, or of one of its checkpoints, in a folder of its own",
    "import": "an official checkpoint as a folder that --init and transformers take",
    "merge": "average an old model and what it became, beside or instead of replay",
    "adapt": "a pre-trained sampler of objects to your reward, beside one from scratch",
    "probe": "what frozen networks know, in seconds: linear probe, nearest neighbours, effective rank",
    "compare": "which of several runs is better for your task, at equal compute",
    "claim": "a paper's central statement, tested at equal training FLOPs",
    "sample": "see what a run has learned: completions, filled masks",
    "embed": "vectors of your records from a run, and the nearest neighbours to look at",
    "replay": "repeat one step of a run with every module watched: who made the NaN?",
    "profile": "where the time and the memory of a training step go",
    "watch": "a run as it goes on, in the terminal",
    "report": "one HTML page: what helped, how much, at what cost",
    "demo": "the main job on this machine's own documentation: is a head start worth it?",
}

CONTINUE = ("advise", "claim", "compare", "curate", "demo", "finetune", "plan", "prepare", "pretrain")
"""Verbs that go on where they stopped: the same command does nothing twice. (A training says itself after which step it stopped.)"""


def main(argv: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    open_closed_streams()
    escape_what_streams_lack()
    # Before torch loads its thread pool: waiting threads spin for a moment, then sleep. With another process on one of two cores a step takes 0.2 s
    # instead of 2 s, and on a quiet machine nothing is lost (docs/decisions/0008-threads.md).
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if not argv or argv[0] in ("-h", "--help"):
        try:
            print(overview(), flush=True)
        except BrokenPipeError:  # `headstart | head`
            silence(sys.stdout)
        return 0 if argv else 2
    if argv[0] == "--version":
        print(f"headstart {__version__}")
        return 0
    verb, rest = argv[0], argv[1:]
    if verb not in VERBS:
        closest = did_you_mean(verb, VERBS) or f"The verbs: {', '.join(VERBS)}. "
        print(f"headstart: there is no verb '{printable(verb, one_line=True)}'.\n{closest}`headstart --help` explains them.", file=sys.stderr)
        return 2
    debug, own, goes_on = "--debug" in rest, frozenset[str](), verb in CONTINUE
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP, and means it
                signal.signal(number, _stop)
    try:
        module = importlib.import_module(f"headstart.cli.{verb}")
        args = parse(module, verb, rest)
        own, goes_on = flags_taken(args), goes_on and getattr(module, "continues", lambda args: True)(args)
        return int(module.run(args))
    except HeadstartError as error:
        if own:
            in_flags_of(error, own)
        if isinstance(error, MachineError):
            _say_how_it_goes_on(error, goes_on)
        if not isinstance(error, FirstRankFailed):
            _tell(f"{speaker()}headstart {verb}: {error}", debug)
        return error.exit_code
    except KeyboardInterrupt:
        again = "continues" if goes_on else "starts again"
        _tell(f"headstart {verb}: stopped.\nThe same command {again}.")
        return 130
    except BrokenPipeError:  # `headstart list | head`
        silence(sys.stdout)
        return 0
    except ModuleNotFoundError as error:
        what = f"the package '{error.name}' is not installed.\n`headstart doctor` names what is missing and the pip line."
        _tell(f"headstart {verb}: {what}", debug)
        return 4
    except Exception as error:
        if expected := ordinary(error):
            _say_how_it_goes_on(expected, goes_on)
            _tell(f"{speaker()}headstart {verb}: {expected}", debug)
            return expected.exit_code
        what = f"{type(error).__name__}: {error}\nThis is a bug; repeat with --debug and report what it prints."
        _tell(f"{speaker()}headstart {verb}: {what}", debug)
        return 1


def _say_how_it_goes_on(error: HeadstartError, goes_on: bool) -> None:
    """What a machine refused is told with what the same command then does: not every verb continues."""
    if not goes_on:
        error.reword(lambda text: text.replace(CONTINUES, STARTS_AGAIN))


def _tell(text: str, debug: bool = False) -> None:
    """Prints an error, and where it came from for `--debug`; to nobody when the terminal is gone."""
    try:
        if debug:
            traceback.print_exc()
        print(text, file=sys.stderr, flush=True)
    except OSError:
        silence(sys.stderr)


def speaker() -> str:
    """Which process of a distributed run speaks, for all but the first."""
    rank = os.environ.get("RANK", "0")
    return "" if rank == "0" else f"[process {rank}] "


def _stop(number: int, frame: FrameType | None) -> None:
    """SIGTERM, SIGHUP (the terminal was closed) and a queue's SIGUSR1 and SIGUSR2 end a verb as Ctrl-C does; training finishes its step first
    (`engine.stopping`)."""
    if number == signal.SIGHUP:
        leave_terminal()
    raise KeyboardInterrupt


def parse(module: Any, verb: str, argv: list[str]) -> Any:
    """The verb's arguments.

    Raises:
        UsageError: one of them is an empty text: as a path it would mean the folder one stands in.
    """
    if "" in argv:
        place = argv.index("")
        after = f" (after {argv[place - 1]})" if place else ""
        raise UsageError(f"An argument is empty{after}.", "A shell variable without a value? Write it out, or leave the flag away.")
    if hasattr(module, "parse"):
        return module.parse(argv)
    parser = Parser(prog=f"headstart {verb}", description=module.HELP, epilog=f"example: {module.EXAMPLE}")
    module.add_arguments(parser)
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    return parser.parse_args(argv)


def flags_taken(args: Any) -> frozenset[str]:
    """The flags of the verb whose arguments these are."""
    if isinstance(args, argparse.Namespace):
        return frozenset(f"--{name.replace('_', '-')}" for name in vars(args))
    settings = next((getattr(args, name) for name in ("config", "settings") if dataclasses.is_dataclass(getattr(args, name, None))), args)
    return frozenset(flag.name for flag in flags_of(settings))


def overview() -> str:
    """What `headstart --help` prints."""
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {verb:<{width}}  {what}" for verb, what in VERBS.items())
    return (
        f"headstart {__version__}: pre-training on your own data - which method helps you, how much, at what cost.\n\n"
        f"usage: headstart VERB ...   (headstart VERB --help explains one)\n\n{verbs}\n\n"
        "example: headstart pretrain causal-lm --data my/texts --budget.minutes 3\n"
        "exit codes: 0 good, 1 our bug, 2 wrong usage, 3 bad input, 4 something missing here, 5 diverged, 130 interrupted"
    )
