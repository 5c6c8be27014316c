"""Several seeds in one program: each takes the steps that it would take alone, and stops by itself."""

from __future__ import annotations

import attrs
import pytest
import torch

from metalearn_core import (
    Clipping,
    Settings,
    Trained,
    UsageError,
    make_rule,
    meta_gradient,
    meta_train,
    meta_train_seeds,
    task_families,
)
from metalearn_core.kernels import engine
from metalearn_core.kernels.by_steps import UNROLLED
from metalearn_core.kernels.outer_step import OuterStep, Packed
from metalearn_core.kernels.pieces import over_pieces
from metalearn_core.testing import Architecture
from metalearn_core.training import checkpoint
from metalearn_core.training.meta_gradient import meta_gradients

# several of these trainings diverge on purpose
pytestmark = pytest.mark.filterwarnings("ignore::metalearn_core.errors.TrainingWarning")

FAMILY = task_families()["sine"](support=5, query=5)
LEARNER = Architecture((1, 3, 1)).learner()
SMALL = Settings(
    tasks=7,
    meta_batch=2,
    steps=2,
    outer_lr=0.05,
    validation_interval=4,
    validation_tasks=3,
    engine="compiled",
)
TASK = FAMILY.sample("train", 2, torch.Generator().manual_seed(5)).to("cpu", torch.float64)


def generators(count=3):
    return [torch.Generator().manual_seed(seed) for seed in range(count)]


def rules_of(name, count=3, **options):
    made = []
    for seed in range(count):
        torch.manual_seed(seed)
        made.append(make_rule(name, LEARNER.layout, **options).double())
    return made


def together(rules, settings=SMALL, **further):
    return meta_train_seeds(rules, LEARNER, FAMILY, settings, generators=generators(len(rules)), **further)


def alone(rules, settings=SMALL):
    return [
        meta_train(rule, LEARNER, FAMILY, settings, generator=generator)
        for rule, generator in zip(rules, generators(len(rules)), strict=True)
    ]


def same(one, other, **tolerance):
    torch.testing.assert_close(one.theta, other.theta, **tolerance)
    for ours, theirs in zip(one.rule.parameters(), other.rule.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, **tolerance)


CLOSE = {"rtol": 1e-9, "atol": 1e-11}


@pytest.mark.parametrize("order", ["first", "second"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("gradient-descent", {"learn_lr": "parameter"}),
        ("feed-forward", {"hidden": [4], "inputs": ["grad", "loss"]}),
        ("lstm", {"hidden": 3}),
    ],
)
def test_meta_gradients_of_seeds_are_those_of_each(name, options, order):
    members = [
        Trained.begin(rule, LEARNER, SMALL, g, FAMILY)
        for rule, g in zip(rules_of(name, **options), generators(), strict=True)
    ]
    theta = torch.stack([member.theta.detach() for member in members])
    named = [dict(member.rule.named_parameters()) for member in members]
    phi = {key: torch.stack([parameters[key].detach() for parameters in named]) for key in named[0]}
    losses, grad, grads = meta_gradients(
        members[0].rule, LEARNER, theta, phi, TASK, steps=3, order=order, clip=Clipping("norm", 0.5)
    )
    for i, member in enumerate(members):
        loss, of_theta, of_phi = meta_gradient(
            member.rule, LEARNER, member.theta, TASK, steps=3, order=order, clip=Clipping("norm", 0.5)
        )
        torch.testing.assert_close(losses[i], loss, **CLOSE)
        torch.testing.assert_close(grad[i], of_theta, **CLOSE)
        for key, value in of_phi.items():
            torch.testing.assert_close(grads[key][i], value, **CLOSE)


SETTINGS = [
    attrs.evolve(SMALL, outer_clip=clip, outer_clip_scope=scope, outer_loss=loss, inner_clip=inner)
    for clip, scope, loss, inner in [
        (None, "all", "mean", None),
        (None, "all", "sum", Clipping("norm", 0.3)),
        (Clipping("norm", 0.1), "all", "sum", None),
        (Clipping("norm", 0.1), "initialisation", "mean", None),
        (Clipping("value", 0.05), "all", "mean", Clipping("value", 0.2)),
        (Clipping("value", 0.05), "initialisation", "mean", None),
    ]
]
SETTINGS += [
    attrs.evolve(SETTINGS[1], steps=UNROLLED + 2),
    attrs.evolve(SETTINGS[1], tasks_at_once=1),
    attrs.evolve(SETTINGS[3], steps=UNROLLED + 2, tasks_at_once=1),
    attrs.evolve(SETTINGS[0], truncate=1, outer_decay=0.5),
    attrs.evolve(SETTINGS[1], steps=UNROLLED + 2, truncate=5, outer_decay=1.0),
]


