"""A recording piped in: the input `-` becomes a file in the job's state folder, before the scan.

It is listed there under the name `stdin`, so its outputs are `OUT/stdin.txt` and the like whatever
else is read, and a job that goes on, or tries again, finds it. Bytes that are already there leave
the file as it is, so the same recording is not done twice.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from speechadapt.core.errors import ConfigError
from speechadapt.core.files import atomic_write_text, hash_file, sync_file
from speechadapt.jobs.job_options import JobOptions

MARK = "-"
_NAME = "stdin"
_LIST = "inputs.txt"
_BLOCK = 1 << 20

Options = TypeVar("Options", bound=JobOptions)


@contextmanager
def standard_input(options: Options) -> Iterator[Options]:
    """Read a recording from standard input where the inputs ask for it.

    Args:
        options: What was asked for; `-` among the inputs stands for standard input.

    Yields:
        The options with a list file in the place of `-`; a dry run's is gone afterwards.

    Raises:
        ConfigError: Standard input is a terminal, or one part of several was to read it.
    """
    if MARK not in options.inputs:
        yield options
        return
    if options.shard is not None:
        raise ConfigError(
            f"input '{MARK}' was given with --shard {options.shard}, but every part of a job reads "
            "the same inputs. Write the recording to a file first."
        )
    if sys.stdin.isatty():
        raise ConfigError(
            f"input '{MARK}' reads a recording from standard input, which is a terminal here. "
            f"Pipe one in: speechadapt {options.job} - -o OUT < talk.flac"
        )
    if options.dry_run:
        with TemporaryDirectory() as folder:
            yield _listed(options, Path(folder))
        return
    from speechadapt.core.storage import is_url, plain_path
    from speechadapt.jobs.folder import JobFolder

    home = plain_path(options.job_folder or options.output)
    if is_url(home):
        raise ConfigError(
            f"input '{MARK}' is kept with the job's state, which would lie in '{home}'. "
            "Give --job-folder DIR."
        )
    yield _listed(options, JobFolder(Path(home)).state / _NAME)


def _listed(options: Options, folder: Path) -> Options:
    folder.mkdir(parents=True, exist_ok=True)
    _keep(folder / _NAME)
    atomic_write_text(folder / _LIST, f"{_NAME}\n")
    place = options.inputs.index(MARK)
    others = [each for each in options.inputs if each != MARK]
    return replace(options, inputs=(*others[:place], str(folder / _LIST), *others[place:]))


def _keep(path: Path) -> None:
    """Copy standard input to a file, which stays untouched where it holds the same already."""
    fresh = path.with_name(f".{path.name}-{os.getpid()}")
    try:
        with fresh.open("wb") as handle:
            shutil.copyfileobj(sys.stdin.buffer, handle, _BLOCK)
        if not path.is_file() or hash_file(path) != hash_file(fresh):
            sync_file(fresh)
            fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)
