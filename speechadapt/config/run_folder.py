"""The run folder: what was asked, with what code and data.

The same settings again go on with the run; others are refused. `config.yaml` holds the resolved
settings, `run.json` the words of the command line, versions, hashes of the data and every sitting,
`training_ids.txt` the id of every recording training may read.
"""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml

import speechadapt
from speechadapt.config.resolve import Run
from speechadapt.core.errors import FingerprintError, JobError
from speechadapt.core.files import (
    atomic_write_json,
    atomic_write_text,
    hash_file,
    hash_json,
    read_json,
)

CONFIG_FILE = "config.yaml"
RUN_FILE = "run.json"
IDS_FILE = "training_ids.txt"
_PACKAGES = ("speechadapt", "torch", "torchaudio", "transformers", "accelerate", "numpy")

# What may differ from sitting to sitting: where things lie, when to stop, what to show.
_FREE = (
    "data.root",
    "data.manifest",
    "trainer.patience",
    "trainer.sitting_s",
    "trainer.threads",
    "trainer.log_every",
    "trainer.checkpoint_every",
)


def check_run_folder(run: Run) -> bool:
    """Compare a run with what its folder already holds; nothing is written.

    Args:
        run: The run.

    Returns:
        Whether the folder holds this run already.

    Raises:
        FingerprintError: The folder holds a run with other settings or other data; the message
            lists what differs.
        JobError: The folder holds checkpoints of nobody knows what.
    """
    if not (run.folder / CONFIG_FILE).is_file():
        if (run.folder / "checkpoints").is_dir():
            raise JobError(
                f"'{run.folder}' holds checkpoints but no {CONFIG_FILE}; choose another run.folder."
            )
        return False
    stored = yaml.safe_load((run.folder / CONFIG_FILE).read_text(encoding="utf-8"))
    # a setting that came with a later release leaves older runs as they were, at its default
    changes = settings_diff(_filled(stored, asdict(type(run.config)())), run.settings())
    before = read_json(run.folder / RUN_FILE)["sources"]
    changes += [
        f"{name}: {_short(before.get(name))} -> {_short(now)} (its content)"
        for name, now in _source_hashes(run).items()
        if before.get(name) != now
    ]
    if changes:
        lines = "".join(f"\n  {change}" for change in changes)
        raise FingerprintError(
            f"'{run.folder}' holds a run with other settings:{lines}\n"
            f"Give the same settings to go on with it, or another run.folder."
        )
    return True


def open_run_folder(run: Run, ids: Sequence[str], processes: int = 1) -> None:
    """Write what the run is made of, and add this sitting to its list.

    Args:
        run: The run; `check_run_folder` has let it pass.
        ids: Every recording that training may read.
        processes: Processes that train together.
    """
    run.folder.mkdir(parents=True, exist_ok=True)
    sitting = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "words": list(run.words),
        "processes": processes,
        "versions": versions(),
        "commit": commit(),
    }
    path = run.folder / RUN_FILE
    sources = _source_hashes(run)
    fresh: dict[str, Any] = {
        "recipe": run.recipe,
        "task": run.task,
        "data_hash": hash_json(sources),
    }
    fresh |= {"sources": sources, "sittings": []}
    record = read_json(path) if path.is_file() else fresh
    record["sittings"].append(sitting)
    atomic_write_json(path, record)
    atomic_write_text(run.folder / IDS_FILE, "".join(f"{item}\n" for item in ids))
    if not (run.folder / CONFIG_FILE).is_file():
        text = yaml.safe_dump(_plain(run.settings()), sort_keys=False, allow_unicode=True)
        atomic_write_text(run.folder / CONFIG_FILE, text)


def settings_diff(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """List the settings that differ and matter, as `key: old -> new`.

    Args:
        old: A tree of settings.
        new: Another one.
    """
    left, right = _flat(_plain(old)), _flat(_plain(new))
    return [
        f"{key}: {_said(left, key)} -> {_said(right, key)}"
        for key in sorted({*left, *right})
        if key not in _FREE and left.get(key, ...) != right.get(key, ...)
    ]


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that matter."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def commit() -> str:
    """Return the commit of the checkout, with `+` where it was changed; empty for a package."""
    root = Path(speechadapt.__file__).parent.parent
    if not (root / ".git").exists():
        return ""
    try:
        head = _git(root, "rev-parse", "HEAD")
        return head + ("+" if _git(root, "status", "--porcelain", "--", "speechadapt") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(root: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", "--no-optional-locks", *words],
        cwd=root, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip()


def _source_hashes(run: Run) -> dict[str, str]:
    return {name: hash_file(path) for name, path in sorted(run.sources().items())}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return value


def _filled(stored: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return stored settings with those that are missing at their defaults, group by group."""
    filled = {**defaults, **stored}
    for key, value in defaults.items():
        if isinstance(value, Mapping) and isinstance(filled[key], Mapping):
            filled[key] = _filled(filled[key], value)
    return filled


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {path: value}
    found: dict[str, Any] = {}
    for key, part in value.items():
        found |= _flat(part, f"{path}.{key}" if path else str(key))
    return found


def _said(flat: Mapping[str, Any], key: str) -> str:
    return repr(flat[key]) if key in flat else "absent"


def _short(digest: str | None) -> str:
    return "absent" if digest is None else digest[:12]
