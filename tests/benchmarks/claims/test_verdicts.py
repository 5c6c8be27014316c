"""Claims decided on records in which the truth is known, and the shipped rules."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tomllib
from importlib import resources
from pathlib import Path

import attrs
import numpy as np
import pytest
from scipy import stats

from metalearn_benchmarks.claims.rules import claim_rules
from metalearn_benchmarks.claims.text import VerdictOverview, as_data, verdict_summary
from metalearn_benchmarks.claims.verdicts import Outcome, decide_all
from metalearn_benchmarks.experiments import catalogue
from metalearn_benchmarks.records.record import Record
from metalearn_benchmarks.runs.resolution import resolve_cell

HOLDS, FAILS, OPEN = Outcome

RULES = """
confidence = 0.95
[row.a]
title = "A"
method = "a"
where = { "method.rule" = "a" }
[row.b]
title = "B"
method = "b"
where = { "method.rule" = "b" }
[row.c]
title = "C"
method = "c"
where = { "method.rule" = "c" }
[setting.s]
title = "S"
family = ["sine"]
where = { "family.options.support" = 5 }
least = { "method.settings.tasks" = 1000, "test_tasks" = 40 }
run = "sine"
[setting.more]
title = "More"
family = ["sine"]
where = { "family.options.support" = 10 }
least = { "method.settings.tasks" = 1000, "test_tasks" = 40 }
run = "sine"
[setting.far]
title = "S to mini-Image-Net"
family = ["SINE"]
tested_on = ["miniImageNet"]
where = { "family.options.support" = 5 }
least = { "method.settings.tasks" = 1000, "test_tasks" = 40 }
run = "table"
[claim.it]
says = "So it is."
source = "Table 0"
why = "As it says."
"""


def a_test(measure="difference", settings=("s",), seeds=5, **more):
    """One [[claim.it.test]]."""
    given = {"measure": measure, "settings": list(settings), "seeds": seeds, **more}
    if not {"of", "each"} & set(given):
        given["each"] = ["a"]
    if measure != "spread" and not {"than_steps", "than_settings"} & set(given):
        given.setdefault("against", ["b"])
    return "\n[[claim.it.test]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in given.items())


def record(
    rule, seed, finals, *, steps=5, support=5, tasks=1000, up=False, name=None, seconds=1.0, far=None, **more
):
    method = name or (rule if steps == 5 else f"{rule},steps={steps}")
    cell = {
        "experiment": more.pop("experiment", "e"), "setting": f"s-{support}", "name": method, "seed": seed,
        "test_tasks": len(finals), "family": {"name": "sine", "options": {"support": support}},
        "learner": {"name": "mlp"},
        "method": {"title": rule, "rule": rule, "options": {}, "settings": {"tasks": tasks, "steps": steps}},
    }  # fmt: skip
    cell["method"]["options"] = more.pop("options", {})

    def rows(values):
        return [[0.0, float(x) if np.isfinite(x) else None] for x in values]

    scores = {"sine": rows(finals), **({} if far is None else {"mini_imagenet": rows(far)})}
    result = {
        "score": "error", "higher_is_better": up, "scores": scores, "seconds": seconds, "diverged": None,
        "device": "cpu", "engine": "eager", "threads": 1, "seeds_together": [seed], **more,
    }  # fmt: skip
    return Record(Path(cell["experiment"], cell["setting"], method, str(seed)), cell, result)


def runs(rule, centre, *, seeds=8, tests=60, spread=0.05, number=0, **more):
    """Scores with the same part of each task for all rules, and a part of each seed."""
    of_tasks = np.random.default_rng(1).exponential(size=tests)
    generator = np.random.default_rng([ord(rule), number, more.get("steps", 5)])
    parts = stats.zscore(generator.normal(size=seeds), ddof=1) if seeds > 1 else np.zeros(1)
    return [record(rule, seed, centre + of_tasks + spread * part, **more) for seed, part in enumerate(parts)]


def decided(records, *tests):
    """The verdict, and the rules that it was made by."""
    (verdict,) = decide_all(claim_rules(RULES + "".join(tests)), records)
    return verdict


@pytest.mark.parametrize(
    ("a", "b", "up", "outcome"),
    [(1.0, 2.0, False, HOLDS), (2.0, 1.0, False, FAILS), (1.0, 2.0, True, FAILS), (2.0, 1.0, True, HOLDS)],
)
def test_a_difference_is_turned_so_that_more_is_better(a, b, up, outcome):
    verdict = decided(runs("a", a, up=up) + runs("b", b, up=up), a_test(least=0.5))
    assert verdict.outcome == outcome
    (part,) = verdict.parts
    assert part.estimate.value == pytest.approx(1 if outcome == HOLDS else -1)
    assert (part.seeds, part.tasks) == (8, 60)
    assert verdict.advice == ()


def test_runs_by_the_authors_protocol_decide_nothing():
    both = runs("a", 1.0) + runs("b", 2.0, protocol="authors")
    verdict = decided(both, a_test(least=0.5))
    assert verdict.outcome == OPEN
    assert "no records of" in verdict.advice[0]


@pytest.mark.parametrize("setting", [{"truncate": 2}, {"outer_decay": 0.5}, {"warm_up": 0.5}])
def test_runs_that_were_trained_as_the_paper_has_it_not_decide_nothing(setting):
    others = runs("b", 2.0)
    for run in others:
        run.cell["method"]["settings"].update(setting)
    assert decided(runs("a", 1.0) + others, a_test(least=0.5)).outcome == OPEN


def test_identical_scores_are_no_improvement():
    same = [record("b", run.seed, run.final) for run in runs("a", 1.0)]
    assert decided(runs("a", 1.0) + same, a_test(least=0.0)).outcome == FAILS


def test_an_interval_across_the_margin_is_too_little_evidence_and_says_how_many_seeds_more():
    both = runs("a", 1.0, spread=0.1) + runs("b", 1.55, spread=0.1, number=1)
    verdict = decided(both, a_test(least=0.5))
    assert verdict.outcome == OPEN
    (part,), (line,) = verdict.parts, verdict.advice
    assert part.estimate.low < 0.5 < part.estimate.high
    more = int(line.split("about ")[1].split()[0])
    assert "A and B on S" in line
    # with so many more of the same kind it is settled, with half as many it is not
    for factor, outcome in ((1.0, HOLDS), (0.4, OPEN)):
        seeds = 8 + math.ceil(factor * more)
        sides = [
            of("a", 1.0, seeds) + of("b", 1.0 + part.estimate.value, seeds)
            for of in [correlated(both, seeds)]
        ]
        assert decided(sides[0], a_test(least=0.5)).outcome == outcome


def correlated(both, seeds):
    """Runs whose paired differences have the standard deviation over seeds that those of `both` have."""
    means = {(r.method, r.seed): np.mean(r.final) for r in both}
    deviation = np.std([means["b", s] - means["a", s] for s in range(8)], ddof=1)

    def of(rule, centre, count):
        return runs(rule, centre, seeds=count, spread=deviation if rule == "b" else 0.0)

    assert seeds > 1
    return of


def test_an_effect_at_the_threshold_is_called_that():
    verdict = decided(runs("a", 1.0) + runs("b", 1.5, number=3), a_test(least=0.5))
    assert verdict.outcome == OPEN
    assert "lies at the threshold" in verdict.advice[0]


def test_where_tasks_stray_more_test_tasks_are_asked_for():
    noise = np.random.default_rng(0).normal(size=60)
    a = [record("a", seed, 1 + noise) for seed in range(6)]
    b = [record("b", seed, 1.1 - noise) for seed in range(6)]
    assert "more test tasks than 60" in decided(a + b, a_test(least=0.0)).advice[0]


def test_too_few_seeds_decide_nothing_however_clear():
    verdict = decided(runs("a", 1.0, seeds=3) + runs("b", 9.0), a_test(least=0.5))
    assert verdict.outcome == OPEN
    assert verdict.parts[0].estimate.low > 0.5
    assert verdict.advice == (
        "2 more seed(s) of A on S; run `metalearn run sine --scale paper -m a --seeds 5`",
    )  # fmt: skip
    apart = [record("b", seed + 3, run.final) for seed, run in enumerate(runs("b", 9.0))]
    (line,) = decided(runs("a", 1.0) + apart[:7], a_test(least=0.5, seeds=6)).advice
    assert "6 seeds that A on S and B on S have in common" in line


def test_no_records_and_runs_too_small_decide_nothing():
    small = runs("b", 9.0, tasks=100)
    verdict = decided(small, a_test(least=0.5, steps=[5]))
    assert verdict.outcome == OPEN
    assert verdict.advice == (
        "no records of A on S with T = 5; run `metalearn run sine --scale paper -m a --steps 5`",
        "the 8 record(s) of B on S with T = 5 are too small (method.settings.tasks is 100, at least 1000 is"
        " asked for); run `metalearn run sine --scale paper -m b --steps 5`",
    )
    few = runs("a", 1.0, tests=39) + runs("b", 9.0)
    assert "test_tasks is 39" in decided(few, a_test(least=0.5)).advice[0]
    assert decided([], a_test(least=0.5)).outcome == OPEN


def test_scores_that_are_not_finite_leave_nothing_to_decide():
    lost = runs("a", 1.0)
    lost[2] = record("a", 2, [math.nan] * 60)
    verdict = decided(lost + runs("b", 9.0), a_test(least=0.5))
    assert verdict.outcome == OPEN
    assert "60 score(s) of A on S are not finite (seed 2)" in verdict.advice[0]


@pytest.mark.parametrize(
    ("b", "outcome"), [(1.0, HOLDS), (1.07, OPEN), (1.5, FAILS), (0.5, FAILS)]
)  # fmt: skip
def test_two_that_differ_little(b, outcome):
    """Equivalence holds where the whole interval is inside, not where a difference was not found."""
    both = runs("a", 1.0) + runs("b", b, number=1)
    assert decided(both, a_test(least=-0.1, most=0.1)).outcome == outcome
    wide = runs("a", 1.0, spread=2.0) + runs("b", b, spread=2.0, number=1)
    assert decided(wide, a_test(least=-0.1, most=0.1)).outcome == OPEN


@pytest.mark.parametrize(("least", "outcome"), [(1.6, HOLDS), (2.5, FAILS), (2.0, OPEN)])
def test_a_ratio_of_mean_scores(least, outcome):
    mean = np.random.default_rng(1).exponential(size=60).mean()
    both = runs("a", 4.0 - mean) + runs("b", 2.0 - mean, number=1)
    verdict = decided(both, a_test("ratio", least=least))
    assert verdict.outcome == outcome
    assert verdict.parts[0].estimate.value == pytest.approx(2, rel=0.01)


@pytest.mark.parametrize(("later", "outcome"), [(3.0, HOLDS), (0.5, FAILS)])
def test_a_method_against_itself_at_another_t(later, outcome):
    both = runs("a", 1.0, steps=1) + runs("a", later, steps=10)
    assert decided(both, a_test("ratio", steps=[10], than_steps=1, least=1.0)).outcome == outcome


@pytest.mark.parametrize(("more", "outcome"), [(4.0, HOLDS), (-2.0, FAILS)])
def test_a_method_against_itself_in_another_setting_is_not_paired(more, outcome):
    both = runs("a", 1.0, up=True) + runs("a", more, support=10, up=True, tests=80)
    rule = a_test(settings=["more"], than_settings=["s"], least=0.0)
    verdict = decided(both, rule)
    assert verdict.outcome == outcome
    # the tasks' own spread is in it, as it would not be if they were paired
    assert verdict.parts[0].estimate.high - verdict.parts[0].estimate.low > 0.3


@pytest.mark.parametrize(("seconds", "outcome"), [(2.0, HOLDS), (0.5, FAILS), (1.0, OPEN)])
def test_wall_times_on_like_machines(seconds, outcome):
    noise = np.exp(0.1 * stats.zscore(np.random.default_rng(2).normal(size=8), ddof=1))
    a = [record("a", s, [1.0] * 60, seconds=10 * noise[s]) for s in range(8)]
    b = [record("b", s, [1.0] * 60, seconds=10 * seconds) for s in range(8)]
    verdict = decided(a + b, a_test("seconds", most=1.0))
    assert verdict.outcome == outcome
    assert verdict.parts[0].estimate.value == pytest.approx(1 / seconds)
    unlike = [attrs.evolve(run, result={**run.result, "engine": "compiled"}) for run in b]
    (line,) = decided(a + unlike, a_test("seconds", most=1.0)).advice
    assert "timed in unlike ways (cpu, compiled, 1 thread(s), 1 seed(s) together; cpu, eager" in line


def test_seeds_of_one_program_are_timed_once():
    def timed(rule, programs):
        return [
            record(rule, seed, [1.0] * 60, seconds=seconds, seeds_together=seeds)
            for seeds, seconds in programs
            for seed in seeds
        ]

    pairs = [([2 * place, 2 * place + 1], 10 + place) for place in range(5)]
    a, b = timed("a", pairs), timed("b", [(seeds, 20 + place) for place, (seeds, _) in enumerate(pairs)])
    verdict = decided(a + b, a_test("seconds", most=1.0))
    assert (verdict.outcome, verdict.parts[0].seeds) == (HOLDS, 5)
    whole = list(range(10))
    verdict = decided(timed("a", [(whole, 10)]) + timed("b", [(whole, 20)]), a_test("seconds", most=1.0))
    assert (verdict.outcome, verdict.parts[0].seeds) == (OPEN, 1)
    assert "were timed 1 time(s), since seeds that train as one program share its clock" in verdict.advice[0]
    assert "--together 1" in verdict.advice[0]


@pytest.mark.parametrize(("growth", "outcome"), [(4.0, HOLDS), (0.25, FAILS), (1.0, OPEN)])
def test_how_the_spread_over_seeds_grows_with_t(growth, outcome):
    three = [
        run
        for place, steps in enumerate((1, 2, 4))
        for run in runs("a", 1.0, seeds=12, spread=0.05 * growth**place, steps=steps, number=1)
    ]
    verdict = decided(three, a_test("spread", steps=[1, 2, 4], least=1.0))
    assert verdict.outcome == outcome
    assert verdict.parts[0].estimate.value == pytest.approx(growth, rel=0.25)
    assert "growth of the spread of A on S when T doubles" in verdict.parts[0].label
    others = [run for run in three if run.cell["method"]["settings"]["steps"] != 2]
    missing = decided(others, a_test("spread", steps=[1, 2, 4], least=1.0))
    assert missing.outcome == OPEN
    assert "no records of A on S with T = 2" in missing.advice[0]


@pytest.mark.parametrize("steps", [5, 10])
def test_of_several_methods_that_fit_the_one_of_the_rows_name_counts(steps):
    """Whatever T its name says."""
    other = runs("a", 9.0, steps=steps, name=f"a-unclipped,steps={steps}", options={"clip": 0})
    both = runs("a", 1.0, steps=steps) + runs("b", 2.0, steps=steps) + other
    verdict = decided(both, a_test(steps=[steps], least=0.5))
    assert (verdict.outcome, verdict.advice) == (HOLDS, ())


@pytest.mark.parametrize("name", ["cub", "cub-140-30-30"])
def test_either_split_of_cub_is_cub(name):
    run = record("a", 0, [1.0])
    run.cell["family"] = {"name": name, "options": {"ways": 5, "shots": 1}}
    run.cell["learner"] = {"name": "conv-4"}
    fitting = [rule for rule, setting in claim_rules().setting.items() if setting.fits(run)]
    assert fitting == ["cub-1"]


def test_spread_is_of_all_rows_together():
    """One row's seeds tell nothing of growth, those of two rows do; a row that is missing is named."""

    def of(rule, number):
        return [
            run
            for place, steps in enumerate((1, 2, 4))
            for run in runs(rule, 1.0, seeds=8, spread=0.05 * 1.5**place, steps=steps, number=number + place)
        ]

    test = a_test("spread", steps=[1, 2, 4], each=["a", "b"], least=1.0)
    alone = decided(of("a", 1), a_test("spread", steps=[1, 2, 4], each=["a"], least=1.0))
    both = decided(of("a", 1) + of("b", 5), test)
    assert (alone.outcome, both.outcome, len(both.parts)) == (OPEN, HOLDS, 1)
    assert "growth of the spread of A and B on S" in both.parts[0].label
    missing = decided(of("a", 1), test)
    assert missing.outcome == OPEN
    assert missing.advice[0].startswith("no records of B on S with T = 1")


