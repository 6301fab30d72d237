"""`speechadapt plan`: what a large run costs before it is begun."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

HELP = "Estimate what a large run costs."

app = typer.Typer(help=HELP, no_args_is_help=True)

_MEASURED = "measured"
_TEXT_KBPS = 2.0

_Hours = Annotated[float, typer.Option(help="Hours of audio, such as 1e6.")]
_Devices = Annotated[int, typer.Option(help="Accelerators, or machines without one.")]
_Speed = Annotated[
    str, typer.Option(help="Core seconds for a second of audio, or 'measured' here (FLAC).")
]
_Done = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="OUT",
        help="A finished job whose last run measured the model and the decoding.",
        show_default=False,
    ),
]
_Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Another figure: cores, read_mb_s, write_mb_s, input_kbps, output_kbps, shard_hours, "
        "part_mb, price_h; or of what goes wrong: mtbf_h, restart_h, lapse_h, redo_h, slow_share, "
        "slow_factor, spread, runs, seed; may be given again.",
        show_default=False,
    ),
]


@app.callback()
def plan() -> None:
    """Estimate what a large run costs."""


@app.command("restore")
def restore(
    hours: _Hours,
    devices: _Devices = 1,
    rtf: Annotated[
        str,
        typer.Option(help="Device seconds for a second of audio, or 'measured' here with --model."),
    ] = _MEASURED,
    model: Annotated[
        Path | None, typer.Option(help="A restorer's folder, to be measured.", show_default=False)
    ] = None,
    done: _Done = None,
    decode_rtf: _Speed = _MEASURED,
    encode_rtf: _Speed = _MEASURED,
    settings: _Settings = None,
) -> None:
    """Estimate wall time, device-hours, storage, requests and the bottleneck of a restoration."""
    notes: list[str] = []
    values: dict[str, Any] = {"hours": hours, "devices": devices}
    texts = {"decode_rtf": decode_rtf, "encode_rtf": encode_rtf}
    if done is not None and rtf == _MEASURED:
        values |= _speeds_of(done, texts, notes)
    else:
        values["rtf"] = _model_speed(rtf, model, notes)
    _print(values | _codec_speeds(texts, notes), settings, notes)


@app.command("transcribe")
def transcribe(
    hours: _Hours,
    devices: _Devices = 1,
    rtf: Annotated[
        str,
        typer.Option(help="Device seconds for a second of audio, or 'measured' by --from."),
    ] = _MEASURED,
    done: _Done = None,
    decode_rtf: _Speed = _MEASURED,
    settings: _Settings = None,
) -> None:
    """Estimate wall time, device-hours, storage, requests and the bottleneck of a transcription."""
    from speechadapt.core.errors import ConfigError

    notes: list[str] = []
    values: dict[str, Any] = {"hours": hours, "devices": devices, "output_kbps": _TEXT_KBPS}
    texts = {"decode_rtf": decode_rtf, "encode_rtf": "0"}
    if rtf != _MEASURED:
        values["rtf"] = _number("--rtf", rtf)
    elif done is not None:
        values |= _speeds_of(done, texts, notes)
    else:
        raise ConfigError("--rtf measured needs a job to read it from: give --from OUT.")
    _print(values | _codec_speeds(texts, notes), settings, notes)


def _print(values: dict[str, Any], settings: list[str] | None, notes: list[str]) -> None:
    """Print the estimate and, where anything may go wrong, what then is to be expected."""
    from dataclasses import fields

    from speechadapt.core.bind import bind
    from speechadapt.core.errors import ConfigError
    from speechadapt.jobs.cost import CostConfig, cost_lines, estimate
    from speechadapt.jobs.cost_faults import FaultConfig, foresee, outlook_lines

    wrong: dict[str, Any] = {}
    faulty = {entry.name for entry in fields(FaultConfig)}
    for word in settings or []:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"--set '{word}' was given; write KEY=VALUE.")
        (wrong if key in faulty else values)[key] = _number(f"--set {key}", value)
    config, problems = bind(CostConfig, values)
    faults, more = bind(FaultConfig, wrong)
    if problems or more:
        raise ConfigError(" ".join([*problems, *more]))
    cost = estimate(config)
    if wrong:
        shard_h = cost.device_h / cost.shards
        outlook = foresee(cost.shards, shard_h, config.devices, faults)
        notes = [*notes, "", *outlook_lines(faults, outlook, config.devices * config.price_h)]
    print(cost_lines(config, cost, tuple(notes)))


def _speeds_of(done: Path, texts: dict[str, str], notes: list[str]) -> dict[str, float]:
    """Read speeds off a job's summary; decoding's only where it was not given otherwise."""
    from speechadapt.core.errors import ConfigError
    from speechadapt.core.files import read_json
    from speechadapt.jobs.folder import JobFolder

    path = JobFolder(done).summary
    speed = read_json(path).get("speed") if path.is_file() else None
    if not speed or not speed["audio_s"]:
        raise ConfigError(f"--from '{done}' holds no job whose last run did any work.")
    facts = speed["environment"]
    notes.append(
        f"Model and decoding measured by the last run of '{done.name}': {facts['device']}, "
        f"{facts['dtype']}, {facts['threads']} threads, batch {facts['batch']}."
    )
    if texts["decode_rtf"] == _MEASURED:
        texts["decode_rtf"] = repr(speed["decode_s"] / speed["audio_s"])
    return {"rtf": speed["model"]["rtf"]}


def _model_speed(rtf: str, model: Path | None, notes: list[str]) -> float:
    from speechadapt.core.errors import ConfigError

    if rtf != _MEASURED:
        return _number("--rtf", rtf)
    if model is None:
        raise ConfigError("--rtf measured needs a restorer to measure: give --model FOLDER.")
    from speechadapt.jobs.cost_measure import measure_restorer
    from speechadapt.metrics.speed import describe_environment
    from speechadapt.models.restorer_folder import load_restorer

    found = measure_restorer(load_restorer(model))
    where = describe_environment("cpu", "float32", 1).line
    notes.append(f"Model measured here: {where}.")
    return found


def _codec_speeds(texts: dict[str, str], notes: list[str]) -> dict[str, float]:
    from speechadapt.jobs.cost_measure import measure_codec

    if _MEASURED in texts.values():
        measured = dict(zip(("decode_rtf", "encode_rtf"), measure_codec(), strict=True))
        notes.append("Decoding and encoding measured here: FLAC at 16 kHz, one core.")
    else:
        measured = {}
    return {
        key: measured[key] if text == _MEASURED else _number(f"--{key.replace('_', '-')}", text)
        for key, text in texts.items()
    }


def _number(name: str, text: str) -> float:
    from speechadapt.core.errors import ConfigError

    try:
        return float(text)
    except ValueError as error:
        raise ConfigError(f"{name} must be a number, got '{text}'.") from error