@pytest.mark.parametrize("frozen", [False, True], ids=["all learned", "one frozen"])
@pytest.mark.parametrize("settings", SETTINGS)
def test_a_step_of_the_pack_is_adams_step_of_each(settings, frozen):
    """Against `torch.optim.Adam` and torch's clipping, three steps in a row."""

    def begin():
        members = []
        for rule, generator in zip(rules_of("feed-forward", hidden=[3]), generators(), strict=True):
            rule.network[2].bias.requires_grad_(not frozen)
            members.append(Trained.begin(rule, LEARNER, settings, generator, FAMILY))
        return members

    ours, theirs = begin(), begin()
    pack, step = Packed(ours), OuterStep(ours[0].rule, LEARNER, settings)
    step._programs = as_it_is
    for _ in range(3):
        losses, taken = step(pack, TASK, torch.tensor([True, True, True]))
        answers = [engine.eager_step(member, LEARNER, settings, TASK) for member in theirs]
        assert losses.tolist() == pytest.approx([loss for loss, _ in answers], rel=1e-10)
        assert taken.tolist() == [went for _, went in answers] == [True] * 3
        for one, other in zip(ours, theirs, strict=True):
            same(one, other, **CLOSE)
    for one, other in zip(ours, theirs, strict=True):
        states = [trained.optimizer.state_dict()["state"] for trained in (one, other)]
        for column, state in states[1].items():
            for key, value in state.items():
                torch.testing.assert_close(states[0][column][key], value, **CLOSE)


def as_it_is(key, function, arguments, *, eager_first=True):
    """What is compiled, without the compiler."""
    return function(*arguments)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 9])
def test_a_meta_batch_in_pieces_is_the_whole(size):
    """Also where the last piece is smaller than the others."""
    task = FAMILY.sample("train", 5, torch.Generator().manual_seed(6)).to("cpu", torch.float64)
    (rule,) = rules_of("feed-forward", 1, hidden=[3])
    theta, sizes, firsts = LEARNER.initial(torch.Generator().manual_seed(1)), [], []

    def gradients(task, first):
        firsts.append(first)
        sizes.append(len(task))
        loss, grad, phi = meta_gradient(rule, LEARNER, theta, task, steps=2)
        return [loss, grad, *phi.values()]

    whole = gradients(task, 0)
    sizes.clear(), firsts.clear()
    for ours, theirs in zip(over_pieces(gradients, task, size), whole, strict=True):
        torch.testing.assert_close(ours, theirs, **CLOSE)
    assert max(sizes) == min(size, 5)
    assert sum(sizes) == 5
    assert firsts == list(range(0, 5, size))


def test_a_seed_that_is_not_alive_or_not_finite_stays_where_it_is():
    members = [
        Trained.begin(rule, LEARNER, SMALL, g, FAMILY)
        for rule, g in zip(rules_of("gradient-descent", learn_lr="scalar"), generators(), strict=True)
    ]
    with torch.no_grad():
        members[1].rule.inner_lr.fill_(1e200)
    pack, step = Packed(members), OuterStep(members[0].rule, LEARNER, SMALL)
    step._programs = as_it_is
    before = pack.values.clone()
    losses, taken = step(pack, TASK, torch.tensor([True, True, False]))
    assert taken.tolist() == [True, False, False]
    assert not losses[1].isfinite()
    assert [bool((row != old).any()) for row, old in zip(pack.values, before, strict=True)] == [
        True,
        False,
        False,
    ]
    assert not pack.first[1:].any()
    assert pack.steps.max(1).values.tolist() == [1, 0, 0]


