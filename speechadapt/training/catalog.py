"""The training tasks by name: every file of `training/tasks` is one; listing them imports none.

A task module holds `Config`, a frozen dataclass of frozen dataclasses with the trainer's settings
under `trainer`, and `build(config)`, which makes the objective.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

from speechadapt.core.errors import CatalogError, near_misses


def task_names() -> list[str]:
    """List the tasks, sorted."""
    folder = Path(__file__).parent / "tasks"
    return sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")


def task_module(name: str) -> ModuleType:
    """Import the module of a task.

    Raises:
        CatalogError: There is no task of that name; near misses are named.
    """
    names = task_names()
    if name not in names:
        raise CatalogError(f"there is no training task '{name}'.{near_misses(name, names)}")
    return importlib.import_module(f"speechadapt.training.tasks.{name}")
