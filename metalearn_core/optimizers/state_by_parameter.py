"""The state of a rule as `torch.optim` keeps one, parameter by parameter, and read from a state dict."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor

from metalearn_core.errors import UsageError
from metalearn_core.optimizers.groups import KNOWN, require_same_parameters
from metalearn_core.rule import UpdateRule
from metalearn_core.training.parameters import ParameterLayout

STEP = "step"
"""Of a parameter's entry: t, the number of steps taken."""
MEMORY = "memory."
"""Of a parameter's entry: what the name of a tensor of the rule's state begins with."""
WHOLE = "rule"
"""The one key of a state dict's `state` in version 0.1, for all parameters together."""

Entry = dict[str, Any]
"""What `optimizer.state` holds of one parameter: `step`, and the tensors of the rule's state by number."""


def memory_name(index: int) -> str:
    """The key of the rule's state tensor number `index`."""
    return f"{MEMORY}{index}"


def _one_value_each(leaf: Tensor, layout: ParameterLayout) -> bool:
    """Whether a tensor of the state, `[1, ...]`, has its second axis along θ."""
    return leaf.ndim > 1 and leaf.shape[1] == layout.size


def split_state(leaves: Sequence[Tensor], layout: ParameterLayout) -> list[Entry]:
    """The tensors of a state, `[1, ...]`, parameter by parameter, as views.

    What leads with n is taken apart and gets the parameter's shape. All else is of θ as a whole: the first
    parameter has it, as the state of torch's LBFGS.
    """
    entries: list[Entry] = [{} for _ in layout.names]
    for index, leaf in enumerate(leaves):
        name, whole = memory_name(index), leaf[0].contiguous()
        if not _one_value_each(leaf, layout):
            entries[0][name] = whole
            continue
        for entry, part, shape in zip(entries, torch.split(whole, layout.sizes), layout.shapes, strict=True):
            entry[name] = part.view((*shape, *part.shape[1:]))
    return entries


def joined_state(
    entries: Sequence[Entry], layout: ParameterLayout, example: Sequence[Tensor]
) -> list[Tensor]:
    """The tensors of a state, shaped as the `example`, from what `split_state` made of them."""
    leaves = []
    for index, like in enumerate(example):
        name = memory_name(index)
        whole = entries[0][name]
        if _one_value_each(like, layout):
            parts = [
                e[name].reshape(size, *like.shape[2:]) for e, size in zip(entries, layout.sizes, strict=True)
            ]
            whole = torch.cat(parts)
        leaves.append(whole.unsqueeze(0))
    return leaves


def grown_state(
    old: dict[Tensor, Entry], fresh: dict[Tensor, Entry], whole: Sequence[str]
) -> dict[Tensor, Entry]:
    """The entries of more parameters than before: old ones keep theirs, the others begin afresh.

    Args:
        old: the entries as they are, by parameter.
        fresh: those of a start, by parameter.
        whole: the names of what belongs to θ as a whole.
    """
    first = next(iter(old.values()))
    grown: dict[Tensor, Entry] = {}
    for parameter, start in fresh.items():
        kept = old.get(parameter, start)
        grown[parameter] = {name: kept[name] for name in start if name not in whole}
    next(iter(grown.values())).update({name: first[name] for name in whole})
    return grown


