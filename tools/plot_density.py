"""Draw which share of the entries a sparse adapter keeps at each site: a cheap placement study.

    python tools/plot_density.py runs/adapt-sparse/last --output docs/results/density.png

A share well above the others says that the loss feels changes there most. Needs the extra
`report`, and the base the adapter was trained on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from speechadapt.adapters import store
from speechadapt.adapters.methods.sparse import masks_of
from speechadapt.adapters.sparsity import densities, picture
from speechadapt.core.errors import ConfigError, SpeechadaptError
from speechadapt.models.adapted import base_name
from speechadapt.training.adapt.parts import load_base


def shares(folder: Path, base: str = "") -> dict[str, float]:
    """Return the share of entries that a saved adapter keeps, by role.

    Args:
        folder: The adapter's.
        base: What it belongs to, where that lies elsewhere than it says.

    Raises:
        ConfigError: It is of a method without masks.
    """
    stored = store.read(folder)
    encoder, _ = load_base(base or base_name(stored), "full")
    found = masks_of(store.load(encoder, folder).module.by_role())
    if not found:
        raise ConfigError(
            f"'{folder}' was to be drawn, but is of the method '{stored.method}', which keeps "
            "every entry. Name a sparse adapter."
        )
    return densities(found)


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base", default="", help="the base, where it lies elsewhere")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE")
    arguments = parser.parse_args(sys.argv[1:] if words is None else words)
    try:
        found = shares(arguments.folder, arguments.base)
        config = store.read(arguments.folder).config
        title = f"{config['score']}, density {config['density']:g} of {config['host']}"
        picture(found, arguments.output, title)
    except SpeechadaptError as error:
        print(f"plot_density: {error}", file=sys.stderr)
        return 2
    for role, share in sorted(found.items(), key=lambda one: -one[1]):
        print(f"{role}  {share:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
