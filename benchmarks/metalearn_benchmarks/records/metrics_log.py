"""The log of a run's validations, `metrics.jsonl`."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

from metalearn_benchmarks.records.files import write_atomically
from metalearn_benchmarks.records.quarantine import quarantine
from metalearn_core import Event

Line = dict[str, float | None]
"""`position` and `seconds`, then what the validation told; None: not finite, or not known."""


class MetricsLog:
    """Observer that keeps one line per validation, and the time spent in all. A damaged log is set aside."""

    def __init__(self, path: Path) -> None:
        self.path, self.since = path, time.monotonic()
        self.lines = _lines_of(path)
        self.before = max((line["seconds"] or 0.0 for line in self.lines), default=0.0)

    @property
    def seconds(self) -> float:
        """Wall time of the run, over all its sittings, from the last validation that each reached."""
        return self.before + time.monotonic() - self.since

    def __call__(self, event: Event) -> None:
        if event.kind == "validation":
            # a run that was cut off may validate again where it had a line already
            self.lines = [line for line in self.lines if (line["position"] or 0) < event.position]
            values = {key: _number(value) for key, value in event.values.items()}
            self.lines.append({"position": event.position, "seconds": self.seconds, **values})
            self._write()

    def complete(self, validations: Sequence[tuple[int, float]], higher_is_better: bool) -> None:
        """Give the validations that no line tells of, where a log was lost, a line without its time."""
        known, best = {line["position"]: line for line in self.lines}, math.nan
        lines: list[Line] = []
        for position, score in validations:
            better = score > best if higher_is_better else score < best
            best = score if better or math.isnan(best) else best
            told: Line = {"score": _number(score), "best": _number(best)}
            lines.append(known.get(position, {"position": position, "seconds": None, **told}))
        if lines != self.lines:
            self.lines = lines
            self._write()

    def _write(self) -> None:
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in self.lines)
        write_atomically(self.path, text)


def _number(value: float | str) -> float | None:
    """JSON has no NaN and no infinity."""
    return float(value) if math.isfinite(float(value)) else None


def _lines_of(path: Path) -> list[Line]:
    """The lines of an earlier sitting, as far as they are whole."""
    lines: list[Line] = []
    if path.exists():
        try:
            for text in path.read_bytes().decode().splitlines():
                line = json.loads(text)
                if type(line["position"]) is not int or not isinstance(line["seconds"], float | None):
                    raise ValueError(f"expected a position and seconds, got {text[:80]}")
                lines.append(line)
        except (ValueError, TypeError, KeyError) as error:
            quarantine(path, f"line {len(lines) + 1} cannot be read ({error!r})")
    return lines
