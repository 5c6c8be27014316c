"""Fixtures for who tests an update rule; pytest finds them where metalearn-core is installed.

Nothing here is imported before a test asks for it: other projects' tests do not wait for torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from metalearn_core import Registry
    from metalearn_core.testing import TinySines


@pytest.fixture
def rule_registry() -> Registry:
    """A registry that knows nothing: no installed plugin is discovered, `register` adds one."""
    from metalearn_core import Registry

    return Registry(discover=False)


@pytest.fixture
def tiny_tasks() -> TinySines:
    """A small family of sine regression tasks, 5 support and 10 query points each."""
    from metalearn_core.testing import TinySines

    return TinySines()
