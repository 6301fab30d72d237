"""What can be asked of any job: where from, where to, on which device, with how many workers.

Every job's options are one frozen value: these fields and its own. The command line grows its flags
from them. Nothing heavy is imported here.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

from speechadapt.core.errors import ConfigError, near_misses
from speechadapt.core.storage import is_url

ENGINES = ("auto", "serial", "process", "ray")
NORMALISERS = ("verbatim", "whisper", "basic")


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
class JobOptions(ABC):
    """Everything that any job can be asked.

    Attributes:
        job: The job's name (see `kind.kind_named`).

    Raises:
        ConfigError: A value is out of its range or set; all such values are named at once.
    """

    job: ClassVar[str]

    inputs: tuple[str, ...] = field(default=(), metadata={"same_output": True})
    output: str = setting(
        "",
        "Folder or URL for the outputs and the job's state.",
        "-o",
        "--output_dir",
        same_output=True,
    )
    job_folder: str = setting(
        "", "Folder for the job's state where -o is a URL; else it lies in OUT.", same_output=True
    )
    normaliser: str = setting("verbatim", "Normaliser of the scores: verbatim, whisper, basic.")
    dtype: str = setting("auto", "Arithmetic: auto, float32, bfloat16, float16.")
    seed: int = setting(0, "Seed of anything drawn at random.")
    device: str = setting("auto", "auto, cpu, cuda, cuda:1, mps.", same_output=True)
    engine: str = setting("auto", "serial, process or ray; auto: by --workers.", same_output=True)
    address: str = setting(
        "auto", "Ray: auto (the cluster that runs here), local, or an address.", same_output=True
    )
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
        problems = [problem for problem in (*self.own_problems(), *_problems(self)) if problem]
        if problems:
            raise ConfigError("\n".join(problems))

    @abstractmethod
    def own_problems(self) -> list[str | None]:
        """Say what is wrong with the job's own fields; None where nothing is."""

    @abstractmethod
    def plain_values(self) -> dict[str, Any]:
        """Return own fields in the form in which equal wishes are equal, JSON types only."""

    @property
    @abstractmethod
    def batch_note(self) -> str:
        """What a batch may hold, in words."""

    @property
    def engine_name(self) -> str:
        """The engine that is used: a process where several workers or a timeout ask for it."""
        if self.engine != "auto":
            return self.engine
        return "process" if self.workers > 1 or self.timeout is not None else "serial"

    def identity(self) -> dict[str, Any]:
        """Return the options that change outputs, JSON types only."""
        values = {
            entry.name: getattr(self, entry.name)
            for entry in fields(self)
            if not entry.metadata.get("same_output")
        }
        return values | self.plain_values()

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


def one_of(flag: str, value: str | None, known: tuple[str, ...]) -> str | None:
    """Say that a value is none of those known; None where it is one, or not given."""
    if value is None or value in known:
        return None
    return f"{flag} knows no {value!r}.{near_misses(value, known)}"


def at_least(flag: str, value: float | int | None, least: float | int) -> str | None:
    """Say that a value is too small; None where it is not, or not given."""
    if value is None or value >= least:
        return None
    return f"{flag} must be {least:g} or more, got {value:g}."


def words_of(text: str) -> list[str]:
    """Return the words of a list with commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _problems(options: JobOptions) -> list[str | None]:
    return [
        one_of("--normaliser", options.normaliser, NORMALISERS),
        one_of("--engine", options.engine, ENGINES),
        one_of("--on-error", options.on_error, ("skip", "stop")),
        one_of("--dtype", options.dtype, ("auto", "float32", "bfloat16", "float16")),
        at_least("--workers", options.workers, 1),
        at_least("--threads", options.threads, 1),
        at_least("--timeout", options.timeout, 0.001),
        at_least("--min-duration-s", options.min_duration_s, 0),
        at_least("--max-duration-s", options.max_duration_s, 0),
        _limit_problem(options.max_failures),
        _engine_problem(options),
        *_place_problems(options),
    ]


def _limit_problem(text: str | None) -> str | None:
    if text is None or re.fullmatch(r"\d+|\d+(\.\d+)?%", text):
        return None
    return f"--max-failures must be a number or a percentage such as 5%, got {text!r}."


def _engine_problem(options: JobOptions) -> str | None:
    if options.engine == "serial" and options.workers > 1:
        return f"--engine serial has one worker, got --workers {options.workers}."
    if options.engine == "serial" and options.timeout is not None:
        return "--timeout needs --engine process: only a worker process can be ended in time."
    return None


def _place_problems(options: JobOptions) -> list[str | None]:
    problems: list[str | None] = []
    if options.job_folder and not is_url(options.output):
        problems.append("--job-folder is for an -o that is a URL; OUT holds the state of others.")
    if is_url(options.job_folder):
        problems.append(f"--job-folder must be a local folder, got {options.job_folder!r}.")
    shared = [each for each in (*options.inputs, options.output) if each.startswith("memory://")]
    if shared and options.engine_name != "serial":
        problems.append(f"{shared[0]!r} is seen by one process alone; give --engine serial.")
    return problems