def three(a, b, c, **more):
    return [run for rule, centre in (("a", a), ("b", b), ("c", c)) for run in runs(rule, centre, **more)]


@pytest.mark.parametrize(
    ("given", "records", "outcome"),
    [
        ({"each": ["a", "b"], "against": ["c"]}, three(1, 2, 3), HOLDS),
        ({"each": ["a", "b"], "against": ["c"]}, three(1, 4, 3), FAILS),
        ({"of": ["a", "b"], "against": ["c"]}, three(1, 4, 3), HOLDS),
        ({"of": ["a", "b"], "against": ["c"]}, three(4, 5, 3), FAILS),
        ({"of": ["a"], "against": ["b", "c"]}, three(2, 1, 3), FAILS),
        ({"of": ["a"], "against": ["b", "c"]}, three(1, 2, 1), OPEN),
        # what is missing does not matter where the rest refutes
        ({"each": ["a"], "against": ["b", "c"]}, runs("a", 2) + runs("b", 1), FAILS),
        ({"each": ["a"], "against": ["b", "c"]}, runs("a", 1) + runs("b", 2), OPEN),
        ({"of": ["a", "c"], "against": ["b"]}, runs("a", 1) + runs("b", 2), HOLDS),
    ],
)
def test_any_of_the_rows_or_each_against_all_others(given, records, outcome):
    assert decided(records, a_test(least=0.0, **given)).outcome == outcome


