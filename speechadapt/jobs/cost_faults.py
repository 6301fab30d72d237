"""How long a large run takes when devices differ and fail: a simulation, shard by shard.

Each shard goes to the device that is free first. A device is slow or not for the whole run; a
shard's work varies about its mean; a device fails at random while it works, comes back after its
restart, and the shard it held is taken up by the next free device once its lease has lapsed. Items
done before a failure stay done, but for the last few; what is begun again is counted as redone.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from dataclasses import dataclass

from speechadapt.core.limits import Count, NotNegative, Positive, Probability


@dataclass(frozen=True)
class FaultConfig:
    """What goes wrong, and how often.

    Args:
        mtbf_h: Mean hours of work of a device between failures; 0 for never.
        restart_h: Hours until a device that failed works again, its model loaded.
        lapse_h: Hours until the shard it held may be taken over.
        redo_h: Hours of work that a failure costs beside: the batch under way.
        slow_share: Share of devices that are slow.
        slow_factor: How many times longer they take.
        spread: Standard deviation of the logarithm of a shard's work.
        runs: How often the run is simulated.
        seed: Seed of the first run.
    """

    mtbf_h: NotNegative = 0.0
    restart_h: NotNegative = 0.1
    lapse_h: NotNegative = 60.0 / 3600
    redo_h: NotNegative = 10.0 / 3600
    slow_share: Probability = 0.0
    slow_factor: Positive = 1.0
    spread: NotNegative = 0.0
    runs: Count = 20
    seed: int = 0


@dataclass(frozen=True)
class Outlook:
    """What many simulated runs come to.

    Args:
        median_h: Hours from the beginning to the end, in half of the runs less.
        late_h: Hours that 95 % of the runs do not exceed.
        failures: Mean number of failures of a run.
        busy: Mean share of all device-hours until the end that went into work.
    """

    median_h: float
    late_h: float
    failures: float
    busy: float


@dataclass(frozen=True)
class _Run:
    wall_h: float
    work_h: float
    failures: int


def foresee(shards: int, shard_h: float, devices: int, faults: FaultConfig) -> Outlook:
    """Simulate a run many times.

    Args:
        shards: How many there are.
        shard_h: Hours a device that is not slow needs for one.
        devices: How many there are.
        faults: What goes wrong.
    """
    runs = [
        _simulate(shards, shard_h, devices, faults, random.Random(faults.seed + number))
        for number in range(faults.runs)
    ]
    walls = sorted(run.wall_h for run in runs)
    return Outlook(
        median_h=walls[len(walls) // 2],
        late_h=walls[math.ceil(0.95 * len(walls)) - 1],
        failures=sum(run.failures for run in runs) / len(runs),
        busy=sum(run.work_h / (run.wall_h * devices) for run in runs) / len(runs),
    )


def _simulate(
    shards: int, shard_h: float, devices: int, faults: FaultConfig, chance: random.Random
) -> _Run:
    num_slow = round(faults.slow_share * devices)
    pace = [faults.slow_factor if device < num_slow else 1.0 for device in range(devices)]
    chance.shuffle(pace)
    free = [(0.0, device) for device in range(devices)]
    given_back: deque[tuple[float, float]] = deque()
    fresh, failures, work_h, wall_h = shards, 0, 0.0, 0.0
    while fresh or given_back:
        now, device = heapq.heappop(free)
        if given_back and (given_back[0][0] <= now or not fresh):
            ready, left_h = given_back.popleft()
            now = max(now, ready)
        else:
            fresh -= 1
            left_h = shard_h * _about_one(faults.spread, chance)
        takes_h = left_h * pace[device]
        lives_h = chance.expovariate(1 / faults.mtbf_h) if faults.mtbf_h else math.inf
        if lives_h < takes_h:
            failures += 1
            done_h = max(0.0, lives_h - faults.redo_h) / pace[device]
            given_back.append((now + lives_h + faults.lapse_h, left_h - done_h))
            work_h += lives_h
            now += lives_h + faults.restart_h
        else:
            work_h += takes_h
            now += takes_h
            wall_h = max(wall_h, now)
        heapq.heappush(free, (now, device))
    return _Run(wall_h, work_h, failures)


def _about_one(spread: float, chance: random.Random) -> float:
    """Draw a factor whose mean is 1."""
    return math.exp(chance.gauss(-spread * spread / 2, spread)) if spread else 1.0


def outlook_lines(faults: FaultConfig, outlook: Outlook, price_h: float = 0.0) -> list[str]:
    """Return an outlook as lines for people.

    Args:
        faults: What goes wrong.
        outlook: What it comes to.
        price_h: Of all devices together for an hour; 0 where nobody asks.
    """
    never = "never" if not faults.mtbf_h else f"every {faults.mtbf_h:g} h of work"
    lines = [
        f"with failures of a device {never}, {faults.slow_share:.0%} of the devices "
        f"{faults.slow_factor:g} times slower, work of a shard spread by {faults.spread:g}:",
        f"  wall time  {outlook.median_h:,.1f} h in half of {faults.runs} simulated runs, at most "
        f"{outlook.late_h:,.1f} h in 95 % of them",
        f"  failures   {outlook.failures:,.1f} a run; devices busy {outlook.busy:.1%} of the time",
    ]
    if price_h:
        lines.append(f"  price      {outlook.median_h * price_h:,.0f}, waiting included")
    return lines
