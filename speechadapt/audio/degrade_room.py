"""Impulse responses of simulated shoebox rooms: mirror images first, a diffuse tail after them.

The images of a source in the walls (J. Allen and D. Berkley, "Image method for efficiently
simulating small-room acoustics", 1979) are summed up to `IMAGES_S`; behind that their number grows
with the square of time, and Gaussian noise with the power they have on average,
c / (4 pi V) 10^(-6 t / RT60) a second, stands for them (H. Kuttruff, "Room Acoustics", chapter 4).
Walls absorb evenly, as much as Eyring's formula asks for the reverberation time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from speechadapt.audio.augment import Signal
from speechadapt.core.errors import ConfigError

SOUND_M_PER_S = 343.0
IMAGES_S = 0.04
_WALL_M = 0.3  # nearest that source and microphone come to a wall
_CLEAR_M = 0.5  # nearest that they come to one another


@dataclass(frozen=True)
class Room:
    """A shoebox with a source and a microphone in it.

    Args:
        sides_m: Length, width and height.
        source_m: Place of the source, from one corner.
        microphone_m: Place of the microphone.
        rt60_s: Time in which the sound falls by 60 dB.
    """

    sides_m: tuple[float, float, float]
    source_m: tuple[float, float, float]
    microphone_m: tuple[float, float, float]
    rt60_s: float

    @property
    def distance_m(self) -> float:
        """From source to microphone."""
        return math.dist(self.source_m, self.microphone_m)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}

    @property
    def volume_m3(self) -> float:
        """Volume of the room."""
        return math.prod(self.sides_m)


def draw_room(
    random: np.random.Generator,
    side_m: tuple[float, float],
    height_m: tuple[float, float],
    rt60_s: tuple[float, float],
) -> Room:
    """Draw a room with a source and a microphone, neither near a wall nor near each other.

    Args:
        random: The only source of randomness.
        side_m: Shortest and longest floor side; at least 1.5 m.
        height_m: Lowest and highest ceiling; at least 1.5 m.
        rt60_s: Shortest and longest reverberation time.

    Raises:
        ConfigError: A side is shorter than 1.5 m.
    """
    if min(side_m[0], height_m[0]) < 1.5:
        raise ConfigError(
            f"rooms with sides from {side_m[0]:g} m and ceilings from {height_m[0]:g} m were asked "
            "for; both must be 1.5 m or more."
        )
    sides = np.array([*random.uniform(*side_m, 2), random.uniform(*height_m)])
    while True:
        places = random.uniform(_WALL_M, sides - _WALL_M, (2, 3))
        if np.linalg.norm(places[0] - places[1]) >= _CLEAR_M:
            break
    corners = [tuple(round(float(v), 3) for v in row) for row in (sides, *places)]
    size, source, microphone = ((row[0], row[1], row[2]) for row in corners)
    return Room(size, source, microphone, round(float(random.uniform(*rt60_s)), 4))


def room_response(room: Room, sample_rate: int, random: np.random.Generator) -> tuple[Signal, int]:
    """Compute a room's impulse response down to -60 dB.

    Args:
        room: The room.
        sample_rate: Hz.
        random: Draws the diffuse tail.

    Returns:
        The response from the moment the source sounds, and the sample of the direct path.
    """
    images_s = max(IMAGES_S, 1.5 * room.distance_m / SOUND_M_PER_S)
    count = max(1, round(max(room.rt60_s, images_s) * sample_rate) + 1)
    distances, walls = _images(room, images_s * SOUND_M_PER_S)
    reflection = _reflection(room)
    heights = reflection**walls / (4 * math.pi * distances)
    places = np.round(distances / SOUND_M_PER_S * sample_rate).astype(int)
    response = np.bincount(places, weights=heights, minlength=count)[:count]
    late = np.arange(round(images_s * sample_rate), count) / sample_rate
    power = SOUND_M_PER_S / (4 * math.pi * room.volume_m3 * sample_rate)
    tail = np.sqrt(power) * 10 ** (-3 * late / room.rt60_s)
    response[count - len(late) :] = tail * random.standard_normal(len(late))
    direct = round(room.distance_m / SOUND_M_PER_S * sample_rate)
    return response.astype(np.float32), direct


def _reflection(room: Room) -> float:
    """Return the pressure reflection of the walls, by Eyring's formula."""
    x, y, z = room.sides_m
    surface = 2 * (x * y + y * z + z * x)
    absorption = 1 - math.exp(-0.161 * room.volume_m3 / (surface * room.rt60_s))
    return math.sqrt(1 - absorption)


def _images(room: Room, reach_m: float) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return distance and number of reflections of every image within reach."""
    axes = []
    for side, source, microphone in zip(
        room.sides_m, room.source_m, room.microphone_m, strict=True
    ):
        most = math.ceil(reach_m / (2 * side)) + 1
        shift = np.arange(-most, most + 1)
        place = np.concatenate([2 * shift * side + source, 2 * shift * side - source])
        walls = np.concatenate([np.abs(2 * shift), np.abs(2 * shift - 1)])
        axes.append(((place - microphone) ** 2, walls))
    squares = axes[0][0][:, None, None] + axes[1][0][None, :, None] + axes[2][0][None, None, :]
    walls = axes[0][1][:, None, None] + axes[1][1][None, :, None] + axes[2][1][None, None, :]
    near = squares <= reach_m**2
    return np.sqrt(squares[near]), walls[near]
