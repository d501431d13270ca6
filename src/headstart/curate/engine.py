"""Daft runs the passes: a dataframe of shard numbers, a worker process an entry; the whole-corpus questions are its joins and groups.

Embedded, the workers are processes of this machine. On a Ray cluster the same plan runs on its nodes, which must see the same folders. The stages
themselves
are functions of Arrow tables; `over` puts one on any dataframe of pages or documents.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing import AuthenticationError
from pathlib import Path
from typing import Any

os.environ.setdefault("DAFT_ANALYTICS_ENABLED", "0")  # nothing is told to anyone
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("DAFT_PROGRESS_BAR", "0")

from headstart.core import errors
from headstart.core.progress import Reporter
from headstart.curate.counts import StageCounts, merged
from headstart.curate.passes import Pass, error_of, run_shard
from headstart.curate.tables import Stage

try:
    import daft
    from daft.execution import udf
except ImportError:
    raise errors.MissingDependency("daft", "curate", "headstart curate") from None


_GONE = re.compile(r"UDF process (?:closed the connection|has terminated)|actor ?(?:died|is dead)|worker ?(?:died|crashed)", re.IGNORECASE)
"""What Daft and Ray say of a worker that is there no more."""
_NOT_BEGUN = re.compile(r"UDF process has terminated: (did not begin[^\n]*)")
BEGIN_S = 300.0
"""Seconds in which a worker must have loaded its libraries; on a busy machine they are a few."""


class _Handle(udf.UdfHandle):
    """Daft's end of a worker process. It waits without a limit until the worker connects; this one stops when the worker ended, or took `BEGIN_S`."""

    def __init__(self, expression: Any) -> None:
        began = threading.Event()
        watch = threading.Thread(target=self._watch, args=(began,), daemon=True)
        watch.start()
        try:
            super().__init__(expression)
        except (EOFError, OSError, AuthenticationError) as error:
            self.process.kill()
            said, _ = self.process.communicate()
            last = said.decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise RuntimeError(f"UDF process has terminated: did not begin (exit code {self.process.returncode}): {last[:300]}") from error
        finally:
            began.set()

    def _watch(self, began: threading.Event) -> None:
        """Calls in place of a worker that will not."""
        for _ in range(int(BEGIN_S / 0.1)):
            if began.wait(0.1):
                return
            if "process" in vars(self) and self.process.poll() is not None:
                break
        with suppress(OSError), socket.socket(socket.AF_UNIX) as caller:
            caller.connect(self.socket_path)


class _Worker:
    """Takes shards through a pass; one a process."""

    def __init__(self, work: Pass) -> None:
        self.work = work

    @daft.method(return_dtype=daft.DataType.string())
    def __call__(self, shard: int) -> str:
        try:
            return json.dumps({"seconds": run_shard(self.work, shard)})
        except errors.HeadstartError as error:
            return error_of(error)
        except Exception as error:
            traceback.print_exc()
            return error_of(error)


def start(engine: str, address: str | None = None) -> None:
    """Chooses who runs the plans: "embedded" or "ray" (a cluster at `address`, or a local one).

    Raises:
        MissingDependency: Ray is not installed.
        MachineError: the cluster does not answer.
    """
    # Workers are Python processes of their own: they must find this package where this one found it, from whatever folder.
    here = str(Path(__file__).parents[2])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if here not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [here, *paths]))
    here_already: Any = daft.runners._get_runner()
    if here_already is not None:
        name = "ray" if here_already.name == "ray" else "embedded"
        if name != engine:  # Daft keeps the one that it began with
            raise errors.UsageError(f"This Python process runs Daft plans by the engine {name} already.", "Curate in a process of its own.")
        return
    if engine == "embedded":
        udf.UdfHandle = _Handle  # type: ignore[misc, assignment]
        daft.set_runner_native()
        return
    try:
        import ray
    except ImportError:
        raise errors.MissingDependency("ray", "ray", "--engine ray") from None
    if not ray.is_initialized():
        try:
            ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise errors.MachineError(f"The Ray cluster {address or ''} does not answer ({error}).", "Check its address.") from error
    daft.set_runner_ray(address)