@pytest.mark.parametrize("name", ["gradient-descent", "feed-forward"])
def test_seeds_compiled_together_end_where_each_ends_alone(name):
    """A whole run in float64, the smaller last meta-batch, validations and best states included."""
    options = {"learn_lr": "parameter"} if name == "gradient-descent" else {"hidden": [3]}
    settings = attrs.evolve(SMALL, outer_clip=Clipping("norm", 0.5))
    ours = together(rules_of(name, **options), settings)
    theirs = alone(rules_of(name, **options), attrs.evolve(settings, engine="eager"))
    assert [trained.engine for trained in ours] == ["compiled"] * 3
    for one, other in zip(ours, theirs, strict=True):
        same(one, other, rtol=1e-8, atol=1e-10)
        assert one.position == other.position == 7
        assert one.best.position == other.best.position
        scores = [[score for _, score in trained.validations] for trained in (one, other)]
        assert scores[0] == pytest.approx(scores[1], rel=1e-8)
        torch.testing.assert_close(one.best.theta, other.best.theta, rtol=1e-8, atol=1e-10)
    assert len({float(trained.theta.detach()[0]) for trained in ours}) == 3


@pytest.mark.parametrize("kind", ["eager", "compiled"])
def test_a_seed_that_diverges_stops_alone(kind):
    settings = attrs.evolve(SMALL, engine=kind)
    rules, events = rules_of("gradient-descent", learn_lr="scalar"), [[], [], []]
    with torch.no_grad():
        rules[1].inner_lr.fill_(1e200)
    trained = together(rules, settings, observers=[[told.append] for told in events])
    expected = alone(rules_of("gradient-descent", learn_lr="scalar"), attrs.evolve(settings, engine="eager"))
    assert [t.diverged is None for t in trained] == [True, False, True]
    assert "outer step 1, training task 0: θ is not finite after inner step" in trained[1].diverged
    assert [t.position for t in trained] == [7, 0, 7]
    for i in (0, 2):
        same(trained[i], expected[i], rtol=1e-8, atol=1e-10)
    kinds = [[event.kind for event in told] for told in events]
    assert kinds[1].count("step") == 0
    assert kinds[1].count("diverged") == 1
    assert kinds[0].count("step") == kinds[2].count("step") == 4


class Cut(KeyboardInterrupt):
    """Ctrl-C, as a test makes it."""


@pytest.mark.parametrize(("kind", "who"), [("eager", 0), ("eager", 2), ("compiled", 2)])
def test_a_group_goes_on_with_the_same_bits(tmp_path, kind, who):
    """Told to stop by whichever seed, all are saved at the same task."""
    settings = attrs.evolve(SMALL, engine=kind)

    def cut(event):
        if event.kind == "step" and event.position == 4:
            raise Cut

    def run(folder, observers):
        folder.mkdir(exist_ok=True)
        paths = [folder / f"{seed}.pt" for seed in range(3)]
        return together(
            rules_of("feed-forward", hidden=[3]), settings, checkpoints=paths, observers=observers
        )

    whole = run(tmp_path / "whole", None)
    with pytest.raises(Cut):
        run(tmp_path / "cut", [[cut] if seed == who else [] for seed in range(3)])
    again = run(tmp_path / "cut", None)
    for one, other in zip(again, whole, strict=True):
        same(one, other, rtol=0, atol=0)
        assert one.validations == other.validations
    assert not list((tmp_path / "cut").glob("*.next*"))


@pytest.mark.parametrize("kind", ["eager", "compiled"])
def test_those_that_are_behind_catch_up_to_the_same_bits(tmp_path, kind):
    """A crash between two checkpoints, a lost one, an older one put back: every seed at a task of its own."""
    settings = attrs.evolve(SMALL, engine=kind)

    def run(paths, stop=None):
        def cut(event):
            if event.kind == "step" and event.position == stop:
                raise Cut

        rules, observers = rules_of("feed-forward", hidden=[3]), [[cut], [], []]
        return together(rules, settings, checkpoints=paths, observers=observers)

    whole = run(None)
    paths = [tmp_path / f"{seed}.pt" for seed in range(3)]
    with pytest.raises(Cut):
        run(paths, 2)
    early = paths[1].read_bytes()
    with pytest.raises(Cut):
        run(paths, 6)
    paths[1].write_bytes(early)
    paths[2].unlink()
    for one, other in zip(run(paths), whole, strict=True):
        same(one, other, rtol=0, atol=0)
        assert one.validations == other.validations


