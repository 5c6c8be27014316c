"""`metalearn data` as a user meets it."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import image_copies as copies
import pytest
from waiting import wait_until

from metalearn_benchmarks.cli.data import output
from metalearn_benchmarks.tasks.images import datasets
from metalearn_benchmarks.tasks.images.store import decoding
from metalearn_benchmarks.tasks.images.store.image_store import ImageStore
from metalearn_benchmarks.tasks.images.store.locations import data_home, store_folder

HELPERS = Path(__file__).parents[2] / "helpers"

PHOTOS = copies.photos()
REAL = datasets.datasets
PREPARE = ("data", "prepare", "mini-imagenet")


@pytest.fixture(autouse=True)
def _small(monkeypatch, tmp_path):
    """Three datasets of a few images, and a home of their own."""
    known = {each.name: each for each in (copies.MINI, copies.CUB, copies.OMNIGLOT)}
    monkeypatch.setattr(datasets, "datasets", lambda: known)
    monkeypatch.setenv("METALEARN_DATA", str(tmp_path / "home"))


@pytest.fixture
def photos(tmp_path):
    return copies.write(tmp_path / "copy", copies.ravi_files(PHOTOS))


def test_prepare_verify_list(metalearn, tmp_path, photos):
    out = metalearn("data", "list")[1]
    assert "nothing is prepared in" in out
    assert "mini-imagenet, cub, omniglot" in out
    folder = tmp_path / "home" / "mini-imagenet" / "12"
    assert store_folder("mini-imagenet", 12) == folder
    words = f"15 images of 5 classes (2/1/2 by ravi), 12x12x3, in {folder}\n"
    assert metalearn(*PREPARE, photos) == (0, f"prepared: {words}", "")
    assert metalearn(*PREPARE, photos) == (0, f"already prepared: {words}", "")
    assert metalearn("data", "list") == (0, f"mini-imagenet: {words}", "")
    assert metalearn("data", "verify", "mini-imagenet") == (0, f"whole: {words}", "")
    shown = [
        json.loads(metalearn("data", command, *name, "--json")[1])
        for command, name in (("list", ()), ("verify", ("mini-imagenet",)))
    ]
    assert shown[0] == shown[1]
    assert shown[0][0] | {"sha256": 0} == {
        "name": "mini-imagenet", "dataset": "mini-imagenet", "split": "ravi", "size": 12, "channels": 3,
        "images": 15, "classes": {"train": 2, "validation": 1, "test": 2}, "tally": {}, "sha256": 0,
        "folder": str(folder),
    }  # fmt: skip


def test_another_copy_is_prepared_in_the_place_of_the_first(metalearn, photos):
    metalearn(*PREPARE, photos)
    changed = PHOTOS | {"n00000005": [copies.photo(900 + k) for k in range(3)]}
    copies.write(photos, copies.ravi_files(changed))
    code, out, _ = metalearn(*PREPARE, photos)
    assert (code, out.split(":")[0]) == (0, "prepared")
    copies.require_pictures(
        ImageStore.open(store_folder("mini-imagenet", 12)),
        {w: [copies.as_jpeg(p) for p in f] for w, f in changed.items()},
    )


def test_the_manifest_says_what_it_was_made_from(metalearn, photos):
    metalearn(*PREPARE, photos)
    source = ImageStore.open(store_folder("mini-imagenet", 12)).manifest.source
    assert source["split list"]["title"] == "the small list"
    assert source["from"]["files"] == 18
    assert set(source["lists"]) == {"train.csv", "val.csv", "test.csv"}
    assert source["decoder"].startswith("Pillow ")
    assert "bicubic" in source["resize"]


def test_sizes_splits_and_places_lie_side_by_side(metalearn, tmp_path, photos):
    birds = copies.write(tmp_path / "birds", copies.cub_files(copies.birds()))
    there = tmp_path / "there"
    for arguments in (
        (*PREPARE, photos), (*PREPARE, photos, "--size", 8), ("data", "prepare", "cub", birds),
        ("data", "prepare", "cub", birds, "--split", "other"), (*PREPARE, photos, "--to", there),
    ):  # fmt: skip
        assert metalearn(*arguments)[0] == 0
    listed = metalearn("data", "list")[1]
    assert [line.split(":")[0] for line in listed.splitlines()] == [
        "cub",
        "cub-other",
        "mini-imagenet",
        "mini-imagenet",
    ]
    assert metalearn("data", "verify", "mini-imagenet")[1].count("whole") == 2
    assert metalearn("data", "verify", "mini-imagenet", "--size", 8)[1].count("8x8x3") == 1
    assert "by other" in metalearn("data", "verify", "cub-other")[1]
    assert str(there) in metalearn("data", "verify", "mini-imagenet", there)[1]
    assert metalearn("data", "list", there)[1].count("\n") == 1


def test_a_damaged_store_is_named_and_the_others_are_listed(metalearn, tmp_path, photos):
    for arguments in ((*PREPARE, photos), (*PREPARE, photos, "--size", 8)):
        assert metalearn(*arguments)[0] == 0
    (pixels,) = store_folder("mini-imagenet", 8).glob("pixels-*.npy")
    pixels.write_bytes(b"")
    code, out, err = metalearn("data", "list")
    assert (code, out.count("\n"), out.count("12x12x3"), err.count("\n")) == (0, 1, 1, 1)
    assert err.startswith(f"metalearn: {pixels}: cannot be read (")
    assert err.endswith("prepare the dataset again (left out)\n")
    code, out, err = metalearn("data", "list", "--json")
    assert (code, len(json.loads(out)), err.count("\n")) == (0, 1, 1)


def test_notes_and_counts_go_to_standard_error(metalearn, tmp_path):
    files = copies.ravi_files(PHOTOS)
    files["val.csv"], files["test.csv"] = files["test.csv"], files["val.csv"]
    files["images/n0000000100000001.jpg"] = copies.encoded(copies.photo(1, mode="L"))
    path = copies.write(tmp_path / "copy", files)
    code, out, err = metalearn(*PREPARE, path)
    assert (code, out.count("\n"), err.count("\n")) == (0, 1, 3)
    assert "note: test.csv: holds classes of validation in spite of its name" in err
    assert "1 images converted from L" in err
    shown = json.loads(metalearn(*PREPARE, path, "--json")[1])
    assert (len(shown["notes"]), shown["already"], shown["tally"]) == (2, True, {"converted from L": 1})


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("prepare", "mini-imagenett", "x"),
            "unknown dataset 'mini-imagenett': did you mean 'mini-imagenet'?",
        ),
        (("prepare", "cub", ".", "--split", "chne"), "unknown split of cub 'chne': did you mean 'chen'?"),
        (("prepare", "cub", "nowhere"), "nowhere: there is no such file or folder"),
        (("prepare", "cub", "empty"), "empty: no CUB-200-2011 in it"),
        (("prepare", "cub", "empty", "--size", "2"), "2 is not in the range"),
        (("verify", "mini-imagnet"), "unknown prepared dataset"),
        (("verify", "cub", "--size", "84"), "unknown prepared dataset"),
        (("prepare", "mini-imagenet", "evil.pkl"), "evil.pkl: refused, it asks for"),
        (("lst",), "lst"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(metalearn, tmp_path, monkeypatch, arguments, told):
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    Path("evil.pkl").write_bytes(pickle.dumps({"a": os.system}))
    code, out, err = metalearn("data", *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert told in err
    assert not data_home().exists()


def test_a_store_that_was_damaged_is_told(metalearn, photos):
    metalearn(*PREPARE, photos)
    folder = store_folder("mini-imagenet", 12)
    (path,) = folder.glob("*.npy")
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    code, out, err = metalearn("data", "verify", "mini-imagenet")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "damaged after it was prepared" in err
    path.unlink()
    assert metalearn("data", "verify", "mini-imagenet")[0] == 2
    assert metalearn(*PREPARE, photos)[0] == 0
    assert metalearn("data", "verify", "mini-imagenet")[0] == 0


@pytest.mark.parametrize("what", ["a split", "a count"])
def test_a_store_of_another_list_is_told(metalearn, photos, what):
    metalearn(*PREPARE, photos)
    path = store_folder("mini-imagenet", 12) / "manifest.json"
    plain = json.loads(path.read_text())
    if what == "a split":
        plain["classes"][0]["split"] = "test"
    else:
        plain["classes"][0]["count"], plain["classes"][1]["count"] = 4, 2
    path.write_text(json.dumps(plain))
    code, _, err = metalearn("data", "verify", "mini-imagenet")
    assert (code, err.count("\n")) == (2, 1)
    assert ("not where the small list has it" if what == "a split" else "4 images, expected 3") in err


def test_ctrl_c_says_how_to_go_on_and_it_goes_on(metalearn, photos, monkeypatch, request):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    whole = decoding.decode_image
    seen = []

    def press_at_seven(given, size, channels):
        seen.append(given[0])
        if len(seen) == 7:
            os.kill(os.getpid(), signal.SIGINT)
        return whole(given, size, channels)

    monkeypatch.setattr(decoding, "decode_image", press_at_seven)
    code, out, err = metalearn(*PREPARE, photos)
    folder = store_folder("mini-imagenet", 12)
    assert (code, out) == (130, "")
    assert err == f"stopped; what is prepared is kept in {folder}, the same command goes on\n"
    assert metalearn("data", "list")[1].startswith("nothing is prepared")
    seen.clear()
    seen.extend("x" * 10)
    assert metalearn(*PREPARE, photos)[0] == 0
    assert len(seen) == 10 + 9  # two classes were whole
    copies.require_pictures(
        ImageStore.open(folder), {w: [copies.as_jpeg(p) for p in f] for w, f in PHOTOS.items()}
    )


PROGRAM = """
import sys, time
import image_copies as copies
from metalearn_benchmarks import cli
from metalearn_benchmarks.tasks.images import datasets
from metalearn_benchmarks.tasks.images.store import decoding, writer
datasets.datasets = lambda: {"mini-imagenet": copies.MINI}
writer.SAVE_SECONDS = 0
whole = decoding.decode_image
def slow(*arguments, **options):
    time.sleep(wait)
    return whole(*arguments, **options)
