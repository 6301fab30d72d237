"""Pieces: cut at pauses whatever the blocks, nothing lost, joined without a step."""

from __future__ import annotations

import numpy as np
import pytest

from speechadapt.restoration.seams import Cutter, PieceConfig, blended, joined

HOP, RATE = 10, 10.0
CONFIG = PieceConfig(longest_s=4.0, context_s=0.5, fade_s=0.4)


def voice(frames: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.standard_normal(frames * HOP).astype(np.float32) + np.float32(3.0)


def kept(cutter: Cutter, signal: np.ndarray, block: int) -> list[np.ndarray]:
    """Return what an identity would give for every piece, with half a fade beyond each cut."""
    parts = []
    for piece in cutter.pieces(signal[at : at + block] for at in range(0, len(signal), block)):
        start = piece.lead - (0 if piece.first else cutter.half_fade)
        end = piece.lead + piece.frames + (0 if piece.last else cutter.half_fade)
        parts.append(piece.samples[start * HOP : end * HOP])
    return parts


@pytest.mark.parametrize("samples", [1, 9, 200, 501, 1000, 1234, 4321])
def test_pieces_joined_are_the_recording_to_the_last_sample(samples: int) -> None:
    cutter = Cutter(CONFIG, RATE, HOP)
    signal = voice(500)[:samples]
    whole = np.concatenate(list(joined(kept(cutter, signal, 77), 2 * cutter.half_fade * HOP)))
    np.testing.assert_allclose(whole, signal, rtol=1e-5)


def test_cuts_do_not_depend_on_the_blocks() -> None:
    signal = voice(321)
    results = [kept(Cutter(CONFIG, RATE, HOP), signal, block) for block in (1, 13, 100, 5000)]
    for other in results[1:]:
        assert len(other) == len(results[0]) > 5
        for one, two in zip(results[0], other, strict=True):
            assert np.array_equal(one, two)


def test_a_cut_lies_in_the_pause() -> None:
    signal = voice(100)
    signal[31 * HOP : 33 * HOP] = 0.0
    pieces = list(Cutter(CONFIG, RATE, HOP).pieces([signal]))
    assert pieces[0].frames == 32
    assert all(20 <= piece.frames <= 40 for piece in pieces[:-1])
    assert [piece.first for piece in pieces] == [True] + [False] * (len(pieces) - 1)
    assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True]


def test_pieces_are_heard_with_context() -> None:
    signal = voice(200)
    pieces = list(Cutter(CONFIG, RATE, HOP).pieces([signal]))
    at = 0
    for piece in pieces:
        begin = (at - piece.lead) * HOP
        assert np.array_equal(piece.samples, signal[begin : begin + len(piece.samples)])
        assert piece.lead == (0 if piece.first else 5)
        behind = len(piece.samples) - (piece.lead + piece.frames) * HOP
        assert behind == (0 if piece.last else 5 * HOP)
        at += piece.frames
    assert at == 200


def test_memory_is_bounded() -> None:
    cutter = Cutter(CONFIG, RATE, HOP)
    longest = max(len(piece.samples) for piece in cutter.pieces([voice(10)] * 300))
    assert longest <= (40 + 10 + 5) * HOP


def test_levels_go_over_into_one_another() -> None:
    ones = np.ones(1000, dtype=np.float32)
    found = blended(ones, 2 * ones)
    assert found[0] == pytest.approx(1.0, abs=0.01)
    assert found[-1] == pytest.approx(2.0, abs=0.01)
    assert bool((np.diff(found) > 0).all())
    assert np.allclose(blended(ones, ones), 1.0)


def test_a_stretch_of_silence_is_faded_plainly() -> None:
    ones, none = np.ones(100, dtype=np.float32), np.zeros(100, dtype=np.float32)
    found = blended(ones, none)
    np.testing.assert_allclose(found, 1 - (np.arange(100) + 0.5) / 100, rtol=1e-5)
