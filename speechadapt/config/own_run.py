"""From one's own recordings to a training run: looked over, divided, settings chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from speechadapt.config.own_input import gather
from speechadapt.config.own_options import TASK, Options, Request
from speechadapt.config.resolve import Run
from speechadapt.config.run_folder import CONFIG_FILE
from speechadapt.core.bind import bind
from speechadapt.core.errors import ConfigError, DataError, FingerprintError
from speechadapt.core.files import read_json, read_lines, write_lines
from speechadapt.data.manifest import Utterance
from speechadapt.data.split import seconds_of
from speechadapt.encoders.base import Encoder
from speechadapt.training.adapt.budget import Pace, Size, measure_pace, size_adapter
from speechadapt.training.adapt.parts import BUNDLED_BASE, load_base
from speechadapt.training.adapt.plan import (
    EVALUATIONS,
    Base,
    Letters,
    choose_letters,
    choose_values,
    read_base,
    schedule,
    share_for,
)
from speechadapt.training.adapt.text import Speller
from speechadapt.training.catalog import task_module
from speechadapt.training.own.data import Checked, Tick, check_rows, manifest_rows
from speechadapt.training.own.report import about_letters, cautions, data_lines, part_lines, remarks
from speechadapt.training.own.split import Parts, divide
from speechadapt.training.state import latest_checkpoint

MANIFEST_FILE = "data.jsonl"
FINDINGS_FILE = "findings.jsonl"
_PLANNED = 0.9  # of the time given, so that a slower hour does not cut off the end
_TIMED = ("steps", "warmup_steps", "evaluate_every", "checkpoint_every", "log_every")


@dataclass(frozen=True)
class Prepared:
    """Data that was looked over, and the run it is for.

    Args:
        checked: The rows.
        parts: The usable rows by use.
        letters: What is to be written.
        lines: What is to be said about the data.
        limits: What the score will be worth, one sentence each.
        run: The run.
    """

    checked: Checked
    parts: Parts
    letters: Letters
    lines: tuple[str, ...]
    limits: tuple[str, ...]
    run: Run


def check_output(request: Request) -> None:
    """Refuse to write over what is not this command's.

    Args:
        request: What was asked for.

    Raises:
        ConfigError: The output is a file, or a folder of something else.
    """
    output = request.output
    if output.exists() and not output.is_dir():
        raise ConfigError(f"-o '{output}' is a file; the adapter is a folder.")
    if output.is_dir() and any(output.iterdir()) and not (request.folder / CONFIG_FILE).is_file():
        raise ConfigError(
            f"-o '{output}' holds something already, and '{request.folder.name}', the state of the "
            "run that would have made it, is not beside it. Choose another folder."
        )


def prepare(request: Request, options: Options, place: Path, tick: Tick | None = None) -> Prepared:
    """Look over the data, divide it, choose settings, and write the manifest of the run.

    Args:
        request: What was asked for.
        options: Its options.
        place: Folder for the manifest and the list of findings; the run's own, or another one
            where nothing is to be kept.
        tick: Called with the recordings looked over and their number.

    Raises:
        ConfigError: Settings do not fit one another, the data or the base.
        DataError: The data cannot be read, or too little of it is usable.
    """
    rows, lines = gather(request.inputs, options.split.speakers)
    encoder, folder = load_base(request.base, str(options.values.get("padding", "full")))
    base = read_base(encoder, folder)
    spell = Speller(
        str(options.values.get("normaliser", "verbatim")), str(options.values.get("language", ""))
    )
    checked = check_rows(rows, base.needs, options.check, spell, tick)
    lines += data_lines(checked, str(request.folder / FINDINGS_FILE))
    try:
        parts = divide(checked.rows, options.split)
    except DataError as error:
        raise DataError("\n".join([*lines, str(error)])) from error
    letters = choose_letters(base.alphabet, (*parts.train, *parts.dev), spell)
    lines += [*part_lines(parts), *cautions(parts)]
    lines += _letter_lines(letters, base, checked.rows, spell)
    limits = remarks(checked, parts, spell)
    size = _size(encoder, options, base, share_for(seconds_of(parts.train), letters))
    del encoder
    write_manifest(place, checked, parts)
    values = _values(request, options, base, parts, letters, size, place / MANIFEST_FILE)
    run = _run(request, options, values)
    return Prepared(checked, parts, letters, tuple(lines), tuple(limits), run)


def write_manifest(place: Path, checked: Checked, parts: Parts) -> None:
    """Write the rows by use, and every finding.

    Args:
        place: The folder.
        checked: The rows, looked over.
        parts: The usable rows by use.

    Raises:
        FingerprintError: The folder holds a run on other rows.
    """
    rows = manifest_rows(parts.named())
    path = place / MANIFEST_FILE
    if (place / CONFIG_FILE).is_file() and path.is_file():
        before = [row for _, row in read_lines(path)]
        changed = {row["id"] for row in (*before, *rows) if row not in before or row not in rows}
        if changed:
            shown = ", ".join(sorted(changed)[:3])
            raise FingerprintError(
                f"'{place}' holds a run on other data: {len(changed)} rows are new, gone or "
                f"changed, such as {shown}. Give another -o, or remove that folder to begin anew."
            )
    write_lines(path, rows)
    write_lines(place / FINDINGS_FILE, (finding.to_json() for finding in checked.findings))


def _letter_lines(
    letters: Letters, base: Base, rows: Sequence[Utterance], spell: Speller
) -> list[str]:
    if base.alphabet is None:
        return ["the base has no letters of its own: a new head is trained"]
    if not letters.lacking:
        return ["the base writes every letter of the texts: its head is trained on"]
    said = about_letters(letters.lacking, rows, spell)
    if letters.keeps_head:
        return [said, "the base's head gets these letters too, and is trained on"]
    return [said, "a new head is trained"]


def _size(encoder: Encoder, options: Options, base: Base, share: float) -> Size | None:
    if options.arm == "head":
        return None
    asked = options.budget.most(base.parameters)
    return size_adapter(
        encoder,
        options.method,
        dict(options.values.get("adapter", {})),
        tuple(options.values.get("roles", ())),
        str(options.values.get("train_norms", "none")),
        share * base.parameters if asked is None else asked,
        firm=asked is not None,
    )


def _values(
    request: Request,
    options: Options,
    base: Base,
    parts: Parts,
    letters: Letters,
    size: Size | None,
    manifest: Path,
) -> dict[str, Any]:
    method = "" if size is None else options.method
    values = choose_values(base, parts, letters, method, size)
    if size is None:
        del values["method"]
    values["base"] = request.base or BUNDLED_BASE
    values["data"]["manifest"] = str(manifest.resolve())
    values["trainer"]["seed"] = request.seed
    steps = dict(options.values.get("trainer", {})).get("steps")
    if isinstance(steps, int):
        values["trainer"] |= schedule(steps, EVALUATIONS)
    return merged(values, options.values)


def merged(values: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return a tree of values with another one laid over it.

    Args:
        values: The tree below.
        above: What replaces it, key by key.
    """
    result = dict(values)
    for key, value in above.items():
        below = result.get(key)
        both = isinstance(below, Mapping) and isinstance(value, Mapping)
        result[key] = merged(below, value) if both else value  # type: ignore[arg-type]
    return result


