"""The built-in corpus: the documentation of the packages in the user's own Python. Nothing is downloaded, and no package is imported.

`builtin:python-docs` means every docstring (read with `ast`) and every .rst, .md and .txt file under the site-packages folders of `sys.path`, about
40 MB beside torch and transformers. One document is one module or one file, in path order, so equal installations give equal bytes.

    builtin:python-docs?exclude=FILE     leaves out the modules named in FILE, one a line (`docstring_task` writes such a file)

Parsing a scientific installation takes about 25 s on one core, so it is spread over processes: `python -m headstart.data.text.builtin SPEC START
STOP` prints a slice.
"""

from __future__ import annotations

import ast
import gc
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import parse_qsl

from headstart.core.errors import BadInput, MachineError, UsageError
from headstart.core.files import atomic_write
from headstart.core.hardware import cores
from headstart.core.machine import explained, refusal
from headstart.core.progress import Reporter

SPEC = "builtin:python-docs"
PREFIX = "builtin:"
DOCUMENT_SUFFIXES = (".rst", ".md", ".txt")
MAX_FILE_BYTES = 4_000_000
"""Larger files of an installed package are data, not documentation."""


@dataclass(frozen=True)
class Document:
    """One module's docstrings or one documentation file. Fields `text`, `package` and `module` are those of the written corpus."""

    text: str
    package: str
    """Top-level package, for example "numpy"."""
    module: str
    """Dotted module name, or path below site-packages for a documentation file."""


@dataclass(frozen=True)
class PackageFile:
    path: Path
    package: str
    module: str
    size: int


def excluded_modules(spec: str) -> frozenset[str]:
    """Modules that `spec` leaves out.

    Raises UsageError for a spec that is not `builtin:python-docs` with at most an `exclude`, BadInput for a file that cannot be read.
    """
    name, _, query = spec.partition("?")
    options = dict(parse_qsl(query))
    if name != SPEC or set(options) - {"exclude"}:
        mend = f"There is {SPEC}, {SPEC}?exclude=FILE, and languages with a known optimum: builtin:pcfg-tiny, builtin:pcfg-mini, builtin:hmm."
        raise UsageError(f"unknown built-in corpus {spec!r}.", mend)
    if "exclude" not in options:
        return frozenset()
    try:
        return frozenset(Path(options["exclude"]).read_text().split())
    except (OSError, ValueError) as error:
        raise BadInput(f"cannot be read ({error}).", "Give a text file with one module name a line.", file=options["exclude"]) from error


def package_files(spec: str = SPEC) -> list[PackageFile]:
    """The files of the corpus, by path."""
    excluded = excluded_modules(spec)
    files = []
    for root in _site_packages():
        for here, folders, names in os.walk(root):
            top = here == str(root)
            folders[:] = sorted(name for name in folders if not name.startswith((".", "__")) and not name.endswith((".dist-info", ".egg-info")))
            for name in sorted(names):
                if not name.endswith((".py", *DOCUMENT_SUFFIXES)) or name == "CMakeLists.txt":
                    continue
                path = Path(here, name)
                relative = path.relative_to(root)
                package = relative.stem if top else relative.parts[0]
                module = ".".join(relative.with_suffix("").parts).removesuffix(".__init__") if name.endswith(".py") else relative.as_posix()
                size = path.stat().st_size if path.is_file() else 0
                if 0 < size <= MAX_FILE_BYTES and module not in excluded:
                    files.append(PackageFile(path, package, module, size))
    return files


def _site_packages() -> list[Path]:
    roots = [Path(entry) for entry in sys.path if Path(entry).name in ("site-packages", "dist-packages") and Path(entry).is_dir()]
    return list(dict.fromkeys(root.resolve() for root in roots))


def listing_sha256(files: list[PackageFile]) -> str:
    """Changes when a package is added, removed or updated: a hash of all module names and sizes."""
    return hashlib.sha256("\n".join(f"{file.module} {file.size}" for file in files).encode(errors="backslashreplace")).hexdigest()


