from __future__ import annotations

import pytest
import torch

from speechadapt.adapters.conditioning import pooled_stream, task_rows
from speechadapt.adapters.spec import Context
from speechadapt.core.errors import ConfigError

CPU = torch.device("cpu")


def test_frames_are_normalised_before_they_are_averaged():
    states = torch.tensor([[[1.0, 3.0], [30.0, 10.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, True, False]])
    torch.testing.assert_close(pooled_stream(states, mask), torch.zeros(1, 2), rtol=0, atol=1e-4)
    assert pooled_stream(states[:, :1], None)[0].tolist() == pytest.approx([-1.0, 1.0], abs=1e-4)


def test_tasks_are_numbered_by_row_or_for_all():
    tasks = ("a", "b")
    by_row = Context(conditions={"task": ["b", "a", "b"]})
    assert task_rows(tasks, by_row, 3, CPU).tolist() == [1, 0, 1]
    for_all = Context(conditions={"task": ["b"]})
    assert task_rows(tasks, for_all, 3, CPU).tolist() == [1, 1, 1]


def test_a_missing_or_unknown_task_is_named():
    with pytest.raises(ConfigError, match="was not told the task; it knows a, b"):
        task_rows(("a", "b"), Context(), 2, CPU)
    with pytest.raises(ConfigError, match=r"no task 'c'. On offer: a, b"):
        task_rows(("a", "b"), Context(conditions={"task": ["c", "a"]}), 2, CPU)
