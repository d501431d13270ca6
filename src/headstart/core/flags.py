"""Errors in the flags of the verb that runs: deeper rooms, which several verbs use, speak of those of `pretrain`, whose data they read."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from headstart.core.errors import HeadstartError

FLAG = re.compile(r"(?<![\w./-])--[a-z][\w.-]*\w")
_OF_DATA = re.compile(r"--(text|image|interleaved)\.(?=[a-z-]*field$|bands$)")
"""What stands before the settings of data that other verbs have too."""
_SENTENCE = re.compile(r"(?<=[.?!]) (?=[A-Z`(])")
_COMMAND = re.compile(r"`[^`]*`")
_OF_ANOTHER = re.compile(r"`|headstart |torchrun |\bpretrain\b|\bprepare\b")
"""What a sentence has that gives another command."""


@contextmanager
def in_words_of(own: Collection[str], called: Mapping[str, str] = {}) -> Iterator[None]:
    """Errors from deeper rooms in the flags of a verb (`in_flags_of`), for who calls it from Python too. It decorates a verb."""
    try:
        yield
    except HeadstartError as error:
        in_flags_of(error, own, called)
        raise


def in_flags_of(error: HeadstartError, own: Collection[str], called: Mapping[str, str] = {}) -> None:
    """Says an error in flags that the verb has: a way out by a flag that it lacks is left away, one of the data that it has without its group is
    called so, and of any other it is said whose it is.

    Args:
        own: the verb's flags.
        called: what the verb calls otherwise.
    """

    def name(flag: str) -> str:
        plain = _OF_DATA.sub("--", flag)
        return called.get(flag, flag if flag in own or plain not in own else plain)

    error.reword(lambda text: FLAG.sub(lambda found: name(found[0]), text))
    kept, strange = [], dict.fromkeys(_strange(error.what, own))
    for sentence in _SENTENCE.split(error.mend):
        lacking = [] if _OF_ANOTHER.search(sentence) else _strange(sentence, own)
        if lacking and sentence.startswith("Or "):
            continue
        kept.append(sentence)
        strange |= dict.fromkeys(lacking)
    if strange:
        whose = "is a flag" if len(strange) == 1 else "are flags"
        kept.append(f"({' and '.join(strange)} {whose} of `headstart pretrain`.)")
    error.mend = " ".join(kept).strip()
    error.reword(str)


def in_python(verb: Callable[..., Any]) -> Callable[..., Any]:
    """A verb for who calls it from Python: its errors end with the keywords that its flags are."""

    @functools.wraps(verb)
    def called(*args: Any, **settings: Any) -> Any:
        try:
            return verb(*args, **settings)
        except HeadstartError as error:
            flags = dict.fromkeys(FLAG.findall(_COMMAND.sub("", str(error))))
            if flags and not getattr(error, "__notes__", None):
                error.add_note(f"In Python: {', '.join(f'{flag} is {_keyword(flag)}' for flag in flags)}")
            raise

    return called


def _keyword(flag: str) -> str:
    name = flag.removeprefix("--").replace("-", "_")
    return f"**{{'{name}': ...}}" if "." in name else f"{name}=..."


def _strange(text: str, own: Collection[str]) -> list[str]:
    """The flags of groups in it that the verb lacks."""
    return [flag for flag in FLAG.findall(text) if "." in flag and flag not in own]