@pytest.mark.parametrize(("at_least", "outcome"), [(1, HOLDS), (2, FAILS), (None, FAILS)])
def test_so_many_settings_must_hold(at_least, outcome):
    both = runs("a", 1) + runs("b", 2) + runs("a", 2, support=10) + runs("b", 1, support=10)
    counted = {} if at_least is None else {"at_least": at_least}
    assert decided(both, a_test(settings=["s", "more"], least=0.0, **counted)).outcome == outcome


def test_all_tests_of_a_claim_must_hold():
    records = three(1, 2, 3)
    first, second = a_test(least=0.0), a_test(least=0.0, each=["c"], against=["a"])
    assert decided(records, first).outcome == HOLDS
    assert decided(records, first, second).outcome == FAILS


def test_one_of_many_parts_refutes_only_beyond_what_they_share():
    """A part that fails at 95 % alone does not do so as one of twenty; all of many may hold at 95 % each."""
    generator = np.random.default_rng(0)
    noise = stats.zscore(generator.normal(size=8), ddof=1)
    edge = 2.6 * 0.05 / math.sqrt(8)  # Student's t at 7: 2.36 at 95 %, 3.50 with two parts and more
    a = [record("a", seed, [2.0] * 60) for seed in range(8)]
    b = [record("b", seed, [2.0 + edge + 0.05 * noise[seed]] * 60) for seed in range(8)]
    c = [record("c", seed, [2.0 + edge + 0.05 * noise[seed]] * 60) for seed in range(8)]
    records = a + b + c
    assert decided(records, a_test(least=0.0)).outcome == HOLDS
    assert decided(records, a_test(least=0.0, against=["b", "c"])).outcome == HOLDS
    assert decided(records, a_test(most=0.0)).outcome == FAILS
    assert decided(records, a_test(most=0.0, against=["b", "c"])).outcome == OPEN
    assert decided(records, a_test(least=0.0, of=["a", "b"], against=["c"])).outcome == OPEN


