"""What the measuring tools share: figures, and the facts beside every one of them.

A tool measures a claim of `bench_claims.py`, `result` puts the figure beside the date, the command
and the machine, and `gen_results.py` renders the file.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import re
import shlex
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench_claims import CLAIMS, number

from speechadapt.core.errors import ConfigError, SpeechadaptError, near_misses
from speechadapt.core.files import atomic_write_json
from speechadapt.core.memory import MemoryField, resident_bytes

ROOT = Path(__file__).resolve().parents[1]
DATA = "SPEECHADAPT_DATA"
MISSING = "not yet measured"


def figure(claim: str, values: Sequence[float], method: str) -> dict[str, Any]:
    """Return the median of repeated measurements of a claim, with the smallest and the largest.

    Args:
        claim: A name of `CLAIMS`.
        values: One value per repeat.
        method: How they were made, in words.

    Raises:
        ConfigError: Nobody makes such a claim.
    """
    if claim not in CLAIMS:
        raise ConfigError(f"there is no claim '{claim}'.{near_misses(claim, CLAIMS)}")
    return {
        "claim": claim,
        "value": statistics.median(values),
        "low": min(values),
        "high": max(values),
        "method": f"median, min and max of {len(values)} {method}",
    }


def result(
    command: str,
    environment: dict[str, Any],
    figures: Sequence[dict[str, Any]],
    details: dict[str, Any],
    quick: bool = False,
) -> dict[str, Any]:
    """Return what a tool writes to `docs/results`, JSON types only.

    Args:
        command: As `describe_command` gives it.
        environment: As `environment` gives it.
        figures: As `figure` gives them.
        details: Everything else that was measured.
        quick: Whether it was a smoke run, which no table may show.
    """
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "command": command,
        "quick": quick,
        **environment,
        "figures": list(figures),
        "details": details,
    }


def environment(device: str, dtype: str, threads: int, batch: str) -> dict[str, Any]:
    """Say what a measurement ran on.

    Args:
        device: A torch device.
        dtype: Number format of the arithmetic.
        threads: CPU threads of torch.
        batch: Clips per batch, or how batches are made.
    """
    from importlib.metadata import version

    name = device
    if device.startswith("cuda"):
        import torch

        name = f"{device} ({torch.cuda.get_device_name(device)})"
    return {
        "device": name,
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "dtype": dtype,
        "threads": threads,
        "batch": batch,
        "python": platform.python_version(),
        "torch": version("torch"),
        "transformers": version("transformers"),
    }


def processor() -> str:
    """Return the processor's model, or its architecture where the system does not name it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return found.group(1).strip() if found else platform.machine()


def resident(field: MemoryField) -> int:
    """Return a memory field of this process in bytes: `VmRSS` now, `VmHWM` the highest.

    Raises:
        ConfigError: The system does not say.
    """
    found = resident_bytes(field)
    if found is None:
        raise ConfigError("memory is read from /proc/self/status, which is not there.")
    return found


def describe_command(script: str, words: Sequence[str], pack: bool = False) -> str:
    """Return the command that repeats a measurement, without the places of one machine.

    The data pack is always written as its environment variable.

    Args:
        script: The tool's file name.
        words: Its arguments as given.
        pack: Whether the pack was read, so that it is named also where the environment gave it.
    """
    shown: list[str] = []
    before = ""
    for word in words:
        name, equals, value = word.partition("=") if "=" in word else ("", "", word)
        option = name if equals else before
        value = f"${DATA}" if option == "--data" else public_place(value) if value else value
        shown.append(f"{name}{equals}{value}")
        before = word
    if pack and not any(word.startswith("--data") for word in shown):
        shown += ["--data", f"${DATA}"]
    return " ".join(["python", f"tools/{script}", *(_quoted(word) for word in shown)])


def public_place(text: str) -> str:
    """Return a path as anyone may read it; a text that is no path of this machine stays as it is.

    Inside the repository a path is relative to its root, inside the data pack to the pack, and of
    any other only the name is kept.
    """
    path = Path(text).expanduser()
    outside = path.is_absolute() or text.startswith((".", "~"))
    if not outside:
        return text
    whole = path.resolve()
    if whole.is_relative_to(ROOT):
        return whole.relative_to(ROOT).as_posix()
    pack = os.environ.get(DATA)
    if pack and whole.is_relative_to(Path(pack).resolve()):
        return f"${DATA}/{whole.relative_to(Path(pack).resolve()).as_posix()}"
    return whole.name


def verdict(claim: str, value: float) -> str:
    """Return `met`, `missed`, or `-` for a claim without a bar."""
    met = CLAIMS[claim].met(value)
    return "-" if met is None else "met" if met else "missed"


def print_figures(figures: Sequence[dict[str, Any]]) -> bool:
    """Print figures with their bars; return whether every bar is met."""
    for one in figures:
        claim = CLAIMS[one["claim"]]
        values = [number(one[key]) for key in ("value", "low", "high")]
        print(
            f"{claim.label}: {values[0]}{claim.unit} [{values[1]}, {values[2]}] ({one['method']})"
        )
        if claim.bar is not None:
            print(f"    bar {claim.bar_text}: {verdict(one['claim'], one['value'])}")
    return all(CLAIMS[one["claim"]].met(one["value"]) is not False for one in figures)


def run_tool(
    name: str,
    given: Sequence[str],
    parse: Callable[[Sequence[str]], argparse.Namespace],
    measure: Callable[[argparse.Namespace, Sequence[str]], dict[str, Any]],
    quick_may_miss: bool = True,
) -> int:
    """Measure, print the figures with their bars, and write what was found.

    Args:
        name: The tool, as its errors call it.
        given: The words of its command line.
        parse: Reads them; the result has `output`, and `quick` where the tool has smoke runs.
        measure: Returns what `result` made.
        quick_may_miss: Whether a smoke run may miss a bar, as a speed on little work may.

    Returns:
        The exit code: 0, 1 where a bar is missed, 2 where nothing could be measured.
    """
    arguments = parse(given)
    try:
        found = measure(arguments, given)
    except SpeechadaptError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    print()
    met = print_figures(found["figures"])
    if arguments.output is not None:
        atomic_write_json(arguments.output, found)
    else:
        print(json.dumps(found))
    return 0 if met or (vars(arguments).get("quick") and quick_may_miss) else 1


def _quoted(word: str) -> str:
    return f'"{word}"' if f"${DATA}" in word else shlex.quote(word)