def run_pass(work: Pass, *, engine: str, workers: int, seconds: dict[str, float]) -> list[StageCounts]:
    """Does the shards of a pass that are not done, and returns the counts of all.

    Args:
        seconds: what the workers took for each stage is added here.

    Raises:
        HeadstartError: what a worker met.
    """
    work.folder.mkdir(parents=True, exist_ok=True)
    todo = work.unfinished()
    if todo:
        worker = daft.cls(_Worker, max_concurrency=min(workers, len(todo)), use_process=True)(work)
        shards = daft.from_pydict({"shard": todo})
        spread = shards.into_partitions(len(todo)) if engine == "ray" else shards.into_batches(1)
        done = len(work.sources) - len(todo)
        with Reporter(f"curate {', '.join(work.stages)}", len(work.sources), "shards", already=done) as reporter:
            rows = spread.select(worker(daft.col("shard")).alias("answer")).iter_rows(results_buffer_size=None)
            while (row := _next(rows)) is not None:
                for name, took in _seconds(json.loads(row["answer"])).items():
                    seconds[name] = seconds.get(name, 0.0) + took
                reporter.advance()
        if work.unfinished():  # Daft may take Ctrl-C for itself and end its rows early
            raise KeyboardInterrupt
    return merged(work.read_counts(shard) for shard in range(len(work.sources)))


def _next(rows: Iterator[dict[str, Any]]) -> dict[str, Any] | None:
    """The next row; None at the end.

    Raises:
        MachineError: a worker process is gone.
    """
    try:
        return next(rows, None)
    except Exception as error:
        if _GONE.search(str(error)) is None:
            raise
        if found := _NOT_BEGUN.search(str(error)):
            mend = "Install what it lacks for this Python, or give a smaller --workers where memory is short; the same command then continues."
            raise errors.MachineError(f"A worker process of the curation {found[1]}", mend) from error
        mend = "Look whether it took too much memory (--workers with a smaller number needs less), then give the same command: it continues."
        raise errors.MachineError("A worker process of the curation was killed.", mend) from error


def _seconds(answer: dict[str, Any]) -> dict[str, float]:
    """What a worker sent of a finished shard.

    Raises:
        HeadstartError: it sent an error.
    """
    if "error" not in answer:
        found: dict[str, float] = answer["seconds"]
        return found
    if answer["error"] == "bug":
        raise RuntimeError(answer["what"])
    kind: Callable[..., Exception] = getattr(errors, answer["error"], errors.HeadstartError)
    if kind is errors.MissingDependency:  # its words are made already
        raise errors.MachineError(answer["what"], answer["mend"])
    raise kind(answer["what"], answer["mend"])


def documents(files: Sequence[Path]) -> daft.DataFrame:
    """A dataframe of the documents of a pass."""
    return daft.read_parquet([str(file) for file in files])


def over(frame: daft.DataFrame, stage: Stage) -> daft.DataFrame:
    """A stage on any dataframe with the columns that it needs: the same rows, with its new columns and `dropped`.

    >>> over(daft.from_pydict({"text_list": [["see lorem ipsum"]], "language": ["en"], "words": [3]}), rules(RulesConfig()))
    """
    import pyarrow as pa

    names = frame.column_names
    schema = frame.schema().to_pyarrow_schema()
    result = daft.DataType.struct({field.name: daft.DataType.from_arrow_type(field.type) for field in stage(schema.empty_table()).schema})

    @daft.func.batch(return_dtype=result)
    def run(*columns: daft.Series) -> Any:
        arrays = {name: column.to_arrow() for name, column in zip(names, columns, strict=True)}
        table = pa.table(arrays).cast(schema)
        return stage(table).replace_schema_metadata(None).to_struct_array().combine_chunks()

    return frame.select(run(*(daft.col(name) for name in names)).unnest())
