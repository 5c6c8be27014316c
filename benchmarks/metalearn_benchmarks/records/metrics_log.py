"""The log of a run's validations, `metrics.jsonl`, and of the time that the run has taken."""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from metalearn_benchmarks.host.data_files import parse_json, read_file
from metalearn_benchmarks.records.files import write_atomically
from metalearn_benchmarks.records.quarantine import quarantine
from metalearn_core import Event

Line = dict[str, float | None]
"""`position` and `seconds`, then the values of the validation. None: not finite, or not known."""
NAMES = ("experiment", "setting", "method", "seed")
RUN_ID = "run_id"


class MetricsLog:
    """Observer that writes one line for each validation, and measures the time of the run.

    A damaged log is quarantined, and a new one is begun. Each line begins with the names of the run, and with
    its `run_id`, which stays the same when the run goes on.

    Args:
        path: The log. Lines of an earlier start of the run are kept.
        names: The experiment, setting, method and seed of the run.
    """

    def __init__(self, path: Path, names: Mapping[str, str | int]) -> None:
        self.path, self.started = path, time.monotonic()
        self.lines, earlier_id = _read_lines(path)
        self.resumed = bool(self.lines)
        self.names = {**names, RUN_ID: earlier_id or uuid.uuid4().hex}
        self.earlier_seconds = max((line["seconds"] or 0.0 for line in self.lines), default=0.0)

    @property
    def run_id(self) -> str:
        """What names this run and no other one, wherever its folder goes."""
        return str(self.names[RUN_ID])

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
        text = "".join(json.dumps({**self.names, **line}, allow_nan=False) + "\n" for line in self.lines)
        write_atomically(self.path, text)


def _finite_or_none(value: float | str) -> float | None:
    """Return the number, or None for NaN and infinity, which JSON lacks."""
    return float(value) if math.isfinite(float(value)) else None


def _read_lines(path: Path) -> tuple[list[Line], str | None]:
    """Return the lines of an earlier start, up to the first that cannot be read, and the id of the run."""
    lines: list[Line] = []
    run_id: str | None = None
    if path.exists():
        try:
            for text in read_file(path).decode().splitlines():
                line = parse_json(text.encode())
                if type(line["position"]) is not int or not isinstance(line["seconds"], float | None):
                    raise ValueError(f"expected a position and seconds, got {text[:80]}")
                found = line.pop(RUN_ID, None)
                run_id = found if isinstance(found, str) else run_id
                lines.append({key: value for key, value in line.items() if key not in NAMES})
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            quarantine(path, f"line {len(lines) + 1} cannot be read ({error!r})")
    return lines, run_id
