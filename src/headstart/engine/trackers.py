"""The metrics of a run to services that people already use: Weights & Biases and MLflow, each a thin sink beside metrics.jsonl.

Where they send to is said in their own way (WANDB_PROJECT, WANDB_MODE=offline, MLFLOW_TRACKING_URI, MLFLOW_EXPERIMENT_NAME ...). A service that
fails is left out with one warning, and the run goes on. A resumed run goes on in the same tracked run; steps that it repeats come with the same
values again.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any, Literal, Protocol

from headstart.core.config import leaves
from headstart.core.errors import MissingDependency
from headstart.core.run import RunFolder

Tracker = Literal["wandb", "mlflow"]
PROJECT = "headstart"
"""The project or experiment, where the service's own settings name none."""
MAX_PARAMETER = 500
"""Characters of a setting that MLflow is sent; its older servers take no more."""


class Sink(Protocol):
    """Takes scalars by name, as TensorBoard does."""

    def add_scalars(self, values: Mapping[str, float], step: int) -> None: ...

    def close(self) -> None: ...


def refuse_missing(trackers: Sequence[str]) -> None:
    """Raises MissingDependency when the package of a tracker is not installed."""
    for name in trackers:
        if find_spec(name) is None:
            raise MissingDependency(name, "trackers", f"--trainer.trackers {name}")


def open_trackers(trackers: Sequence[Tracker], run: RunFolder, say: Callable[[str], None]) -> list[Sink]:
    """The sinks of a run, each of which warns once and is silent after that when its service fails."""
    return [_Careful(name, run, say) for name in trackers]


class _Careful:
    """A tracker whose errors end the tracking, never the training."""

    def __init__(self, name: Tracker, run: RunFolder, say: Callable[[str], None]) -> None:
        self._name = name
        self._say = say
        self._sink: Sink | None = None
        self._try(lambda: setattr(self, "_sink", _SINKS[name](run)))

    def add_scalars(self, values: Mapping[str, float], step: int) -> None:
        if (sink := self._sink) is not None:
            self._try(lambda: sink.add_scalars(values, step))

    def close(self) -> None:
        if (sink := self._sink) is not None:
            self._try(sink.close)

    def _try(self, action: Callable[[], object]) -> None:
        try:
            action()
        except Exception as error:  # whatever a service and its network can raise
            self._sink = None
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            self._say(f"WARNING: {self._name} gets no more of this run ({reason[:200]}); metrics.jsonl has every number.")


class _Wandb:
    """Weights & Biases: sends from a process of its own."""

    def __init__(self, run: RunFolder) -> None:
        import wandb

        identity = _identity(run, "wandb", lambda: secrets.token_hex(4))
        settings = wandb.Settings(silent=True, console="off", save_code=False, disable_git=True)
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        self._run = wandb.init(
            project=project, name=run.folder.name, id=identity, resume="allow", config=run.info.get("config"), settings=settings
        )
        self._run.define_metric("*", step_metric="step")  # its own step only grows: a resumed run repeats some

    def add_scalars(self, values: Mapping[str, float], step: int) -> None:
        self._run.log({**values, "step": step})

    def close(self) -> None:
        self._run.finish()


class _MLflow:
    """MLflow: sends from a thread of its own."""

    def __init__(self, run: RunFolder) -> None:
        from mlflow import MlflowClient
        from mlflow.entities import Metric, Param

        self._metric = Metric
        self._client = MlflowClient()
        self._sent: Any = None
        begins = "mlflow" not in run.info.get("trackers", {})
        self._id = _identity(run, "mlflow", lambda: self._client.create_run(self._experiment(), run_name=run.folder.name).info.run_id)
        if begins:
            settings = [Param(name, str(value)[:MAX_PARAMETER]) for name, value in leaves(run.info.get("config", {}))]
            self._client.log_batch(self._id, params=settings)
        else:
            self._client.update_run(self._id, status="RUNNING")

    def _experiment(self) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self._client.get_experiment_by_name(name)
        return known.experiment_id if known is not None else self._client.create_experiment(name)

    def add_scalars(self, values: Mapping[str, float], step: int) -> None:
        now = time.time_ns() // 1_000_000
        metrics = [self._metric(name, value, now, step) for name, value in values.items()]
        self._sent = self._client.log_batch(self._id, metrics=metrics, synchronous=False)

    def close(self) -> None:
        if self._sent is not None:
            self._sent.wait()
        self._client.set_terminated(self._id)


_SINKS: dict[Tracker, Callable[[RunFolder], Sink]] = {"wandb": _Wandb, "mlflow": _MLflow}


def _identity(run: RunFolder, service: str, make: Callable[[], str]) -> str:
    """The name under which the service knows this run; kept in run.json, so that a resumed run goes on in the same one."""
    known: dict[str, str] = dict(run.info.get("trackers", {}))
    if service not in known:
        known[service] = make()
        run.update(trackers=known)
    return known[service]
