"""The embedded glyph families: enough of all, nothing twice or in two splits, the same every time."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from metalearn_benchmarks.tasks.images.glyphs import characters, fonts
from metalearn_benchmarks.tasks.images.glyphs.families import LEAST_IMAGES, Glyphs
from metalearn_core import UsageError, seeded_generator, task_families

DOMAINS = tuple(fonts.DOMAINS)
ROOT = Path(__file__).resolve().parents[4]
MISSING = [
    slug
    for slugs in fonts.DOMAINS.values()
    for slug in slugs
    if importlib.util.find_spec(f"fontpkg_{slug.replace('-', '_')}") is None
]
drawn = pytest.mark.skipif(bool(MISSING), reason=f"needs metalearn-benchmarks[images]: fontpkg-{MISSING[:1]}")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A data home in which two processes asked for the same store at the same moment."""
    home = tmp_path_factory.mktemp("data")
    for domain in DOMAINS:
        program = (
            "from metalearn_benchmarks.tasks.images.glyphs.families import Glyphs;"
            f"print(Glyphs({domain!r})(28).manifest.sha256)"
        )
        both = [
            subprocess.Popen(
                [sys.executable, "-c", program], env=os.environ | {"METALEARN_DATA": str(home)},
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )
            for _ in range(2)
        ]  # fmt: skip
        told = [process.communicate(timeout=120) for process in both]
        assert [process.returncode for process in both] == [0, 0], told
        assert told[0][0] == told[1][0]
    return home


@pytest.fixture
def stores(home, monkeypatch):
    monkeypatch.setenv("METALEARN_DATA", str(home))
    return {domain: Glyphs(domain)(28) for domain in DOMAINS}


@drawn
def test_there_is_enough_on_each_side(stores):
    for store in stores.values():
        counts = [each.count for each in store.manifest.classes]
        assert len(counts) >= 200
        assert min(counts) >= LEAST_IMAGES
        of_split = Counter(each.split for each in store.manifest.classes)
        assert of_split["train"] >= 150
        assert of_split["test"] >= 60
        assert of_split["validation"] >= 30
        assert store.manifest.images >= 9_000
        assert store.manifest.shape[1:] == (28, 28, 1)
        store.verify()


@drawn
def test_two_processes_made_one_store_and_left_nothing_else(home, stores):
    for domain in DOMAINS:
        (folder,) = home.glob(f"{domain}-*")
        assert [path.name for path in folder.iterdir() if not path.name.endswith(".lock")] == ["28"]
    assert len(list(home.iterdir())) == 2


@drawn
def test_no_letter_is_in_two_splits_whatever_its_accent_case_or_look(stores):
    splits = defaultdict(set)
    for store in stores.values():
        for each in store.manifest.classes:
            sign = each.name.split()[1]
            assert each.name == f"U+{ord(sign):04X} {sign}"
            splits[characters.base(sign)].add(each.split)
    assert {key for key, of in splits.items() if len(of) > 1} == set()
    for alike in characters.ALIKE:
        assert len(set().union(*(splits[characters.base(sign)] for sign in alike))) <= 1, alike


@pytest.mark.parametrize(
    ("sign", "base"),
    [("É", "e"), ("é", "e"), ("Ø", "o"), ("ł", "l"), ("ß", "b"), ("Ŵ", "w"), ("5", "5"), ("½", "½")],
)
def test_the_base_of_a_letter(sign, base):
    assert characters.base(sign) == base


def test_look_alikes_share_a_group_through_each_other():
    group = characters.groups()
    assert group["o"] == group["0"] == group["°"]
    assert group["1"] == group["l"] == group["i"] == group["!"] == group["j"]
    assert group["e"] != group["u"]
    held = characters.VALIDATION + characters.TEST
    assert len({group[sign] for sign in held}) == len(held)  # no group held out twice


@drawn
def test_images_are_drawings_with_ink_and_no_two_of_a_class_are_the_same(stores):
    for store in stores.values():
        pixels = store.pixels[..., 0]
        assert (pixels.max((1, 2)) > 70).all()
        assert (pixels[:, [0, -1], :] == 0).mean() > 0.99  # nothing is cut off at the edges
        assert len(np.unique(pixels[:2000].reshape(2000, -1), axis=0)) > 1990
        grey = (pixels > 0) & (pixels < 255)
        assert grey.mean() > 0.05  # edges are smooth
        for each in store.manifest.classes[::10]:
            of_class = pixels[each.first : each.first + each.count].reshape(each.count, -1)
            assert len(np.unique(of_class, axis=0)) == each.count


@drawn
def test_the_baseline_is_kept(stores):
    """Lower ends of letters: E and x stand on it, g and p go below, a superscript is high above."""
    for store in stores.values():
        ends = {}
        for each in store.manifest.classes:
            images = store.pixels[each.first : each.first + each.count, :, :, 0] > 100
            ends[each.name.split()[1]] = np.median([28 - np.argmax(i.any(1)[::-1]) for i in images])
        assert abs(ends["E"] - ends["x"]) <= 1
        assert ends["g"] >= ends["E"] + 2
        assert ends["p"] >= ends["E"] + 2
        assert ends["³"] <= ends["E"] - 4
        heights = {
            sign: np.median(
                [
                    (store.pixels[row, :, :, 0] > 100).any(1).sum()
                    for row in range(each.first, each.first + each.count)
                ]
            )
            for each in store.manifest.classes
            if (sign := each.name.split()[1]) in "oOsS"
        }
        assert heights["O"] >= heights["o"] + 3  # what tells twins apart
        assert heights["S"] >= heights["s"] + 3