def test_scores_on_another_family_than_the_one_trained_on():
    a = [record("a", s, [1.0] * 60, far=np.r_[5.0 + 0.01 * s, [5.0] * 49]) for s in range(6)]
    b = [record("b", s, [2.0] * 60, far=[4.0] * 50) for s in range(6)]
    assert decided(a + b, a_test(least=0.0)).outcome == HOLDS
    across = decided(a + b, a_test(settings=["far"], least=0.0))
    assert (across.outcome, across.parts[0].tasks) == (FAILS, 50)


def test_the_same_method_in_two_experiments_is_not_counted_twice():
    few = runs("a", 1.0, seeds=4, experiment="f")
    verdict = decided(few + runs("a", 1.0) + runs("b", 2.0), a_test(least=0.0, seeds=8))
    assert (verdict.outcome, verdict.parts[0].seeds) == (HOLDS, 8)


def test_of_several_methods_that_fit_the_one_of_the_rows_name_is_taken():
    other = runs("a", 9.0, name="a-history", options={"history": "grad"})
    assert decided([*other, *runs("a", 1.0), *runs("b", 2.0)], a_test(least=0.0)).outcome == HOLDS
    odd = runs("a", 1.0, name="a-odd")
    (line,) = decided([*other, *odd, *runs("b", 2.0)], a_test(least=0.0)).advice
    assert "several methods are A on S: a-history, a-odd" in line


