"""What the author of an update rule tests it with: its laws, and (in `strategies`) problems to draw.

`check_update_rule(MyRule)` says which laws hold. `strategies` needs `metalearn-core[testing]`.
"""

from __future__ import annotations

from metalearn_core.testing.laws import LAWS, Law, MakeRule, Result, check_update_rule

__all__ = ["LAWS", "Law", "MakeRule", "Result", "check_update_rule"]
