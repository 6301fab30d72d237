"""Simulated rooms: the direct path, the images against a sum by hand, and the decay."""

from __future__ import annotations

import math

import numpy as np
import pytest

from speechadapt.audio.degrade_room import Room, draw_room, room_response
from speechadapt.core.errors import ConfigError

RATE = 16000
ROOM = Room((5.0, 4.0, 3.0), (1.0, 1.0, 1.5), (3.5, 2.5, 1.2), 0.4)


def test_the_direct_path_comes_first_at_its_distance() -> None:
    response, direct = room_response(ROOM, RATE, np.random.default_rng(0))
    assert direct == round(ROOM.distance_m / 343.0 * RATE)
    assert not response[:direct].any()
    assert response[direct] == pytest.approx(1 / (4 * math.pi * ROOM.distance_m), rel=1e-5)


def test_the_first_reflection_is_the_floor_mirror() -> None:
    response, _ = room_response(ROOM, RATE, np.random.default_rng(0))
    x, y, z = ROOM.source_m
    mirrored = math.dist((x, y, -z), ROOM.microphone_m)
    surface = 2 * (20 + 12 + 15)
    reflection = math.exp(-0.161 * 60 / (surface * 0.4) / 2)
    place = round(mirrored / 343.0 * RATE)
    assert response[place] >= reflection / (4 * math.pi * mirrored) * 0.999


def test_the_tail_continues_the_images_and_falls_by_sixty_decibels() -> None:
    responses = [room_response(ROOM, RATE, np.random.default_rng(seed))[0] for seed in range(20)]
    power = np.mean([response.astype(float) ** 2 for response in responses], axis=0)
    before, after = (power[int(a * RATE) : int(b * RATE)] for a, b in ((0.03, 0.04), (0.04, 0.05)))
    assert 10 * abs(math.log10(before.mean() / after.mean())) < 5.0
    early, late = (power[int(a * RATE) : int(b * RATE)] for a, b in ((0.1, 0.12), (0.3, 0.32)))
    fall_db = 10 * math.log10(early.mean() / late.mean())
    assert fall_db == pytest.approx(60 * 0.2 / 0.4, abs=1.0)


def test_drawn_rooms_lie_in_their_ranges() -> None:
    random = np.random.default_rng(0)
    for _ in range(50):
        room = draw_room(random, (2.0, 6.0), (2.2, 3.0), (0.1, 0.3))
        assert all(2.0 <= side <= 6.0 for side in room.sides_m[:2])
        assert 2.2 <= room.sides_m[2] <= 3.0
        assert 0.1 <= room.rt60_s <= 0.3
        assert room.distance_m >= 0.49
        for side, one, other in zip(room.sides_m, room.source_m, room.microphone_m, strict=True):
            assert 0.29 <= one <= side - 0.29
            assert 0.29 <= other <= side - 0.29


def test_rooms_that_hold_nobody_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"1\.5 m or more"):
        draw_room(np.random.default_rng(0), (1.0, 6.0), (2.2, 3.0), (0.1, 0.3))
