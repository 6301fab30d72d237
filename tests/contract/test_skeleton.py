"""The skeleton of a new method passes the contract as it is written, on every encoder family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from speechadapt.adapters.skeleton import method_source
from speechadapt.encoders.catalog import families
from tests.contract.adapter_checks import CHECKS, Case
from tests.contract.outside import offered


@pytest.mark.parametrize("family", list(families()))
def test_a_skeleton_passes_every_check(
    family: str, make_case: Callable[..., Case], tmp_path: Path
) -> None:
    source = method_source("tiny_gate")
    folder = tmp_path / "outside"
    folder.mkdir()
    with offered(folder, "tiny_gate", source) as name:
        for check in CHECKS:
            check(make_case(name, family, "native"))
