"""The log of a run's validations, `metrics.jsonl`, and of the time that the run has taken."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from pathlib import Path

from metalearn_benchmarks.host.data_files import parse_json, read_file
from metalearn_benchmarks.records.files import write_atomically
from metalearn_benchmarks.records.quarantine import quarantine
from metalearn_core import Event

Line = dict[str, float | None]
"""`position` and `seconds`, then the values of the validation. None: not finite, or not known."""


class MetricsLog:
    """Observer that writes one line for each validation, and measures the time of the run.

    A damaged log is quarantined, and a new one is begun.

    Args:
        path: The log. Lines of an earlier start of the run are kept.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.started = path, time.monotonic()
        self.lines = _read_lines(path)
        self.earlier_seconds = max((line["seconds"] or 0.0 for line in self.lines), default=0.0)

    @property
    def seconds(self) -> float:
        """Wall time of the run, over all its starts, each up to its last validation."""
        return self.earlier_seconds + time.monotonic() - self.started

    def __call__(self, event: Event) -> None:
        if event.kind == "validation":
            # a run that was cut off may validate again where it had a line already
            self.lines = [line for line in self.lines if (line["position"] or 0) < event.position]
            values = {key: _finite_or_none(value) for key, value in event.values.items()}
            self.lines.append({"position": event.position, "seconds": self.seconds, **values})
            self._write()

    def complete(self, validations: Sequence[tuple[int, float]], higher_is_better: bool) -> None:
        """Add a line for each validation that the log lacks, as after its loss; the line has no time.

        Args:
            validations: Position and score of every validation of the run.
            higher_is_better: Whether a higher score is better.
        """
        known, best = {line["position"]: line for line in self.lines}, math.nan
        lines: list[Line] = []
        for position, score in validations:
            better = score > best if higher_is_better else score < best
            best = score if better or math.isnan(best) else best
            values: Line = {"score": _finite_or_none(score), "best": _finite_or_none(best)}
            lines.append(known.get(position, {"position": position, "seconds": None, **values}))
        if lines != self.lines:
            self.lines = lines
            self._write()

    def _write(self) -> None:
        text = "".join(json.dumps(line, allow_nan=False) + "\n" for line in self.lines)
        write_atomically(self.path, text)


def _finite_or_none(value: float | str) -> float | None:
    """Return the number, or None for NaN and infinity, which JSON lacks."""
    return float(value) if math.isfinite(float(value)) else None


def _read_lines(path: Path) -> list[Line]:
    """Return the lines of an earlier start, up to the first that cannot be read."""
    lines: list[Line] = []
    if path.exists():
        try:
            for text in read_file(path).decode().splitlines():
                line = parse_json(text.encode())
                if type(line["position"]) is not int or not isinstance(line["seconds"], float | None):
                    raise ValueError(f"expected a position and seconds, got {text[:80]}")
                lines.append(line)
        except (ValueError, TypeError, KeyError) as error:
            quarantine(path, f"line {len(lines) + 1} cannot be read ({error!r})")
    return lines
