"""Configuration is dataclasses: one definition gives Python, command line and YAML the same names and defaults.

Every field has a docstring (a string literal under it) with its unit and, in a method, the paper's value; `field_docs` reads them from the source, so
`--help`, the commented YAML and the documentation cannot drift apart.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import math
import textwrap
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import yaml

from headstart.core.errors import BadInput, UsageError
from headstart.core.files import read_bounded
from headstart.core.words import did_you_mean

MAX_YAML_BYTES = 1 << 18
"""`read_yaml` refuses larger files; every setting with its explanation is a tenth of this."""


def several(given: Any) -> list[Any]:
    """One entry or a sequence of them as a list. A text is one entry, and not its letters.

    Raises:
        UsageError: it is neither.
    """
    if isinstance(given, str | bytes | Path):
        return [given]
    try:
        return list(given)
    except TypeError:
        raise UsageError(f"{given!r} is neither an entry nor a list of entries.", "Give a path or a text, or a list of them.") from None


@cache
def field_docs(cls: type) -> dict[str, str]:
    """Name -> docstring of each field of a dataclass, those of its bases included."""
    docs: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if not dataclasses.is_dataclass(base):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        except (OSError, TypeError):  # made by make_dataclass: no source
            continue
        body = typing.cast(ast.ClassDef, tree.body[0]).body
        for statement, following in pairwise(body):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and isinstance(following, ast.Expr):
                text = getattr(following.value, "value", None)
                if isinstance(text, str):
                    docs[statement.target.id] = inspect.cleandoc(text)
    return docs


def flag_names(config: Any) -> frozenset[str]:
    """Every leaf field of a (nested) dataclass as the command line writes it."""
    return frozenset(f"--{name.replace('_', '-')}" for name in flatten(config))


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Dotted name -> value of every leaf field of a (nested) dataclass."""
    leaves: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        name = prefix + field.name
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            leaves.update(flatten(value, name + "."))
        else:
            leaves[name] = value
    return leaves


def plain(value: Any) -> Any:
    """The value as JSON and YAML can hold it: paths become strings, tuples lists, dataclasses dictionaries, NaN and infinity their names."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _dotted(config: Any, name: str) -> str | None:
    """budget.minutes for budget_minutes, which a keyword argument cannot spell with a dot; None where no group has such a setting."""
    for group in dataclasses.fields(config):
        inner, rest = getattr(config, group.name), name.removeprefix(f"{group.name}_")
        if rest != name and dataclasses.is_dataclass(inner) and rest in {field.name for field in dataclasses.fields(inner)}:
            return f"{group.name}.{rest}"
    return None


def replace_nested(config: Any, changes: Mapping[str, Any], *, where: str = "configuration") -> Any:
    """A copy of a nested dataclass with the (nested or dotted) fields of `changes` set; unknown names and wrong types are refused.

    Raises:
        UsageError: a name that the dataclass does not have, or a value of another type.
    """
    hints = typing.get_type_hints(type(config))
    names = {field.name for field in dataclasses.fields(config)}
    nested: dict[str, Any] = {}
    for key, value in changes.items():
        head, _, rest = str(key).partition(".")
        if head not in names:
            dotted = _dotted(config, head)
            guess = did_you_mean(head, names) if dotted is None else f"Did you mean {dotted}? In Python: **{{'{dotted}': ...}}. "
            mend = f"{guess}The settings here are: {', '.join(sorted(names))}."
            raise UsageError(f"{where}: there is no setting '{key}'.", mend)
        current = getattr(config, head)
        if dataclasses.is_dataclass(current) and not isinstance(current, type):
            if not rest and not isinstance(value, Mapping):
                first = dataclasses.fields(current)[0].name
                raise UsageError(f"{where}: '{key}' is a group of settings, not a value.", f"Set what is in it, as '{key}.{first}'.")
            nested.setdefault(head, {}).update({rest: value} if rest else value)
        elif rest:
            raise UsageError(f"{where}: '{head}' is a single value and has no '{rest}'.", f"Set '{head}' itself.")
        else:
            nested[head] = checked(value, hints[head], f"{where}: {key}")
    return dataclasses.replace(
        config,
        **{
            head: replace_nested(getattr(config, head), value, where=f"{where}: {head}") if dataclasses.is_dataclass(getattr(config, head)) else value
            for head, value in nested.items()
        },
    )


def checked(value: Any, hint: Any, where: str) -> Any:
    """`value` as the type of `hint`, or UsageError. Integers serve as floats, strings as paths; nothing else is converted."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if isinstance(value, float) and not math.isfinite(value) and float in (hint, *arguments):
        raise UsageError(f"{where} is {value}.", "Give a finite number.")
    if origin in (Union, types.UnionType):
        for argument in arguments:
            try:
                return checked(value, argument, where)
            except UsageError:
                continue
    elif origin is Literal:
        if value in arguments:
            return value
    elif origin in (list, tuple):
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            value = [value]  # YAML: `data: texts` means `data: [texts]`
        if isinstance(value, list | tuple):
            element = arguments[0] if arguments else Any
            return origin(checked(item, element, where) for item in value)
    elif origin is dict:
        if isinstance(value, dict):
            return {checked(key, arguments[0], where): checked(item, arguments[1], f"{where}: {key}") for key, item in value.items()}
    elif hint is float:
        if isinstance(value, int | float) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str):  # YAML 1.1 reads 1e-3 as a string
            try:
                if math.isfinite(number := float(value)):
                    return number
            except ValueError:
                pass
    elif hint is Path:
        if isinstance(value, str | Path):
            return Path(value)
    elif hint is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif hint is type(None):
        if value is None:
            return None
    elif isinstance(hint, type) and isinstance(value, hint):
        return value
    expected = " or ".join(str(a) for a in arguments) if origin is Literal else getattr(hint, "__name__", str(hint))
    raise UsageError(f"{where} must be {expected}, not {value!r}.", f"It takes: {takes(hint)}.")


