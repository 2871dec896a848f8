"""One of TensorBoard's event files, written by whoever calls.

The writer of torch has a thread and a queue for each file; a search has a file for each trial.
"""

import contextlib
import itertools
import os
import socket
import time
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

# Of the format, which a file names first.
_VERSION = "brain.Event:2"
_numbers = itertools.count()


class EventFile:
    """A new event file, in which each summary stands as soon as it was added.

    Args:
        folder: where to make it; made if there is none.

    Raises:
        OSError: the disk takes no more, here or when something is added.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self._file = (folder / name).open("wb")
        self._records = RecordWriter(self._file)
        self._add(file_version=_VERSION)

    def add(self, summary: Summary, step: int = 0) -> None:
        """Write a summary, at a step of its curves."""
        self._add(summary=summary, step=step)

    def _add(self, **values: Any) -> None:
        try:
            self._records.write(Event(wall_time=time.time(), **values).SerializeToString())
            self._records.flush()
        except OSError:
            # Nothing may follow half a record.
            with contextlib.suppress(OSError):
                self.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