@pytest.mark.parametrize("kind", ["eager", "compiled"])
def test_one_seed_alone_in_its_place_has_the_bits_that_it_has_with_the_others(tmp_path, kind):
    settings = attrs.evolve(SMALL, engine=kind)
    whole = together(rules_of("feed-forward", hidden=[3]), settings)
    events, paths = [], [tmp_path / f"{seed}.pt" for seed in range(3)]
    paths[0].write_bytes(b"none of its business")
    found = together(
        rules_of("feed-forward", hidden=[3]), settings, idle={0, 2},
        checkpoints=paths, observers=[[events.append], [], []],
    )  # fmt: skip
    same(found[1], whole[1], rtol=0, atol=0)
    assert [one.position for one in found] == [0, settings.tasks, 0]
    assert events == []
    assert sorted(tmp_path.iterdir()) == paths[:2]
    assert paths[0].read_bytes() == b"none of its business"


def test_before_a_program_is_compiled_everything_is_saved_and_it_is_told(tmp_path):
    """Whoever is told may end the run at once: nothing is lost, also where a run goes on in the middle."""
    told, path = [], tmp_path / "run.pt"

    def run(*ends):
        def cut(event):
            told.append((event.kind, event.position))
            if told[-1] in ends:
                raise Cut

        return together(rules_of("feed-forward", 1, hidden=[3]), checkpoints=[path], observers=[[cut]])

    with pytest.raises(Cut):
        run(("step", 2))
    told.clear()
    with pytest.raises(Cut):
        run(("compiling", 4))
    assert told == [
        *(("start", 2), ("checkpoint", 2), ("compiling", 2)), ("step", 4), ("evaluating", 4),
        *(("checkpoint", 4), ("compiling", 4)),
    ]  # fmt: skip
    assert checkpoint.load_checkpoint(path, ["now"])["now"]["position"] == 4
    same(run()[0], together(rules_of("feed-forward", 1, hidden=[3]))[0], rtol=0, atol=0)


def test_rules_that_differ_in_more_than_phi_are_refused():
    rules = [make_rule("gradient-descent", LEARNER.layout, inner_lr=lr) for lr in (0.1, 0.1)]
    rules[1].register_buffer("scale", torch.ones(2))
    with pytest.raises(UsageError, match="differ in θ⁰ and φ alone"):
        together(rules)


def test_what_cannot_be_batched_over_seeds_is_compiled_for_each():
    told = []
    rules = rules_of("gradient-descent", 2, optimizer="rprop")
    settings = attrs.evolve(SMALL, tasks=4)
    ours = together(rules, settings, observers=[[told.append], []])
    (event,) = [event for event in told if event.kind == "engine"]
    assert event.values["engine"] == "compiled"
    assert "cannot be compiled for several seeds at once; each is by itself" in event.values["note"]
    theirs = alone(rules_of("gradient-descent", 2, optimizer="rprop"), attrs.evolve(settings, engine="eager"))
    for one, other in zip(ours, theirs, strict=True):
        same(one, other, rtol=1e-8, atol=1e-10)


def test_no_seeds_are_no_work():
    assert together([]) == []


def test_a_snapshot_holds_one_seed_and_not_the_pack(tmp_path):
    """Saved files do not grow with the number of seeds."""
    sizes = []
    for count in (1, 20):
        members = [
            Trained.begin(rule, LEARNER, SMALL, generator, FAMILY)
            for rule, generator in zip(rules_of("feed-forward", count), generators(count), strict=True)
        ]
        Packed(members)
        checkpoint.save_checkpoint(tmp_path / "one.pt", members[-1].contents())
        sizes.append((tmp_path / "one.pt").stat().st_size)
    assert sizes[1] == pytest.approx(sizes[0], rel=0.01)


def test_rules_that_differ_within_are_refused():
    rules = [make_rule("gradient-descent", LEARNER.layout, momentum=m).double() for m in (0.9, 0.5)]
    with pytest.raises(UsageError, match=r"must differ in θ⁰ and φ alone: options is .*0\.5.* and .*0\.9"):
        meta_train_seeds(rules, LEARNER, FAMILY, SMALL, generators=generators(2))


def test_two_seeds_need_two_checkpoints(tmp_path):
    with pytest.raises(UsageError, match="each seed needs a checkpoint of its own"):
        meta_train_seeds(
            rules_of("gradient-descent", 2), LEARNER, FAMILY, SMALL, generators=generators(2),
            checkpoints=[tmp_path / "run.pt"] * 2,
        )  # fmt: skip
