"""`speechadapt doctor`: what is installed, what loads, and the one command that mends the rest.

Installed is not loadable: a torchaudio built for another torch is found by package tools, fails at
import, and takes the feature extractors of transformers with it. So every dependency is imported,
and the parts that matter are used once.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from speechadapt.models.card import bundled_models

HELP = "Check the installation: versions, what loads, and how to mend what does not."

PACKAGE = "speechadapt"
PAIR = ("torch", "torchaudio")  # built for one another: mended together or not at all

# Distributions whose module has another name.
MODULES = {
    "hydra-core": "hydra",
    "huggingface-hub": "huggingface_hub",
    "scikit-learn": "sklearn",
    "silero-vad": "silero_vad",
}


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Args:
        area: `core`, `extra`, `model` or `machine`.
        name: What was checked.
        state: `ok`, `failed`, `absent` or `note`.
        detail: Version or reason.
        requirement: What pip would need to be given to mend it, if anything.
    """

    area: str
    name: str
    state: str
    detail: str
    requirement: str = ""


def command() -> None:
    """Check the installation; exit code 1 when something in the core does not work."""
    findings = diagnose()
    print(report(findings))
    if any(finding.state == "failed" for finding in findings):
        raise typer.Exit(1)


def diagnose() -> list[Finding]:
    """Run every check.

    Returns:
        Findings in the order they are printed.
    """
    requirements = importlib.metadata.requires(PACKAGE) or []
    core = [_check_library(text) for text in requirements if "extra ==" not in text]
    findings = [_check_python(), *core]
    if all(finding.state == "ok" for finding in core):
        findings += [
            _attempt("feature extractors", _load_extractors, "torchaudio"),
            _attempt("forced alignment", _align_once, "torchaudio"),
            _attempt("audio round trip", _round_trip, "soundfile"),
        ]
    return findings + _check_extras(requirements) + _check_models() + _check_machine()


def report(findings: Iterable[Finding]) -> str:
    """Lay the findings out as text that ends with the one command that mends the core."""
    listed = list(findings)
    width = max(len(finding.name) for finding in listed)
    lines = []
    for area in dict.fromkeys(finding.area for finding in listed):
        lines.append(area)
        lines += [
            f"  {finding.state:<7} {finding.name:<{width}}  {finding.detail}".rstrip()
            for finding in listed
            if finding.area == area
        ]
    failed = [finding for finding in listed if finding.state == "failed"]
    if not failed:
        return "\n".join([*lines, "", "Everything in the core works."])
    names = ", ".join(finding.name for finding in failed)
    return "\n".join([*lines, "", f"Not working: {names}. To mend it:", f"  {mend(failed)}"])


def mend(failed: Iterable[Finding]) -> str:
    """Return the one command that mends what failed."""
    wanted = {finding.requirement for finding in failed if finding.requirement}
    if not wanted:
        return _mend_models()
    options = []
    pair = {_requirement(name) for name in PAIR}
    if wanted & pair:
        # pip counts a torch of another build as satisfying the range, so it must be told.
        options = ["--force-reinstall"]
        wanted |= pair
    return shlex.join([sys.executable, "-m", "pip", "install", *options, *sorted(wanted)])


def _mend_models() -> str:
    root = Path(__file__).parents[2]
    if (root / "pyproject.toml").is_file():
        return shlex.join(["git", "-C", str(root), "checkout", "--", f"{PACKAGE}/pretrained"])
    arguments = ["install", "--force-reinstall", "--no-deps", PACKAGE]
    return shlex.join([sys.executable, "-m", "pip", *arguments])


def _requirement(name: str) -> str:
    requirements = importlib.metadata.requires(PACKAGE) or []
    return next(text for text in requirements if _name(text) == name)


def _check_python() -> Finding:
    machine = f"{platform.system()} {platform.machine()}"
    return Finding("core", "python", "ok", f"{platform.python_version()} ({machine})")


def _check_library(requirement: str) -> Finding:
    name = _name(requirement)
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Finding("core", name, "failed", "not installed", requirement)
    problem = _import_problem(MODULES.get(name, name))
    if problem:
        return Finding("core", name, "failed", f"{version}, does not load: {problem}", requirement)
    if not _in_range(requirement, version):
        return Finding("core", name, "failed", f"{version}, wanted {requirement}", requirement)
    return Finding("core", name, "ok", version)


