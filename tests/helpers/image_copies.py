"""Small copies of image datasets in the formats in which people have them, and their descriptions."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
import tarfile
import zipfile
from typing import ClassVar

import attrs
import numpy as np
from PIL import Image

from metalearn_benchmarks.tasks.images.datasets import Dataset
from metalearn_benchmarks.tasks.images.splits import SplitList
from metalearn_benchmarks.tasks.images.store.manifest import SPLITS, Manifest
from metalearn_benchmarks.tasks.images.store.writer import StoreWriter

TRAIN, VALIDATION, TEST = ("n00000001", "n00000002"), ("n00000003",), ("n00000004", "n00000005")
SYNSETS = (*TRAIN, *VALIDATION, *TEST)
RAVI = SplitList("ravi", "the small list", "here", {"train": TRAIN, "validation": VALIDATION, "test": TEST})
MINI = Dataset("mini-imagenet", "miniImageNet", 3, 12, {"ravi": RAVI}, per_class=3, forms="this or that")

BIRDS = ("001.Auk", "002.Bunting", "003.Crow", "004.Duck")
CHEN = SplitList(
    "chen", "the birds' list", "here", {"train": BIRDS[:2], "validation": BIRDS[2:3], "test": BIRDS[3:]}
)
OTHER = SplitList(
    "other", "the other list", "here", {"train": BIRDS[2:], "validation": BIRDS[1:2], "test": BIRDS[:1]}
)
CUB = Dataset("cub", "CUB-200-2011", 3, 12, {"chen": CHEN, "other": OTHER}, images=10, closed=True)

LETTERS = ("Greek/character01", "Greek/character02", "Latin/character01")
ALPHABETS = {"train": LETTERS[:1], "validation": LETTERS[1:2], "test": LETTERS[2:]}
OMNIGLOT = Dataset(
    "omniglot", "Omniglot", 1, 14,
    {
        "vinyals": SplitList("vinyals", "the letters' list", "here", ALPHABETS),
        "turned": SplitList("turned", "the letters' list, turned", "here", ALPHABETS, turns=4),
    },
    per_class=2,
)  # fmt: skip

THINGS = ("apple", "bee", "cup")
SPREAD = {"train": THINGS[1:2], "validation": THINGS[2:], "test": THINGS[:1]}
CIFAR = Dataset(
    "cifar-fs", "CIFAR-FS", 3, 32,
    {"b": SplitList("b", "the things' list", "here", SPREAD)},
    per_class=3,
)  # fmt: skip


def photo(seed, size=(20, 16), mode="RGB"):
    """A smooth picture that is like no other one."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC).convert(mode)


def noise_store(home, seed):
    """A prepared miniImageNet of 84 pixels with 15 classes, of other pixels for another seed."""
    plan = [(f"{split}-{i}", split, 17) for split in SPLITS for i in range(5)]
    manifest = Manifest.of("mini-imagenet", "noise", 84, 3, plan, {})
    draw = np.random.default_rng(seed)
    with StoreWriter(home / "mini-imagenet/84", manifest) as writer:
        for each in writer.remaining():
            writer.put(each, draw.integers(0, 256, (17, 84, 84, 3), dtype=np.uint8))
        writer.finish()


def encoded(image, form="JPEG"):
    data = io.BytesIO()
    image.save(data, form)
    return data.getvalue()


def resized(image, size, mode="RGB"):
    """What must be in the store, `[size, size, channels]`."""
    image = image.convert(mode).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(image).reshape(size, size, -1)


def write(folder, files):
    """`files`: path to bytes or text."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return folder


def tarred(path, files, *extra, how="w:gz"):
    """A .tgz of files and of further members (a TarInfo each)."""
    with tarfile.open(path, how) as tar:
        for name, data in files.items():
            data = data.encode() if isinstance(data, str) else data
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for member in extra:
            tar.addfile(member)
    return path


def zipped(path, files):
    """A .zip; a key may be a ZipInfo."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def closed(dataset, *paths):
    """The dataset whose published archives these are."""
    return attrs.evolve(dataset, archives={md5(path): path.name for path in paths}, closed=True)


def photos(classes=SYNSETS, count=3):
    """Class to its pictures."""
    return {which: [photo(100 * at + k) for k in range(count)] for at, which in enumerate(classes)}


def ravi_files(pictures, name="{which}{k:08}.jpg", header="filename,label"):
    """images/ and three CSVs, as for miniImageNet."""
    files, rows = {}, {}
    for part, classes in RAVI.parts.items():
        rows[part] = [header]
        for which in classes:
            for k, picture in enumerate(pictures.get(which, [])):
                image = name.format(which=which, k=k + 1)
                files[f"images/{image}"] = encoded(picture)
                rows[part].append(f"{image},{which}" if header == "filename,label" else f"{which},{image}")
    lists = {
        f"{file}.csv": rows[part]
        for file, part in (("train", "train"), ("val", "validation"), ("test", "test"))
    }
    return files | {file: "\n".join(lines) + "\n" for file, lines in lists.items()}