@attrs.define
class SavedState:
    """Reads a state dict for one optimiser, also one of version 0.1, and refuses what does not fit.

    Args:
        rule: whose state it must be.
        layout: of the parameters in θ.
        example: the tensors of the rule's state, without values.
        learns: of every group, which of its parameters are in θ.
        named: whether the names in the layout are names that were given.
        options: of every group, the options that it has.
        entries: what was read, of each parameter in θ; empty where no step was taken.
    """

    rule: UpdateRule
    layout: ParameterLayout
    example: Sequence[Tensor]
    learns: Sequence[Sequence[bool]]
    named: bool
    options: Sequence[Collection[str]]
    entries: Sequence[Entry] = ()

    def read(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Check it, keep its entries, and return what is left for torch to load."""
        state, groups = given["state"], [dict(group) for group in given["param_groups"]]
        if WHOLE in state or not any("lr" in group for group in groups):
            return self._read_version_0_1(state, groups)
        self._require_same_groups(groups)
        if "rule" in given:
            self._require_same_rule(given["rule"])
        ids = [key for group in groups for key in group["params"]]
        self._require_no_others(state.keys() - set(ids))
        learns = [each for group in self.learns for each in group]
        frozen = [key for key, each in zip(ids, learns, strict=True) if key in state and not each]
        if frozen:
            raise UsageError(
                f"LearnedOptimizer: the state is of parameter {frozen[0]!r} too, which is frozen here"
            )
        found = [state.get(key) for key, each in zip(ids, learns, strict=True) if each]
        self._require_entries(found)
        self.entries = [entry or {} for entry in found]
        return {"state": {}, "param_groups": groups}

    def _read_version_0_1(self, state: Mapping[str, Any], groups: list[dict[str, Any]]) -> dict[str, Any]:
        """That version had one group without `lr`, and no frozen parameters in it."""
        self._require_no_others(state.keys() - {WHOLE})
        count = sum(map(sum, self.learns))
        if len(groups) != 1 or len(self.learns) != 1 or len(groups[0]["params"]) != count:
            raise UsageError(
                f"LearnedOptimizer: the state is of version 0.1, with one group of {len(groups[0]['params'])}"
                f" parameters, and here are {len(self.learns)} with {count}"
            )
        self._require_same_names(groups[0].get("param_names"))
        if state:
            self.entries = self._entries_of_version_0_1(state[WHOLE])
        group = {key: value for key, value in groups[0].items() if key != "param_names"}
        return {
            "state": {},
            "param_groups": [{**group, "lr": 1.0, "params": list(range(len(self.learns[0])))}],
        }

    def _entries_of_version_0_1(self, held: Mapping[str, Any]) -> list[Entry]:
        self._require_label(held["rule"])
        found, wanted = (
            ", ".join(f"{list(leaf.shape)} of {leaf.dtype}" for leaf in leaves) or "none"
            for leaves in (held["memory"], self.example)
        )
        if found != wanted:
            raise UsageError(
                f"LearnedOptimizer: the state is of other parameters or options: its tensors are {found},"
                f" here {wanted}"
            )
        return [{STEP: int(held["step"]), **entry} for entry in split_state(held["memory"], self.layout)]

    def _require_no_others(self, keys: Collection[object]) -> None:
        if keys:
            told = ", ".join(sorted(map(str, keys))[:3])
            raise UsageError(f"LearnedOptimizer: the state has entries {told}; it is another optimizer's")

    def _require_same_groups(self, groups: Sequence[Mapping[str, Any]]) -> None:
        found, wanted = [len(group["params"]) for group in groups], [len(group) for group in self.learns]
        if found != wanted:
            raise UsageError(
                f"LearnedOptimizer: the state is of groups of {found} parameters, and here they are {wanted}"
            )
        for group, options in zip(groups, self.options, strict=True):
            others = sorted(group.keys() - KNOWN - set(options))
            if others:
                raise UsageError(
                    f"LearnedOptimizer: a group of the state has {', '.join(others[:3])};"
                    " it is another optimizer's"
                )
        names = [name for group in groups for name in group.get("param_names", ())]
        learns = [each for group in self.learns for each in group]
        if names:
            self._require_same_names([name for name, each in zip(names, learns, strict=True) if each])

    def _require_same_rule(self, told: Mapping[str, Any]) -> None:
        self._require_label(told["label"])
        layout = ParameterLayout(tuple(told["names"]), tuple(tuple(shape) for shape in told["shapes"]))
        self._require_layout(layout, named=self.named and told["named"])

    def _require_label(self, label: str) -> None:
        if label != self.rule.label:
            raise UsageError(
                f"LearnedOptimizer: the state is of rule {label}, this is an optimizer of {self.rule.label}"
            )

    def _require_same_names(self, names: Sequence[str] | None) -> None:
        if names and self.named:
            shapes = self.layout.shapes if len(names) == len(self.layout.names) else ((),) * len(names)
            self._require_layout(ParameterLayout(tuple(names), shapes), named=True)

    def _require_layout(self, layout: ParameterLayout, *, named: bool) -> None:
        require_same_parameters(
            "the state is of",
            layout,
            self.layout,
            named=named,
            remedy="give the parameters as they were then",
        )

    def _require_entries(self, found: Sequence[Entry | None]) -> None:
        """Every parameter has the entry that a state of this rule gives it, or none has one."""
        if not any(found):
            return
        expected = split_state(self.example, self.layout)
        for name, entry, wanted in zip(self.layout.names, found, expected, strict=True):
            if not entry:
                raise UsageError(
                    f"LearnedOptimizer: the state has nothing of parameter {name!r}, which learns here"
                )
            memory = {key: value for key, value in entry.items() if key != STEP}
            ours = all(
                str(key).startswith(MEMORY) and isinstance(value, Tensor) for key, value in memory.items()
            )
            if STEP not in entry or not ours:
                raise UsageError(
                    f"LearnedOptimizer: the state has entries {', '.join(sorted(map(str, entry))[:3])} of"
                    f" parameter {name!r}; it is another optimizer's"
                )
            if _described(memory) != _described(wanted):
                raise UsageError(
                    f"LearnedOptimizer: the state is of other parameters or options: of {name!r} its tensors"
                    f" are {_described(memory)}, here {_described(wanted)}"
                )


def _described(memory: Mapping[str, Tensor]) -> str:
    told = (f"{name} {list(x.shape)} of {x.dtype}" for name, x in sorted(memory.items()))
    return ", ".join(told) or "none"
