from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import bench_coda
import pytest
import torch
from bench_claims import CLAIMS, CODA


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_every_side_is_a_claim_and_the_smoke_run_writes_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "coda.json"
    assert bench_coda.main(["--quick", "--threads", "1", "--output", str(file)]) in (0, 1)
    found = json.loads(file.read_text())
    wanted = {name for name, claim in CLAIMS.items() if claim.file == CODA}
    assert {one["claim"] for one in found["figures"]} == wanted
    assert found["quick"]
    case = found["details"]["cases"][0]
    assert set(case["seconds"]) == {
        "bare",
        *(f"{side} {bench_coda.FIGURES['usm']:g}" for side in ("attn_ffn", "ffn")),
    }
    (figure,) = (one for one in found["figures"] if one["claim"] == "coda_usm")
    assert figure["value"] == pytest.approx(case["times_faster"]["attn_ffn 0.125"], rel=0.01)


def test_a_share_set_for_one_side_acts_on_that_side() -> None:
    encoder = bench_coda.encoder_of("small", bench_coda.parse(["--quick"]))
    sides = bench_coda.routed(encoder, "ffn", 4)
    sides["0.125"]()
    (handle,) = encoder.attached.handles.values()  # type: ignore[attr-defined]
    assert {one.share for one in handle.module.adapters()} == {0.125}
