"""Which class of a user's own images is in which split: as the copy says, or by a recorded seed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import attrs
import numpy as np

from metalearn_benchmarks.tasks.images.own.labelled import LabelledImages, split_of
from metalearn_benchmarks.tasks.images.splits import SplitList
from metalearn_benchmarks.tasks.images.store.manifest import SPLITS
from metalearn_core.errors import UsageError

SHARES = (64, 16, 20)
"""Parts of the classes for training, validation and test, as miniImageNet has them."""
SHOWN = 3


@attrs.frozen
class Shares:
    """How classes are split where the copy does not say it.

    Args:
        parts: The parts for training, validation and test; their unit does not matter.
        seed: The seed of the order of the classes.
        asked_for: Whether they take the place of what the copy says.
    """

    parts: tuple[int, int, int] = SHARES
    seed: int = 0
    asked_for: bool = False

    def __str__(self) -> str:
        return f"{'/'.join(map(str, self.parts))} of the classes by seed {self.seed}"

    def counts(self, classes: int) -> tuple[int, int, int]:
        """Return the number of classes for training, validation and test.

        A part above 0 has at least one class.

        Raises:
            UsageError: There are fewer classes than parts above 0.
        """
        least = [int(part > 0) for part in self.parts]
        if sum(least) > classes or not any(least):
            raise UsageError(
                f"{classes} classes cannot be split {'/'.join(map(str, self.parts))}: each part needs a class"
            )
        exact = [part / sum(self.parts) * classes for part in self.parts]
        found = [max(int(each), low) for each, low in zip(exact, least, strict=True)]
        while sum(found) < classes:  # to the part that lacks most
            found[max(range(3), key=lambda index: exact[index] - found[index])] += 1
        while sum(found) > classes:
            over = [found[index] - exact[index] if found[index] > least[index] else -1 for index in range(3)]
            found[over.index(max(over))] -= 1
        return found[0], found[1], found[2]


def split_classes(images: LabelledImages, rows: Sequence[int], shares: Shares) -> tuple[SplitList, list[str]]:
    """Decide which class is in which split.

    Args:
        images: The images.
        rows: The rows that are used.
        shares: How classes are split where the copy does not say it.

    Returns:
        The split list, and what the user should know about it.

    Raises:
        UsageError: There are too few classes.
    """
    named = defaultdict[str, set[str | None]](set)
    for row in rows:
        word = images.splits[row]
        named[images.labels[row]].add(None if word is None else split_of(word))
    classes = sorted(named)
    told = {which: next(iter(words)) for which, words in named.items() if len(words) == 1}
    notes: list[str] = []
    if not shares.asked_for and len(told) == len(classes) and all(told.values()):
        return _as_told({which: str(part) for which, part in told.items()}, shares, notes), notes
    mixed = [which for which in classes if len(named[which]) > 1]
    if mixed and not shares.asked_for:
        notes.append(
            f"{len(mixed)} classes, such as {_some(mixed)}, have images in several splits: all their images"
            " are taken together, and the classes are split anew"
        )
    order = np.random.default_rng(shares.seed).permutation(len(classes))
    counts = shares.counts(len(classes))
    shuffled = [classes[index] for index in order]
    ends = np.cumsum((0, *counts))
    parts = {
        part: tuple(sorted(shuffled[start:end]))
        for part, start, end in zip(SPLITS, ends, ends[1:], strict=False)
    }
    return SplitList(f"seed-{shares.seed}", str(shares), "drawn when it was prepared", parts), notes


def _as_told(told: Mapping[str, str], shares: Shares, notes: list[str]) -> SplitList:
    """The split list that the copy says. Without classes for validation, some are taken from training."""
    parts = {part: tuple(sorted(which for which in told if told[which] == part)) for part in SPLITS}
    title = "as the copy says"
    if not parts["validation"] and len(parts["train"]) > 1:
        train, validation, _ = shares.parts
        counts = Shares((train or 1, validation or 1, 0), shares.seed).counts(len(parts["train"]))
        order = np.random.default_rng(shares.seed).permutation(len(parts["train"]))
        shuffled = [parts["train"][index] for index in order]
        parts["train"], parts["validation"] = (
            tuple(sorted(shuffled[: counts[0]])), tuple(sorted(shuffled[counts[0] :])),
        )  # fmt: skip
        title += f"; {counts[1]} classes of training are for validation, by seed {shares.seed}"
        notes.append(
            f"the copy names no classes for validation: {counts[1]} of {sum(counts)} for training are taken,"
            f" by seed {shares.seed}"
        )
    notes += [
        f"no class is for {part}; a method cannot be {'trained' if part == 'train' else 'tested'} on it"
        for part in ("train", "test")
        if not parts[part]
    ]
    return SplitList("own", title, "the copy", parts)


def _some(names: Sequence[str]) -> str:
    return ", ".join(ascii(name)[1:-1][:40] for name in names[:SHOWN]) + ("..." if len(names) > SHOWN else "")
