"""Grow command-line flags from the fields of an options dataclass."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, fields
from typing import Annotated, Any, get_type_hints

import typer

_HIDDEN = "__other_spelling"


def command_for(
    options: type[Any], run: Callable[[Any], int], help_text: str
) -> Callable[..., None]:
    """Build a typer command whose flags are the fields of a dataclass.

    Each field becomes `--field-name`; the spelling with underscores and the long names in the
    field's metadata are accepted without cluttering the help. The field `inputs` becomes the
    positional arguments. Fields of the class itself are listed before those it inherits.

    Args:
        options: A dataclass whose fields carry `help` and `names` in their metadata.
        run: Receives the options and returns the exit code.
        help_text: The command's help.

    Returns:
        A function for `typer.Typer.command`.
    """
    hints = get_type_hints(options)

    def command(**values: Any) -> None:
        raise typer.Exit(run(options(**_merge(values))))

    parameters: list[inspect.Parameter] = []
    for entry in _in_order(options):
        hint = hints[entry.name]
        hint = list[str] if hint == tuple[str, ...] else hint
        parameters.append(_shown(entry, hint))
        if entry.name != "inputs":
            parameters.extend(_hidden(entry, hint))
    command.__doc__ = help_text
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {part.name: part.annotation for part in parameters}
    return command


def _in_order(options: type[Any]) -> list[Field[Any]]:
    """Return inputs and output, then the fields of the class itself, then those it inherits."""
    own = options.__annotations__

    def rank(entry: Field[Any]) -> int:
        return 0 if entry.name in ("inputs", "output") else 1 if entry.name in own else 2

    return sorted(fields(options), key=rank)


def _merge(values: Mapping[str, Any]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for name, value in values.items():
        if not name.endswith(_HIDDEN):
            merged[name] = tuple(value) if isinstance(value, list) else value
        elif value not in (None, []):
            target = name.removesuffix(_HIDDEN)
            merged[target] = (*merged[target], *value) if isinstance(value, list) else value
    return merged


def _shown(entry: Field[Any], hint: Any) -> inspect.Parameter:
    if entry.name == "inputs":
        info: Any = typer.Argument(
            help="Files, folders, globs, manifests (.jsonl), lists (.txt); paths or URLs."
        )
        return _parameter(entry.name, hint, info, inspect.Parameter.empty)
    dashed = f"--{entry.name.replace('_', '-')}"
    shorts = [name for name in entry.metadata["names"] if not name.startswith("--")]
    names = [f"{dashed}/--no-{dashed[2:]}"] if hint is bool else [dashed]
    info = typer.Option(*names, *shorts, help=entry.metadata["help"])
    return _parameter(entry.name, hint, info, _default(entry))


def _hidden(entry: Field[Any], hint: Any) -> list[inspect.Parameter]:
    longs = [name for name in entry.metadata["names"] if name.startswith("--")]
    if "_" in entry.name:
        longs.append(f"--{entry.name}")
    if not longs:
        return []
    names = [f"{name}/--no_{name[2:]}" for name in longs] if hint is bool else longs
    several = hint == list[str]
    info = typer.Option(*names, hidden=True)
    kind = hint if several else hint | None
    return [_parameter(entry.name + _HIDDEN, kind, info, [] if several else None)]


def _parameter(name: str, hint: Any, info: Any, default: Any) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=Annotated[hint, info])


def _default(entry: Field[Any]) -> Any:
    if entry.default is MISSING:
        raise TypeError(f"option '{entry.name}' has no default")
    return list(entry.default) if isinstance(entry.default, tuple) else entry.default
