"""Methods and experiments: what TOML says, checked, and resolved into the cells to run.

Imports no torch: what a setting means is for `metalearn_core.Settings` to say.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import attrs
import cattrs
from cattrs.errors import ClassValidationError, ForbiddenExtraKeysError

from metalearn_core.errors import UsageError, unknown

SCALES = ("smoke", "small", "paper")
PACKAGE = resources.files("metalearn_benchmarks")


@attrs.frozen
class Component:
    """Something installed, by name, with its options."""

    name: str
    options: dict[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Method:
    """A row of a results table: how θ⁰ is obtained, and which rule adapts what of it.

    Args:
        start: θ⁰ is meta-trained, pretrained on the flat training data, or random.
        adapts: all parameters, or the head (the last layer) alone.
        settings: fields of `metalearn_core.Settings`, over those of the experiment. Of a method that
            is not meta-trained, `steps` is T at test.
        minibatch: examples in a step of pretraining.
    """

    title: str
    source: str = ""
    start: Literal["meta", "pretrained", "random"]
    adapts: Literal["all", "head"] = "all"
    rule: str
    options: dict[str, Any] = attrs.field(factory=dict)
    settings: dict[str, Any] = attrs.field(factory=dict)
    minibatch: int = 16


@attrs.frozen(kw_only=True)
class Scale:
    """How large an experiment is run."""

    seeds: int
    test_tasks: int
    settings: dict[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Experiment:
    """Methods on a family of tasks."""

    title: str
    reproduces: str = ""
    setting: str
    family: Component
    learner: Component
    methods: list[str] = attrs.field(factory=list)
    method: dict[str, Method] = attrs.field(factory=dict)
    settings: dict[str, Any] = attrs.field(factory=dict)
    scale: dict[str, Scale]


@attrs.frozen(kw_only=True)
class Cell:
    """One run: a method, a seed, and everything that its numbers depend on."""

    experiment: str
    setting: str
    name: str
    seed: int
    scale: str
    family: Component
    learner: Component
    method: Method
    test_tasks: int
    device: str = "cpu"
    threads: int = 1

    @property
    def folder(self) -> Path:
        """Where its record lies, below DIR."""
        return Path(self.experiment, self.setting, self.name, str(self.seed))

    @property
    def label(self) -> str:
        """The run's name for people."""
        return f"{self.name}, seed {self.seed}"

    def as_toml(self) -> dict[str, Any]:
        """The cell as plain data, nothing left to a default."""
        plain: dict[str, Any] = cattrs.Converter().unstructure(self)
        return plain


def methods() -> dict[str, Method]:
    """The shipped methods, by name."""
    return dict(_shipped("methods", Method))


def experiments() -> dict[str, Experiment]:
    """The shipped experiments, by name."""
    return dict(_shipped("experiments", Experiment))


def find_experiment(name: str) -> tuple[str, Experiment]:
    """A shipped experiment by name, or one in a TOML file: its name and itself."""
    if name.endswith(".toml"):
        path = Path(name)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"experiment file {name}: cannot be read ({error})") from error
        return path.stem, _parse(text, name, Experiment)
    shipped = experiments()
    if name not in shipped:
        raise unknown("experiment", name, shipped)
    return name, shipped[name]


def find_method(name: str, experiment: Experiment) -> Method:
    """A method that the experiment defines, or a shipped one."""
    shipped = methods()
    for own in experiment.method:
        if own in shipped:
            raise UsageError(f"method {own!r} is a shipped one; give the experiment's own another name")
    known = {**shipped, **experiment.method}
    if name not in known:
        raise unknown("method", name, known)
    return known[name]


def _shipped(folder: str, kind: type[Any]) -> Iterator[tuple[str, Any]]:
    for entry in sorted((PACKAGE / folder).iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml"):
            yield (
                entry.name.removesuffix(".toml"),
                _parse(entry.read_text("utf-8"), entry.name, kind),
            )


def _parse(text: str, where: str, kind: type[Any]) -> Any:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where}: not TOML: {error}") from error
    try:
        return _CONVERTER.structure(data, kind)
    except ClassValidationError as error:
        raise UsageError(f"{where}: {_first_cause(error)}") from error


