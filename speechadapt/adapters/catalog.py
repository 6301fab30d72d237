"""The adapter methods by name. The folder is the catalogue.

A file `methods/<name>.py` that publishes `METHOD` is the method `<name>`. Other packages offer
theirs as entry points of the group `speechadapt.adapters`: `name = "package.module"`, where the
module publishes `METHOD` (or `"package.module:METHOD"`). Listing names and titles imports no method
and no torch.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from speechadapt.core.errors import CatalogError, near_misses

if TYPE_CHECKING:
    from speechadapt.adapters.spec import Method

GROUP = "speechadapt.adapters"
_FOLDER = Path(__file__).parent / "methods"


def method_names() -> list[str]:
    """List the methods, sorted, this package's and those of others."""
    return sorted({*_own(), *_others()})


def method(name: str) -> Method:
    """Return one method.

    Args:
        name: Its file's stem, or the name of its entry point.

    Raises:
        CatalogError: There is no such method (near misses are named), or its module cannot be
            imported or publishes no `METHOD`.
    """
    from speechadapt.adapters.spec import Method

    own = name in _own()
    path = f"speechadapt.adapters.methods.{name}" if own else _other(name).value
    module, _, attribute = path.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute or "METHOD", None)
    except (ImportError, SyntaxError) as error:
        raise CatalogError(
            f"adapter method '{name}' was to be imported from {module}, but: {error}"
        ) from error
    if not isinstance(found, Method):
        raise CatalogError(
            f"adapter method '{name}' was looked for in {module}, which publishes no METHOD. "
            "Set METHOD = Method(...) at the end of that file."
        )
    return found


def title(name: str) -> str:
    """Return the first line of a method's docstring, without running its file.

    Raises:
        CatalogError: There is no such method.
    """
    path = _source(name)
    if path is None or not path.is_file():
        return ""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.split("\n")[0]


def _source(name: str) -> Path | None:
    own = _own()
    if name in own:
        return own[name]
    found = importlib.util.find_spec(_other(name).value.partition(":")[0])
    return Path(found.origin) if found and found.origin else None


def _own() -> dict[str, Path]:
    return {path.stem: path for path in _FOLDER.glob("*.py") if not path.stem.startswith("_")}


def _other(name: str) -> EntryPoint:
    others = _others()
    if name not in others:
        raise CatalogError(
            f"there is no adapter method '{name}'.{near_misses(name, method_names())}"
        )
    return others[name]


def _others() -> dict[str, EntryPoint]:
    """Return the methods of other packages.

    Raises:
        CatalogError: One has the name of another.
    """
    found: dict[str, EntryPoint] = {}
    own = _own()
    for point in entry_points(group=GROUP):
        twin = found.get(point.name)
        # one distribution may be found twice, as when its folder is on the path twice
        if point.name in own or (twin is not None and twin.value != point.value):
            raise CatalogError(
                f"the entry point '{point.name} = {point.value}' of the group {GROUP} has the name "
                "of a method that is there already. Give it another name."
            )
        found[point.name] = point
    return found
