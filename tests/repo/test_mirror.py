"""Every module has its test file at the mirrored place, or a stated reason to have none."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.repo.project import PACKAGE, ROOT, modules, parsed

# Modules without a test file of their own: why, and the `tests/...` that covers them.
EXCEPTIONS: dict[str, str] = {}


def test_every_module_has_a_mirrored_test() -> None:
    missing = [
        f"{path} has no {mirror(path)}"
        for path in modules()
        if holds_code(path) and not has_test(path) and path.as_posix() not in EXCEPTIONS
    ]
    assert not missing, "\n".join(missing)


def test_exceptions_are_still_exceptions() -> None:
    for name, reason in EXCEPTIONS.items():
        assert (PACKAGE / name).is_file(), f"{name} is gone"
        assert not has_test(Path(name)), f"{name} has its own test now"
        tests = [word.strip("`,.;") for word in reason.split() if word.startswith("`tests/")]
        assert tests, f"{name}: the reason names no test"
        for test in tests:
            assert (ROOT / test).exists(), f"{name}: {test} is not there"


def test_every_unit_test_mirrors_a_module() -> None:
    known = {mirror(path) for path in modules()}
    unit = sorted((ROOT / "tests" / "unit").rglob("test_*.py"))
    strays = [path.relative_to(ROOT) for path in unit if path.relative_to(ROOT) not in known]
    assert not strays, f"no module belongs to {', '.join(map(str, strays))}"


def mirror(path: Path) -> Path:
    """Return the test file of a module given by its path in the package."""
    stem = path.parent.name if path.stem == "__init__" else path.stem
    folder = path.parent.parent if path.stem == "__init__" else path.parent
    return Path("tests") / "unit" / folder / f"test_{stem or 'init'}.py"


def has_test(path: Path) -> bool:
    """Say whether the mirrored test file is there and holds a test."""
    test = ROOT / mirror(path)
    return test.is_file() and "def test_" in test.read_text(encoding="utf-8")


def holds_code(path: Path) -> bool:
    """Say whether a module holds anything but its docstring, imports and `__all__`."""
    tree = parsed(PACKAGE / path)
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.walk(tree))