def _first_cause(error: Exception, path: str = "") -> str:
    """The first thing that is wrong, with the key that it stands under."""
    if isinstance(error, ClassValidationError) or hasattr(error, "exceptions"):
        # a key that is misspelt is also missing: say the first
        inner = min(error.exceptions, key=lambda e: not isinstance(e, ForbiddenExtraKeysError))
        note = next((n for n in getattr(inner, "__notes__", []) if hasattr(n, "name")), None)
        return _first_cause(inner, f"{path}.{note.name}".lstrip(".") if note else path)
    if isinstance(error, ForbiddenExtraKeysError):
        key = sorted(error.extra_fields)[0]
        return str(unknown("key", f"{path}.{key}".lstrip("."), _keys(error.cl, path)))
    if isinstance(error, KeyError):
        return f"key {path!r} is missing"
    return f"key {path!r}: {error}"


def _keys(kind: type[Any], path: str) -> list[str]:
    return [f"{path}.{field.name}".lstrip(".") for field in attrs.fields(kind)]


def _strictly(kind: type[Any]) -> Any:
    def structure(value: Any, _: Any) -> Any:
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise TypeError(f"expected {kind.__name__}, got {value!r}")
        return value

    return structure


_CONVERTER = cattrs.Converter(forbid_extra_keys=True)
for _kind in (int, str):  # cattrs would turn 3 into "3" and "3" into 3
    _CONVERTER.register_structure_hook(_kind, _strictly(_kind))


@attrs.frozen(kw_only=True)
class Overrides:
    """What the command line says over an experiment."""

    methods: Sequence[str] = ()
    rules: Sequence[tuple[str, Mapping[str, Any]]] = ()
    seeds: int | None = None
    tasks: int | None = None
    steps: int | None = None
    order: str | None = None
    engine: str | None = None
    device: str = "cpu"
    threads: int = 1


def cells(name: str, experiment: Experiment, scale: str, overrides: Overrides) -> list[Cell]:
    """Every run of an experiment, all methods of a seed before the next seed."""
    if scale not in experiment.scale:
        raise UsageError(f"experiment {name!r}: {unknown('scale', scale, experiment.scale)}")
    size = experiment.scale[scale]
    seeds = size.seeds if overrides.seeds is None else overrides.seeds
    rows: dict[str, Method] = {}
    for label, method in _rows(experiment, overrides):
        if label in rows:
            raise UsageError(f"two rows would be called {label!r}; leave one out")
        rows[label] = method
    for kind, plain in (
        ("experiment", name),
        ("setting", experiment.setting),
        *(("method", r) for r in rows),
    ):
        if not re.fullmatch(r"[\w+=.,\[\]-]+", plain) or plain.strip(".") == "" or plain == "report":
            raise UsageError(
                f"{kind} {plain!r} names a folder: letters, digits and + = , . - _ [ ] only, and not 'report'"
            )
    return [
        Cell(
            experiment=name,
            setting=experiment.setting,
            name=label,
            seed=seed,
            scale=scale,
            family=experiment.family,
            learner=experiment.learner,
            method=_resolved(method, experiment, size, overrides),
            test_tasks=size.test_tasks,
            device=overrides.device,
            threads=overrides.threads,
        )
        for seed in range(seeds)
        for label, method in rows.items()
    ]


def _rows(experiment: Experiment, overrides: Overrides) -> Iterator[tuple[str, Method]]:
    """The methods to run, each under its name with whatever was overridden in it."""
    names = overrides.methods or experiment.methods
    for name in names:
        method = find_method(name, experiment)
        changed: dict[str, Any] = {"steps": overrides.steps}
        if method.start == "meta":
            changed["order"] = overrides.order
        label = {
            key: value
            for key, value in changed.items()
            if value is not None and value != method.settings.get(key, experiment.settings.get(key))
        }
        yield _label(name, label), method
    for rule, options in overrides.rules:
        row = Method(title=rule, start="meta", rule=rule, options=dict(options))
        changed = {"steps": overrides.steps, "order": overrides.order}
        shown = {key: value for key, value in changed.items() if value is not None}
        yield _label(rule, {**options, **shown}), row


def _label(name: str, changed: Mapping[str, Any]) -> str:
    """`name,key=value,...`, fit for a folder's name."""
    parts = [name] + [f"{key}={value}" for key, value in changed.items()]
    return re.sub(r"[^\w+=.,\[\]-]", "", ",".join(parts))


def _resolved(method: Method, experiment: Experiment, size: Scale, overrides: Overrides) -> Method:
    """The method with every setting that the experiment, its scale and the command line give it."""
    settings = {**experiment.settings, **size.settings, **method.settings}
    for key in ("tasks", "steps", "order", "engine"):
        value = getattr(overrides, key)
        if value is not None:
            settings[key] = value
    if overrides.steps is not None:
        settings.pop("test_steps", None)
    return attrs.evolve(method, settings=settings)
