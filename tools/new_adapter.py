"""Write the skeleton of a new adapter method of this package, and of its golden test.

    python tools/new_adapter.py tiny_gate

The method is found by its file's place; nothing else needs to be edited. It passes the contract
suite as written. For a method in a package of your own: `speechadapt adapters new`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from speechadapt.adapters.skeleton import golden_test_source, method_source, write_new
from speechadapt.core.errors import SpeechadaptError

ROOT = Path(__file__).resolve().parents[1]
METHODS = "adapters/methods"


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="lower-case words joined by '_'")
    name = parser.parse_args(arguments).name
    module = f"speechadapt.adapters.methods.{name}"
    try:
        files = {
            root / "speechadapt" / METHODS / f"{name}.py": method_source(name),
            root / "tests" / "unit" / METHODS / f"test_{name}.py": golden_test_source(name, module),
        }
        write_new(files)
    except SpeechadaptError as error:
        print(f"new_adapter: {error}", file=sys.stderr)
        return 2
    for path in files:
        print(f"wrote {path.relative_to(root)}")
    print(f"Try it: pytest tests/contract -k {name}. Then add recipes/adapt/{name}.yaml.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
