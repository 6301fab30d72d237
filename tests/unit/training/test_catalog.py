from __future__ import annotations

import pytest

from speechadapt.core.errors import CatalogError
from speechadapt.training.catalog import task_module, task_names
from tests.tiny_tasks import TINY


def test_the_folder_is_the_registry() -> None:
    assert {"best_rq", "ctc", "seq2seq"} <= set(task_names())
    assert set(task_names()) == set(TINY), "tests/tiny_tasks.py lacks a task, or has one too many"


def test_every_task_has_settings_with_a_trainer_and_builds() -> None:
    for name in task_names():
        module = task_module(name)
        assert module.Config().trainer.steps > 0
        assert callable(module.build)


def test_an_unknown_task_gets_near_misses() -> None:
    with pytest.raises(CatalogError, match=r"no training task 'ctcc'\. Did you mean ctc"):
        task_module("ctcc")
