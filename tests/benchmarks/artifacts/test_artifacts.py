"""Artifacts: what `metalearn export` writes, `load_rule` brings back bit for bit, or refuses by name."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import pickle
import re
import shutil
from pathlib import Path

import attrs
import pytest
import safetensors.torch
import torch
from torch import nn

from metalearn_benchmarks import load_rule
from metalearn_benchmarks.artifacts import files, loading
from metalearn_benchmarks.experiments.catalogue import Method, Overrides, cells, find_experiment
from metalearn_benchmarks.records.seal import file_digest, seal
from metalearn_benchmarks.runs.components import Components
from metalearn_benchmarks.runs.evaluation import Evaluation
from metalearn_benchmarks.runs.export import export_run
from metalearn_benchmarks.runs.training import open_checkpoint, run_cells
from metalearn_core import (
    BaseLearner,
    LearnedOptimizer,
    ParameterLayout,
    Registry,
    UpdateRule,
    UsageError,
    adapt,
    evaluate,
    registry,
)

ROOT = Path(__file__).resolve().parents[3]
META_SGD = Method(
    title="Meta-SGD", start="meta", rule="gradient-descent",
    options={"learn_lr": "parameter", "inner_lr": 0.02},
)  # fmt: skip
ALPHA = Method(
    title="TURTLE with α", start="meta", rule="feed-forward",
    options={"hidden": [4], "learn_lr": "parameter", "inputs": ["grad", "step"], "history": "update"},
    settings={"inner_clip": {"by": "value", "limit": 0.5}, "outer_lr": 0.01},
)  # fmt: skip
METHODS = (
    "maml", "turtle", "lstm", "lstm-enhanced", "finetuning", "train-from-scratch", "meta-sgd", "alpha",
)  # fmt: skip


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A tiny finished run of each method: `{method: (cell, folder)}`."""
    directory, found = tmp_path_factory.mktemp("runs"), {}
    name, experiment = find_experiment("sine")
    experiment = attrs.evolve(experiment, method={"meta-sgd": META_SGD, "alpha": ALPHA})
    for cell in cells(name, experiment, "smoke", Overrides(methods=METHODS, tasks=12)):
        settings = {**cell.method.settings, "validation_interval": 4, "validation_tasks": 4}
        if cell.method.start != "meta":
            settings["steps"] = 7
        cell = attrs.evolve(cell, test_tasks=6, method=attrs.evolve(cell.method, settings=settings))
        run_cells([cell], directory, [])
        found[cell.name] = cell, directory / cell.folder
    return found


@pytest.fixture
def exported(runs, metalearn, tmp_path):
    """Export a run through the command: the artifact's folder."""

    def export(method):
        folder = tmp_path / method
        code, out, err = metalearn("export", runs[method][1], "--out", folder)
        assert (code, err) == (0, "")
        assert f"artifact: {folder} (rule " in out
        return folder

    return export


def refused(told, *arguments, **options):
    with pytest.raises(UsageError, match=told) as caught:
        load_rule(*arguments, **options)
    assert "\n" not in str(caught.value)


# --- the round trip


@pytest.mark.parametrize("method", METHODS)
def test_what_is_loaded_adapts_and_scores_bit_for_bit_as_in_the_run(runs, exported, method, monkeypatch):
    cell, run = runs[method]
    parts, trained = open_checkpoint(cell, run / "checkpoint.pt")
    tested = Evaluation.build(cell, parts, trained)
    rule, learner, theta = tested.rule, tested.learner, tested.theta
    folder = exported(method)
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, None)
    monkeypatch.setattr(torch, "load", None)
    artifact = load_rule(folder)
    again, start = artifact.start()
    assert torch.equal(start, theta)
    support = parts.tasks("test").take(0, 3).support
    settings = parts.settings
    with torch.no_grad():
        ours = adapt(
            artifact.rule, again, start, support, steps=artifact.steps, clip=artifact.clip
        )  # fmt: skip
        theirs = adapt(
            rule, learner, theta, support, steps=settings.evaluation_steps, clip=settings.inner_clip
        )
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours[0], start)
    result = json.loads((run / "result.json").read_text())
    scores = evaluate(artifact.rule, again, start, parts.family, settings, split="test", tasks=6)
    assert [[float(f"{x:.9g}") for x in row] for row in scores.tolist()] == result["scores"]["sine"]