wait = float(sys.argv.pop())
decoding.decode_image = slow
cli.main()
"""


def start(photos, wait):
    tests = str(HELPERS)
    path = os.pathsep.join([tests, os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *PREPARE, str(photos), str(wait)],
        env=os.environ | {"PYTHONPATH": path}, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def wait_for(process, path):
    wait_until(lambda: path.exists() or process.poll() is not None)
    assert path.exists(), process.communicate()


def test_a_store_that_was_damaged_is_prepared_again(metalearn, photos):
    metalearn(*PREPARE, photos)
    (path,) = store_folder("mini-imagenet", 12).glob("pixels-*.npy")
    whole = path.read_bytes()
    path.write_bytes(whole[:-3] + b"\0\0\0")
    code, _, err = metalearn("data", "verify", "mini-imagenet")
    assert (code, err.count("\n")) == (2, 1)
    assert "it was damaged after it was prepared: remove it and prepare the dataset again" in err
    assert metalearn(*PREPARE, photos)[1].startswith("prepared: 15 images")
    assert metalearn("data", "verify", "mini-imagenet")[0] == 0
    assert path.read_bytes() == whole


def test_killed_in_its_middle_and_a_second_command_meanwhile(metalearn, photos):
    folder = store_folder("mini-imagenet", 12)
    process = start(photos, 0.2)
    wait_for(process, folder / "preparing.json")  # a class is done
    code, _, err = metalearn(*PREPARE, photos)
    assert (code, err.count("\n")) == (2, 1)
    assert f"{folder}: another command is preparing it" in err
    process.kill()
    process.communicate()
    assert metalearn("data", "list")[1].startswith("nothing is prepared")
    assert not (folder / "manifest.json").exists()
    done = json.loads((folder / "preparing.json").read_text())["done"]
    assert 1 <= len(done) < 5
    assert metalearn(*PREPARE, photos)[0] == 0
    copies.require_pictures(
        ImageStore.open(folder), {w: [copies.as_jpeg(p) for p in f] for w, f in PHOTOS.items()}
    )


def test_the_bar_is_for_terminals_alone(monkeypatch, capsys):
    for terminal in (False, True):
        monkeypatch.setenv("FORCE_COLOR" if terminal else "NO_COLOR", "1")
        monkeypatch.setenv("TERM", "xterm")
        with output.progress_bar(False) as tell:
            tell("Greek", 3, 7)
        told = capsys.readouterr().err
        assert ("Greek" in told and "3/7" in told) == terminal
        assert bool(told) == terminal


def test_help_needs_nothing_heavy():
    program = (
        "import sys; from metalearn_benchmarks import cli\n"
        "sys.argv = ['metalearn', 'data', 'prepare', '--help']\n"
        "try: cli.main()\nexcept SystemExit: pass\n"
        "print(sorted({'numpy', 'PIL', 'rich', 'attrs', 'torch', 'json'} & set(sys.modules)))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.splitlines()[-1] == "[]"


def test_listing_and_preparing_need_no_torch(tmp_path, photos):
    program = (
        "import sys, image_copies as copies\n"
        "from metalearn_benchmarks.tasks.images import datasets\n"
        "from metalearn_benchmarks import cli\n"
        "datasets.datasets = lambda: {'mini-imagenet': copies.MINI}\n"
        f"for words in (['prepare', 'mini-imagenet', {str(photos)!r}], ['list']):\n"
        "    sys.argv = ['metalearn', 'data', *words]; cli.main()\n"
        "assert 'torch' not in sys.modules\n"
    )
    path = os.pathsep.join([str(HELPERS), os.environ.get("PYTHONPATH", "")])
    subprocess.run(
        [sys.executable, "-c", program],
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": path},
    )


def test_the_small_background_sets_of_omniglot(metalearn, monkeypatch):
    """Two real archives, which share two alphabets; they may be used by tests where they are at hand."""
    place = os.environ.get("METALEARN_TEST_OMNIGLOT")
    if not place:
        pytest.skip(
            "METALEARN_TEST_OMNIGLOT names no folder with images_background_small1.zip and small2.zip"
        )
    monkeypatch.setattr(datasets, "datasets", REAL)
    code, out, err = metalearn("data", "prepare", "omniglot", place, "--split", "small")
    assert (code, err) == (0, "note: 1000 images are there twice; each is taken once\n")
    assert "4,840 images of 242 classes (0/0/242 by small), 28x28x1" in out
    assert metalearn("data", "verify", "omniglot-small")[0] == 0
    pixels = ImageStore.open(store_folder("omniglot-small", 28)).pixels
    assert 200 < pixels.mean() < 250  # black strokes on white
    code, _, err = metalearn("data", "prepare", "omniglot", place)
    assert (code, err.count("\n")) == (2, 1)
    assert "1381 of 1623 classes" in err


DOCUMENT = Path(__file__).parents[3] / "docs" / "data.md"


def test_the_document_names_every_dataset_and_split():
    text = DOCUMENT.read_text(encoding="utf-8")
    for each in REAL().values():
        for split in each.splits.values():
            assert f"| `{each.prepared_name(split)}` | `{split.name}` |" in text
            assert split.counts in text


def test_the_documents_code_runs(metalearn, tmp_path):
    birds = copies.write(tmp_path / "birds", copies.cub_files(copies.birds()))
    metalearn("data", "prepare", "cub", birds, "--size", 84)
    code = DOCUMENT.read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
    found = {}
    exec(code, found)
    assert found["images"].shape == (4, 84, 84, 3)
