"""Few-shot classification of prepared images: N ways, k shots, q queries of each class."""

from __future__ import annotations

from typing import Protocol

import attrs
import torch
from torch import Tensor

from metalearn_benchmarks.tasks.episode_numbers import draw_numbers
from metalearn_benchmarks.tasks.images.augmentation import AUGMENTATIONS, draw_augmentation
from metalearn_benchmarks.tasks.images.pixels import SplitPixels
from metalearn_benchmarks.tasks.images.store.image_store import ImageStore
from metalearn_core import Batch, Task, UsageError, unknown


class Opener(Protocol):
    """Opens the images of a family. It knows their `name` and `splits` without opening anything.

    Calling it with the size of an image, in pixels, returns the prepared images.
    """

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
    """Few-shot classification tasks: N classes, and k + q images of each, all drawn without replacement.

    No query repeats a support image. Inputs are floats in [0, 1] `[count, n, channels, size, size]`. Targets
    are int64 `[count, n]`, labels 0 ... N-1 in the order in which classes were drawn. Examples lie class by
    class, all of label 0, then of label 1, and so on, in support and query. Shuffling them would change
    nothing, because losses are means and batch norm does not look at the order.

    A task is drawn as the numbers of its images (`draw`). Its pixels are looked up when it is used
    (`realise`), on the device that uses them. So a stream keeps some hundred kilobytes for 100 tasks,
    whatever the size of the images.

    Args:
        opener: Opens the images when they are first needed, and again in another process.
        ways: Classes of a task, N.
        shots: Support images of each class, k.
        queries: Query images of each class, q.
        size: Height and width of an image, in pixels.
        augment: The augmentation of images of the train split: "none", "flip" (left to right, every other
            one), "crop" (padded by an eighth of the size, cut at random) or "crop-flip".

    Raises:
        UsageError: An option is out of range. When first used: the images are not there, or a split has too
            few classes or images.
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
        """The name of the dataset."""
        return self.opener.name

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of its splits; `("test",)` for a dataset that methods are only tested on."""
        return self.opener.splits

    @property
    def store(self) -> ImageStore:
        """The prepared images, opened at the first use."""
        if not self._stores:
            self._stores.append(self.opener(self.size))
        return self._stores[0]

    @property
    def checksum(self) -> str:
        """The sha256 of the prepared pixels."""
        return self.store.manifest.sha256

    @property
    def channels(self) -> int:
        """1 (grey) or 3 (RGB)."""
        return self.store.manifest.channels

    @property
    def training_classes(self) -> int:
        """The number of classes in the train split; 0 where methods are only tested on it."""
        return len(self.store.classes("train"))

    def of_split(self, split: str) -> SplitPixels:
        """Return the images of a split.

        Raises:
            UsageError: There is no such split, or it has no classes.
        """
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
        """Draw `count` tasks whose inputs are codes, int64 `[count, n, fields]`, in place of images."""
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
        return draw_numbers(images.counts, images.firsts, self.ways, each, count, generator)

    def codes(self, split: str, numbers: Tensor, generator: torch.Generator) -> Tensor:
        """Draw the codes of images: their numbers, with an augmentation where there is one.

        Args:
            split: The split of the images. Only those of "train" are augmented.
            numbers: The numbers of images within the split, int64 `[...]`.
            generator: The source of randomness.

        Returns:
            int64 `[..., fields]`.
        """
        if split != "train" or self.augment == "none":
            return numbers[..., None]
        return torch.cat(
            [numbers[..., None], draw_augmentation(numbers.shape, self.augment, self.size, generator)], -1
        )

    def images(self, split: str, codes: Tensor, dtype: torch.dtype) -> Tensor:
        """Look up codes: floats in [0, 1] `[..., channels, size, size]`, on the codes' device."""
        return self.of_split(split).look_up(codes, dtype)

    def realise(self, split: str, task: Task, dtype: torch.dtype) -> Task:
        """Replace the codes of drawn tasks by their images."""
        support, query = (
            Batch(self.images(split, part.inputs, dtype), part.targets, stacked=True)
            for part in (task.support, task.query)
        )
        return Task(support, query, stacked=True)

    def sample(self, split: str, count: int, generator: torch.Generator) -> Task:
        """Draw tasks with all their images. A stream draws first, and looks up only what it uses."""
        return self.realise(split, self.draw(split, count, generator), torch.get_default_dtype())

    def examples(self, split: str) -> Batch:
        """Return all images of a split, and their classes 0 ... C-1.

        Inputs are uint8 `[n, channels, size, size]`, a view of the file. `codes` and `images` make floats of
        those that are used.
        """
        images = self.of_split(split)
        return Batch(images.pixels, images.labels)
