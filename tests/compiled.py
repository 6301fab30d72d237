"""Importing this lets the libraries that the package imports be read from their compiled files.

While jaxtyping's import hook loads a module of the package, it gives compiled files a name of their
own: those of the module, whose functions it wraps, and also those of every library the module
imports. Each process of each run would compile torch and transformers anew.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from jaxtyping import _import_hook as hook

_PACKAGE = str(Path(__file__).parents[1] / "speechadapt")
_name_of_its_own = hook._optimized_cache_from_source


def _for_the_package_alone(checker: str, path: str) -> str:
    if path.startswith(_PACKAGE):
        return _name_of_its_own(checker, path)
    return importlib.util.cache_from_source(path)


hook._optimized_cache_from_source = _for_the_package_alone
