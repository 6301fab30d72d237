from __future__ import annotations

import time

import numpy as np
import torch

from speechadapt.bench.clips import Clip
from speechadapt.bench.passes import Seconds, measure, timed
from speechadapt.bench.sides import Side
from speechadapt.core.shapes import Frames, Lengths
from speechadapt.decoders.base import Hypothesis
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.whisper import WhisperEncoder, tiny

BATCHES = {
    name: [[Clip(name, "x", np.zeros(1600, np.float32), 0.1, None)]] for name in ("short", "long")
}


def counted(encoder: Encoder) -> list[int]:
    """Count the calls of an encoder."""
    calls: list[int] = []
    encoder.register_forward_pre_hook(lambda *_: calls.append(1))
    return calls


def side(name: str, encoder: Encoder, seconds: float, order: list[str]) -> Side:
    def decode(frames: Frames, lengths: Lengths) -> list[Hypothesis]:
        order.append(name)
        time.sleep(seconds)
        return [Hypothesis(name)] * len(frames)

    return Side(name, encoder, decode, {})


def samples(clip: Clip) -> torch.Tensor:
    return torch.from_numpy(clip.waveform)


def test_sides_of_one_encoder_share_its_frames_and_take_turns() -> None:
    encoder, order = WhisperEncoder(*tiny()).eval(), []
    calls = counted(encoder)
    sides = [side("a", encoder, 0.0, order), side("b", encoder, 0.0, order)]
    found = measure(sides, BATCHES, samples, rounds=2)
    assert len(calls) == 1 + 2 * len(BATCHES)
    assert order == ["a", "b", *"abab", *"baba"]
    assert [one.side.name for one in found] == ["a", "b"]
    assert all(len(one.seconds[name].decode) == 2 for one in found for name in BATCHES)
    assert found[0].whole.encode == found[1].whole.encode
    assert {one.written["short"].text for one in found} == {"a", "b"}


def test_time_is_that_of_the_side_it_was_spent_in() -> None:
    encoder = WhisperEncoder(*tiny()).eval()
    sides = [side("slow", encoder, 0.03, []), side("fast", encoder, 0.0, [])]
    slow, fast = measure(sides, BATCHES, samples, rounds=1)
    assert slow.whole.decode[0] >= 0.06
    assert fast.whole.decode[0] < 0.03
    assert set(slow.seconds) == set(BATCHES)  # the warm-up is not among them


def test_totals_add_up_round_by_round() -> None:
    assert Seconds([1.0, 2.0], [0.5, 0.25]).total == [1.5, 2.25]


def test_a_result_comes_with_its_time() -> None:
    took, found = timed(lambda: time.sleep(0.01) or "x", torch.device("cpu"))
    assert found == "x"
    assert took >= 0.01
