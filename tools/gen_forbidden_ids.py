"""Write the list of items no bundled model may be trained on: tests/repo/forbidden_ids.txt.

    SPEECHADAPT_DATA=... python tools/gen_forbidden_ids.py [--check]

Forbidden are all items outside the `train` splits of the pack, and the clean source, the noise and
the room response of every mixture, whatever their split.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speechadapt.core.files import atomic_write_text, read_lines

TARGET = Path(__file__).resolve().parents[1] / "tests" / "repo" / "forbidden_ids.txt"
HEAD = "# Written by tools/gen_forbidden_ids.py: no bundled model may be trained on these items.\n"


def main() -> int:
    root = os.environ.get("SPEECHADAPT_DATA")
    if not root:
        print("set SPEECHADAPT_DATA to the folder of the development pack", file=sys.stderr)
        return 2
    rows = [
        row
        for path in sorted((Path(root) / "manifests").glob("*.jsonl"))
        for _, row in read_lines(path)
    ]
    text = HEAD + "".join(f"{name}\n" for name in sorted(forbidden(rows)))
    if "--check" not in sys.argv[1:]:
        atomic_write_text(TARGET, text)
        return 0
    fresh = TARGET.is_file() and TARGET.read_text(encoding="utf-8") == text
    if not fresh:
        print(f"{TARGET.name} is stale: run tools/gen_forbidden_ids.py", file=sys.stderr)
    return 0 if fresh else 1


def forbidden(rows: list[Mapping[str, Any]]) -> set[str]:
    """Return the forbidden ids of the pack's rows.

    Raises:
        ValueError: A mixture names a source the pack does not hold.
    """
    known = {row["id"] for row in rows}
    found = {row["id"] for row in rows if row["split"] != "train"}
    for row in rows:
        if "clean_id" in row:
            found.add(row["clean_id"])
        if row.get("rir"):
            found.add(row["rir"])
        found |= set(row.get("parts", ()))
        if row.get("noise_file"):
            # A noise is named by its file in the source; ids end in that file's stem.
            stem = Path(row["noise_file"]).stem
            found |= {name for name in known if name.endswith(stem)} or {f"missing {stem}"}
    unknown = sorted(found - known)
    if unknown:
        raise ValueError(f"the pack has no item '{unknown[0]}' ({len(unknown)} in all)")
    return found


if __name__ == "__main__":
    sys.exit(main())
