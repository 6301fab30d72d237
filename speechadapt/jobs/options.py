"""What can be asked of a transcription: one frozen value with the defaults and their help.

The command line grows its flags from these fields; programs construct the value directly. Nothing
heavy is imported here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field, fields
from typing import Any

from speechadapt.core.errors import ConfigError, near_misses

FORMATS = ("txt", "srt", "vtt", "tsv", "json")
NORMALISERS = ("verbatim", "whisper", "basic")
ENGINES = ("auto", "serial", "process")
PADDINGS = ("native", "full")


def setting(default: Any, text: str, *names: str, same_output: bool = False) -> Any:
    """Declare a field with its help.

    Args:
        default: The default.
        text: Help, one line.
        names: Flags besides `--field-name`; Whisper's spellings are accepted where they differ.
        same_output: Whether outputs are the same whatever the value, so that it may change between
            runs of one job.
    """
    metadata = {"help": text, "names": names, "same_output": same_output}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class TranscribeOptions:
    """Everything a transcription job can be asked.

    Raises:
        ConfigError: A value is out of its range or set; all such values are named at once.
    """

    inputs: tuple[str, ...] = field(default=(), metadata={"same_output": True})
    output: str = setting(
        "", "Folder for the outputs and the job's state.", "-o", "--output_dir", same_output=True
    )
    formats: str = setting(
        "txt,json", "Output formats: txt,srt,vtt,tsv,json.", "-f", "--output_format"
    )
    model: str | None = setting(None, "A bundled name, a local folder or a hub id.")
    revision: str | None = setting(None, "Revision of a hub model.")
    adapter: str | None = setting(None, "An adapter's folder, or several: fuse(A, B), auto(INDEX).")
    decoder: str | None = setting(
        None, "Decoder: ctc, whisper_ar, or diffusion (means --model mini-diffusion)."
    )
    language: str | None = setting(None, "Language of the speech; detected where None.")
    beam_size: int | None = setting(None, "Hypotheses kept by the search; None: as the model says.")
    num_candidates: int | None = setting(None, "Diffusion: texts written for each clip.")
    num_steps: int | None = setting(None, "Diffusion: passes of the network.")
    select: str | None = setting(
        None, "Diffusion: the text kept: confidence, mbr, rover, mbr+confidence."
    )
    keep_candidates: bool = setting(False, "Diffusion: write every candidate into the json.")
    option: tuple[str, ...] = setting(
        (), "A decoder's own option, name=value (repeatable): lm=words.txt, temperature=[0].", "-O"
    )
    word_timestamps: bool = setting(False, "Write word times.")
    vad: bool = setting(True, "Find speech: cuts long recordings, flags clips without speech.")
    normaliser: str = setting("verbatim", "Normaliser of the scores: verbatim, whisper, basic.")
    encoder_padding: str | None = setting(
        None, "Whisper: native (true length) or full (padded window); None: as the model says."
    )
    dtype: str = setting("auto", "Arithmetic: auto, float32, bfloat16, float16.")
    seed: int = setting(0, "Seed of anything drawn at random.")
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps.", same_output=True)
    batch_size: int = setting(16, "Most clips in a batch.", same_output=True)
    batch_s: float = setting(120.0, "Most seconds of padded audio in a batch.", same_output=True)
    engine: str = setting("auto", "serial or process; auto: by --workers.", same_output=True)
    workers: int = setting(1, "Worker processes, a model in each.", same_output=True)
    shard: str | None = setting(
        None, "This part of the work: 1/4 ... 4/4, or auto in a Slurm array.", same_output=True
    )
    threads: int | None = setting(
        None, "CPU threads in all; None: as torch does.", same_output=True
    )
    include: tuple[str, ...] = setting((), "Only paths that match (repeatable).", same_output=True)
    exclude: tuple[str, ...] = setting((), "No paths that match (repeatable).", same_output=True)
    min_duration_s: float = setting(0.0, "Skip what is shorter, in seconds.")
    max_duration_s: float | None = setting(None, "Skip what is longer, in seconds.")
    overwrite: bool = setting(False, "Begin the job anew.", same_output=True)
    retry_failed: bool = setting(False, "Try failed and partial items again.", same_output=True)
    dry_run: bool = setting(False, "Print the plan and stop.", same_output=True)
    max_failures: str | None = setting(
        None, "Stop (exit 4) once more items failed: a number or 5%.", same_output=True
    )
    on_error: str = setting("skip", "skip or stop at the first failed item.", same_output=True)
    timeout: float | None = setting(
        None, "Seconds an item may take; needs a worker process.", same_output=True
    )
    offline: bool = setting(False, "Never reach for the network.", same_output=True)
    json_progress: bool = setting(
        False, "Progress and summary as JSON lines on standard output.", same_output=True
    )

    def __post_init__(self) -> None:
        problems = [problem for problem in _problems(self) if problem]
        if problems:
            raise ConfigError("\n".join(problems))

    @property
    def format_names(self) -> tuple[str, ...]:
        """The output formats, in the order of `FORMATS`."""
        asked = set(_split(self.formats))
        return FORMATS if "all" in asked else tuple(name for name in FORMATS if name in asked)

    @property
    def engine_name(self) -> str:
        """The engine that is used: a process where several workers or a timeout ask for it."""
        if self.engine != "auto":
            return self.engine
        return "process" if self.workers > 1 or self.timeout is not None else "serial"

    @property
    def decoder_options(self) -> dict[str, Any]:
        """Options for the decoder by name: those with a field here and those of `option`."""
        named = {
            "language": self.language,
            "beam_size": self.beam_size,
            "num_candidates": self.num_candidates,
            "num_steps": self.num_steps,
            "select": self.select,
            "keep_candidates": self.keep_candidates or None,
        }
        given = {name: value for name, value in named.items() if value is not None}
        own = (text.partition("=") for text in self.option)
        return (
            given
            | {"word_timestamps": self.word_timestamps}
            | {name.strip(): _value(text) for name, _, text in own}
        )

    def identity(self) -> dict[str, Any]:
        """Return the options that change outputs, JSON types only."""
        values = {
            entry.name: getattr(self, entry.name)
            for entry in fields(self)
            if not entry.metadata.get("same_output")
        }
        return values | {"formats": list(self.format_names), "option": list(self.option)}

    def failure_limit(self, items: int) -> int | None:
        """Return the most failed items that are put up with, None for any number.

        Args:
            items: Items of the job, for a limit in percent.
        """
        if self.max_failures is None:
            return None
        if self.max_failures.endswith("%"):
            return int(items * float(self.max_failures[:-1]) / 100)
        return int(self.max_failures)


def parse_shard(text: str | None, environment: dict[str, str]) -> tuple[int, int]:
    """Read `i/n`.

    Args:
        text: `1/4` ... `4/4`, `auto` for a Slurm array task, None for the whole.
        environment: Environment variables, for `auto`.

    Returns:
        The shard counted from 0, and the number of shards.

    Raises:
        ConfigError: The text is something else, or `auto` stands outside a Slurm array.
    """
    if text is None:
        return 0, 1
    if text == "auto":
        names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_COUNT")
        missing = [name for name in names if not environment.get(name, "").isdigit()]
        if missing:
            raise ConfigError(f"--shard auto needs {', '.join(missing)}; give --shard i/n instead.")
        task, first, count = (int(environment[name]) for name in names)
        return task - first, count
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"--shard must be 1/n ... n/n or auto, got {text!r}.")
    return int(match[1]) - 1, int(match[2])


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text.strip()
    return tuple(value) if isinstance(value, list) else value


def _problems(options: TranscribeOptions) -> list[str | None]:
    return [
        *(_one_of("--formats", name, (*FORMATS, "all")) for name in _split(options.formats)),
        None if _split(options.formats) else "--formats names no format; give at least txt.",
        _one_of("--normaliser", options.normaliser, NORMALISERS),
        _one_of("--engine", options.engine, ENGINES),
        _one_of("--on-error", options.on_error, ("skip", "stop")),
        _one_of("--dtype", options.dtype, ("auto", "float32", "bfloat16", "float16")),
        _one_of("--encoder-padding", options.encoder_padding, PADDINGS),
        _at_least("--beam-size", options.beam_size, 1),
        _at_least("--num-candidates", options.num_candidates, 1),
        _at_least("--num-steps", options.num_steps, 1),
        _at_least("--batch-size", options.batch_size, 1),
        _at_least("--batch-s", options.batch_s, 1),
        _at_least("--workers", options.workers, 1),
        _at_least("--threads", options.threads, 1),
        _at_least("--timeout", options.timeout, 0.001),
        _at_least("--min-duration-s", options.min_duration_s, 0),
        _at_least("--max-duration-s", options.max_duration_s, 0),
        *(_option_problem(text) for text in options.option),
        _limit_problem(options.max_failures),
        _engine_problem(options),
    ]


def _one_of(flag: str, value: str | None, known: tuple[str, ...]) -> str | None:
    if value is None or value in known:
        return None
    return f"{flag} knows no {value!r}.{near_misses(value, known)}"


def _at_least(flag: str, value: float | int | None, least: float | int) -> str | None:
    if value is None or value >= least:
        return None
    return f"{flag} must be {least:g} or more, got {value:g}."


def _limit_problem(text: str | None) -> str | None:
    if text is None or re.fullmatch(r"\d+|\d+(\.\d+)?%", text):
        return None
    return f"--max-failures must be a number or a percentage such as 5%, got {text!r}."


def _option_problem(text: str) -> str | None:
    if re.match(r"\s*[a-z_]+\s*=", text):
        return None
    return f"--option takes name=value, got {text!r}."


def _engine_problem(options: TranscribeOptions) -> str | None:
    if options.engine == "serial" and options.workers > 1:
        return f"--engine serial has one worker, got --workers {options.workers}."
    if options.engine == "serial" and options.timeout is not None:
        return "--timeout needs --engine process: only a worker process can be ended in time."
    return None