@drawn
def test_drawn_again_it_is_the_same_to_the_bit_and_damage_is_mended(stores, tmp_path, monkeypatch):
    monkeypatch.setenv("METALEARN_DATA", str(tmp_path))
    again = Glyphs("glyphs-display")(28)
    first = stores["glyphs-display"]
    assert again.manifest == first.manifest
    assert again.folder.parent.name == first.folder.parent.name
    (again.folder / "manifest.json").write_text("{")
    mended = Glyphs("glyphs-display")(28)
    assert mended.manifest == first.manifest
    mended.verify()


@drawn
def test_other_versions_are_another_store(stores, monkeypatch, tmp_path):
    monkeypatch.setenv("METALEARN_DATA", str(tmp_path))
    source = stores["glyphs-print"].manifest.source
    assert source["fonts"]["fontpkg-lora"][0] == metadata.version("fontpkg-lora")
    assert source["pillow"] == metadata.version("pillow")
    few = {"glyphs-print": fonts.PRINT[:LEAST_IMAGES]}
    monkeypatch.setattr(fonts, "DOMAINS", few)
    mine = Glyphs("glyphs-print")(12)
    real = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "9.9" if name == "fontpkg-arvo" else real(name))
    other = Glyphs("glyphs-print")(12)
    assert mine.folder.parent.name != other.folder.parent.name
    assert mine.folder.exists()  # numbers from it can be made again


@drawn
def test_five_way_tasks_of_five_shots_and_sixteen_queries(stores):
    for domain in DOMAINS:
        family = task_families()[domain](shots=5)
        for split in family.splits:
            task = family.sample(split, 2, seeded_generator(0))
            assert task.query.inputs.shape == (2, 80, 1, 28, 28)


@drawn
def test_what_the_documentation_says_runs(stores):
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/images.md").read_text(), re.M | re.S)
    made = {}
    for block in blocks:
        exec(compile(block, "images.md", "exec"), made)
    shapes = [list(part.inputs.shape) for part in (made["tasks"].support, made["tasks"].query)]
    assert shapes == [[2, 25, 1, 28, 28], [2, 80, 1, 28, 28]]


def test_missing_fonts_are_one_line(monkeypatch):
    monkeypatch.setattr(fonts, "DOMAINS", {"glyphs-print": ("lora", "no-such-font", "nor-this")})
    with pytest.raises(
        UsageError, match=r"\Aglyphs-print: \d of its 3 .*pip install -e '\./benchmarks\[images\]'\Z"
    ):
        Glyphs("glyphs-print")(28)


def test_a_size_that_cannot_be_read_is_refused():
    with pytest.raises(UsageError, match=r"\Aglyphs-print: size must be at least 12 pixels[^\n]*got 8\Z"):
        Glyphs("glyphs-print")(8)


@drawn
def test_a_folder_that_cannot_be_written_is_one_line(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("METALEARN_DATA", str(tmp_path / "file"))
    with pytest.raises(UsageError, match=r"\A[^\n]*cannot be written[^\n]*METALEARN_DATA\Z"):
        Glyphs("glyphs-print")(28)


@drawn
def test_fonts_have_the_licences_that_the_documentation_names():
    told = dict(
        re.findall(
            r"^\| `fontpkg-([a-z0-9-]+)` .*\| ([A-Za-z0-9.-]+) \|$",
            (ROOT / "docs/images.md").read_text(),
            re.M,
        )
    )
    assert set(told) == {slug for slugs in fonts.DOMAINS.values() for slug in slugs}
    for slug, licence in told.items():
        assert licence in ("OFL-1.1", "Apache-2.0")
        assert metadata.metadata(f"fontpkg-{slug}")["License-Expression"] == licence


def test_the_extra_installs_each_font_and_no_other():
    text = (ROOT / "benchmarks/pyproject.toml").read_text()
    asked = re.findall(r'"fontpkg-([a-z0-9-]+)>=[0-9.]+"', text)
    assert sorted(asked) == sorted(slug for slugs in fonts.DOMAINS.values() for slug in slugs)
    assert not set(fonts.PRINT) & set(fonts.DISPLAY)


@drawn
@pytest.mark.parametrize("domain", DOMAINS)
def test_a_font_draws_what_it_has_and_no_placeholder(domain):
    from fontTools.ttLib import TTFont  # it comes with matplotlib

    from metalearn_benchmarks.tasks.images.glyphs.rendering import Face

    lacked = 0
    for font in fonts.installed_fonts(domain)[::4]:
        with TTFont(font.path) as file:
            face, has = Face(font.path, font.weight, 20), file.getBestCmap()
        for each in characters.characters():
            if ord(each.sign) in has:
                assert face.draw(each.sign) is not None, (font.package, each.sign)
            else:
                lacked += 1
                assert face.draw(each.sign) is None, (font.package, each.sign)
    assert lacked > 10
