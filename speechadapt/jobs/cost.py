"""What a job of so many hours costs: time, devices, storage, requests, and what holds it up.

Assumed: every device has its own cores and its own disk; reading, decoding, model, encoding and
writing overlap, so the slowest of them sets the pace; decoding and encoding share the cores; all
recordings are alike; nothing fails. Storage is of one channel. A request moves one part of a shard;
three more a shard take its lease, look at it and say that it is done.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from speechadapt.core.limits import Count, NotNegative, Positive

_MB = 1e6
_REQUESTS_BESIDE = 3


@dataclass(frozen=True)
class CostConfig:
    """A corpus, the machines, and how fast they are.

    Args:
        hours: Of audio.
        devices: Accelerators, or machines where the model runs on the CPU.
        rtf: Seconds of one device for a second of audio.
        decode_rtf: Seconds of one core to decode a second of audio.
        encode_rtf: Seconds of one core to encode a second of restored audio; 0 for text.
        cores: For each device.
        read_mb_s: What a device's disk or network gives, in megabytes a second.
        write_mb_s: What it takes.
        input_kbps: Of the recordings, in kilobits a second.
        output_kbps: Of the restored ones.
        shard_hours: Of audio in a shard.
        part_mb: Megabytes that one request moves.
        price_h: Of a device for an hour, in any currency.
    """

    hours: Positive = 1.0
    devices: Count = 1
    rtf: Positive = 1.0
    decode_rtf: Positive = 0.001
    encode_rtf: NotNegative = 0.001
    cores: Count = 4
    read_mb_s: Positive = 100.0
    write_mb_s: Positive = 100.0
    input_kbps: Positive = 256.0
    output_kbps: Positive = 256.0
    shard_hours: Positive = 100.0
    part_mb: Positive = 64.0
    price_h: NotNegative = 0.0


@dataclass(frozen=True)
class Cost:
    """What it comes to.

    Args:
        wall_h: Hours from the beginning to the end.
        device_h: Hours of all devices together.
        input_gb: Gigabytes read.
        output_gb: Gigabytes written.
        shards: How many.
        shard_input_gb: Gigabytes of one.
        requests: To the storage, where it is one that counts them.
        price: Of the devices.
        stages: Seconds of a device that each stage takes for a second of audio.
    """

    wall_h: float
    device_h: float
    input_gb: float
    output_gb: float
    shards: int
    shard_input_gb: float
    requests: int
    price: float
    stages: dict[str, float]

    @property
    def bottleneck(self) -> str:
        """The slowest stage."""
        return max(self.stages, key=lambda name: self.stages[name])


def estimate(config: CostConfig) -> Cost:
    """Add up what a job costs.

    Args:
        config: Corpus, machines and speeds.
    """
    read_mb, write_mb = (kbps / 8 / 1000 for kbps in (config.input_kbps, config.output_kbps))
    stages = {
        "read": read_mb / config.read_mb_s,
        "decode and encode": (config.decode_rtf + config.encode_rtf) / config.cores,
        "model": config.rtf,
        "write": write_mb / config.write_mb_s,
    }
    device_h = config.hours * max(stages.values())
    seconds = config.hours * 3600
    shards = max(1, math.ceil(config.hours / config.shard_hours))
    parts = sum(math.ceil(seconds / shards * side / config.part_mb) for side in (read_mb, write_mb))
    return Cost(
        wall_h=device_h / config.devices,
        device_h=device_h,
        input_gb=seconds * read_mb * _MB / 1e9,
        output_gb=seconds * write_mb * _MB / 1e9,
        shards=shards,
        shard_input_gb=seconds * read_mb * _MB / 1e9 / shards,
        requests=shards * (parts + _REQUESTS_BESIDE),
        price=device_h * config.price_h,
        stages=stages,
    )


def cost_lines(config: CostConfig, cost: Cost, notes: tuple[str, ...] = ()) -> str:
    """Return an estimate as lines for people.

    Args:
        config: What was asked.
        cost: What it comes to.
        notes: Where the speeds come from.
    """
    rows = [
        ("audio", f"{config.hours:,.0f} h on {config.devices} devices"),
        ("wall time", f"{cost.wall_h:,.1f} h ({cost.wall_h / 24:,.2f} days)"),
        ("device time", f"{cost.device_h:,.0f} h"),
        ("storage in", f"{cost.input_gb:,.0f} GB at {config.input_kbps:g} kbit/s"),
        ("storage out", f"{cost.output_gb:,.0f} GB at {config.output_kbps:g} kbit/s"),
        (
            "shards",
            f"{cost.shards} of {config.shard_hours:g} h, {cost.shard_input_gb:,.1f} GB each",
        ),
        ("requests", f"{cost.requests:,} of up to {config.part_mb:g} MB"),
        ("bottleneck", cost.bottleneck),
    ]
    if config.price_h:
        rows.append(("price", f"{cost.price:,.0f} at {config.price_h:g} for a device and hour"))
    lines = [f"{name:<13}{text}" for name, text in rows]
    lines += ["", "seconds of a device for a second of audio:"]
    lines += [f"  {name:<19}{value:.6f}" for name, value in cost.stages.items()]
    assumed = (__doc__ or "").partition("\n\n")[2].strip().replace("\n", " ")
    return "\n".join([*lines, "", assumed, *notes])
