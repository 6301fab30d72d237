from __future__ import annotations

import torch

from speechadapt.models.restorer_folder import load_restorer
from speechadapt.models.restorer_tiny import write_tiny_restorer


def test_a_tiny_restorer_loads_and_leaves_the_random_state_alone(tmp_path) -> None:
    before = torch.get_rng_state()
    folder = write_tiny_restorer(tmp_path / "a", half=True)
    assert torch.equal(torch.get_rng_state(), before)
    first = load_restorer(folder).fingerprint()
    assert first == load_restorer(write_tiny_restorer(tmp_path / "b", half=True)).fingerprint()
    assert first != load_restorer(write_tiny_restorer(tmp_path / "c", 1, half=True)).fingerprint()
