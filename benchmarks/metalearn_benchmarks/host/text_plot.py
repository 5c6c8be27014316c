"""A plot made of characters, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence


class TextPlot:
    """Points in a rectangle of characters; later points cover earlier ones.

    Args:
        width: Columns, the axis with its numbers included.
        height: Lines.
        x: The range of the inputs, `(lowest, highest)`.
        y: The range of the values. Points outside of either are left out.
    """

    MARGIN = 7
    """Columns of the numbers and the line beside the plot."""

    def __init__(self, width: int, height: int, x: tuple[float, float], y: tuple[float, float]) -> None:
        self._x, self._y = x, y
        self._cells = [[" "] * max(width - self.MARGIN, 10) for _ in range(height)]

    def add(self, mark: str, x: Sequence[float], y: Sequence[float]) -> None:
        """Put a character at each point."""
        height, width = len(self._cells), len(self._cells[0])
        for one, value in zip(x, y, strict=True):
            column = _place(one, self._x, width)
            row = _place(value, self._y, height)
            if column is not None and row is not None:
                self._cells[height - 1 - row][column] = mark

    def lines(self) -> list[str]:
        """Return the lines, with the range of the values beside the first and the last."""
        last = len(self._cells) - 1
        beside = {0: f"{self._y[1]:5.1f}", last: f"{self._y[0]:5.1f}"}
        return [f"{beside.get(i, ''):>5} |{''.join(cells)}".rstrip() for i, cells in enumerate(self._cells)]


def _place(value: float, bounds: tuple[float, float], count: int) -> int | None:
    """The cell of a value in a range of `count` cells; None outside, and for what is no number."""
    low, high = bounds
    if not low <= value <= high or high <= low:
        return None
    return min(int((value - low) / (high - low) * count), count - 1)