def _check_extras(requirements: Iterable[str]) -> list[Finding]:
    extras: dict[str, list[str]] = {}
    for text in requirements:
        found = re.search(r"extra == ['\"]([^'\"]+)['\"]", text)
        if found:
            extras.setdefault(found.group(1), []).append(_name(text))
    return [_check_extra(extra, names) for extra, names in extras.items()]


def _check_extra(extra: str, names: list[str]) -> Finding:
    versions, missing = [], []
    for name in names:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        hint = f"pip install '{PACKAGE}[{extra}]' (lacks {', '.join(missing)})"
        return Finding("extra", extra, "absent", hint)
    return Finding("extra", extra, "ok", ", ".join(versions))


def _check_models() -> list[Finding]:
    models = bundled_models()
    if not models:
        return [Finding("model", "bundled models", "absent", "name one with --model")]
    return [_check_model(name, folder) for name, folder in models.items()]


def _check_model(name: str, folder: Path) -> Finding:
    weights = sorted(folder.rglob("*.safetensors"))  # a restorer keeps its parts in folders
    if not weights:
        return Finding("model", name, "failed", f"no weights in {folder}")
    from safetensors import safe_open

    count = 0
    for path in weights:
        try:
            with safe_open(path, framework="numpy") as tensors:
                count += len(list(tensors.keys()))
        except Exception as error:
            return Finding("model", name, "failed", f"{path.name}: {_first_line(error)}")
    size = sum(path.stat().st_size for path in weights) / 1e6
    return Finding("model", name, "ok", f"{count} tensors, {size:.1f} MB")


def _check_machine() -> list[Finding]:
    offline = os.environ.get("HF_HUB_OFFLINE", "") or "not set"
    root = os.environ.get("SPEECHADAPT_DATA", "") or "not set (only training needs it)"
    return [
        Finding("machine", "device", "note", _device()),
        Finding("machine", "HF_HUB_OFFLINE", "note", offline),
        Finding("machine", "SPEECHADAPT_DATA", "note", root),
    ]


def _device() -> str:
    if _import_problem("torch"):
        return "unknown: torch does not load"
    import torch

    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name()}, {torch.cuda.device_count()} in all"
    if torch.backends.mps.is_available():
        return "mps"
    return f"cpu, {torch.get_num_threads()} threads"


def _load_extractors() -> str:
    import transformers

    names = ("WhisperFeatureExtractor", "SeamlessM4TFeatureExtractor", "ASTFeatureExtractor")
    for name in names:
        getattr(transformers, name)()
    return ", ".join(names)


def _align_once() -> str:
    import torch
    from torchaudio.functional import forced_align

    scores = torch.log_softmax(torch.tensor([[[0.0, 4.0], [4.0, 0.0], [0.0, 4.0]]]), dim=-1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchaudio announces a move of this function
        labels, _ = forced_align(scores, torch.tensor([[1, 1]], dtype=torch.int32), blank=0)
    if labels.tolist() != [[1, 0, 1]]:
        raise RuntimeError(f"expected labels [[1, 0, 1]], got {labels.tolist()}")
    return "torchaudio.functional.forced_align"


def _round_trip() -> str:
    import io

    import numpy
    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, numpy.zeros(160, dtype=numpy.float32), 16000, format="FLAC")
    buffer.seek(0)
    samples, rate = soundfile.read(buffer)
    if len(samples) != 160 or rate != 16000:
        raise RuntimeError(f"160 samples at 16000 Hz came back as {len(samples)} at {rate} Hz")
    return f"flac by libsndfile {soundfile.__libsndfile_version__}"


def _attempt(name: str, action: Callable[[], str], library: str) -> Finding:
    try:
        return Finding("core", name, "ok", action())
    except Exception as error:
        return Finding("core", name, "failed", _first_line(error), _requirement(library))


def _import_problem(module: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's deprecations are not findings
            importlib.import_module(module)
    except Exception as error:
        return _first_line(error)
    return ""


def _in_range(requirement: str, version: str) -> bool:
    from packaging.requirements import Requirement

    return Requirement(requirement).specifier.contains(version, prereleases=True)


def _name(requirement: str) -> str:
    return re.split(r"[\s<>=!~;\[(]", requirement, maxsplit=1)[0]


def _first_line(error: Any) -> str:
    text = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {text}"[:160]