def _run(request: Request, options: Options, values: Mapping[str, Any]) -> Run:
    config = _bound(values)
    minutes = options.budget.minutes
    if minutes is not None:
        trainer = _stored_times(request.folder) or _fitted(config, minutes)
        config = _bound(merged(merged(values, {"trainer": trainer}), options.values))
        left_s = max(0.001, 60 * minutes - seconds_done(request.folder))
        sitting_s = min(left_s, config.trainer.sitting_s or left_s)
        config = replace(config, trainer=replace(config.trainer, sitting_s=sitting_s))
    words = ("adapt", *request.inputs, *request.options)
    return Run("adapt", TASK, config, request.folder, words)


def _bound(values: Mapping[str, Any]) -> Any:
    config, problems = bind(task_module(TASK).Config, values)
    if problems:
        raise ConfigError("\n".join(problems))
    return config


def _stored_times(folder: Path) -> dict[str, Any]:
    """Return the times chosen when the run was begun, so that it goes on with the same."""
    path = folder / CONFIG_FILE
    if not path.is_file():
        return {}
    trainer = yaml.safe_load(path.read_text(encoding="utf-8")).get("trainer", {})
    return {name: trainer[name] for name in _TIMED if name in trainer}


def _fitted(config: Any, minutes: float) -> dict[str, Any]:
    """Return times that fit into so many minutes on this machine, with some to spare."""
    pace, planned = pace_of(config), _PLANNED * minutes
    evaluations = pace.evaluations(planned, EVALUATIONS)
    steps = pace.steps(planned, evaluations)
    if steps < 1:
        raise ConfigError(
            f"a budget of {minutes:g} minutes was given, but here a step takes {pace.step_s:.1f} s "
            f"and a score {pace.evaluation_s:.1f} s. Raise --budget, or give less to choose by "
            "(-O split.dev=0.02)."
        )
    usual = config.trainer.steps
    return schedule(min(steps, usual), evaluations)


def is_time_up(request: Request, options: Options) -> bool:
    """Say whether the run has used the minutes it may take.

    Args:
        request: What was asked for.
        options: Its options.
    """
    minutes = options.budget.minutes
    return minutes is not None and seconds_done(request.folder) >= 0.999 * 60 * minutes


def seconds_done(folder: Path) -> float:
    """Return how long a run has trained so far, in seconds.

    Args:
        folder: The run's folder.
    """
    checkpoint = latest_checkpoint(folder / "checkpoints")
    return 0.0 if checkpoint is None else float(read_json(checkpoint / "state.json")["seconds"])


def pace_of(config: Any) -> Pace:
    """Measure how long the steps of a run take here.

    Args:
        config: The task's settings.
    """
    return measure_pace(task_module(TASK).build(config), config.trainer.accumulate)
