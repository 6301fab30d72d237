"""A training run as the command line asks for it: recipe, task, settings, folder, all checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol, runtime_checkable

from speechadapt.config.compose import compose
from speechadapt.core.bind import bind
from speechadapt.core.errors import CatalogError, ConfigError
from speechadapt.training.catalog import task_module
from speechadapt.training.loop import TrainerConfig


@dataclass(frozen=True)
class RunConfig:
    """Where a run writes.

    Args:
        folder: The run's folder; `runs/<recipe's task>-<recipe's name>` where empty.
    """

    folder: str = ""


@runtime_checkable
class Sourced(Protocol):
    """Settings that point at files the result depends on."""

    def sources(self) -> Mapping[str, Path]:
        """Return the files by a name that holds on every machine."""
        ...


@dataclass(frozen=True)
class Run:
    """A training run, checked and ready to be built.

    Args:
        recipe: `<task>/<name>`.
        task: The module's name under `training/tasks`.
        config: The task's own `Config`.
        folder: Where the run writes.
        words: The command line it came from.
    """

    recipe: str
    task: str
    config: Any
    folder: Path
    words: tuple[str, ...]

    @property
    def trainer(self) -> TrainerConfig:
        """The settings of the loop."""
        trainer: TrainerConfig = self.config.trainer
        return trainer

    @property
    def module(self) -> ModuleType:
        """The task's module."""
        return task_module(self.task)

    def settings(self) -> dict[str, Any]:
        """Return every setting as a plain tree; what differs by place alone is among them."""
        return {"recipe": self.recipe, "task": self.task} | asdict(self.config)

    def sources(self) -> dict[str, Path]:
        """Return the files the result depends on, by a name that holds on every machine."""
        found: dict[str, Path] = {}
        parts = [getattr(self.config, name) for name in vars(self.config)]
        for part in (self.config, *(part for part in parts if is_dataclass(part))):
            found |= part.sources() if isinstance(part, Sourced) else {}
        return found


def resolve(words: Sequence[str], folders: Sequence[Path] = ()) -> Run:
    """Compose a command line, fill the task's dataclasses and check them.

    Args:
        words: `recipe=<task>/<name> group=option key=value ...`.
        folders: The user's folders with recipes and groups.

    Raises:
        ConfigError: Anything is wrong; the message lists all of it.
    """
    composition = compose(words, folders)
    problems = list(composition.problems)
    values = dict(composition.values)
    run, run_problems = bind(RunConfig, values.pop("run", {}))
    problems += [problem.replace("setting '", "setting 'run.") for problem in run_problems]
    task = values.pop("task", None)
    config = None
    if composition.recipe:
        config = _bind_task(task, values, composition.recipe, problems)
    if problems:
        raise ConfigError(_listed(problems))
    folder = run.folder or f"runs/{composition.recipe.replace('/', '-')}"
    return Run(composition.recipe, str(task), config, Path(folder), tuple(words))


def _bind_task(task: Any, values: dict[str, Any], recipe: str, problems: list[str]) -> Any:
    if not isinstance(task, str):
        problems.append(f"recipe '{recipe}' names no task; give it a line 'task: ...'.")
        return None
    try:
        schema = task_module(task).Config
    except CatalogError as error:
        problems.append(str(error))
        return None
    config, found = bind(schema, values)
    problems += found
    return config


def _listed(problems: Sequence[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    lines = "".join(f"\n  - {problem}" for problem in problems)
    return f"{len(problems)} problems with the settings:{lines}"
