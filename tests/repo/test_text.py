"""The words of the project: no machine's paths, no vague names, nothing left to do in silence."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from tests.repo.project import PACKAGE, modules, parsed, text_files

# Joined from halves so that this file does not match itself.
MACHINE_PATHS = re.compile(
    r"(?<![\w.~/-])/(?:" + "|".join(("ho" + "me", "Us" + "ers", "ro" + "ot", "wo" + "rk")) + r")/\w"
)
BANNED_TEXT = (
    re.compile(r"\bissue" + r" #?\d", re.IGNORECASE),
    re.compile(r"\b(?:TO" + "DO|FIX" + "ME|XX" + r"X)\b"),
    re.compile(r"\bpy" + r"pi\.(?:org|io)|\bfiles\.python" + "hosted"),
)
BANNED_NAMES = {
    "wav": "waveform",
    "wavs": "waveforms",
    "sr": "sample_rate",
    "audio_array": "waveform",
    "pad_mask": "mask",
    "backbone": "encoder",
    "upstream": "encoder",
    "target_modules": "roles",
    "lora_alpha": "alpha",
    "reduction_factor": "bottleneck",
    "hyp": "hypothesis",
    "hyps": "hypotheses",
    "gt": "reference",
    "pred": "hypothesis",
    "preds": "hypotheses",
}


def test_no_file_names_a_path_of_some_machine() -> None:
    hits = [
        f"{path} line {number}: {line.strip()[:80]}"
        for path, text in text_files()
        for number, line in enumerate(text.splitlines(), 1)
        if MACHINE_PATHS.search(line)
    ]
    assert not hits, "\n".join(hits)


def test_no_file_holds_banned_words() -> None:
    hits = [
        f"{path} line {number}: {line.strip()[:80]}"
        for path, text in text_files()
        for number, line in enumerate(text.splitlines(), 1)
        for pattern in BANNED_TEXT
        if pattern.search(line)
    ]
    assert not hits, "\n".join(hits)


def test_names_in_the_package_are_whole_words() -> None:
    hits = [
        f"{path}: {name} (use {BANNED_NAMES[name]})"
        for path in modules()
        for name in names_of(parsed(PACKAGE / path))
        if name in BANNED_NAMES
    ]
    assert not hits, "\n".join(hits)


def test_planted_words_are_found() -> None:
    assert MACHINE_PATHS.search("see /ho" + "me/someone/audio")
    assert not MACHINE_PATHS.search("see docs/ho" + "me/page and ./ro" + "ot/x")
    assert any(pattern.search("as in issue" + " 12") for pattern in BANNED_TEXT)
    assert set(names_of(ast.parse("def f(sr): wav = sr"))) >= {"sr", "wav", "f"}


def names_of(tree: ast.AST) -> Iterator[str]:
    """Yield every name a module defines: functions, classes, arguments and variables."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
