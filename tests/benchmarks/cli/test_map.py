"""The map of rules: what follows from its claims, its pictures, and the command that shows them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from itertools import combinations, pairwise

import pytest
from hypothesis import strategies as st
from torch import nn

import metalearn_core
from metalearn_benchmarks.plotting.rendering import render
from metalearn_benchmarks.records.reading import read_records
from metalearn_benchmarks.rule_map import installed
from metalearn_benchmarks.rule_map import text as map_text
from metalearn_benchmarks.rule_map.drawing import draw_map
from metalearn_benchmarks.rule_map.layout.arrangement import arrange
from metalearn_benchmarks.rule_map.layout.blocks import Link, bundle_links, essential_edges, make_blocks
from metalearn_benchmarks.rule_map.layout.geometry import GAP, Box
from metalearn_benchmarks.rule_map.layout.ordering import spread
from metalearn_benchmarks.rule_map.matrix import draw_matrix
from metalearn_benchmarks.theory import shipped_map
from metalearn_core import Registry, UpdateRule, UsageError, hookimpl, registry
from metalearn_core.testing.theory.map_parts import CrossedEdge, Edge, Node
from metalearn_core.testing.theory.rule_map import RuleMap

SHIPPED = shipped_map()


def made(names: str, *claims: str) -> RuleMap:
    """A map from words: `a<b` exact, `a~b` in the limit, `a/b` not even there, `a|b` not exactly."""
    found = RuleMap()
    for name in names:
        found.add(Node(name, f"Rule {name}", "adaptive" if name.isupper() else "others"))
    for special, sign, general in claims:
        if sign in "<~":
            found.connect(
                Edge(special, general, "exact" if sign == "<" else "limit", f"{special} in {general}")
            )
        else:
            found.connect(CrossedEdge(special, general, f"{general} keeps", f"{special} breaks", sign == "/"))
    return found


def said(rule_map: RuleMap, special: str, general: str) -> tuple[str, bool]:
    relation = rule_map.relation(special, general)
    return relation.verdict, relation.closed


class TestWhatFollows:
    @pytest.mark.parametrize(
        ("first", "second", "together"),
        [("<", "<", "exact"), ("<", "~", "limit"), ("~", "<", "limit"), ("~", "~", "limit")],
    )
    def test_containing_is_transitive_and_a_limit_stays_one(self, first, second, together):
        rule_map = made("abc", f"a{first}b", f"b{second}c")
        assert rule_map.relation("a", "c").verdict == together
        assert rule_map.relation("a", "c").via == ("b",)
        assert rule_map.relation("a", "b").via == ()
        assert rule_map.relation("c", "a").verdict == "open"
        assert rule_map.relation("a", "a").verdict == "same"

    def test_an_exact_way_is_better_than_one_in_the_limit_whatever_the_order(self):
        claims = ["a~c", "a<b", "b<c", "a~b"]
        for order in (claims, claims[::-1]):
            assert made("abc", *order).relation("a", "c").verdict == "exact"

    def test_what_contains_it_is_not_in_what_is_inside_the_other(self):
        # b is not in c, B contains b, c contains C: B is not in C, nor in c, nor b in C
        for inner, outer in (("<", "<"), ("~", "~")):
            rule_map = made("bcBC", "b/c", f"b{outer}B", f"C{inner}c")
            assert said(rule_map, "b", "c") == ("not", True)
            for pair in (("B", "C"), ("B", "c"), ("b", "C")):
                assert said(rule_map, *pair) == ("not", True)
                assert rule_map.relation(*pair).via == ("b", "c")
            assert said(rule_map, "C", "B") == ("open", False)
            assert said(rule_map, "c", "b") == ("open", False)

    def test_what_holds_of_equality_alone_is_not_carried_over_limits(self):
        rule_map = made("bcBCDE", "b|c", "b<B", "C<c", "b~D", "E~c")
        assert said(rule_map, "b", "c") == ("not", False)
        assert said(rule_map, "B", "C") == ("not", False)
        for pair in (("D", "c"), ("b", "E"), ("D", "E")):
            assert said(rule_map, *pair) == ("open", False)

    def test_a_limit_may_be_known_not_to_be_exact(self):
        assert said(made("ab", "a~b", "a|b"), "a", "b") == ("limit", True)
        assert said(made("ab", "a~b"), "a", "b") == ("limit", False)

    def test_the_stronger_exclusion_wins_whatever_the_order(self):
        for claims in (["a|b", "a<c", "c/b"], ["a/d", "a|b", "b<d"]):
            for order in (claims, claims[::-1]):
                assert said(made("abcd", *order), "a", "b") == ("not", "a/d" in claims)

    @pytest.mark.parametrize(
        ("claims", "pair"),
        [
            (["a<b", "a/b"], "b contains a"),
            (["a~b", "a/b"], "b contains a"),
            (["a<b", "a|b"], "b contains a"),
            (["a<b", "b~c", "a/c"], "c contains a"),
            (["a<b", "b<c", "d<c", "a/d", "c<d"], "d contains a"),
        ],
    )
    def test_a_planted_contradiction_is_found(self, claims, pair):
        assert any(line.startswith(pair) for line in made("abcd", *claims).contradictions())

    def test_no_contradiction_is_seen_where_there_is_none(self):
        assert list(made("abc", "a~b", "a|b", "b<c", "c/a", "b/a").contradictions()) == []

    def test_unknown_and_taken_names_are_refused(self):
        rule_map = made("ab")
        for call in (
            lambda: rule_map.relation("a", "x"),
            lambda: rule_map.connect(Edge("x", "a", "exact")),
            lambda: rule_map.place("y", contains="x", special="a", general="b", parameterise=dict),
        ):
            with pytest.raises(UsageError, match="unknown rule on the map 'x'"):
                call()
        with pytest.raises(UsageError, match="another rule named 'a'"):
            rule_map.add(Node("a", "another"))

    def test_all_relations_at_once(self):
        """What follows through a limit, what an exclusion passes on, and what it does not."""
        rule_map = made("abcdE", "a<b", "b~c", "c<b", "d/c", "a|E", "E~c")
        known = {f"{a}{b}": (r.verdict, r.closed) for (a, b), r in rule_map.relations().items()}
        assert len(known) == 20
        decided = {pair: found for pair, found in known.items() if found[0] != "open"}
        assert decided == {
            **{"ab": ("exact", False), "cb": ("exact", False)},
            **{
                "ac": ("limit", False),
                "bc": ("limit", False),
                "Ec": ("limit", False),
                "Eb": ("limit", False),
            },
            **{"dc": ("not", True), "da": ("not", True), "db": ("not", True), "dE": ("not", True)},
            # a weak one goes up along exact edges alone: to b, not to c
            **{"aE": ("not", False), "bE": ("not", False)},
        }
        assert rule_map.relation("E", "b") == rule_map.relations()["E", "b"]


class TestThePicture:
    def test_edges_that_follow_are_left_out_and_no_others(self):
        rule_map = made("abcd", "a<b", "b<c", "a<c", "a~d", "b~d", "c~b")
        drawn = {(e.special, e.general, e.kind) for e in essential_edges(rule_map)}
        assert drawn == {("a", "b", "exact"), ("b", "c", "exact"), ("b", "d", "limit"), ("c", "b", "limit")}
        # an exact edge does not follow from a way in the limit
        assert len(essential_edges(made("abc", "a~b", "b<c", "a<c"))) == 3

    def test_what_stands_alike_shares_a_frame(self):
        rule_map = made("abcdx", "a<x", "b<x", "c~x", "x<d")
        edges = essential_edges(rule_map)
        found = make_blocks(rule_map, edges)
        assert [block.names for block in found if block.framed] == [("a", "b")]
        links = bundle_links([Link(e.special, e.general, e.kind) for e in edges], found)
        assert {(link.special, link.general) for link in links} == {("frame:a", "x"), ("c", "x"), ("x", "d")}

    def test_rules_that_contain_each_other_stand_side_by_side_and_general_ones_above(self):
        rule_map = made("abcd", "a<b", "b<c", "c<b", "c<d")
        picture = arrange(rule_map, lambda name: (60.0, 30.0))
        y = {name: picture.boxes[name].y for name in "abcd"}
        assert y["a"] < y["b"] == y["c"] < y["d"]
        assert {(link.special, link.general) for link in picture.mutual} == {("b", "c"), ("c", "b")}

    def test_places_keep_their_order_their_distance_and_the_room(self):
        widths = [40.0, 60.0, 20.0, 50.0]
        places = spread([300.0, 100.0, 105.0, 900.0], widths, 400.0)
        for (x, width), (other, wide) in zip(
            zip(places, widths, strict=True), list(zip(places, widths, strict=True))[1:], strict=False
        ):
            assert other - x >= (width + wide) / 2 + GAP - 1e-9
        assert places[0] - 20 >= 0
        assert places[-1] + 25 == pytest.approx(400)
        assert spread([50.0, 200.0], [10.0, 10.0], 400.0) == [50.0, 200.0]

    @pytest.mark.parametrize(
        "rule_map",
        [SHIPPED, made("ab"), made("abcdefgh", *(f"a<{x}" for x in "bcdefgh"), "b/c", "c|h")],
        ids=["shipped", "no edges", "a fan"],
    )
    def test_no_boxes_overlap_and_no_edge_runs_through_one(self, rule_map):
        picture = arrange(rule_map, lambda name: (20.0 + 7 * len(name), 30.0))
        rules = {name: picture.boxes[name] for name in rule_map.nodes}
        for (one, here), (other, there) in combinations(rules.items(), 2):
            assert not here.overlaps(there), (one, other)
        for box in rules.values():
            assert box.width / 2 <= box.x + 1e-6
            assert box.x + box.width / 2 <= picture.width + 1e-6
        for route in picture.routes:
            assert [y for _, y in route.points] == sorted(y for _, y in route.points)
            ends = {route.points[0][1], route.points[-1][1]}
            for (x, y), (other, above) in pairwise(route.points):
                for part in (i / 20 for i in range(21)):
                    # much as it is drawn: upright at both ends
                    smooth = part**2 * (3 - 2 * part)
                    spot = Box(x + smooth * (other - x), y + part * (above - y), 0, 0)
                    hit = [name for name, box in rules.items() if box.overlaps(spot)]
                    assert spot.y in ends or not hit, (route.link, hit)

    def test_every_rule_and_every_claimed_edge_is_in_the_drawing(self):
        svg = render(draw_map(SHIPPED), "svg", "map").decode()
        ids = set(re.findall(r'id="(map-[^"]*)"', svg))
        assert {f"map-rule-{name}" for name in SHIPPED.nodes} <= ids
        found = make_blocks(SHIPPED, essential_edges(SHIPPED))
        key = {name: {name, block.key} for block in found for name in block.names}
        for edge in essential_edges(SHIPPED):
            ends = {f"map-edge-{a}-{b}" for a in key[edge.special] for b in key[edge.general]}
            assert ends & ids, edge
        for law in map_text.laws(SHIPPED):
            for special in law.specials:
                for general in law.generals:
                    ends = {f"map-crossed-{a}-{b}-{law.number}" for a in key[special] for b in key[general]}
                    assert ends & ids, (law, special)
        words = re.sub(r"[\s\u00a0]+", " ", " ".join(re.findall(r">([^<>]+)</text>", svg)))
        words = words.replace("&lt;", "<")
        for node in SHIPPED.nodes.values():
            assert node.title in words, node

    def test_a_map_without_edges_can_be_drawn(self):
        for rule_map in (made("a"), made("ab", "a/b")):
            assert render(draw_map(rule_map), "png", "x")
            assert render(draw_matrix(rule_map), "png", "x")

    def test_the_matrix_has_a_symbol_for_every_relation_and_none_for_an_open_one(self):
        known = SHIPPED.relations()
        figure = draw_matrix(SHIPPED)
        symbols = sum(len(c.get_offsets()) for c in figure.axes[0].collections)
        limits = sum(r.verdict == "limit" and r.closed for r in known.values())
        legend = 4
        closed = sum(r.verdict != "open" for r in known.values())
        assert symbols in (closed + limits, closed + limits + legend)
        svg = render(figure, "svg", "matrix").decode()
        assert {f"map-row-{name}" for name in SHIPPED.nodes} <= set(re.findall(r'id="(map-row-[^"]*)"', svg))

    def test_the_same_map_gives_the_same_picture_in_every_process(self):
        program = (
            "import hashlib\nfrom metalearn_benchmarks.theory import shipped_map\n"
            "from metalearn_benchmarks.rule_map.drawing import draw_map\n"
            "from metalearn_benchmarks.rule_map.matrix import draw_matrix\n"
            "from metalearn_benchmarks.plotting.rendering import render\n"
            "for draw in (draw_map, draw_matrix):\n"
            "    print(hashlib.sha256(render(draw(shipped_map()), 'svg', 'x')).hexdigest())"
        )
        told = {
            subprocess.check_output(
                [sys.executable, "-c", program], env={**os.environ, "PYTHONHASHSEED": seed}
            )
            for seed in "123"
        }
        assert len(told) == 1


class TestTheNumberedWitnesses:
    def test_rules_that_keep_a_law_against_the_same_witnesses_share_a_number(self):
        rule_map = RuleMap()
        for name in "abcd":
            rule_map.add(Node(name, name.upper()))
        for special, general, closed in (
            ("a", "c", True),
            ("b", "c", True),
            ("a", "d", True),
            ("b", "d", False),
        ):
            rule_map.connect(CrossedEdge(special, general, "law", f"by {special}", closed))
        first, second, third = map_text.laws(rule_map)
        assert (first.number, first.generals, first.specials) == (1, ("c",), ("a", "b"))
        assert (second.generals, second.specials, third.specials) == (("d",), ("a",), ("b",))
        assert map_text.sentence(rule_map, first) == "C: law. Not so A (by a); B (by b)."
        assert map_text.sentence(rule_map, third) == "D: law. Not so B (by b), which limits may reach."

    def test_no_crossed_out_edge_is_lost(self):
        numbered = [
            (special, witness, general, law.invariant, law.closed)
            for law in map_text.laws(SHIPPED)
            for special, witness in law.broken_by
            for general in law.generals
        ]
        wanted = [(c.special, c.witness, c.general, c.invariant, c.closed) for c in SHIPPED.crossed]
        assert sorted(numbered) == sorted(wanted)


class Holds:
    def check(self, *, examples=None):
        assert examples == 2


class Fails:
    def check(self, *, examples=None):
        raise AssertionError("the paths part\nat θ = 3")


class CannotBeTried:
    def check(self, *, examples=None):
        raise RuntimeError("no such thing")


def tiny() -> RuleMap:
    rule_map = made("abc")
    rule_map.connect(Edge("a", "b", "exact", "why a", (Holds(),)))
    rule_map.connect(Edge("b", "c", "limit", "why b", (Holds(), Fails())))
    rule_map.connect(CrossedEdge("c", "a", "small", "c is large", True, (CannotBeTried(),)))
    rule_map.connect(Edge("a", "c", "exact", "by definition"))
    return rule_map


class Momentum(UpdateRule):
    """v ← βv + ∇;  θ ← θ − αv"""

    elementwise = True

    def __init__(self, layout, inner_lr: float = 0.01, beta: float = 0.9) -> None:
        super().__init__()
        import torch

        self.inner_lr, self.beta = nn.Parameter(torch.tensor(inner_lr)), beta

    def init_state(self, theta):
        return theta * 0

    def update(self, theta, signal, state):
        velocity = self.beta * state + signal.grad
        return theta - self.inner_lr * velocity, velocity


def same_rate(special):
    return {"inner_lr": special.inner_lr}


def below_momentum(rule_map: RuleMap, beta: float = 0.0) -> None:
    rule_map.place(
        "polyak",
        contains="gradient-descent",
        special="gradient-descent",
        general=Momentum,
        parameterise=same_rate,
        title="Polyak's momentum",
        why="β = 0",
        special_options={"inner_lr": st.floats(0.01, 1.0), "learn_lr": "scalar"},
        general_options={"beta": beta},
    )


def half_done(rule_map: RuleMap) -> None:
    rule_map.add(Node("half", "Half"))
    raise RuntimeError("broken\nin two")


@pytest.fixture
def install(monkeypatch):
    """Plugins with placements, each {name: place} under its own distribution."""

    def of(**plugins):
        fresh = Registry()
        for name, places in plugins.items():
            hook = type(name, (), {"metalearn_map": hookimpl(lambda self, places=places: places)})
            hook.metalearn_map.__name__ = "metalearn_map"
            fresh.register(hook(), name, f"dist-{name}")
        monkeypatch.setattr(registry, "default_registry", lambda: fresh)
        return fresh

    return of


@pytest.fixture
def nothing_placed(monkeypatch):
    """The shipped map, without what installed plugins place on it."""
    monkeypatch.setattr(installed, "placements", lambda: Registry(discover=False).catalogues["metalearn_map"])


@pytest.mark.usefixtures("nothing_placed")
class TestTheCommand:
    def test_all_of_it_in_words(self, metalearn):
        code, out, err = metalearn("map")
        assert (code, err) == (0, "")
        for name, node in SHIPPED.nodes.items():
            assert f"\n{name}: {map_text.whole_title(SHIPPED, name)}\n" in out
            assert " ".join(node.says.split()) in " ".join(out.split())
        words = " ".join(out.split())
        for edge in SHIPPED.edges:
            assert edge.why in words
        for crossed in SHIPPED.crossed:
            assert crossed.invariant in words
            assert crossed.witness in words
        assert max(map(len, out.splitlines())) <= 140

    @pytest.mark.parametrize("columns", [80, 100, 200])
    def test_words_fit_the_terminal(self, metalearn, monkeypatch, columns):
        whole = metalearn("map")[1]
        monkeypatch.setenv("COLUMNS", str(columns))
        code, out, _ = metalearn("map")
        assert code == 0
        assert max(map(len, out.splitlines())) <= columns
        assert out.split() == whole.split()

    def test_one_rule(self, metalearn):
        code, out, _ = metalearn("map", "lstm")
        assert code == 0
        own = out[out.index("\nlstm: LSTM\n") :]
        assert "gradient-descent-below-1  in the limit only  Theorem 1" in own
        assert "weight-decay-below-1      exactly " in own
        assert "does not contain" in own
        assert "(not exactly: limits may reach it); but" in own
        assert "not even in the limit meta-sgd" in own
        assert "\nlstm-hidden: " not in own

    def test_words_say_what_follows_and_what_is_open(self):
        rule_map = made("abcdEF", "a<b", "b~c", "d/c", "d<E", "F|c")
        text = map_text.as_text(rule_map, ["c"])
        assert "    b                         in the limit       b in c" in text
        assert "    and through these: in the limit a" in text
        assert "    c keeps; but\n      d                         d breaks" in text
        assert "    c keeps (not exactly: limits may reach it); but\n      F " in text
        assert "    and so it follows: not even in the limit E" in text
        assert "open whether" not in text
        text = map_text.as_text(rule_map, ["a"])
        assert "  contains nothing else on the map" in text
        assert "  is contained in: exactly b; in the limit c" in text
        assert "  open whether it contains: b, c, F" in text

    def test_for_programs(self, metalearn):
        found = json.loads(metalearn("map", "--json")[1])
        assert [node["name"] for node in found["nodes"]] == list(SHIPPED.nodes)
        assert len(found["edges"]) == len(SHIPPED.edges)
        assert len(found["crossed"]) == len(SHIPPED.crossed)
        assert len(found["relations"]) == len(SHIPPED.nodes) * (len(SHIPPED.nodes) - 1)
        row = {"special": "gradient-descent-below-1", "general": "lstm", "verdict": "limit"}
        assert row | {"via": [], "closed": True} in found["relations"]
        edge = next(e for e in found["edges"] if e["general"] == "lstm")
        assert edge["claims"][0].endswith(":LSTM_NEARS_GRADIENT_DESCENT")
        own = json.loads(metalearn("map", "--json", "lstm")[1])
        assert [node["name"] for node in own["nodes"]] == ["lstm"]
        assert all("lstm" in (e["special"], e["general"]) for e in own["relations"] + own["crossed"])

    def test_it_is_written_as_pictures_and_text(self, metalearn, tmp_path):
        code, out, _ = metalearn("map", "--out", tmp_path / "there")
        assert code == 0
        names = {path.name for path in (tmp_path / "there").iterdir()}
        assert names == {"map.svg", "map.png", "map-matrix.svg", "map-matrix.png", "map.txt"}
        assert all(str(tmp_path / "there" / name) in out for name in names)
        assert (tmp_path / "there/map.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / "there/map.svg").read_text().startswith("<?xml")
        assert "lstm: LSTM" in (tmp_path / "there/map.txt").read_text()

    @pytest.mark.parametrize(
        ("arguments", "told"),
        [
            (["lstn"], "unknown rule on the map 'lstn': did you mean 'lstm'?"),
            (["--check", "0"], "0 is not in the range"),
            (["--out", "/proc/nowhere"], "cannot be written"),
        ],
    )
    def test_a_users_mistake_is_one_line(self, metalearn, arguments, told):
        code, out, err = metalearn("map", *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert told in err

    def test_claims_that_hold_and_claims_that_fail(self, metalearn, monkeypatch):
        monkeypatch.setattr(installed, "shipped_map", tiny)
        code, out, err = metalearn("map", "--check", 2)
        assert code == 1
        assert out.splitlines() == [
            "holds  b contains a (Holds)",
            "FAILS  c contains b in the limit (Holds, Fails): the paths part",
            "holds  c contains a (by definition)",
            "FAILS  a does not contain c (CannotBeTried): RuntimeError: no such thing",
        ]
        assert "the paths part\nat θ = 3" in err
        rows = json.loads(metalearn("map", "--check", 2, "--json")[1])
        assert [row["holds"] for row in rows] == [True, False, True, False]
        assert [row["crossed"] for row in rows] == [False, False, False, True]

    def test_only_what_is_shown_is_checked(self, metalearn, monkeypatch):
        monkeypatch.setattr(installed, "shipped_map", lambda: made("abc", "a<b", "b<c"))
        code, out, _ = metalearn("map", "a", "--check")
        assert (code, out) == (0, "holds  b contains a (by definition)\n")

    def test_a_claim_of_several_edges_is_checked_once(self):
        class Counts:
            calls = 0

            def check(self, *, examples=None):
                self.calls += 1

        claim, rule_map = Counts(), made("abc")
        for general in "bc":
            rule_map.connect(Edge("a", general, "exact", "", (claim,)))
        outcomes = list(installed.check_edges(installed.edges_of(rule_map, ()), 5))
        assert ([o.problem for o in outcomes], claim.calls) == (["", ""], 1)

    def test_shipped_claims_are_found_by_their_address(self, metalearn, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        rule_map = RuleMap()
        for name in ("gradient-descent", "meta-sgd"):
            rule_map.add(SHIPPED.nodes[name])
        (edge,) = [e for e in SHIPPED.edges if (e.special, e.general) == ("gradient-descent", "meta-sgd")]
        rule_map.connect(edge)
        monkeypatch.setattr(installed, "shipped_map", lambda: rule_map)
        code, out, _ = metalearn("map", "--check", 2)
        assert (code, out) == (
            0,
            "holds  meta-sgd contains gradient-descent (META_SGD_IS_GRADIENT_DESCENT)\n",
        )

    def test_checking_leaves_the_settings_of_hypothesis_alone(self):
        import hypothesis

        rule_map = tiny()
        hypothesis.settings.register_profile("was", parent=hypothesis.settings())
        hypothesis.settings.register_profile("mine", deadline=1234)
        hypothesis.settings.load_profile("mine")
        try:
            list(installed.check_edges(installed.edges_of(rule_map, ()), 2))
            assert hypothesis.settings().deadline is not None
        finally:
            hypothesis.settings.load_profile("was")

    def test_without_hypothesis_one_line_says_what_to_install(self, metalearn, monkeypatch):
        monkeypatch.setitem(sys.modules, "hypothesis", None)
        code, out, err = metalearn("map", "--check", 2)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "pip install hypothesis pytest" in err
        assert metalearn("map", "lstm")[0] == 0


WITHOUT_HYPOTHESIS = """
import sys
sys.modules["hypothesis"] = None  # as where metalearn-core is installed without its extra
from metalearn_benchmarks.cli import main
for words in (["plugins", "list"], ["map", "--json"]):
    sys.argv = ["metalearn", *words]
    main()
