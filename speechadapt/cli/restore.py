"""Restore degraded recordings: files, folders and manifests, into a tree of clean ones."""

from __future__ import annotations

from speechadapt.cli.flags import command_for
from speechadapt.cli.standard_input import standard_input
from speechadapt.jobs.restore_options import RestoreOptions

HELP = "Restore degraded recordings."


def run(options: RestoreOptions) -> int:
    """Run the job.

    Args:
        options: What the user asked for.

    Returns:
        The exit code.
    """
    from speechadapt.jobs.restore import restore

    with standard_input(options) as told:
        return restore(told)


command = command_for(
    RestoreOptions,
    run,
    "Restore files, folders (recursive), globs, JSONL manifests, list files and standard input (-) "
    "into OUT, never in place. A run that was interrupted goes on where it stopped when it is "
    "given again.",
)
