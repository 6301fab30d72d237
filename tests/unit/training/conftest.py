"""Tiny tasks on a made data pack, for the tests of training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from speechadapt.config.resolve import resolve
from tests.tiny_tasks import write_recipe

Build = Callable[..., Any]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for tiny recipes and their made pack."""
    return tmp_path_factory.mktemp("tiny-tasks")


@pytest.fixture(scope="session")
def build(base: Path) -> Build:
    """Build the tiny objective of a task, with more words where given."""

    def objective(task: str, *words: str) -> Any:
        run = resolve([*write_recipe(base, task, base / "pack"), *words], [base])
        return run.module.build(run.config)

    return objective
