from __future__ import annotations

import pytest
import torch

from speechadapt.adapters.attach import attach
from speechadapt.adapters.collapse import collapse
from speechadapt.adapters.merge import merge
from speechadapt.core.errors import ConfigError

SIZES = {"skills": 3, "heads": 2, "rank": 2}


@pytest.mark.parametrize("family", ["whisper", "w2v_bert", "ast"])
def test_mean_skills_are_one_lora_which_merges(load, move, frames, family):
    encoder = load(family)
    handle = attach(encoder, "mhr", config={**SIZES, "routing": "mean"})
    move(handle)
    wanted, base = frames(encoder, "mhr"), frames(encoder, None)
    lora = collapse(handle, "one")
    assert lora.method_name == "lora"
    assert lora.num_parameters() * 3 == handle.num_parameters()
    close = 1e-5 * float(wanted.abs().max())
    torch.testing.assert_close(frames(encoder, "one"), wanted, rtol=0, atol=close)
    assert not torch.allclose(wanted, base, atol=1e-3)
    merge(encoder, "one")
    torch.testing.assert_close(frames(encoder, None), wanted, rtol=0, atol=close)


def test_the_skills_of_one_task_are_one_lora(load, move, frames):
    encoder = load()
    tasks = ["digits", "orders"]
    handle = attach(encoder, "mhr", config={**SIZES, "routing": "task", "tasks": tasks})
    move(handle, 0.5)
    for task in tasks:
        collapse(handle, task, task)
        wanted = frames(encoder, "mhr", conditions={"task": [task] * 3})
        torch.testing.assert_close(frames(encoder, task), wanted, rtol=0, atol=1e-4)
    assert not torch.allclose(frames(encoder, "digits"), frames(encoder, "orders"), atol=1e-3)


def test_what_cannot_become_one_lora_is_refused(load):
    encoder = load()
    with pytest.raises(ConfigError, match="routing=pooled mixes them anew"):
        collapse(attach(encoder, "mhr", config=SIZES), "one")
    with pytest.raises(ConfigError, match="'lora' was to become one LoRA"):
        collapse(attach(encoder, "lora"), "one")