def test_the_card_says_what_the_run_was(runs, exported):
    folder = exported("alpha")
    assert {path.name for path in folder.iterdir()} == {"card.json", "rule.safetensors"}
    card = json.loads((folder / "card.json").read_text())
    result = json.loads((runs["alpha"][1] / "result.json").read_text())
    assert card["format"] == 1
    assert card["rule"]["options"]["inputs"] == ["grad", "step"]
    assert card["rule"]["options"]["activation"] == "relu"  # its defaults too
    assert card["rule"]["distribution"] == "metalearn-feed-forward"
    assert card["layout"]["size"] == 1761
    assert card["layout"]["names"][-1] == "4.bias"
    assert card["adaptation"] == {"steps": 5, "order": "second", "clip": {"by": "value", "limit": 0.5}}
    assert card["training"]["family"]["options"]["support"] == 5
    assert card["training"]["settings"]["outer_lr"] == 0.01
    assert card["training"]["position"] == result["best_position"]
    assert card["scores"]["test"] == result["summary"]
    assert card["scores"]["validation"] == min(score for _, score in result["validations"])
    assert (card["versions"], card["commit"]) == (result["versions"], result["commit"])
    assert (card["finished"], card["dtype"]) == (True, "float32")
    # and anybody can read the numbers
    tensors = safetensors.torch.load_file(folder / "rule.safetensors")
    assert tensors["theta.2.weight"].shape == (40, 40)
    assert tensors["phi.alpha"].shape == (1761,)
    assert {name: list(x.shape) for name, x in tensors.items()} == card["tensors"]


def test_without_out_it_lies_in_the_run_and_json_is_the_card(runs, metalearn):
    run = runs["maml"][1]
    code, out, _ = metalearn("export", run, "--json")
    told = json.loads(out)
    assert code == 0
    assert told["folder"] == str(run / "artifact")
    assert told["card"] == json.loads((run / "artifact/card.json").read_text())
    for path in (run / "artifact", run / "artifact/card.json", run / "artifact/rule.safetensors"):
        assert load_rule(str(path)).steps == 5
    code, _, err = metalearn("export", runs["turtle"][1], "--out", run / "artifact")
    assert (code, err.count("\n")) == (2, 1)
    assert "it holds the artifact of another run" in err
    assert metalearn("export", run)[0] == 0


def test_a_run_that_is_validated_but_not_finished_exports_its_best_and_goes_on(runs, metalearn, tmp_path):
    cell, _ = runs["maml"]

    def stop(event):
        if event.kind == "validation" and event.position == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_cells([cell], tmp_path, [stop])
    folder = tmp_path / cell.folder
    before = (folder / "checkpoint.pt").read_bytes()
    assert metalearn("export", folder)[0] == 0
    assert (folder / "checkpoint.pt").read_bytes() == before
    card = load_rule(folder / "artifact").card
    assert (card["finished"], card["scores"]["test"]) == (False, None)
    assert card["training"]["position"] in (0, 4, 8)
    run_cells([cell], tmp_path, [])
    assert json.loads((folder / "result.json").read_text())["validations"][-1][0] == 12


def reseal(folder):
    """Make the result one of the files that lie beside it now."""
    result = json.loads((folder / "result.json").read_text())
    del result["seal"], result["crc32"]
    text = seal(
        json.dumps(result).encode(),
        (folder / "experiment.toml").read_bytes(),
        file_digest(folder / "checkpoint.pt"),
    )
    (folder / "result.json").write_bytes(text)


def test_a_run_from_other_weights_than_here_can_be_exported(runs, tmp_path):
    """Another machine may draw other numbers from a seed: what was trained is what is exported."""
    cell, run = runs["maml"]
    other = tmp_path / "1"
    shutil.copytree(run, other)
    for name, old, new in (
        ("experiment.toml", "seed = 0", "seed = 1"), ("result.json", '"seed": 0', '"seed": 1'),
    ):  # fmt: skip
        text = (other / name).read_text()
        assert old in text
        (other / name).write_text(text.replace(old, new, 1))
    reseal(other)
    folder, _ = export_run(other, tmp_path / "o")
    _, trained = open_checkpoint(cell, run / "checkpoint.pt")
    assert torch.equal(load_rule(folder).theta, trained.at_best()[1].detach())


# --- what is no run


@pytest.mark.parametrize(
    ("missing", "told"),
    [
        (None, "no run is in it; give a record's folder"),
        ("checkpoint.pt", "its checkpoint.pt is missing"),
    ],
)
def test_what_is_no_run_is_refused(runs, metalearn, tmp_path, missing, told):
    if missing:
        shutil.copytree(runs["maml"][1], tmp_path, dirs_exist_ok=True)
        (tmp_path / missing).unlink()
    code, out, err = metalearn("export", tmp_path, "--out", tmp_path / "o")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert told in err
    assert not (tmp_path / "o").exists()


