"""The page on theory names what holds it: every claim is on it, and every test that it names is there."""

import re
from pathlib import Path

from metalearn_benchmarks.theory import law_facts, shipped_map

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "theory.md").read_text(encoding="utf-8")


def named(pattern):
    return set(re.findall(rf"`({pattern})`", PAGE))


def test_every_claim_and_every_law_is_on_the_page():
    claims = {name.split(":")[1] for edge in shipped_map().edges for name in edge.claims}
    assert named(r"[A-Z][A-Z_]{3,}") == claims | set(law_facts())


def test_every_test_that_the_page_names_is_there():
    tests = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests").rglob("test_*.py")))
    names = named(r"test_\w+")
    assert len(names) > 10
    assert [name for name in sorted(names) if f"def {name}(" not in tests] == []
