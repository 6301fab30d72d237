"""Plants defects that neighbouring libraries have had, and shows that the contract catches each.

A check that never fails proves nothing; here every one that guards against a known defect fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from speechadapt.adapters import attach as attaching
from speechadapt.adapters import blocks, hooks, lowrank, store
from speechadapt.adapters.handle import Handle
from speechadapt.adapters.methods.lora import LoraAdapter
from speechadapt.adapters.methods.parallel import ParallelAdapter
from speechadapt.adapters.routing import Group, Router
from speechadapt.adapters.spec import WeightDelta
from speechadapt.encoders.catalog import load_encoder
from speechadapt.encoders.tiny import write_tiny
from speechadapt.encoders.w2v_bert import W2vBertEncoder
from tests.contract import adapter_checks as checks
from tests.contract.adapter_checks import Case
from tests.contract.outside import SOURCE, offered

pytestmark = pytest.mark.slow

Patch = pytest.MonkeyPatch
Check = Callable[[Case], None]


@pytest.fixture
def make_case(tmp_path: Path, signal) -> Callable[..., Case]:
    def make(method: str, family: str = "whisper") -> Case:
        mine, other = (write_tiny(family, tmp_path / f"model{seed}", seed) for seed in (0, 7))
        encoders = [load_encoder(one, padding="native") for one in (mine, mine, other)]
        clips = [signal(samples, seed) for seed, samples in enumerate((16000, 9001, 5431))]
        return Case(method, *encoders, clips, tmp_path / "scratch")

    return make


def reentrant_checkpointing_gives_the_same_gradients(case: Case) -> None:
    checks.checkpointing_gives_the_same_gradients(case, (True,))


def is_caught(check: Check, case: Case) -> bool:
    try:
        check(case)
    except (Exception, pytest.fail.Exception):  # a defect that raises is caught too
        return True
    return False


def up_projection_not_zeroed(patch: Patch, case: Case) -> None:
    make = lowrank.LowRank.__init__

    def wrong(self: lowrank.LowRank, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        nn.init.normal_(self.up, std=0.02)

    patch.setattr(lowrank.LowRank, "__init__", wrong)


def base_left_trainable(patch: Patch, case: Case) -> None:
    install = attaching.install

    def wrong(handle: Handle, activate: bool = True) -> None:
        install(handle, activate)
        handle.encoder.model.requires_grad_(True)

    patch.setattr(attaching, "install", wrong)


def merged_without_its_scale(patch: Patch, case: Case) -> None:
    patch.setattr(LoraAdapter, "delta", lambda self, module: WeightDelta(self.change.weight()))


def merged_twice(patch: Patch, case: Case) -> None:
    patch.setattr(Handle, "merged", property(lambda self: False))


def dead_site(patch: Patch, case: Case) -> None:
    for encoder in (case.encoder, case.fresh):
        encoder.model.idle = nn.Linear(32, 32)
        site = encoder.sites["layer.0.attn.q"]
        encoder.sites["layer.0.attn.q"] = replace(site, read="idle", write="idle")


def both_projections_zero(patch: Patch, case: Case) -> None:
    def wrong(down: nn.Linear, up: nn.Linear, initial: str) -> None:
        for tensor in (*down.parameters(), *up.parameters()):
            nn.init.zeros_(tensor)

    patch.setattr(blocks, "initialise", wrong)


def tensor_that_is_never_used(patch: Patch, case: Case) -> None:
    make = ParallelAdapter.__init__

    def wrong(self: ParallelAdapter, *args: Any, **kwargs: Any) -> None:
        make(self, *args, **kwargs)
        self.idle = nn.Parameter(torch.zeros(3))

    patch.setattr(ParallelAdapter, "__init__", wrong)


def hooks_left_behind(patch: Patch, case: Case) -> None:
    patch.setattr(Router, "displace", lambda self, name: None)


def switched_off_but_acting(patch: Patch, case: Case) -> None:
    def wrong(self: Router, encoder: Any, features: Any, lengths: Any) -> Any:
        self.seen.clear()
        context = checks_context(encoder.residual_mask(features, lengths))
        names = tuple(self.handles)
        self.groups = (Group(names, None, context),) if names else ()
        return features, lengths

    patch.setattr(Router, "begin", wrong)


def checks_context(mask: Any) -> Any:
    from speechadapt.adapters.spec import Context

    return Context(mask)


def mask_not_handed_on(patch: Patch, case: Case) -> None:
    patch.setattr(W2vBertEncoder, "residual_mask", lambda self, features, lengths: None)


def rows_forgotten_by_checkpointing(patch: Patch, case: Case) -> None:
    patch.setattr(hooks, "watch", lambda router, layers: None)


def loaded_without_its_tensors(patch: Patch, case: Case) -> None:
    patch.setattr(store, "fill", lambda own, kept, path, whose: None)


def base_not_checked(patch: Patch, case: Case) -> None:
    patch.setattr(store, "check_base", lambda encoder, stored, any_base: None)


PLANTED: list[tuple[Callable[[Patch, Case], None], str, str, Check]] = [
    (up_projection_not_zeroed, "lora", "whisper", checks.starts_as_it_says),
    (base_left_trainable, "lora", "w2v_bert", checks.training_moves_the_adapter_and_nothing_else),
    (merged_without_its_scale, "lora", "ast", checks.merging_keeps_the_output),
    (merged_twice, "lora", "whisper", checks.merging_keeps_the_output),
    (dead_site, "lora", "whisper", checks.every_site_acts),
    (dead_site, "lora", "w2v_bert", checks.every_tensor_gets_a_gradient_within_two_steps),
    (
        both_projections_zero,
        "parallel",
        "ast",
        checks.every_tensor_gets_a_gradient_within_two_steps,
    ),
    (
        both_projections_zero,
        "houlsby",
        "whisper",
        checks.every_tensor_gets_a_gradient_within_two_steps,
    ),
    (
        tensor_that_is_never_used,
        "parallel",
        "ast",
        checks.every_tensor_gets_a_gradient_within_two_steps,
    ),
    (
        tensor_that_is_never_used,
        "parallel",
        "ast",
        checks.the_count_of_parameters_is_the_closed_form,
    ),
    (hooks_left_behind, "lora", "whisper", checks.removing_restores_the_base_bit_for_bit),
    (switched_off_but_acting, "parallel", "whisper", checks.removing_restores_the_base_bit_for_bit),
    (switched_off_but_acting, "parallel", "w2v_bert", checks.each_row_gets_its_own_adapters),
    (mask_not_handed_on, "ast_conformer", "w2v_bert", checks.padding_does_not_leak),
    (
        rows_forgotten_by_checkpointing,
        "lora",
        "whisper",
        checks.checkpointing_gives_the_same_gradients,
    ),
    (
        rows_forgotten_by_checkpointing,
        "lora",
        "ast",
        reentrant_checkpointing_gives_the_same_gradients,
    ),
    (
        loaded_without_its_tensors,
        "lora",
        "whisper",
        checks.a_saved_adapter_gives_the_same_output_on_a_fresh_encoder,
    ),
    (base_not_checked, "lora", "w2v_bert", checks.a_wrong_base_is_refused),
]


@pytest.mark.parametrize(
    ("plant", "method", "family", "check"),
    PLANTED,
    ids=lambda one: one if isinstance(one, str) else one.__name__,
)
def test_a_planted_defect_is_caught(plant, method, family, check, make_case, monkeypatch) -> None:
    case = make_case(method, family)
    assert not is_caught(check, case), "the check fails without any defect"
    plant(monkeypatch, case)
    assert is_caught(check, case)


def test_a_softmax_over_the_batch_is_caught(make_case, tmp_path: Path) -> None:
    folder = tmp_path / "outside"
    folder.mkdir()
    wrong = SOURCE.replace(
        "return y * (1 + self.gain.repeat_interleave(self.width))",
        "return y * (1 + self.gain.repeat_interleave(self.width) * y.softmax(0))",
    )
    assert wrong != SOURCE
    with offered(folder, "batch_softmax", wrong) as name:
        assert is_caught(checks.rows_do_not_mix, make_case(name))
