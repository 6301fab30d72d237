"""Transcribe files, folders and manifests into text, with scores and timings."""

from __future__ import annotations

from speechadapt.cli.flags import command_for
from speechadapt.cli.standard_input import standard_input
from speechadapt.jobs.options import TranscribeOptions

HELP = "Transcribe files, folders and manifests."


def run(options: TranscribeOptions) -> int:
    """Run the job.

    Args:
        options: What the user asked for.

    Returns:
        The exit code.
    """
    from speechadapt.jobs.transcribe import transcribe

    with standard_input(options) as told:
        return transcribe(told)


command = command_for(
    TranscribeOptions,
    run,
    "Transcribe files, folders (recursive), globs, JSONL manifests, list files and standard input "
    "(-) into OUT. A run that was interrupted goes on where it stopped when it is given again.",
)
