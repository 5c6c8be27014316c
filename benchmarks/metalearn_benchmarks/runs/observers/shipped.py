"""The observers that come with the package, for those who request them: TensorBoard and JSON lines."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from metalearn_core import Event, UsageError

MAX_POINTS = 1_000
"""Outer steps of one run that TensorBoard shows, roughly."""


class JsonLines:
    """Observer that writes every event as a line of JSON to standard output.

    The keys are `experiment`, `setting`, `method`, `seed`, `kind`, `position` and `values`. A number that is
    not finite becomes `null`.
    """

    on_request = True
    writes_stdout = True

    def __init__(self, run: Mapping[str, Any]) -> None:
        self.run = {key: run[key] for key in ("experiment", "setting")}
        self.run |= {"method": run["name"], "seed": run["seed"]}

    def __call__(self, event: Event) -> None:
        values = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in event.values.items()
        }
        line = {**self.run, "kind": event.kind, "position": event.position, "values": values}
        # written at once, so that lines of several processes do not mix
        sys.stdout.write(json.dumps(line, allow_nan=False) + "\n")
        sys.stdout.flush()


class TensorBoard:
    """Observer that writes losses and scores as an event file, in `tensorboard/` of the run's folder.

    Every point is on disk before the run's next checkpoint. A resumed run begins a new file with the points
    of the old one up to the checkpoint, and removes the old one.
    """

    on_request = True

    @staticmethod
    def require() -> None:
        """Raise UsageError where TensorBoard is not installed."""
        try:
            import_module("torch.utils.tensorboard")
        except ImportError as error:
            raise UsageError(
                f"observer 'tensorboard': the package tensorboard cannot be imported ({error});"
                " in the checkout, pip install -e './benchmarks[tensorboard]'"
            ) from error

    def __init__(self, run: Mapping[str, Any]) -> None:
        self.require()
        self.folder = Path(run["folder"], "tensorboard")
        self.writer: Any = None
        self.written: set[tuple[str, int]] = set()
        self.position, self.interval = 0, 1

    def __call__(self, event: Event) -> None:
        if event.kind == "start":
            self._open(event.position, int(event.values["tasks"]))
        elif event.kind == "step":
            passed = event.position // self.interval > self.position // self.interval
            self.position = event.position
            if passed:
                self._point("training/loss", event.position, event.values["loss"])
        elif event.kind == "validation":
            for key in ("score", "best"):
                self._point(f"validation/{key}", event.position, event.values[key])
        elif event.kind == "result":
            for key in ("mean", "median"):
                self._point(f"test/{key}", event.position, event.values[key])

    def _open(self, position: int, tasks: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.position, self.interval = position, max(1, tasks // MAX_POINTS)
        old = sorted(self.folder.glob("*tfevents*"))
        held = (
            {key: point for key, point in _read_points(self.folder).items() if key[1] <= position}
            if old
            else {}
        )
        # a TensorBoard that is looking on forgets what it has read: it is all in the new file
        self.writer = SummaryWriter(str(self.folder), purge_step=0 if old else None)
        for (tag, step), point in held.items():
            self.writer.add_scalar(tag, point.value, step, point.wall_time)
        self.writer.flush()
        for path in old:
            path.unlink()
        self.written = set(held)

    def _point(self, tag: str, position: int, value: Any) -> None:
        if (tag, position) not in self.written:
            self.writer.add_scalar(tag, value, position)
            self.writer.flush()

    def close(self) -> None:
        """Close the event file."""
        if self.writer is not None:
            self.writer.close()


def _read_points(folder: Path) -> dict[tuple[str, int], Any]:
    """Return the points of event files, each once, by tag and position."""
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator

    # a run that was killed while it began a new file has left the old one, which holds all
    held = EventAccumulator(str(folder), size_guidance={SCALARS: 0}, purge_orphaned_data=False)
    held.Reload()
    return {(tag, point.step): point for tag in held.Tags()[SCALARS] for point in held.Scalars(tag)}
