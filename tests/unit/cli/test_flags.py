"""Flags grown from a dataclass: names, spellings, kinds and defaults come from the fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import typer

from speechadapt.cli.flags import command_for


def setting(default: Any, text: str, *names: str) -> Any:
    """Declare a field as options dataclasses do."""
    return field(default=default, metadata={"help": text, "names": names})


@dataclass(frozen=True)
class Options:
    """Options of a made-up verb."""

    inputs: tuple[str, ...] = ()
    output: str = setting("", "Where to.", "-o", "--output_dir")
    batch_size: int = setting(16, "Clips in a batch.")
    limit_s: float | None = setting(None, "Seconds.")
    vad: bool = setting(True, "Find speech.")
    include: tuple[str, ...] = setting((), "Patterns.", "--only")


@pytest.fixture
def run() -> Callable[..., tuple[int, Options | None]]:
    """Run the made-up verb and return its exit code and the options it received."""

    def call(*arguments: str) -> tuple[int, Options | None]:
        received: list[Options] = []

        def act(options: Options) -> int:
            received.append(options)
            return 3

        app = typer.Typer(pretty_exceptions_enable=False)
        app.command()(command_for(Options, act, "Do it."))
        with pytest.raises(SystemExit) as ended:
            app(args=list(arguments), prog_name="verb")
        return int(ended.value.code or 0), (received[0] if received else None)

    return call


Run = Callable[..., tuple[int, Options | None]]


def test_without_flags_the_dataclass_has_its_defaults(run: Run) -> None:
    assert run("a.flac", "b") == (3, Options(inputs=("a.flac", "b")))


def test_every_spelling_reaches_the_field(run: Run) -> None:
    wanted = Options(inputs=("a",), output="out", batch_size=4)
    for flags in (
        ["-o", "out", "--batch-size", "4"],
        ["--output", "out", "--batch_size", "4"],
        ["--output_dir", "out", "--batch-size=4"],
    ):
        assert run("a", *flags) == (3, wanted)


def test_booleans_are_real_and_lists_gather_both_spellings(run: Run) -> None:
    code, options = run("a", "--no-vad", "--include", "x", "--only", "y", "--include", "z")
    assert code == 3
    assert options == Options(inputs=("a",), vad=False, include=("x", "z", "y"))


def test_numbers_are_checked_as_numbers(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("a", "--limit-s", "2.5") == (3, Options(inputs=("a",), limit_s=2.5))
    assert run("a", "--limit-s", "long") == (2, None)
    assert "--limit-s" in capsys.readouterr().err


def test_help_shows_each_field_once_and_hides_other_spellings(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--help") == (0, None)
    printed = capsys.readouterr().out
    for flag in ("--output", "-o", "--batch-size", "--no-vad", "--include"):
        assert flag in printed
    for hidden in ("--output_dir", "--batch_size", "--only"):
        assert hidden not in printed


def test_a_field_without_a_default_is_a_mistake_of_the_programmer() -> None:
    @dataclass(frozen=True)
    class Bare:
        name: str = field(metadata={"help": "Name.", "names": ()})

    with pytest.raises(TypeError, match="option 'name' has no default"):
        command_for(Bare, lambda _: 0, "Do it.")
