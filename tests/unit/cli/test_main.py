"""The command line as a whole: verbs by folder scan, exit codes, nothing heavy loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from speechadapt.cli import main as command_line
from speechadapt.core.errors import (
    CatalogError,
    ConfigError,
    DataError,
    FingerprintError,
    MissingExtra,
    SpeechadaptError,
)
from tests.command import call

HEAVY = ("torch", "torchaudio", "transformers", "numpy", "librosa", "hydra", "soundfile")


def run_python(code: str) -> str:
    """Run code in a fresh interpreter and return what it printed last."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip().splitlines()[-1]


def loaded_after(*arguments: str) -> list[str]:
    """Return the modules a fresh process holds after running the command line."""
    code = (
        "import json, sys\n"
        "from speechadapt.cli.main import main\n"
        f"try: main({list(arguments)!r})\n"
        "except SystemExit: pass\n"
        "print(); print(json.dumps(sorted(sys.modules)))"
    )
    modules = json.loads(run_python(code))
    assert isinstance(modules, list)
    return modules


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("no-such-verb",), ()])
def test_asking_for_help_loads_nothing_heavy(arguments: tuple[str, ...]) -> None:
    modules = loaded_after(*arguments)
    assert not [name for name in HEAVY if name in modules]
    verbs = {verb.module for verb in command_line.find_verbs().values()}
    assert not verbs & set(modules)


def test_help_lists_every_verb_with_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    verbs = command_line.find_verbs()
    assert {"doctor", "models", "transcribe"} <= set(verbs)
    assert call("--help") == 0
    printed = capsys.readouterr().out
    for verb in verbs.values():
        assert verb.name in printed
        assert verb.help
        assert verb.help.split()[0] in printed


@pytest.mark.parametrize("name", sorted(command_line.find_verbs()))
def test_every_verb_answers_its_own_help(name: str) -> None:
    assert call(name, "--help") == 0


def test_only_the_called_verb_is_imported() -> None:
    modules = loaded_after("models", "--help")
    assert "speechadapt.cli.models" in modules
    assert "speechadapt.cli.doctor" not in modules


def test_version_is_the_installed_one(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert call("--version") == 0
    assert capsys.readouterr().out.strip() == f"speechadapt {version('speechadapt')}"


def test_an_unknown_verb_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("transcrib") == command_line.EXIT_USAGE
    assert "transcrib" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (CatalogError("x"), 2),
        (FingerprintError("x"), 5),
        (DataError("x"), 1),
        (MissingExtra("ray", "engine 'ray'"), 1),
    ],
)
def test_errors_on_purpose_map_to_exit_codes(error: SpeechadaptError, code: int) -> None:
    assert command_line.exit_code(error) == code


def write_verb(folder: Path, name: str, body: str) -> None:
    """Write one module of a made-up command line."""
    (folder / f"{name}.py").write_text(body, encoding="utf-8")


def test_a_verb_is_read_from_its_source_text(tmp_path: Path) -> None:
    write_verb(tmp_path, "by_constant", 'HELP = "From the constant."\ndef command(): ...\n')
    write_verb(tmp_path, "by_docstring", '"""From the docstring.\n\nMore."""\napp = 1\n')
    write_verb(tmp_path, "helper", '"""No verb."""\ndef flags(): ...\n')
    write_verb(tmp_path, "broken_inside", 'def command(): ...\nraise RuntimeError("imported")\n')
    verbs = command_line.find_verbs(tmp_path, "made_up")
    assert list(verbs) == ["broken-inside", "by-constant", "by-docstring"]
    assert verbs["by-constant"].help == "From the constant."
    assert verbs["by-docstring"].help == "From the docstring."
    assert verbs["by-docstring"].entry == "app"
    assert verbs["by-constant"].module == "made_up.by_constant"


def test_an_error_on_purpose_is_printed_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    body = (
        "from speechadapt.core.errors import ConfigError\n"
        "def command() -> None:\n"
        "    raise ConfigError('--batch-s must be above 0 seconds, got 0.')\n"
    )
    write_verb(tmp_path, "failing_verb", body)
    monkeypatch.syspath_prepend(str(tmp_path))
    verb = command_line.Verb("failing", "failing_verb", "command", "Fail.")
    monkeypatch.setattr(command_line, "find_verbs", lambda: {"failing": verb, "other": verb})
    assert call("failing") == command_line.EXIT_USAGE
    printed = capsys.readouterr().err
    assert printed == "speechadapt: --batch-s must be above 0 seconds, got 0.\n"


def test_a_full_disk_is_a_sentence_with_the_way_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    body = (
        "import errno, os\n"
        "def command() -> None:\n"
        "    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), 'out/a.txt')\n"
    )
    write_verb(tmp_path, "full_verb", body)
    monkeypatch.syspath_prepend(str(tmp_path))
    verb = command_line.Verb("full", "full_verb", "command", "Fill.")
    monkeypatch.setattr(command_line, "find_verbs", lambda: {"full": verb, "other": verb})
    assert call("full") == command_line.EXIT_FAILED
    printed = capsys.readouterr().err
    assert printed == (
        "speechadapt: 'out/a.txt' was to be written, but its disk has no space left (No space left "
        "on device). Free some and give the same command again: jobs and trainings go on where "
        "they stopped.\n"
    )


def test_an_error_that_is_a_bug_keeps_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_verb(tmp_path, "buggy_verb", "def command() -> None:\n    raise ZeroDivisionError\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    verb = command_line.Verb("buggy", "buggy_verb", "command", "Fail.")
    monkeypatch.setattr(command_line, "find_verbs", lambda: {"buggy": verb, "other": verb})
    with pytest.raises(ZeroDivisionError):
        command_line.main(["buggy"])
