"""Fill frozen dataclasses from a plain tree, and report everything that does not fit at once.

The dataclasses are the schema: names, types and defaults are theirs, ranges stand in their
annotations (`core.limits`). A dataclass may add `problems()`, for settings that do not fit one
another or point at files that are not there; it is called once its fields are filled.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import (
    Annotated,
    Any,
    Literal,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    runtime_checkable,
)

from speechadapt.core.errors import near_misses
from speechadapt.core.limits import Range

Schema = TypeVar("Schema")


@runtime_checkable
class Checked(Protocol):
    """Settings that can say what is wrong with them as a whole."""

    def problems(self) -> list[str]:
        """Return one sentence for each thing that is wrong."""
        ...


def bind(
    schema: type[Schema], values: Mapping[str, Any], path: str = ""
) -> tuple[Schema, list[str]]:
    """Fill `schema` from `values`.

    Args:
        schema: A dataclass, possibly of dataclasses, whose fields all have defaults.
        values: A tree of plain values; fields it does not name keep their defaults.
        path: Where the settings stand in a larger tree, for what is said about them.

    Returns:
        The object, with defaults where a value does not fit, and what does not fit.
    """
    problems: list[str] = []
    return _bind(schema, values, path, problems), problems


def check(settings: Any, path: str = "") -> list[str]:
    """Say what is wrong with a dataclass that Python code has filled: types and ranges.

    Args:
        settings: An object of a dataclass that `bind` could fill.
        path: Where the settings stand in a larger tree.
    """
    values = {entry.name: getattr(settings, entry.name) for entry in fields(settings)}
    hints = _hints(type(settings))
    problems: list[str] = []
    for name, value in values.items():
        if is_dataclass(value):
            problems += check(value, _join(path, name))
        elif problem := _convert(hints[name], value)[1]:
            problems.append(f"{_join(path, name)} {problem}.")
    if isinstance(settings, Checked):
        problems += settings.problems()
    return problems


def _bind(schema: type[Any], values: Any, path: str, problems: list[str]) -> Any:
    if not isinstance(values, Mapping):
        problems.append(f"{path} must be a group of settings, got {values!r}.")
        values = {}
    hints = _hints(schema)
    for key in values:
        if key not in hints:
            problems.append(f"there is no setting '{_join(path, key)}'.{near_misses(key, hints)}")
    filled = {
        entry.name: _field(entry, hints[entry.name], values, path, problems)
        for entry in fields(schema)
    }
    result = schema(**filled)
    if isinstance(result, Checked):
        problems.extend(result.problems())
    return result


def _field(
    entry: Field[Any], hint: Any, values: Mapping[str, Any], path: str, problems: list[str]
) -> Any:
    place = _join(path, entry.name)
    if is_dataclass(hint):
        return _bind(hint, values.get(entry.name, {}), place, problems)  # type: ignore[arg-type]
    default = entry.default_factory() if entry.default_factory is not MISSING else entry.default
    if entry.name not in values:
        return default
    value, problem = _convert(hint, values[entry.name])
    if problem:
        problems.append(f"{place} {problem}.")
        return default
    return value


def _convert(hint: Any, value: Any) -> tuple[Any, str | None]:
    """Return `value` as `hint` wants it, or what is wrong with it."""
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any:  # another schema's values, which its owner binds
        return value, None
    if origin is Annotated:
        converted, problem = _convert(arguments[0], value)
        for limit in arguments[1:]:
            if isinstance(limit, Range) and problem is None:
                problem = limit.problem(converted)
        return converted, problem
    if origin is Literal:
        good = value in arguments and type(value) in {type(item) for item in arguments}
        near = f"{value!r}.{near_misses(str(value), map(str, arguments))}".rstrip(".?")
        return value, None if good else f"must be one of {list(arguments)}, got {near}"
    if origin in (Union, types.UnionType):
        return _convert_union(arguments, value)
    if origin is tuple:
        return _convert_tuple(arguments, value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _convert_mapping(arguments, value)
    return _convert_scalar(hint, value)


def _convert_union(arguments: tuple[Any, ...], value: Any) -> tuple[Any, str | None]:
    if value is None and type(None) in arguments:
        return None, None
    problem: str | None = None
    for hint in arguments:
        if hint is not type(None):
            converted, problem = _convert(hint, value)
            if problem is None:
                return converted, None
    return value, problem


def _convert_tuple(arguments: tuple[Any, ...], value: Any) -> tuple[Any, str | None]:
    if not isinstance(value, list | tuple):
        return value, f"must be a list, got {value!r}"
    hints = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
    if len(hints) != len(value):
        return value, f"must be a list of {len(hints)} values, got {list(value)}"
    parts = [_convert(hint, part) for hint, part in zip(hints, value, strict=True)]
    problem = next((f"item {n} {p}" for n, (_, p) in enumerate(parts) if p), None)
    return tuple(part for part, _ in parts), problem


def _convert_mapping(arguments: tuple[Any, ...], value: Any) -> tuple[Any, str | None]:
    if not isinstance(value, Mapping):
        return value, f"must map names to values, got {value!r}"
    parts = {str(key): _convert(arguments[1], part) for key, part in value.items()}
    problem = next((f"'{key}' {p}" for key, (_, p) in parts.items() if p), None)
    return {key: part for key, (part, _) in parts.items()}, problem


def _convert_scalar(hint: Any, value: Any) -> tuple[Any, str | None]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is float and number:
        return float(value), None
    if hint is int and number and float(value).is_integer():
        return int(value), None
    if hint in (bool, str) and isinstance(value, hint):
        return value, None
    if hint is str and number:
        return str(value), None
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
    return value, f"must be {names.get(hint, str(hint))}, got {value!r}"


def _hints(schema: type[Any]) -> dict[str, Any]:
    return get_type_hints(schema, include_extras=True)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