def test_records_in_any_state_decide_the_same_every_time():
    records = three(1, 2, 3)
    verdicts = [as_data([decided(records, a_test(least=0.0))]) for _ in range(2)]
    assert verdicts[0] == verdicts[1]


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (a_test(), "a test has `least`"),
        (a_test(least=1.0, most=0.0), "a test has `least`"),
        (a_test(least=0.0, of=["a"], each=["b"]), "either `of` or `each`"),
        (a_test(least=0.0, than_steps=1, against=["b"]), "one of `against`"),
        (a_test("spread", least=0.0), "two `steps`"),
        (a_test(least=0.0, than_settings=["s", "more"]), "one for each"),
        (a_test(least=0.0, against=["z"]), "no row 'z'"),
        (a_test(least=0.0, settings=["z"]), "no setting 'z'"),
        (a_test(least=0.0, margin=1), "margin"),
    ],
)
def test_a_rule_that_cannot_be_is_an_error(rule, told):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - cattrs groups what it finds
        claim_rules(RULES + rule)
    assert told in "".join(map(str, _all_of(caught.value)))


def _all_of(error):
    yield error
    for inner in getattr(error, "exceptions", ()):
        yield from _all_of(inner)
    yield from (field for field in getattr(error, "extra_fields", ()))


def test_many_claims_are_shown_with_how_sure_they_are(capsys):
    from rich.console import Console

    rules = claim_rules(RULES + a_test(least=0.0))
    rules = attrs.evolve(rules, claim={f"claim-{k}": rules.claim["it"] for k in range(20)})
    verdicts = decide_all(rules, three(1, 2, 3))
    assert "20 claims: 20 holds, 0 does not hold, 0 too little evidence." in verdict_summary(verdicts)
    assert "of the 20 that records decide, up to 1 may be wrong by chance" in verdict_summary(verdicts)
    Console(width=120).print(VerdictOverview(verdicts))
    out = capsys.readouterr().out
    assert out.count("So it is. (Table 0)") == 20
    assert "at least 0" in out
    assert "1 [0.9" in out


