"""`speechadapt plan`: what a large run costs before it is begun."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

HELP = "Estimate what a large run costs."

app = typer.Typer(help=HELP, no_args_is_help=True)

_MEASURED = "measured"
_Speed = Annotated[
    str, typer.Option(help="Core seconds for a second of audio, or 'measured' here (FLAC).")
]


@app.callback()
def plan() -> None:
    """Estimate what a large run costs."""


@app.command("restore")
def restore(
    hours: Annotated[float, typer.Option(help="Hours of audio, such as 1e6.")],
    devices: Annotated[int, typer.Option(help="Accelerators, or machines without one.")] = 1,
    rtf: Annotated[
        str,
        typer.Option(help="Device seconds for a second of audio, or 'measured' here with --model."),
    ] = _MEASURED,
    model: Annotated[
        Path | None, typer.Option(help="A restorer's folder, to be measured.", show_default=False)
    ] = None,
    decode_rtf: _Speed = _MEASURED,
    encode_rtf: _Speed = _MEASURED,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Another figure: cores, read_mb_s, write_mb_s, input_kbps, output_kbps, "
            "shard_hours; may be given again.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Estimate wall time, device-hours, storage, shards and the bottleneck of a restoration."""
    from speechadapt.core.bind import bind
    from speechadapt.core.errors import ConfigError
    from speechadapt.jobs.cost import CostConfig, cost_lines, estimate

    notes: list[str] = []
    values: dict[str, object] = {"hours": hours, "devices": devices}
    values["rtf"] = _model_speed(rtf, model, notes)
    values |= _codec_speeds(decode_rtf, encode_rtf, notes)
    for word in settings or []:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"--set '{word}' was given; write KEY=VALUE.")
        values[key] = _number(f"--set {key}", value)
    config, problems = bind(CostConfig, values)
    if problems:
        raise ConfigError(" ".join(problems))
    print(cost_lines(config, estimate(config), tuple(notes)))


def _model_speed(rtf: str, model: Path | None, notes: list[str]) -> float:
    from speechadapt.core.errors import ConfigError

    if rtf != _MEASURED:
        return _number("--rtf", rtf)
    if model is None:
        raise ConfigError("--rtf measured needs a restorer to measure: give --model FOLDER.")
    from speechadapt.jobs.cost_measure import measure_restorer
    from speechadapt.metrics.speed import describe_environment
    from speechadapt.models.restorer import load_restorer

    found = measure_restorer(load_restorer(model))
    where = describe_environment("cpu", "float32", 1).line
    notes.append(f"Model measured here: {where}.")
    return found


def _codec_speeds(decode: str, encode: str, notes: list[str]) -> dict[str, float]:
    from speechadapt.jobs.cost_measure import measure_codec

    found = {"decode_rtf": decode, "encode_rtf": encode}
    if _MEASURED in found.values():
        measured = dict(zip(found, measure_codec(), strict=True))
        notes.append("Decoding and encoding measured here: FLAC at 16 kHz, one core.")
        return {
            key: measured[key] if text == _MEASURED else _number(f"--{key}", text)
            for key, text in found.items()
        }
    return {key: _number(f"--{key}", text) for key, text in found.items()}


def _number(name: str, text: str) -> float:
    from speechadapt.core.errors import ConfigError

    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"{name} must be a number, got '{text}'.") from error