def test_a_run_that_was_never_validated_is_refused(runs, metalearn, tmp_path):
    shutil.copytree(runs["maml"][1], tmp_path / "run")
    (tmp_path / "run/result.json").unlink()
    held = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)
    torch.save({**held, "validations": []}, tmp_path / "run/checkpoint.pt")
    code, _, err = metalearn("export", tmp_path / "run")
    assert (code, err.count("\n")) == (2, 1)
    assert "the run has not been validated yet" in err


def test_a_checkpoint_of_another_rule_is_refused(runs, metalearn, tmp_path):
    shutil.copytree(runs["maml"][1], tmp_path / "run")
    shutil.copy(runs["turtle"][1] / "checkpoint.pt", tmp_path / "run/checkpoint.pt")
    reseal(tmp_path / "run")
    code, _, err = metalearn("export", tmp_path / "run")
    assert (code, err.count("\n")) == (2, 1)
    assert "it is of another run: rule is FeedForward" in err


def test_a_run_whose_folder_was_copied_elsewhere_is_exported(runs, tmp_path):
    run = shutil.copytree(runs["maml"][1], tmp_path / "of my own")
    ours, kept = (load_rule(export_run(where, tmp_path / where.name)[0]) for where in (run, runs["maml"][1]))
    assert torch.equal(ours.theta, kept.theta)


def test_a_checkpoint_that_is_a_pipe_is_not_waited_for(runs, metalearn, tmp_path):
    run = shutil.copytree(runs["maml"][1], tmp_path / "run")
    (run / "checkpoint.pt").unlink()
    os.mkfifo(run / "checkpoint.pt")
    code, _, err = metalearn("export", run)
    assert (code, err.count("\n")) == (2, 1)
    assert "its checkpoint.pt is missing" in err


def test_a_folder_that_cannot_be_written_is_refused(runs, metalearn, tmp_path):
    (tmp_path / "file").write_text("in the way")
    code, _, err = metalearn("export", runs["maml"][1], "--out", tmp_path / "file" / "below")
    assert (code, err.count("\n")) == (2, 1)
    assert "cannot be written" in err


# --- what was changed


def edit_card(folder, **changes):
    """Change the card as an editor would; a dotted key reaches inside."""
    card = json.loads((folder / "card.json").read_text())
    for key, value in changes.items():
        *path, last = key.split("__")
        place = card
        for part in path:
            place = place[part]
        place[last] = value
    (folder / "card.json").write_text(json.dumps(card))


def forge(folder, **changes):
    """Another card for the same tensors, with hashes that fit: as another version might have written it."""
    edit_card(folder, **changes)
    card = json.loads((folder / "card.json").read_text())
    del card["sha256"]
    tensors = safetensors.torch.load_file(folder / "rule.safetensors")
    files.write_artifact(folder, {k: v for k, v in card.items() if k not in ("format", "tensors")}, tensors)
    assert load_rule  # the forged one is whole
    files.read_artifact(folder)


def test_a_whole_artifact_and_nothing_else_is_read(exported, tmp_path):
    folder = exported("turtle")
    data, card = (folder / "rule.safetensors").read_bytes(), (folder / "card.json").read_text()
    refused("no artifact is in it", tmp_path / "nowhere")
    for changed in (data[:-1], data + b"\0", b"", data[:200] + bytes([data[200] ^ 1]) + data[201:]):
        (folder / "rule.safetensors").write_bytes(changed)
        refused("rule.safetensors: not the file that card.json was written for", folder)
    (folder / "rule.safetensors").unlink()
    refused("rule.safetensors: cannot be read .*it belongs beside card.json", folder)
    (folder / "rule.safetensors").write_bytes(data)
    for text in ("{", "[1]", "3", "{}", '{"tensors": 3}'):
        (folder / "card.json").write_text(text)
        refused("not the card of an artifact", folder)
    (folder / "card.json").write_text(card)
    load_rule(folder)
    edit_card(folder, rule__options__activation="tanh")  # of the same shapes: nothing else would notice
    refused("card.json: it was changed after the export", folder)


def test_a_pickle_is_never_read(exported, tmp_path):
    class Harmful:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "harmed",))

    folder = exported("turtle")
    data = pickle.dumps(Harmful())
    (folder / "rule.safetensors").write_bytes(data)
    edit_card(folder, sha256=hashlib.sha256(data).hexdigest())
    refused("not a safetensors file", folder)
    assert not (tmp_path / "harmed").exists()