def builtin_documents(spec: str = SPEC, workers: int | None = None) -> Iterator[Document]:
    """The documents of the corpus, in path order, parsed by `workers` processes (None: one a core)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "corpus.jsonl")
        write_builtin(spec, path, workers)
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                yield Document(**json.loads(line))


def write_builtin(spec: str, path: Path, workers: int | None = None) -> None:
    """Write the corpus as .jsonl with the fields of `Document`.

    Raises:
        MachineError: one of its processes was killed, or the disk is full.
    """
    files = package_files(spec)
    if not files:
        raise BadInput("no packages are installed in this Python.", "Give your own files with --data.", file=spec)
    workers = workers or cores()
    slices = _equal_slices([file.size for file in files], 2 * workers)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(workers) as pool, Reporter("read docstrings", len(files), "files") as reporter:

        running: list[subprocess.Popen[bytes]] = []

        def print_slice(bounds: tuple[int, int]) -> Path:
            output = Path(folder, str(bounds[0]))
            command = [sys.executable, "-m", __name__, spec, *map(str, bounds)]
            with output.open("wb") as file:  # in a group of its own: Ctrl-C reaches us alone, and we end it
                process = subprocess.Popen(command, stdout=file, stderr=subprocess.PIPE, env=environment, process_group=0)
            running.append(process)
            said = process.communicate()[1]
            if process.returncode:
                raise _failure(process.returncode, said.decode(errors="replace"), output)
            return output

        try:
            with atomic_write(path) as whole:
                for bounds, output in zip(slices, pool.map(print_slice, slices), strict=True):
                    whole.write(output.read_bytes())
                    reporter.advance(bounds[1] - bounds[0])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.kill()
            raise


def _failure(code: int, said: str, output: Path) -> Exception:
    """What is raised for a process that did not end well."""
    last = (said.strip().splitlines() or [""])[-1]
    if code == -signal.SIGKILL:
        return MachineError(
            "A process that reads the documentation was killed, as the system does when memory runs out.",
            "Give --text.workers 1, which needs less of it, and the same command starts again.",
        )
    failure = RuntimeError(f"a process that reads the documentation ended with code {code}: {last}")
    refused = refusal(failure, writing=True)
    return failure if refused is None else explained(refused[0], output)


def _equal_slices(sizes: list[int], count: int) -> list[tuple[int, int]]:
    """Cut `sizes` into at most `count` runs of about equal sum."""
    share = max(sum(sizes) / count, 1)
    bounds, start, total = [], 0, 0.0
    for index, size in enumerate(sizes):
        total += size
        if total >= share:
            bounds.append((start, index + 1))
            start, total = index + 1, 0.0
    if start < len(sizes):
        bounds.append((start, len(sizes)))
    return bounds


def read_document(file: PackageFile) -> Document | None:
    """The file's documentation; None if it has none or cannot be parsed (templates, other encodings): that is not the user's fault."""
    try:
        data = file.path.read_bytes()
        if file.path.suffix == ".py":
            text = docstrings(data) if b'"""' in data or b"'''" in data else ""
        else:
            text = data.decode().removeprefix("\ufeff")
        text.encode()
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return Document(text, file.package, file.module) if text.strip() and "\0" not in text else None


def docstrings(source: bytes) -> str:
    """All docstrings of a module, cleaned of their indentation, in order, with a blank line between them. Only statements are visited: docstrings
    stand nowhere else."""
    found: list[str] = []
    stack: list[ast.AST] = [ast.parse(source)]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                found.append(text)
        blocks = [getattr(node, name, []) for name in ("body", "handlers", "orelse", "finalbody")]
        stack.extend(child for block in reversed(blocks) if isinstance(block, list) for child in reversed(block))
    return "\n\n".join(found)


def _print_slice(spec: str, start: int, stop: int) -> None:
    gc.disable()  # ast makes millions of objects that all live until the file is done: collecting between costs a fifth
    for file in package_files(spec)[start:stop]:
        document = read_document(file)
        if document is not None:
            sys.stdout.write(json.dumps(asdict(document), ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
    _print_slice(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
