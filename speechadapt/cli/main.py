"""The `speechadapt` command: one verb per file of this folder, loaded only when it is called.

A file of this folder is a verb when its top level defines `command` (a function with typer
annotations) or `app` (a `typer.Typer` with sub-commands). Its name is the verb and its `HELP`
string (or else the first line of its docstring) is what `speechadapt --help` shows; both are read
from the source text, so listing the verbs imports none of them.
"""

from __future__ import annotations

import ast
import errno
import importlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from speechadapt.core.errors import (
    CatalogError,
    ConfigError,
    FingerprintError,
    SpeechadaptError,
)

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_FINGERPRINT = 5
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Verb:
    """One verb of the command line, as its source text describes it.

    Args:
        name: What the user types.
        module: The module that holds it.
        entry: `command` or `app`, whichever the module defines.
        help: One line for the list of verbs.
    """

    name: str
    module: str
    entry: str
    help: str


def find_verbs(folder: Path | None = None, package: str = "speechadapt.cli") -> dict[str, Verb]:
    """List the verbs of a folder without importing any of them.

    Args:
        folder: Where the modules are; this file's folder by default.
        package: The package the folder is.

    Returns:
        Verbs by name, in alphabetical order.
    """
    paths = sorted((folder or Path(__file__).parent).glob("*.py"))
    verbs = [_read_verb(path, package) for path in paths if path.stem not in ("__init__", "main")]
    return {verb.name: verb for verb in verbs if verb is not None}


def build_app(called: str | None = None, verbs: dict[str, Verb] | None = None) -> typer.Typer:
    """Build the command line.

    Args:
        called: The verb to import; the others stay as their name and help.
        verbs: The verbs on offer; those of this folder by default.

    Returns:
        The application.
    """
    app = typer.Typer(
        help="Frozen speech encoders with small adapters: transcribe, score, train.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_root)
    for verb in (find_verbs() if verbs is None else verbs).values():
        if verb.name != called:
            app.command(verb.name, help=verb.help)(_not_loaded)
            continue
        entry = getattr(importlib.import_module(verb.module), verb.entry)
        if verb.entry == "app":
            app.add_typer(entry, name=verb.name, help=verb.help)
        else:
            app.command(verb.name)(entry)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its exit code.

    Errors the package raises on purpose are printed without a traceback: exit code 2 for a wrong
    setting or name, 5 for a job folder of other options, 1 for the rest, a full disk among it.

    Args:
        arguments: What stands after `speechadapt`; the process's own arguments by default.

    Raises:
        SystemExit: Always, with the exit code.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    called = next((word for word in given if not word.startswith("-")), None)
    try:
        build_app(called)(args=given, prog_name="speechadapt")
    except SpeechadaptError as error:
        print(f"speechadapt: {error}", file=sys.stderr)
        sys.exit(exit_code(error))
    except OSError as error:
        if error.errno not in _FULL:
            raise
        print(f"speechadapt: {_full_disk(error)}", file=sys.stderr)
        sys.exit(EXIT_FAILED)


def exit_code(error: SpeechadaptError) -> int:
    """Return the exit code of an error the package raised on purpose."""
    if isinstance(error, FingerprintError):
        return EXIT_FINGERPRINT
    if isinstance(error, ConfigError | CatalogError):
        return EXIT_USAGE
    return EXIT_FAILED


def _full_disk(error: OSError) -> str:
    where = (
        f"'{error.filename}' was to be written" if error.filename else "a file was to be written"
    )
    return (
        f"{where}, but its disk has no space left ({error.strerror}). Free some and give the same "
        "command again: jobs and trainings go on where they stopped."
    )


def _read_verb(path: Path, package: str) -> Verb | None:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    names: dict[str, ast.expr | None] = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            names[node.name] = None
        elif isinstance(node, ast.Assign):
            targets = [target for target in node.targets if isinstance(target, ast.Name)]
            names |= dict.fromkeys((target.id for target in targets), node.value)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names[node.target.id] = node.value
    entry = next((name for name in ("command", "app") if name in names), None)
    if entry is None:
        return None
    summary = names.get("HELP")
    if isinstance(summary, ast.Constant) and isinstance(summary.value, str):
        text = summary.value
    else:
        text = (ast.get_docstring(tree) or "").partition("\n")[0]
    return Verb(path.stem.replace("_", "-"), f"{package}.{path.stem}", entry, text)


def _not_loaded() -> None:
    raise AssertionError("a verb that was not called was run")


def _print_version(wanted: bool) -> bool:
    if wanted:
        from importlib.metadata import version

        print(f"speechadapt {version('speechadapt')}")
        raise typer.Exit()
    return wanted


def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Take the options that stand before the verb."""


if __name__ == "__main__":
    main()