def takes(hint: Any, mark: str = "") -> str:
    """What a field of this type takes, in words: "a whole number", "one of x, y", "paths" ...

    Args:
        mark: stands on both sides of what is written as it is.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(takes(part, mark) for part in arguments if part is not types.NoneType))
    if origin is Literal:
        *most, last = [f"{mark}{value}{mark}" for value in arguments]
        return f"{', '.join(most)} or {last}" if most else last
    if origin in (tuple, list):
        return f"{takes(arguments[0], mark)}, several"
    return _IN_WORDS.get(hint, getattr(hint, "__name__", str(hint)))


_IN_WORDS: dict[Any, str] = {int: "whole number", float: "number", str: "text", Path: "path", bool: "on or off"}


def read_yaml(path: Path, example: str = "`--write-config FILE` writes one with every setting explained.") -> dict[str, Any]:
    """A configuration file as a nested dictionary. Tags that make objects, aliases and keys that come twice are refused.

    Args:
        example: how to come by a good one, a sentence.

    Raises:
        BadInput: unreadable, over `MAX_YAML_BYTES`, not YAML, or not a mapping.
    """
    data = read_bounded(path, MAX_YAML_BYTES, "configuration file")
    try:
        values = yaml.load(data.decode(), Loader=_Loader)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:  # "!!bool x" is a KeyError, 9999-99-99 a ValueError
        raise BadInput(f"is not YAML: {' '.join(str(error).split())[:300]}.", example, file=path) from None
    if not isinstance(values, dict):
        raise BadInput("holds no settings.", example, file=path)
    return values


class _Loader(yaml.SafeLoader):
    """Plain values only."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):  # nine lines of aliases to aliases stand for a billion values
            raise yaml.composer.ComposerError(None, None, "an alias, which a configuration does not need", self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        mapping = super().construct_mapping(node, deep)
        if len(mapping) < len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "a key comes twice", node.start_mark)
        return mapping


def to_yaml(config: Any) -> str:
    """Every setting of a nested dataclass with its docstring as a comment; `read_yaml` and `replace_nested` take it back."""
    return "\n".join(_yaml_lines(config, 0)) + "\n"


def _yaml_lines(config: Any, depth: int) -> Iterator[str]:
    indent = "  " * depth
    cls: type = type(config)
    docs = field_docs(cls)
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        for line in docs.get(field.name, "").splitlines():
            yield f"{indent}# {line}".rstrip()
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield f"{indent}{field.name}:"
            yield from _yaml_lines(value, depth + 1)
        else:
            as_list = yaml.safe_dump([plain(value)], default_flow_style=True, width=float("inf"), allow_unicode=True)  # "[value]"
            yield f"{indent}{field.name}: {as_list.strip()[1:-1]}"


def provenance(layers: list[tuple[str, Any]], given: Mapping[str, Iterable[str]] | None = None) -> dict[str, str]:
    """Dotted name -> where a setting comes from.

    Args:
        layers: (name, config) from the defaults to the final configuration; the last one that changed a setting counts.
        given: layer -> the settings that it names, from the first to the last: also one that it names with the value that was there already.
    """
    origin = dict.fromkeys(flatten(layers[0][1]), layers[0][0])
    for (_, before), (label, after) in pairwise(layers):
        old = flatten(before)
        for name, value in flatten(after).items():
            if name not in old or old[name] != value:
                origin[name] = label
    for label, names in (given or {}).items():
        origin |= {name: label for name in names if name in origin}
    return origin


def leaves(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of the leaves of a nested (or dotted) dictionary of settings."""
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def dotted(nested: Mapping[str, Any]) -> Iterator[str]:
    """The names of these."""
    return (name for name, _ in leaves(nested))


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any, Any]]:
    """(dotted name, old value, new value) of every leaf that two nested dictionaries do not share."""
    changed: list[tuple[str, Any, Any]] = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            changed += differences(a, b, f"{prefix}{key}.")
        elif a != b:
            changed.append((prefix + key, a, b))
    return changed
