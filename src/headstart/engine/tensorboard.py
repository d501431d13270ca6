"""TensorBoard's event file, written as the run goes: no thread of its own, each record whole or absent, one system call a log step.

torch's SummaryWriter writes in a thread, whose errors come as a traceback, later, from somewhere else. What a full disk does to this copy of
metrics.jsonl is said once, and the run goes on: metrics.jsonl decides.
"""

from __future__ import annotations

import io
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headstart.core.machine import refusal


class EventFile:
    """One event file of a run.

    Args:
        folder: `runs/NAME/tb`.
        purge_step: a resumed run begins here: TensorBoard forgets what an earlier file says past it.
        say: gets a line when the file cannot be written any more.
    """

    def __init__(self, folder: Path, purge_step: int | None, say: Callable[[str], None]) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        self._say = say
        self.path = folder / f"events.out.tfevents.{time.time_ns():019d}.{socket.gethostname()}"
        self._file: io.FileIO | None = None
        try:
            folder.mkdir(exist_ok=True)
            self._file = io.FileIO(self.path, "x")
        except OSError as error:
            self._give_up(error)
        first = [Event(wall_time=time.time(), file_version="brain.Event:2")]
        if purge_step is not None:
            first.append(Event(wall_time=time.time(), step=purge_step, session_log=SessionLog(status=SessionLog.START)))
        self._write(first)

    def add_scalars(self, values: Mapping[str, float], step: int) -> None:
        """Values by their names."""
        from tensorboard.compat.proto.event_pb2 import Event
        from torch.utils.tensorboard.summary import scalar

        self._write([Event(wall_time=time.time(), step=step, summary=scalar(name, value)) for name, value in values.items()])

    def draw_together(self, names: list[str], title: str) -> None:
        """Asks TensorBoard to draw some values in one chart."""
        from tensorboard.compat.proto.event_pb2 import Event
        from torch.utils.tensorboard.summary import custom_scalars

        self._write([Event(wall_time=time.time(), summary=custom_scalars({"Custom": {title: ["Multiline", names]}}))])

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, events: list[Any]) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        if self._file is None:
            return
        buffer = io.BytesIO()
        writer = RecordWriter(buffer)
        for event in events:
            writer.write(event.SerializeToString())
        data = buffer.getvalue()
        try:
            written = self._file.write(data)
            if written != len(data):  # the disk took a part: the next byte will say why
                self._file.write(data[written:])
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        if refusal(error, writing=True) is None:
            raise error
        self.close()
        self._say(f"WARNING: {self.path} could not be written ({error.strerror}); metrics.jsonl has every number.")
