"""What a person asks of an adaptation to their own recordings, checked before anything is read.

Options have the names of the task `adapt`'s settings, and two groups of their own: `check.` (see
`training.own.data.CheckConfig`) and `split.` (see `training.own.split.SplitConfig`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from speechadapt.adapters.catalog import method as method_of
from speechadapt.config.compose import compose_values
from speechadapt.core.bind import bind
from speechadapt.core.errors import ConfigError, near_misses
from speechadapt.training.adapt.budget import Budget, parse_budget
from speechadapt.training.catalog import task_module
from speechadapt.training.own.data import CheckConfig
from speechadapt.training.own.split import SplitConfig
from speechadapt.training.speech import DataConfig

TASK = "adapt"
DEFAULT_METHOD = "lora"
_OWN_GROUPS: dict[str, type] = {"check": CheckConfig, "split": SplitConfig}


@dataclass(frozen=True)
class Request:
    """What a person asks for.

    Args:
        inputs: Folders, files, globs or manifests.
        output: Folder of the adapter.
        base: The model; empty means `training.adapt.parts.BUNDLED_BASE`.
        method: The adapter method; empty takes the default.
        budget: Budgets, as `parse_budget` takes them.
        options: Settings, `key=value`.
        seed: Seed of the run; it does not change what is held out.
    """

    inputs: tuple[str, ...]
    output: Path
    base: str = ""
    method: str = ""
    budget: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    seed: int = 0

    @property
    def folder(self) -> Path:
        """Where the run keeps its state, beside the adapter."""
        return self.output.with_name(f"{self.output.name}.run")


@dataclass(frozen=True)
class Options:
    """A request's options, checked by name.

    Args:
        values: Settings of the task, as a tree.
        check: What is doubtful.
        split: What is held out.
        budget: What may be spent.
        method: The adapter method.
    """

    values: Mapping[str, Any]
    check: CheckConfig
    split: SplitConfig
    budget: Budget
    method: str

    @property
    def arm(self) -> str:
        """`adapter` or `head`."""
        return str(self.values.get("arm", "adapter"))


def read_options(request: Request) -> Options:
    """Check the names and kinds of a request's options before anything is read.

    Args:
        request: What was asked for.

    Raises:
        ConfigError: Anything is wrong; all of it is said at once.
        CatalogError: There is no such method.
    """
    composition = compose_values(request.options)
    values, problems = dict(composition.values), list(composition.problems)
    method = request.method or str(values.get("method", DEFAULT_METHOD))
    if request.method and values.get("method", method) != method:
        problems.append(f"--method {method} and -O method={values['method']} were both given.")
    if values.get("arm") == "full":
        problems.append(
            "-O arm=full trains every weight and leaves no adapter; speechadapt train does that "
            "(data.manifest=...)."
        )
    known = _names(method)
    problems += [
        f"there is no setting '{name}'.{_nearest(name, known)}"
        for name in _flat(values)
        if not any(name == one or name.startswith(f"{one}.") for one in known)
    ]
    groups = {name: values.pop(name, {}) for name in _OWN_GROUPS}
    own: dict[str, Any] = {}
    for name, schema in _OWN_GROUPS.items():
        own[name], found = bind(schema, groups[name], name)
        problems += [problem for problem in found if not problem.startswith("there is no setting")]
    problems += _kinds(values | {"method": method})
    try:
        budget = parse_budget(request.budget)
    except ConfigError as error:
        problems.append(str(error))
        budget = Budget()
    if problems:
        raise ConfigError("\n".join(dict.fromkeys(problems)))
    return Options(values, own["check"], own["split"], budget, method)


def _names(method: str) -> dict[str, None]:
    """Return the full names of all settings."""
    adapter = [f"adapter.{entry.name}" for entry in fields(method_of(method).config)]
    own = [
        f"{group}.{entry.name}" for group, schema in _OWN_GROUPS.items() for entry in fields(schema)
    ]
    names = dict.fromkeys([*_settings(task_module(TASK).Config), *adapter, *own])
    del names["adapter"]
    return names


def _settings(schema: type, path: str = "") -> list[str]:
    hints = get_type_hints(schema)
    names: list[str] = []
    for entry in fields(schema):
        inner = hints[entry.name]
        full = f"{path}{entry.name}"
        names += _settings(inner, f"{full}.") if is_dataclass(inner) else [full]  # type: ignore[arg-type]
    return names


def _flat(values: Mapping[str, Any], path: str = "") -> list[str]:
    names = []
    for key, value in values.items():
        full = f"{path}{key}"
        names += _flat(value, f"{full}.") if isinstance(value, Mapping) else [full]
    return names


def _nearest(name: str, known: Mapping[str, None]) -> str:
    """Name settings that end as the name does, or else those that resemble it."""
    last = name.split(".")[-1]
    same = [one for one in known if one.split(".")[-1] == last]
    return f" Did you mean {', '.join(same[:3])}?" if same else near_misses(name, known)


def _kinds(values: Mapping[str, Any]) -> list[str]:
    """Say which settings are of the wrong kind or out of range; the data is not known yet."""
    without = {key: value for key, value in values.items() if key != "data"}
    later = {*bind(DataConfig, {}, "data")[1]}
    found = bind(task_module(TASK).Config, without)[1]
    return [
        problem
        for problem in found
        if problem not in later and not problem.startswith("there is no setting")
    ]