"""


def test_without_hypothesis_the_map_is_the_same(metalearn):
    done = subprocess.run([sys.executable, "-c", WITHOUT_HYPOTHESIS], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    listed, start, shown = done.stdout.partition("{")
    assert all(f"placement {name}\n" in listed for name in ("alfa", "lslr", "lstm-optimizer"))
    assert json.loads(start + shown) == json.loads(metalearn("map", "--json")[1])


def test_an_installed_rule_without_a_place_is_told_how_to_get_one(metalearn, monkeypatch):
    monkeypatch.setattr(metalearn_core, "rules", lambda: {"mine": None})
    code, out, err = metalearn("map", "mine")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "'mine' is installed and has no place on the map" in err
    assert "the hook metalearn_map, see docs/theory.md" in err


class TestThirdParties:
    def test_a_rule_is_placed_and_its_claim_checked(self, metalearn, install):
        install(mine={"polyak": below_momentum})
        code, out, err = metalearn("map", "polyak")
        assert (code, err) == (0, "")
        assert "polyak: Polyak's momentum" in out
        assert "gradient-descent          exactly            β = 0" in out
        assert "and through these: exactly gradient-descent-below-1" in out
        code, out, _ = metalearn("map", "polyak", "--check", 5)
        assert (code, out) == (0, "holds  polyak contains gradient-descent (same_rate)\n")

    @pytest.mark.usefixtures("unshrunk")
    def test_a_wrong_claim_of_a_plugin_fails_with_a_counterexample(self, metalearn, install):
        install(mine={"polyak": lambda rule_map: below_momentum(rule_map, beta=0.5)})
        code, out, err = metalearn("map", "polyak", "--check", 20)
        assert code == 1
        assert out.startswith("FAILS  polyak contains gradient-descent (same_rate): Momentum does not follow")
        assert "assert_subsumes(" in err

    def test_a_broken_placement_is_named_and_leaves_nothing_behind(self, metalearn, install):
        install(bad={"half": half_done}, good={"polyak": below_momentum})
        code, out, err = metalearn("map")
        assert code == 0
        assert err == "metalearn: placement 'half' of dist-bad (plugin bad): RuntimeError: broken in two\n"
        assert "polyak: Polyak's momentum" in out
        assert "half: Half" not in out

    def test_a_name_of_two_owners_is_reported(self, metalearn, install):
        install(one={"polyak": below_momentum}, two={"polyak": below_momentum})
        code, out, err = metalearn("map")
        assert code == 0
        assert "placement 'polyak' is claimed by dist-one (plugin one) and dist-two (plugin two)" in err
        assert "Polyak's momentum" not in out

    def test_a_word_that_is_no_number_of_examples_is_refused(self, metalearn):
        code, out, err = metalearn("map", "--check", "lstm")
        assert (code, out) == (2, "")
        assert err == (
            "metalearn: Invalid value for '--check': 'lstm' is no number; write RULE before --check,"
            " or --check N\n"
        )

    def test_a_placement_that_contradicts_the_map_is_left_out(self, metalearn, install):
        def claims_too_much(rule_map):
            node = rule_map.nodes["lstm"]
            edge = type(rule_map.edges[0])("gradient-descent", node.name, "exact", "so it seems")
            rule_map.connect(edge)

        install(bad={"too-much": claims_too_much})
        code, out, err = metalearn("map", "lstm")
        assert code == 0
        assert "placement 'too-much' of dist-bad (plugin bad): it contradicts what is on the map" in err
        assert "so it seems" not in out

    def test_a_placement_below_an_unknown_rule_is_a_users_mistake_in_one_line(self, metalearn, install):
        def lost(rule_map):
            rule_map.place("x", contains="momentun", special="a", general="b", parameterise=dict)

        install(mine={"lost": lost})
        assert (
            "dist-mine (plugin mine): unknown rule on the map 'momentun': did you mean 'momentum'?"
            in (metalearn("map")[2])
        )

    def test_hooks_are_listed_with_the_plugin(self, metalearn, install):
        install(mine={"polyak": below_momentum})
        rows = json.loads(metalearn("plugins", "list", "--json")[1])
        assert {"placement polyak"} == {row["brings"] for row in rows if row["plugin"] == "mine"}


def test_the_report_draws_the_shipped_map(finished, tmp_path, drawn_figures):
    from metalearn_benchmarks.report.page import write_report

    page = write_report(read_records(finished), tmp_path).read_text()
    section = page[page.index(">What each rule can express</h2>") :]
    assert section.count("<svg") == 3
    assert section.count("<li>") == len(map_text.laws(SHIPPED))
    assert "map-rule-lstm" in section
    assert {
        f"{stem}.{ending}" for stem in ("map-overview", "map", "map-matrix") for ending in ("png", "pdf")
    } <= {p.name for p in tmp_path.iterdir()}
    ids = re.findall(r'id="([^"]+)"', page)
    assert len([i for i in ids if i.startswith("map-")]) == len({i for i in ids if i.startswith("map-")})