def test_a_newer_format_is_refused(exported):
    folder = exported("turtle")
    edit_card(folder, format=2)
    refused("it is of format 2 and this version reads 1; install the metalearn-benchmarks", folder)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"rule__name": "feed-backward"},
            "rule 'feed-backward' is not installed here; its card says metalearn-f",
        ),
        ({"rule__distribution": "another"}, "is of another 0.1.0, and here of metalearn-feed-forward"),
        ({"rule__api_version": 2}, "is of API 2, and this metalearn-core of 1"),
        (
            {"rule__options__hiden": [2]},
            "cannot be made with its options .*unknown option 'hiden'.*was of metal",
        ),
        (
            {"rule__options__hidden": [3]},
            r"network.0.weight is \[20, 1\] of torch.float32 in the artifact and",
        ),
        ({"rule__options__learn_lr": "parameter"}, "alpha is missing in the artifact and"),
        ({"dtype": "float64"}, "of torch.float32 in the artifact and .* of torch.float64"),
        ({"layout__names": list("abcdef")}, "expected parameters"),
        ({"layout__names": ["a"] * 6}, "names must be a tuple of different names"),
        ({"layout__names": ["a", "b"]}, "one shape for each name, got 2 names and 6 shapes"),
        ({"layout__shapes": [["a"]] * 6}, "shapes must be a tuple of shapes"),
        ({"dtype": "float31"}, "its dtype is 'float31'; there are float16, bfloat16, float32"),
        ({"dtype": "nn"}, "its dtype is 'nn'"),
        ({"dtype": 3}, "its dtype is 3"),
        ({"adaptation__steps": "five"}, "steps must be an integer >= 0, got 'five'"),
        ({"adaptation__steps": -1}, "steps must be an integer >= 0, got -1"),
        ({"adaptation__clip": 3}, "not as format 1 has it"),
        ({"run": {}}, "not as format 1 has it"),
        ({"run": None}, "not as format 1 has it"),
        ({"rule": "turtle"}, "not as format 1 has it"),
        ({"layout": 3}, "not as format 1 has it"),
        ({"adaptation": {}}, "not as format 1 has it"),
    ],
)
def test_what_does_not_fit_what_is_installed_is_refused_by_name(exported, changes, told):
    folder = exported("turtle")
    forge(folder, **changes)
    refused(told, folder)


def test_another_version_of_the_plugin_is_told(exported):
    folder = exported("turtle")
    forge(folder, rule__version="0.0.9")
    with pytest.warns(UserWarning, match=r"trained with metalearn-feed-forward 0.0.9, here it is 0.1.0"):
        load_rule(folder)


def test_a_tensor_that_is_missing_is_named(exported):
    folder = exported("turtle")
    card, tensors = files.read_artifact(folder)
    about = {key: value for key, value in card.items() if key not in ("format", "tensors")}
    files.write_artifact(folder, about, {k: v for k, v in tensors.items() if k != "phi.network.2.bias"})
    refused("network.2.bias is missing in the artifact", folder)
    files.write_artifact(folder, about, {k: v for k, v in tensors.items() if k != "theta.0.bias"})
    refused("expected parameters", folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["phi.network.2.bias", "theta.0.bias"])
def test_weights_that_are_not_finite_are_named(exported, name, value):
    folder = exported("turtle")
    card, tensors = files.read_artifact(folder)
    about = {key: held for key, held in card.items() if key not in ("format", "tensors")}
    files.write_artifact(folder, about, {**tensors, name: torch.full_like(tensors[name], value)})
    refused(f"{name} holds a NaN or an infinity", folder)


@pytest.mark.parametrize("wrong", [None, 3, b"path"])
def test_what_is_no_path_and_no_learner_is_refused(exported, wrong):
    with pytest.raises(UsageError, match=r"^load_rule: path must be a Path or a str, got a "):
        load_rule(wrong)
    with pytest.raises(UsageError, match=r"^load_rule: learner must be a BaseLearner or a ParameterLayout"):
        load_rule(exported("turtle"), wrong or [])


def test_a_learner_that_is_not_installed_is_named_and_can_be_given(exported, monkeypatch, runs):
    folder = exported("maml")
    learner = Components.build(runs["maml"][0]).learner
    fresh = Registry()
    fresh.catalogues["metalearn_base_learners"].clear()
    monkeypatch.setattr(registry, "default_registry", lambda: fresh)
    artifact = load_rule(folder)
    with pytest.raises(UsageError, match="base-learner 'mlp' is not installed here; its card says meta"):
        artifact.start()
    _, theta = artifact.start(learner)
    assert torch.equal(theta, artifact.theta)


