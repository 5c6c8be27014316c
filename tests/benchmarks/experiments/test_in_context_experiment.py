"""The experiment on sequences: MAML and ANIL with the transformer."""

from __future__ import annotations

import tomllib

SHORT = """
extends = "in-context-sine"
[learner]
name = "transformer"
options = { width = 8, heads = 2, layers = 1 }
[settings]
meta_batch = 2
steps = 2
engine = "eager"
[scale.smoke]
seeds = 1
test_tasks = 3
settings = { tasks = 4, validation_interval = 4, validation_tasks = 2 }
"""


def test_maml_and_anil_run_on_the_transformer(tmp_path, metalearn):
    """The network takes its features and its length from the family, and the record says which they are."""
    (tmp_path / "short.toml").write_text(SHORT)
    out = tmp_path / "out"
    code, told, said = metalearn(
        *("run", tmp_path / "short.toml", "--scale", "smoke", "--workers", "1", "-m", "maml", "-m", "anil"),
        "--out",
        out,
    )
    assert (code, said) == (0, "")
    assert [title for title in ("MAML", "ANIL") if title not in told] == []
    assert len(list(out.rglob("result.json"))) == 2
    for path in out.rglob("experiment.toml"):
        cell = tomllib.loads(path.read_text())
        assert (cell["learner"]["options"]["features"], cell["learner"]["options"]["length"]) == (3, 6)
        assert path.parts[-4] == "in-context-sine-10-shot"
