"""docs/errors.md: the exit codes and every message that the code gives, read from the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from headstart.core import errors
from headstart.core.errors import HeadstartError
from tools.pages.results import ROOT, cell

PACKAGE = ROOT / "src" / "headstart"
DO = {
    0: "Done.",
    1: "Our bug. Repeat with `--debug` and report what it prints.",
    2: "Change the command: the message says how.",
    3: "Mend the file or record that the message names, or set bad records aside: `--text.on-bad-input quarantine`.",
    4: "Make room, or install what the message names: `headstart doctor` lists what is missing.",
    5: "See [the loss became NaN](troubleshooting.md#the-loss-became-nan-exit-5).",
    130: "Type the same command again: it continues.",
}
"""What a person does, by exit code."""


def kinds() -> dict[str, type[HeadstartError]]:
    """Name -> class of every error that we raise on purpose, `FirstRankFailed` apart: it speaks for another."""
    found = {name: cls for name, cls in vars(errors).items() if isinstance(cls, type) and issubclass(cls, HeadstartError)}
    return {name: cls for name, cls in found.items() if name != "FirstRankFailed"}


def exit_codes_block() -> str:
    """Exit code, meaning, what to do."""
    meanings: dict[int, list[str]] = {0: ["Good."], 1: ["A bug of ours."]}
    for cls in kinds().values():
        if cls.exit_code > 1:
            meanings.setdefault(cls.exit_code, []).append(first_sentence(cls))
    rows = ["| exit code | what it means | what to do |", "| --- | --- | --- |"]
    return "\n".join(rows + [f"| {number} | {cell(' '.join(meanings[number]))} | {DO[number]} |" for number in sorted(meanings)])


def first_sentence(cls: type) -> str:
    """Of the docstring, without the exit code, which has a column of its own."""
    sentence = re.split(r"(?<=\.)\s", " ".join((cls.__doc__ or "").split()))[0]
    return re.sub(r" \(exit \d+\)", "", sentence)


Meaning = Callable[[str, int], ast.expr | None]
"""(name, line that it stands in) -> what was assigned to it last, as far as the source says."""


def text_of(node: ast.expr | None, meaning: Meaning) -> str | None:
    """A message as a person sees it: the parts that the code fills in become an ellipsis. None where it is put together elsewhere."""
    if node is None:
        return ""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        parts = [str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values]
        return "".join(parts)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return (text_of(node.left, meaning) or "…") + (text_of(node.right, meaning) or "…")
    if isinstance(node, ast.IfExp):
        return text_of(node.body, meaning)
    if isinstance(node, ast.Name) and (assigned := meaning(node.id, node.lineno)) is not None:
        return text_of(assigned, meaning)
    return None


@cache
def constants(path: Path) -> dict[str, ast.expr]:
    """Name -> what a module assigns to it, its own names and those that it imports from others of ours."""
    found: dict[str, ast.expr] = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.value
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("headstart.") and any(one.name.isupper() for one in node.names):
            source = PACKAGE.parent.joinpath(*(node.module or "").split(".")).with_suffix(".py")
            theirs = constants(source) if source.is_file() else {}
            found |= {one.asname or one.name: theirs[one.name] for one in node.names if one.name in theirs}
    return found


def own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function or module without those of the functions in it."""
    for child in ast.iter_child_nodes(scope):
        if not isinstance(child, ast.FunctionDef):
            yield child
            yield from own_nodes(child)


def meaning_in(scope: ast.AST, path: Path) -> Meaning:
    """Of the names in a function: what it assigned to them last before a line; else the module's constant."""
    assigned = [
        (target.id, node.lineno, node.value)
        for node in own_nodes(scope)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]

    def meaning(name: str, line: int) -> ast.expr | None:
        before = [(at, value) for known, at, value in assigned if known == name and at < line]
        return max(before, key=lambda one: one[0])[1] if before else constants(path).get(name)

    return meaning


def raised(path: Path) -> Iterator[tuple[str, str, str]]:
    """(class, message, mend) of every error that a module makes with a text of its own."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    scopes = [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))]
    for scope, node in ((around, inner) for around in scopes for inner in own_nodes(around)):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in kinds() and node.args:
            meaning = meaning_in(scope, path)
            mend = node.args[1] if len(node.args) > 1 else next((word.value for word in node.keywords if word.arg == "mend"), None)
            what = text_of(node.args[0], meaning)
            if what and what != "…":
                yield ast.unparse(node.func), what, text_of(mend, meaning) or ""


def messages_block() -> str:
    """Every message, by exit code and in alphabetical order."""
    by_code: dict[int, set[tuple[str, str]]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        for name, what, mend in raised(path):
            if name != "MissingDependency":  # its arguments are a package and an extra; the class writes the sentence
                by_code.setdefault(kinds()[name].exit_code, set()).add((what, mend))
    parts = []
    for number in sorted(by_code):
        rows = ["| message | what to do |", "| --- | --- |"]
        in_order = sorted(by_code[number], key=lambda pair: (pair[0].lstrip("…- ").lower(), pair))
        rows += [f"| {shown(what)} | {shown(mend)} |" for what, mend in in_order]
        parts.append(f"### Exit {number}\n\n" + "\n".join(rows))
    return "\n\n".join(parts)


def shown(text: str) -> str:
    """A message in a table: nothing in it is Markdown or HTML."""
    escaped = cell(text).replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_").replace("[", "\\[")
    return escaped.replace("`", "&#96;")