# --- other learners


def network(*widths):
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(*[part for layer in layers for part in (layer, nn.Tanh())][:-1])


def square(prediction, target):
    return (prediction - target).square().mean()


@pytest.mark.parametrize(
    ("widths", "told"),
    [
        (
            (1, 40, 30, 1),
            r"parameter 2 is '2.weight' of shape \(40, 40\), and .* '2.weight' of shape \(30, 40\)",
        ),
        ((1, 40, 40, 40, 1), r"parameter 4 is '4.weight' of shape \(1, 40\), and .* of shape \(40, 40\)"),
        ((1, 40), r"parameter 2 is '2.weight' of shape \(40, 40\), and of the learner given none"),
    ],
)
def test_another_layout_is_refused_by_the_first_parameter_that_differs(exported, widths, told):
    folder = exported("turtle")
    learner = BaseLearner(network(*widths), square)
    refused(told, folder, learner)
    refused(told, folder, learner.layout)
    with pytest.raises(UsageError, match=told):
        load_rule(folder).start(learner)


def test_another_dtype_is_refused(exported):
    learner = BaseLearner(network(1, 40, 40, 1).double(), square)
    told = (
        r"it is in float32, and the learner in torch.float64; use learner.to\(learner.device, torch.float32"
    )
    refused(told, exported("turtle"), learner)
    load_rule(exported("turtle"), learner.to("cpu", torch.float32))


@pytest.mark.parametrize("method", ["turtle", "lstm", "lstm-enhanced", "maml", "finetuning"])
def test_a_rule_for_single_coordinates_goes_to_any_learner(exported, method):
    folder = exported(method)
    learner = BaseLearner(network(3, 5, 2), square)
    refused("parameter 0 is", folder, learner)
    artifact = load_rule(folder, learner, transfer=True)
    assert artifact.theta is None
    assert artifact.layout == learner.layout
    here = load_rule(folder)
    for name, value in here.rule.state_dict().items():
        assert torch.equal(artifact.rule.state_dict()[name], value)
    with pytest.raises(UsageError, match="loaded for another layout, so there is no θ⁰"):
        artifact.start()
    # it drives an ordinary training loop of that learner
    module, inputs = learner.module, torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    before = [parameter.detach().clone() for parameter in module.parameters()]
    optimizer = LearnedOptimizer(module.parameters(), artifact.rule, clip=artifact.clip)

    def closure():
        optimizer.zero_grad()
        loss = square(module(inputs), torch.ones(4, 2))
        loss.backward()
        return loss

    optimizer.step(closure)
    assert not any(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))


@pytest.mark.parametrize(("method", "phi"), [("meta-sgd", "inner_lr"), ("alpha", "alpha")])
def test_a_rule_with_a_value_for_each_coordinate_stays_where_it_was_trained(exported, method, phi):
    folder = exported(method)
    told = rf"{phi} of rule .* has a value for each coordinate .*shape \(1761,\), so it fits no other learner"
    refused(told, folder, BaseLearner(network(3, 5, 2), square), transfer=True)
    # as many coordinates are not the same coordinates
    turned = ParameterLayout(("w",), ((1761,),))
    refused(told, folder, turned, transfer=True)
    own = load_rule(folder, load_rule(folder).layout, transfer=True)
    assert own.theta is not None


def test_transfer_needs_to_know_where_to(exported):
    refused("transfer=True needs the learner", exported("turtle"), transfer=True)


def test_nothing_is_drawn_from_the_global_generator(exported):
    folder = exported("alpha")
    before = torch.get_rng_state()
    load_rule(folder)
    assert torch.equal(torch.get_rng_state(), before)


# --- the documentation


def test_what_the_documentation_says_runs(runs, monkeypatch, tmp_path, metalearn):
    text = (ROOT / "docs/artifacts.md").read_text(encoding="utf-8")
    commands = re.findall(r"^\$ metalearn (.*)$", text, re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(runs["turtle"][1], "results/small/sine/sine-5-shot/turtle/0")
    for command in commands:
        code, _, err = metalearn(*command.split())
        assert (code, err) == (0, "")
    names = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, "artifacts.md", "exec"), names)
    assert isinstance(names["artifact"], loading.Artifact)
    assert issubclass(names["LearnedOptimizer"], torch.optim.Optimizer)
    assert isinstance(names["rule"], UpdateRule)
