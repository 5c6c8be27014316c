"""The image datasets that can be prepared: what a copy must hold, and where people get one."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from metalearn_benchmarks.tasks.images.splits import SplitList, split_lists
from metalearn_core.errors import unknown


@attrs.frozen
class Dataset:
    """What a copy of a dataset must hold to be that dataset.

    Args:
        name: The name on the command line.
        title: The name in messages.
        channels: 1 (grey) or 3 (RGB).
        size: The height and width at which it is prepared by default, in pixels.
        splits: Its split lists by name, the default first.
        per_class: Images in each class; None where classes differ.
        images: Images in all classes together; None where `per_class` says it.
        archives: The md5 of each known archive, and what that archive is.
        closed: Whether an archive with another md5 is refused.
        lists: The sha256 of each known list of images, and what that list is.
        forms: What people have on disk, in words.
        home: Where it is published.
    """

    name: str
    title: str
    channels: int
    size: int
    splits: Mapping[str, SplitList]
    per_class: int | None = None
    images: int | None = None
    archives: Mapping[str, str] = attrs.field(factory=dict)
    closed: bool = False
    lists: Mapping[str, str] = attrs.field(factory=dict)
    forms: str = "folders named after the classes"
    home: str = ""

    def split(self, name: str | None) -> SplitList:
        """Return the split list of a name, or the default for None.

        Raises:
            UsageError: There is no such split list.
        """
        if name is None:
            return next(iter(self.splits.values()))
        if name not in self.splits:
            raise unknown(f"split of {self.name}", name, self.splits)
        return self.splits[name]

    def prepared_name(self, split: SplitList) -> str:
        """Return the name when prepared: `name`, or `name-split` where the split is not the default."""
        return self.name if split.name == next(iter(self.splits)) else f"{self.name}-{split.name}"


def _cifar(name: str, title: str) -> Dataset:
    """A partition of CIFAR-100."""
    return Dataset(
        name, title, 3, 32, split_lists(name), per_class=600,
        archives={"eb9058c3a382ffc7106e4002c42a8d85": "cifar-100-python.tar.gz"},
        closed=True,
        forms="cifar-100-python.tar.gz, or the folder that it holds, or folders named after the 100 classes",
        home="https://www.cs.toronto.edu/~kriz/cifar.html, or torchvision.datasets.CIFAR100(download=True)",
    )  # fmt: skip


def _all() -> list[Dataset]:
    return [
        Dataset(
            "mini-imagenet", "miniImageNet", 3, 84, split_lists("mini-imagenet"), per_class=600,
            archives={"b38f1eb4251fb9459ecc8e7febf9b2eb": "mini-imagenet.tar.gz of renmengye"},
            lists={
                "498519cd8e49ce97ed26a4a3638966698ae41ab35e9c68538319fc9b46ba7d2f": "train.csv",
                "5658a59921ca027ee76af92949869c5d6f41d77592ff3b18db325a9d10c893b9": "val.csv",
                "2b7cfa78342995761a572a8158e539bc4e0a80f9bbd7d00c1e17a460fbbb93fa": "test.csv",
            },
            forms="images with Ravi & Larochelle's CSVs (filename,label) or with class_name,image_name, the"
            " pickles mini-imagenet-cache-*.pkl or miniImageNet_category_split_*.pickle, or folders named"
            " after the 100 classes (n01532829, ...)",
            home="ImageNet (https://image-net.org) with the CSVs of twitter-research/meta-learning-lstm",
        ),
        Dataset(
            "cub", "CUB-200-2011", 3, 84, split_lists("cub"), images=11_788,
            archives={
                "97eceeb196236b17998738112f37df78": "CUB_200_2011.tgz of Caltech",
                "d2acaa99439dff0483c7bbac1bfe2a92": "CUB_200_2011.tgz of fast.ai",
            },
            closed=True,
            forms="CUB_200_2011.tgz, or the folder that it holds, with images.txt and images/",
            home="https://data.caltech.edu/records/65de6-vp158",
        ),
        Dataset(
            "omniglot", "Omniglot", 1, 28, split_lists("omniglot"), per_class=20,
            archives={
                "68d2efa1b9178cc56df9314c21c6e718": "images_background.zip",
                "6b91aef0f799c5bb55b94e3f2daec811": "images_evaluation.zip",
                "e704a628b5459e08445c13499850abc4": "images_background_small1.zip",
                "b75a71a51d3b13f821f212756fe481fd": "images_background_small2.zip",
            },
            closed=True,
            forms="a folder with images_background and images_evaluation, unpacked or as zip archives",
            home="https://github.com/brendenlake/omniglot, folder python",
        ),
        _cifar("cifar-fs", "CIFAR-FS"),
        _cifar("fc100", "FC100"),
    ]  # fmt: skip


def datasets() -> Mapping[str, Dataset]:
    """Return every dataset that can be prepared, by name."""
    return {each.name: each for each in _all()}


def find_dataset(name: str) -> Dataset:
    """Return the dataset of a name.

    Raises:
        UsageError: There is none; the message has the nearest name.
    """
    known = datasets()
    if name not in known:
        raise unknown("dataset", name, known)
    return known[name]
