"""Trained rules that are shipped: what their cards say is what they do, and `metalearn demo` shows it."""

from __future__ import annotations

import json
import re
import shutil

import pytest
import torch

from metalearn_benchmarks import load_rule
from metalearn_benchmarks.artifacts.zoo import SHIPPED, own_home, shipped, zoo
from metalearn_benchmarks.host.text_plot import TextPlot
from metalearn_benchmarks.records.record import read_record
from metalearn_core import Settings, UsageError, adapt, evaluate, seeded_generator, task_families

NAMES = sorted(shipped())


def errors_of(name, seed, count):
    """Mean squared errors before and after adapting, one wave at a time, by what is public alone."""
    artifact = load_rule(name)
    learner, theta = artifact.start()
    family = task_families()["sine"](support=5, query=50)
    found = []
    for block in range(-(-count // 100)):
        tasks = family.sample("test", 100, seeded_generator(seed, "test", block))
        for index in range(min(100, count - 100 * block)):
            task = tasks[index]
            after = adapt(
                artifact.rule, learner, theta, task.support, steps=artifact.steps, clip=artifact.clip
            )
            found.append(
                [
                    float(
                        ((learner.predict(at, task.query.inputs) - task.query.targets) ** 2).mean().detach()
                    )
                    for at in (theta, after)
                ]
            )
    return torch.tensor(found)


def test_the_papers_two_are_there_and_small():
    assert {"maml-sine", "turtle-sine"} <= set(NAMES)
    for name in NAMES:
        assert sum(path.stat().st_size for path in (SHIPPED / name).iterdir()) < 200_000


@pytest.mark.parametrize("name", NAMES)
def test_each_is_of_the_papers_scale_and_says_what_it_scored(name):
    card = load_rule(name).card
    assert card["training"]["settings"]["tasks"] == 70_000
    assert card["finished"]
    assert re.fullmatch("[0-9a-f]{40}", card["commit"]), "a commit that nobody changed"
    assert (card["run"]["experiment"], card["scores"]["test"]["tasks"]) == ("sine", 2000)
    assert 0 < card["scores"]["test"]["mean"] < 0.6
    assert name in (SHIPPED / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", NAMES)
def test_its_score_is_found_again_on_other_waves(name):
    """On a hundred that it was not scored on: within four standard errors of what its card says."""
    before, after = errors_of(name, 5, 100).T
    low, high = load_rule(name).card["scores"]["test"]["ci95"]
    error = (high - low) / 2 / 1.96 * (2000 / 100) ** 0.5
    assert abs(float(after.mean()) - load_rule(name).card["scores"]["test"]["mean"]) < 4 * error
    assert float(after.mean()) < 0.5 * float(before.mean())


@pytest.mark.parametrize("name", NAMES)
def test_the_numbers_on_its_card_are_found_again_on_the_same_waves(name):
    """On the 2,000 test tasks that it was scored on; the engine was another one, so up to its rounding."""
    artifact = load_rule(name)
    learner, theta = artifact.start()
    told, trained = artifact.card["scores"]["test"], artifact.card["training"]
    settings = Settings(
        steps=artifact.steps, inner_clip=artifact.clip, evaluation_batch=200,
        task_seed=trained["settings"]["task_seed"],
    )  # fmt: skip
    family = task_families()[trained["family"]["name"]](**trained["family"]["options"])
    scores = evaluate(artifact.rule, learner, theta, family, settings, split="test", tasks=told["tasks"])
    last = scores[:, -1].double()
    assert float(last.mean()) == pytest.approx(told["mean"], rel=1e-3)
    assert float(last.quantile(0.5)) == pytest.approx(told["median"], rel=1e-2)
    half = 1.96 * float(last.std()) / told["tasks"] ** 0.5
    assert (told["ci95"][1] - told["ci95"][0]) / 2 == pytest.approx(half, rel=1e-2)


# --- a zoo of one's own


def finished_run(finished):
    (path,) = finished.glob("sine/*/turtle/0/result.json")
    return path.parent


@pytest.fixture
def clean(finished, tmp_path):
    """A finished run whose record names a commit without changes."""
    from synthetic_records import change_result

    run = tmp_path / "sine/sine-5-shot/turtle/0"
    shutil.copytree(finished_run(finished), run)
    change_result(run, commit="0" * 40)
    return run


def test_a_run_becomes_an_entry_that_is_found_by_name(metalearn, clean, tmp_path, monkeypatch):
    monkeypatch.setenv("METALEARN_DATA", str(tmp_path / "home"))
    code, out, err = metalearn("export", clean, "--zoo", "my-turtle")
    assert (code, err) == (0, "")
    folder = own_home() / "my-turtle"
    assert str(folder) in out
    assert folder.parent == tmp_path / "home/zoo"
    assert [*zoo()] == [*NAMES, "my-turtle"]
    artifact = load_rule("my-turtle")
    assert artifact.card["commit"] == "0" * 40
    assert artifact.card["scores"]["test"] == read_record(clean).result["summary"]
    rows = json.loads(metalearn("zoo", "list", "--json")[1])
    assert [row["name"] for row in rows] == [*NAMES, "my-turtle"]
    assert "my-turtle" in metalearn("zoo", "show", "my-turtle")[1]
    assert [*shipped()] == NAMES  # the demo shows these alone


@pytest.mark.parametrize(
    ("change", "name", "told"),
    [
        ({"commit": "1" * 40 + "-dirty"}, "mine", "the code was changed and nobody has it"),
        ({}, "turtle-sine", "a shipped rule has this name"),
        ({}, "../mine", "use small letters"),
        (None, "mine", "it has no test scores yet"),
    ],
)
def test_what_cannot_be_held_to_its_card_is_no_entry(metalearn, clean, tmp_path, change, name, told):
    from synthetic_records import change_result

    if change is None:
        (clean / "result.json").unlink()
    elif change:
        change_result(clean, **change)
    code, _, err = metalearn("export", clean, "--zoo", name, "--out", tmp_path / "there")
    assert (code, err.count("\n")) == (2, 1)
    assert told in err
    assert not (tmp_path / "there").exists()


def test_the_demo_tells_the_errors_of_the_artifacts(metalearn, tmp_path):
    picture = tmp_path / "demo.png"
    code, out, err = metalearn("demo", "--seed", 3, "--waves", 20, "--out", picture, "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert [one["name"] for one in told["rules"]] == NAMES
    for one in told["rules"]:
        expected = errors_of(one["name"], 3, 20)
        by_step = one["error_by_step"]
        assert [by_step[0], by_step[-1]] == pytest.approx(expected.mean(0).tolist(), rel=1e-4)
        first = one["first_task"]["error_by_step"]
        assert [first[0], first[-1]] == pytest.approx(expected[0].tolist(), rel=1e-4)
        assert by_step[-1] < 0.5 * by_step[0]
    assert told["picture"] == str(picture)
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_demo_fits_a_terminal_and_says_where_the_picture_is(metalearn, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path)
    code, out, err = metalearn("demo", "--waves", 2)
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 80
    assert "picture: metalearn-demo.png" in out
    assert (tmp_path / "metalearn-demo.png").is_file()
    for words in ("MAML, the first wave", "TURTLE, the first wave", 'load_rule("turtle-sine")'):
        assert words in out
    again = metalearn("demo", "--waves", 2)[1]
    assert (again == out, metalearn("demo", "--waves", 2, "--seed", 9)[1] == out) == (True, False)


@pytest.mark.parametrize("words", [("--out", "a.jpg"), ("--waves", "0"), ("--seed", "-1")])
def test_a_mistake_is_one_line_and_draws_nothing(metalearn, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    code, out, err = metalearn("demo", *words)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert not list(tmp_path.iterdir())


def test_list_and_show(metalearn):
    code, out, _ = metalearn("zoo", "list", "--json")
    assert (code, [row["name"] for row in json.loads(out)]) == (0, NAMES)
    code, out, _ = metalearn("zoo", "show", "maml-sine")
    assert code == 0
    assert 'load_rule("maml-sine")' in out
    assert "70,000 tasks, T = 5, second order; seed 0 of experiment sine" in out
    told = json.loads(metalearn("zoo", "show", "maml-sine", "--json")[1])
    assert told["card"] == json.loads((SHIPPED / "maml-sine/card.json").read_text())
    code, _, err = metalearn("zoo", "show", "maml-sin")
    assert (code, "did you mean 'maml-sine'?" in err) == (2, True)


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "maml-sine").mkdir()
    with pytest.raises(UsageError, match=r"no artifact is in it .*metalearn zoo list"):
        load_rule("maml-sine")


def test_characters_stand_where_the_points_are():
    plot = TextPlot(width=17, height=3, x=(0.0, 1.0), y=(-1.0, 1.0))
    plot.add(".", [0.0, 0.5, 1.0, 2.0, float("nan")], [-1.0, 0.0, 1.0, 0.0, 0.0])
    plot.add("O", [1.0], [1.0])
    assert plot.lines() == ["  1.0 |         O", "      |     .", " -1.0 |."]
