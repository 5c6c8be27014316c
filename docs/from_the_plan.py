"""The plan of the runs to come, `benchmarks/results/plan.toml`, as Markdown."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


def read_plan() -> dict[str, Any]:
    """The plan as plain data."""
    return tomllib.loads((RESULTS / "plan.toml").read_text(encoding="utf-8"))


def plan_text() -> str:
    """The statistic, then a section for each question, then what was changed later."""
    plan = read_plan()
    statistic = "\n\n".join(text.strip() for key, text in plan["statistic"].items() if key != "name")
    questions = "\n".join(_question(one) for one in plan["question"])
    changes = "\n".join(f"- {one['date']}: {one['what']} {one['why']}" for one in plan.get("change", ()))
    return (
        f"The plan was written on {plan['written']}.\n\n## What is measured\n\n{statistic}\n\n{questions}\n"
        f"## Changes since\n\n{changes or 'None.'}\n"
    )


def _question(one: Mapping[str, Any]) -> str:
    grids = ", ".join(f"`{grid}`" for grid in one["grids"]) or "none, it is timed by itself"
    compares = "\n".join(f"- {text}" for text in one["compares"])
    says = "\n".join(f"| {case['when']} | {case['then']} |" for case in one["says"])
    head = f"## {one['name'].capitalize()}\n\n{one['asks']}\n\n"
    size = f"Grids: {grids}; about {one['hours']} core-hours.\n\n"
    return f"{head}{size}{compares}\n\n| in this case | this is said |\n|---|---|\n{says}\n"