RULES_SHIPPED = claim_rules()
NAMES = [
    *("theorem-1", "sine-order-turtle", "sine-order-maml", "sine-depth", "sine-stability", "sine-ranking"),
    *("image-order-turtle", "image-order-lstm", "image-order-maml", "image-half", "cross-order", "shots"),
    *("time-turtle", "sine-premise", "margin", "first-order-fastest", "transfer"),
]


def test_every_claim_has_a_rule_and_without_records_only_the_theorem_is_decided():
    assert list(RULES_SHIPPED.claim) == NAMES
    verdicts = {verdict.name: verdict for verdict in decide_all(RULES_SHIPPED, [])}
    assert verdicts.pop("theorem-1").outcome == HOLDS
    assert {verdict.outcome for verdict in verdicts.values()} == {OPEN}
    assert all(verdict.advice for verdict in verdicts.values())


def test_theorem_1_points_at_tests_that_are_there():
    root = Path(__file__).parents[3]
    held_by = RULES_SHIPPED.claim["theorem-1"].held_by
    places = [word.rstrip(";,") for word in held_by.split() if "/" in word]
    assert len(places) == 3
    assert all((root / place).exists() for place in places)


def cells_of(scale):
    name, experiment = catalogue.find_experiment("sine")
    chosen = catalogue.Overrides(seeds=1)
    return [resolve_cell(cell) for cell in catalogue.cells(name, experiment, scale, chosen)]


def test_shipped_rows_are_those_of_the_shipped_methods_and_only_the_papers_scale_is_large_enough():
    setting = RULES_SHIPPED.setting["sine"]
    for scale in catalogue.SCALES:
        for cell in cells_of(scale):
            run = Record(Path("x"), cell, {"scores": {"sine": [[1.0]]}})
            fitting = [name for name, row in RULES_SHIPPED.row.items() if row.fits(run)]
            assert fitting == [cell["name"]]
            assert setting.fits(run)
            assert (setting.too_small(run) is None) == (scale == "paper")
    shipped = catalogue.methods()
    rows = {row.method for row in RULES_SHIPPED.row.values() if row.method}
    assert rows - set(shipped) <= {"baseline++"}
    assert {s.run for s in RULES_SHIPPED.setting.values()} == {"sine", "table-3.1", "table-3.4"}


