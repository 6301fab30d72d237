"""Comparisons of `tools/grid.py`: arms of a group have as much of what they are compared at."""

from __future__ import annotations

import random
from typing import Any

import pytest
from grid_arms import NamedArms
from grid_arms_tables import verdict
from grid_comparisons import BITS, COMPARISONS, RANK, STREAMS, WORKERS
from grid_plan import Run
from grid_tables import Arm

from speechadapt.adapters.attach import build
from speechadapt.adapters.handle import Handle
from speechadapt.adapters.packed import file_tensors
from speechadapt.encoders.base import Encoder
from speechadapt.metrics.bootstrap import bootstrap_difference
from speechadapt.training.adapt.config import Config
from speechadapt.training.adapt.parts import load_base

COMPACT = COMPARISONS["compact"]
PLAN = NamedArms(COMPACT).plan


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_base("", "full")[0]


def built(encoder: Encoder, name: str) -> Handle:
    """Return an arm's adapter at two layers, as every layer is alike."""
    arm = COMPACT.arms[name]
    roles = [f"layer.{n}.{part}" for n in (0, 1) for part in ("attn.q", "ffn1.up", "conv.pw1")]
    if "lora" not in name:
        roles = ["layer.0.ffn", "layer.1.ffn"]
    return build(encoder, arm.method, config=arm.adapter, roles=roles)


def stored_bytes(encoder: Encoder, name: str) -> int:
    handle = built(encoder, name)
    return sum(one.numel() * one.element_size() for one in file_tensors(handle).values())


def live(encoder: Encoder, name: str) -> tuple[int, int]:
    handle = built(encoder, name)
    assert handle.num_parameters() == handle.expected_parameters()
    biases = [one for key, one in handle.named_parameters() if key.endswith("bias")]
    return handle.num_parameters(), sum(one.numel() for one in biases)


def test_low_bit_arms_have_the_storage_of_full_precision(encoder: Encoder) -> None:
    wanted = stored_bytes(encoder, "lora-32bit")
    matrices = len(file_tensors(built(encoder, "lora-32bit")))
    for bits in BITS:
        extra = stored_bytes(encoder, f"lora-{bits}bit") - wanted
        assert extra == matrices * 2 * 4
        assert extra < 0.02 * wanted
    assert stored_bytes(encoder, "parallel-1bit") < stored_bytes(encoder, "parallel-32bit")


def test_sparse_arms_have_the_live_entries_they_say(encoder: Encoder) -> None:
    dense, biases = live(encoder, "parallel")
    matrices = dense - biases
    for name in ("snip-60", "magnitude-60", "random-60"):
        count, _ = live(encoder, name)
        assert count - biases == pytest.approx(0.6 * matrices, abs=4)
    large, wide = live(encoder, "large-sparse")
    assert large - wide == matrices
    assert live(encoder, "mosa-mean")[0] == dense


@pytest.mark.parametrize("name", COMPARISONS)
def test_every_arm_is_a_run_of_the_recipe(encoder: Encoder, name: str) -> None:
    comparison = COMPARISONS[name]
    study = NamedArms(comparison)
    for key, one in comparison.arms.items():
        config = study.config(Config(), Run(key, 1e-3, 2))
        assert config.problems() == []
        assert config.trainer.seed == 2
        assert config.arm == ("head" if key == "head" else "adapter")
        if one.method:
            assert config.method == one.method
            # no setting or place is unknown to the method
            assert build(encoder, one.method, config=one.adapter, roles=list(one.roles) or None)
    named = {arm for claim in comparison.claims for arm in (claim.arm, claim.other)}
    assert named | {*comparison.needed} <= {*comparison.arms}
    assert study.protocol("a") != study.protocol("b")


def test_workers_and_streams_are_what_their_claims_say(encoder: Encoder) -> None:
    assert RANK * 32 <= 64  # within the width of every map of the base
    spread = COMPARISONS["spread"].arms
    sizes = {
        key: build(encoder, one.method, config=one.adapter, roles=["layer.0.attn.q"])
        for key, one in spread.items()
    }
    wanted = sizes["lora"].num_parameters()
    assert sizes["pissa"].num_parameters() == wanted
    assert sizes["hd-pissa"].num_parameters() == WORKERS * wanted
    for number in STREAMS:
        assert COMPARISONS["streams"].arms[f"streams-{number}"].adapter["streams"] == number


def arm(name: str, edits: list[int]) -> Arm:
    run: dict[str, Any] = {
        "trained": 1,
        "encoder": 2,
        "rate": 0.1,
        "file_bytes": 1,
        "merges": False,
    }
    units = [3] * len(edits)
    test = bootstrap_difference(edits, [0] * len(edits), units)
    return Arm(name, run, 0.1, test, (0.1,), tuple(edits), tuple(units), ("x",) * len(edits), None)


def test_a_claim_is_met_where_the_upper_end_is_within_the_bar() -> None:
    draw = random.Random(0)
    other = [draw.randrange(3) for _ in range(200)]
    claim = next(one for one in COMPACT.claims if one.arm == "snip-60")
    for more, said in ((0, "at most +0 % of it (bar +10 %): met"), (1, "missed")):
        arms = {"snip-60": arm("snip-60", [one + more for one in other])}
        arms["parallel"] = arm("parallel", other)
        assert said in verdict(claim, arms)


def test_the_page_holds_what_is_done() -> None:
    head = {"score": "cer", "steps": 2, "dev_items": 3, "processor": "p", "threads": 1}
    head |= {"date": "d", "command": "c", "trained": 1, "encoder": 9, "file_bytes": 5}
    lines = [
        {"kind": "run", "arm": name, "rate": rate, "seed": 1, "dev": rate, "merges": True, **head}
        for name in ("lora-1bit", "lora-32bit")
        for rate in PLAN.rates
    ]
    lines += [{**one, "seed": seed} for one in lines[::3] for seed in (2, 3)]
    tests = [
        {**one, "kind": "test", "edits": [1, 0], "units": [2, 2], "speakers": ["a", "b"]}
        for one in lines
        if one["rate"] == PLAN.rates[0]
    ]
    page = "\n".join(NamedArms(COMPACT).section("asc", [*lines, *tests]))
    assert "| `lora-1bit` |" in page
    assert "(`lora-1bit`, `lora-32bit`): 25.0 and 25.0 %" in page
    assert "snip-60" not in page
    none = "\n".join(NamedArms(COMPACT).section("asc", lines))
    assert "difference" not in none
