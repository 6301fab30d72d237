from __future__ import annotations

import torch

from speechadapt.decoders.masked_diffusion.rotary import rotary, rotate, time_code


def test_rotary_scores_hang_on_the_distance_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 1, 1, 8, generator=generator) for _ in range(2))
    turns = rotary(torch.arange(9), 8)
    queries, keys = rotate(query.expand(1, 1, 9, 8), turns), rotate(key.expand(1, 1, 9, 8), turns)
    scores = (queries @ keys.transpose(2, 3))[0, 0]
    assert torch.allclose(scores[2, 5], scores[4, 7], atol=1e-5)
    assert not torch.allclose(scores[2, 5], scores[2, 6], atol=1e-3)


def test_time_codes_are_of_any_width_and_all_different() -> None:
    code = time_code(40, 7, torch.device("cpu"))
    assert code.shape == (40, 7)
    assert float(torch.cdist(code, code).fill_diagonal_(9.0).min()) > 0.1
