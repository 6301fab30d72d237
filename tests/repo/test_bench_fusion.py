from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import bench_fusion
import pytest
import torch
from bench_adapters import encoding, frozen
from bench_claims import CLAIMS, FUSION

from speechadapt.adapters.handle import attachment
from speechadapt.adapters.mixture import Mixture


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_every_side_is_a_claim_and_the_smoke_run_writes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "fusion.json"
    assert bench_fusion.main(["--quick", "--threads", "1", "--output", str(file)]) in (0, 1)
    found = json.loads(file.read_text())
    wanted = [name for name, claim in CLAIMS.items() if claim.file == FUSION]
    assert [one["claim"] for one in found["figures"]] == wanted
    assert found["quick"]
    assert found["details"]["parts"] == 10
    seconds = found["details"]["seconds"]
    assert set(seconds) == {"bare", *bench_fusion.SIDES}
    (mean,) = (one for one in found["figures"] if one["claim"] == "fusion_mean")
    ratios = [one / other for one, other in zip(seconds["mean"], seconds["bare"], strict=True)]
    assert mean["low"] == pytest.approx(min(ratios), rel=0.02)


def test_one_product_and_one_after_another_give_the_same() -> None:
    arguments = bench_fusion.parse(["--quick"])
    outputs, products = [], []
    for in_turn in (False, True):
        encoder = bench_fusion.fused(
            frozen(arguments, "quick", "native"), "method=attention", in_turn
        )
        outputs.append(encoding(encoder, 0.5)()[0])
        mixture = attachment(encoder, "fused").module.adapters()[0]
        assert isinstance(mixture, Mixture)
        products.append(len(mixture._banks))
    assert products == [1, 0]
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-4)