def synthetic(name, seeds=10, error=1.0):
    """Records of a shipped sine method at the paper's scale, of a known error."""
    (cell,) = [cell for cell in cells_of("paper") if cell["name"] == name]
    found, generator = [], np.random.default_rng(sum(map(ord, name)))
    of_tasks = np.random.default_rng(0).exponential(size=2000)
    for seed in range(seeds):
        scores = [
            [0.0, *([x] * cell["method"]["settings"]["steps"])]
            for x in error * of_tasks * (1 + 0.02 * generator.normal())
        ]
        result = {"scores": {"sine": scores}, "higher_is_better": False, "score": "error", "seconds": 1.0}
        found.append(Record(Path("sine", "s", name, str(seed)), {**cell, "seed": seed}, result))
    return found


@pytest.mark.parametrize(
    ("errors", "outcome"),
    [
        ({"turtle": 0.4, "fo-turtle": 1.1, "maml": 0.5, "fo-maml": 0.55, "lstm": 0.8}, HOLDS),
        ({"turtle": 0.4, "fo-turtle": 0.7, "maml": 0.3, "fo-maml": 0.5, "lstm": 0.2}, FAILS),
    ],
)
def test_shipped_claims_on_records_in_which_the_truth_is_known(errors, outcome):
    records = [run for name, error in errors.items() for run in synthetic(name, error=error)]
    found = {verdict.name: verdict.outcome for verdict in decide_all(RULES_SHIPPED, records)}
    asked = ("sine-order-turtle", "sine-order-maml", "sine-ranking", "sine-premise")
    assert {name: found[name] for name in asked} == dict.fromkeys(asked, outcome)
    fewer = [run for run in records if run.seed < 9]
    assert {v.outcome for v in decide_all(RULES_SHIPPED, fewer) if v.name in asked} == {OPEN}


PAPER = tomllib.loads(
    (resources.files("metalearn_benchmarks.claims") / "paper/tables.toml").read_text("utf-8")
)


def titles(name):
    """The columns that the first test of a claim reads."""
    return [RULES_SHIPPED.setting[setting].title for setting in RULES_SHIPPED.claim[name].test[0].settings]


def test_the_tables_of_the_paper_bear_out_which_columns_the_rules_read():
    table, across = PAPER["table-3-1"], PAPER["table-3-4"]
    assert {name: claim.says for name, claim in RULES_SHIPPED.claim.items()} == PAPER["claims"]
    assert titles("image-half") == table["columns"]
    assert titles("transfer") == across["columns"]
    ours, others = table["turtle"], (table["maml"], table["lstm"])
    above = [c for i, c in enumerate(table["columns"]) if all(ours[i][0] > other[i][0] for other in others)]
    assert titles("margin") == above
    for one in (table, across):
        assert {*one} - {"columns"} == {name for name in RULES_SHIPPED.row if not name.startswith("turtle-")}
    gains = [round(a[0] - b[0], 2) for a, b in zip(ours, table["fo-turtle"], strict=True)]
    assert (min(gains), max(gains)) == (0.03, 0.08)  # as the claim says


def test_the_command_says_what_smoke_runs_do_not_decide(metalearn, finished, tmp_path):
    code, out, err = metalearn("claims", finished)
    assert (code, err) == (0, "")
    assert "are too small" in out
    assert "17 claims: 1 holds, 0 does not hold, 16 too little evidence" in out
    code, out, _ = metalearn("claims", finished, "--json")
    rows = json.loads(out)
    assert code == 0
    assert [row["name"] for row in rows] == NAMES
    assert {row["verdict"] for row in rows} == {"holds", "too little evidence"}
    assert rows[1]["parts"][0]["least"] == 2.0
    assert rows[1]["parts"][0]["most"] is None
    (tmp_path / "empty").mkdir()
    code, _, err = metalearn("claims", tmp_path / "empty")
    assert (code, "no finished run is in it" in err) == (2, True)
    code, _, err = metalearn("claims", tmp_path / "nowhere")
    assert (code, err.count("\n")) == (2, 1)
    assert metalearn("claims")[0] == 2


def test_claims_need_no_torch(finished):
    code = (
        "import sys; sys.argv = ['metalearn', 'claims', sys.argv[1], '--json']\n"
        "from metalearn_benchmarks import cli\n"
        "cli.app.metalearn(standalone_mode=False)\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )
    done = subprocess.run([sys.executable, "-c", code, str(finished)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
