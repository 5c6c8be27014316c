"""Few-shot classification of prepared images: N ways, k shots, q queries of each class."""

from __future__ import annotations

from typing import Protocol

import attrs
import torch
from torch import Tensor

from metalearn_benchmarks.tasks.images.augmentation import AUGMENTATIONS, drawn
from metalearn_benchmarks.tasks.images.pixels import SplitPixels
from metalearn_benchmarks.tasks.images.store.store import ImageStore
from metalearn_core import Batch, Task, UsageError, unknown


class Opener(Protocol):
    """Where a family's images come from: `name` and `splits` without opening, the store when called."""

    @property
    def name(self) -> str: ...
    @property
    def splits(self) -> tuple[str, ...]: ...
    def __call__(self, size: int) -> ImageStore: ...


def _count(_: object, attribute: attrs.Attribute[int], value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{attribute.name} must be an integer >= 1, got {value!r}")


def _known(_: object, attribute: attrs.Attribute[str], value: str) -> None:
    if value not in AUGMENTATIONS:
        raise unknown(attribute.name, str(value), AUGMENTATIONS)


@attrs.frozen(eq=False, slots=False)
class ImageFamily:
    """N classes without replacement, then k + q images of each without replacement: no query repeats a
    support image.

    Inputs are floats in [0, 1] `[count, n, channels, size, size]`, targets int64 `[count, n]`: labels 0 ...
    N-1 in the order in which classes were drawn. Examples lie class by class (all of label 0, then of label
    1, ...) in support and query; to shuffle them would change nothing, since losses are means and batch norm
    does not look at the order.

    A task is drawn as numbers (`draw`) and its pixels are looked up when it is used (`realise`), on the
    device that uses them: what a stream keeps of 100 tasks is some hundred kilobytes, whatever the images'
    size.

    Args:
        opener: opens the images, when they are first needed; not before, and again in another process.
        ways, shots, queries: N, k and q; q is of each class.
        size: height and width of an image, in pixels.
        augment: of images of the train split: "none", "flip" (left and right, every other one), "crop"
            (padded by an eighth of the size, cut at random) or "crop-flip".

    Raises UsageError for an option out of range; when first used, for images that are not there, and for a
    split that has too few classes or images.
    """

    opener: Opener
    ways: int = attrs.field(default=5, validator=_count)
    shots: int = attrs.field(default=1, validator=_count)
    queries: int = attrs.field(default=16, validator=_count)
    size: int = attrs.field(default=28, validator=_count)
    augment: str = attrs.field(default="none", validator=_known)
    _opened: dict[str, SplitPixels] = attrs.field(factory=dict, init=False, repr=False)
    _stores: list[ImageStore] = attrs.field(factory=list, init=False, repr=False)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_opened": {}, "_stores": []}  # maps of files are not for other processes

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)

    @property
    def name(self) -> str:
        """Of the dataset."""
        return self.opener.name

    @property
    def splits(self) -> tuple[str, ...]:
        """Its splits' names; `("test",)` of a dataset that is only a target."""
        return self.opener.splits

    @property
    def store(self) -> ImageStore:
        """The images; opened at the first call."""
        if not self._stores:
            self._stores.append(self.opener(self.size))
        return self._stores[0]

    @property
    def checksum(self) -> str:
        """sha256 of the prepared pixels."""
        return self.store.manifest.sha256

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (RGB)."""
        return self.store.manifest.channels

    @property
    def training_classes(self) -> int:
        """How many classes the train split has; 0 of a dataset that is only a target."""
        return len(self.store.classes("train"))

    def of_split(self, split: str) -> SplitPixels:
        """The images of a split."""
        if split not in self.splits:
            raise unknown(f"split of {self.name}", split, self.splits)
        if split not in self._opened:
            classes = self.store.classes(split)
            if not classes:
                raise UsageError(
                    f"{self.name}: its {split} split has no classes: it cannot be what is trained on; name it"
                    " in also_tested_on"
                )
            self._opened[split] = SplitPixels(self.store, classes)
        return self._opened[split]

    def draw(self, split: str, count: int, generator: torch.Generator) -> Task:
        """Tasks whose inputs are codes, int64 `[count, n, fields]`, in place of images."""
        numbers = self._numbers(split, count, generator)
        support, query = (
            Batch(
                self.codes(split, part.reshape(count, -1), generator),
                torch.arange(self.ways).repeat_interleave(part.shape[-1]).repeat(count, 1),
                stacked=True,
            )
            for part in (numbers[..., : self.shots], numbers[..., self.shots :])
        )
        return Task(support, query, stacked=True)

    def _numbers(self, split: str, count: int, generator: torch.Generator) -> Tensor:
        """Images of the split, `[count, ways, shots + queries]`."""
        images, each = self.of_split(split), self.shots + self.queries
        classes, least = len(images.counts), int(images.counts.min())
        if classes < self.ways or least < each:
            raise UsageError(
                f"{self.name}, {split}: {self.ways} ways of {self.shots} shots and {self.queries} queries "
                "need"
                f" {self.ways} classes of {each} images; it has {classes} classes, the smallest of {least}"
            )
        chosen = torch.rand(count, classes, generator=generator, dtype=torch.float64).argsort(1)[
            :, : self.ways
        ]
        counts = images.counts[chosen][..., None]
        # the `each` smallest of one random number for every image: a subset without replacement, in random
        # order
        keys = torch.rand(count, self.ways, int(counts.max()), generator=generator, dtype=torch.float64)
        keys = keys.masked_fill(torch.arange(keys.shape[-1]) >= counts, 2.0)
        within = keys.topk(each, largest=False).indices
        return images.firsts[chosen][..., None] + within

    def codes(self, split: str, numbers: Tensor, generator: torch.Generator) -> Tensor:
        """Codes `[..., fields]` for images `[...]` of a split: the number, and what augments it."""
        if split != "train" or self.augment == "none":
            return numbers[..., None]
        return torch.cat([numbers[..., None], drawn(numbers.shape, self.augment, self.size, generator)], -1)

    def images(self, split: str, codes: Tensor, dtype: torch.dtype) -> Tensor:
        """What codes stand for: floats in [0, 1] `[..., channels, size, size]`, on the codes' device."""
        return self.of_split(split).look_up(codes, dtype)

    def realise(self, split: str, task: Task, dtype: torch.dtype) -> Task:
        """Tasks with images in the place of the codes that `draw` gave."""
        support, query = (
            Batch(self.images(split, part.inputs, dtype), part.targets, stacked=True)
            for part in (task.support, task.query)
        )
        return Task(support, query, stacked=True)

    def sample(self, split: str, count: int, generator: torch.Generator) -> Task:
        """Tasks with all their images; a stream draws first and looks up what it uses."""
        return self.realise(split, self.draw(split, count, generator), torch.get_default_dtype())

    def examples(self, split: str) -> Batch:
        """All images of a split, uint8 `[n, channels, size, size]` in the file itself, and their classes 0
        ... C-1.

        `codes` and `images` make floats of those that are used.
        """
        images = self.of_split(split)
        return Batch(images.pixels, images.labels)