def cub_files(pictures, root="CUB_200_2011/"):
    """The official folder; lists come after the images, as in an archive they may."""
    images = [
        (which, f"{which}/{which[4:]}_{k}.jpg", p)
        for which, found in pictures.items()
        for k, p in enumerate(found)
    ]
    files = {f"{root}images/{name}": encoded(picture) for _, name, picture in images}
    numbered = list(enumerate(images, 1))
    files[f"{root}images.txt"] = "".join(f"{n} {name}\n" for n, (_, name, _) in numbered)
    files[f"{root}image_class_labels.txt"] = "".join(
        f"{n} {int(which[:3])}\n" for n, (which, _, _) in numbered
    )
    files[f"{root}classes.txt"] = "".join(f"{int(which[:3])} {which}\n" for which in pictures)
    return files | {"attributes.txt": "1 has_bill_shape\n", "._attributes.txt": b"\0"}


def birds():
    return {
        which: [photo(1000 + 10 * at + k) for k in range(count)]
        for at, (which, count) in enumerate(zip(BIRDS, (2, 3, 1, 4), strict=True))
    }


def letters():
    """Class to its drawings: black strokes on white, one bit a pixel."""
    return {which: [photo(7 * at + k, (21, 21), "1") for k in range(2)] for at, which in enumerate(LETTERS)}


def omniglot_files(drawings, root):
    return {
        f"{root}/{which}/{at:04}_{k + 1:02}.png": encoded(drawing, "PNG")
        for at, (which, found) in enumerate(drawings.items())
        for k, drawing in enumerate(found)
    }


def stacked(pictures, size=12):
    return np.stack([resized(picture, size) for picture in pictures])


def cache(pictures, size=12, binary=False):
    """The content of a mini-imagenet-cache-*.pkl; with `binary`, its keys are bytes."""
    rows, start = {}, 0
    for which, found in pictures.items():
        rows[which.encode() if binary else which] = list(range(start, start + len(found)))
        start += len(found)
    pixels = np.concatenate([stacked(found, size) for found in pictures.values()])
    keys = (b"image_data", b"class_dict") if binary else ("image_data", "class_dict")
    return dict(zip(keys, (pixels, rows), strict=True))


def category(pictures, first=0, size=12):
    """The content of a *_category_split_*.pickle."""
    labels = [first + at for at, found in enumerate(pictures.values()) for _ in found]
    names = {which: first + at for at, which in enumerate(pictures)}
    return {
        "data": np.concatenate([stacked(found, size) for found in pictures.values()]),
        "labels": labels,
        "catname2label": names,
        "label2catname": {label: which for which, label in names.items()},
    }


def cifar_files(pictures, dump):
    """cifar-100-python: the first two of each class in `train`, the third in `test`, names in `meta`."""

    def part(chosen):
        rows = [(label, found[k]) for label, found in enumerate(pictures.values()) for k in chosen]
        planes = [np.asarray(picture).transpose(2, 0, 1).reshape(-1) for _, picture in rows]
        return dump(
            {
                "data": np.stack(planes),
                "fine_labels": [label for label, _ in rows],
                "coarse_labels": [0 for _ in rows],
                "filenames": ["x.png" for _ in rows],
                "batch_label": "one",
            }
        )

    names = {"fine_label_names": list(pictures), "coarse_label_names": ["all"]}
    return {
        "cifar-100-python/train": part((0, 1)),
        "cifar-100-python/test": part((2,)),
        "cifar-100-python/meta": dump(names),
    }


def things():
    return {which: [photo(50 * at + k, (32, 32)) for k in range(3)] for at, which in enumerate(THINGS)}


class _Python2(pickle._Pickler):
    """Writes text and bytes as Python 2 wrote its strings."""

    def _save_string(self, given):
        data = given.encode("latin1") if isinstance(given, str) else given
        short = len(data) < 256
        self.write(b"U" + bytes([len(data)]) if short else b"T" + struct.pack("<i", len(data)))
        self.write(data)
        self.memoize(given)

    dispatch: ClassVar = pickle._Pickler.dispatch | {str: _save_string, bytes: _save_string}


def python2(content):
    """A pickle as Python 2 would have made it."""
    data = io.BytesIO()
    _Python2(data, 2).dump(content)
    return data.getvalue()


def as_jpeg(picture):
    """What is left of a picture in a JPEG."""
    return Image.open(io.BytesIO(encoded(picture)))


def ready(dataset, path, folder, split=None, size=None, **options):
    """Prepare it, and say nothing."""
    from metalearn_benchmarks.tasks.images.store.preparation import prepare

    size = size or dataset.size
    return prepare(dataset, dataset.split(split), path, folder, size, lambda *_: None, **options)


def held(store):
    """Class to its pixels."""
    return {each.name: store.pixels[each.first : each.first + each.count] for each in store.manifest.classes}


def require_pictures(store, pictures, size=None, mode="RGB"):
    """AssertionError unless a store holds these, resized, in this order."""
    found = held(store)
    assert set(found) == set(pictures)
    for which, expected in pictures.items():
        wanted = np.stack([resized(picture, size or store.manifest.size, mode) for picture in expected])
        np.testing.assert_array_equal(found[which], wanted, which)
