"""Write the transcripts of training splits, one a line, for a decoder's word n-gram.

Usage: training_texts.py CORPUS ... --output FILE [--data ROOT]

The pack's folder comes from --data or SPEECHADAPT_DATA. Dev and test texts are never read.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from speechadapt.core.errors import SpeechadaptError
from speechadapt.core.files import atomic_write_text
from speechadapt.data.corpora.pack import load_splits


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpora", nargs="+")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=os.environ.get("SPEECHADAPT_DATA", ""))
    arguments = parser.parse_args()
    try:
        utterances = load_splits(Path(arguments.data), arguments.corpora, "train")
    except SpeechadaptError as error:
        print(f"training_texts: {error}", file=sys.stderr)
        return 2
    lines = [one.text for one in utterances if one.text]
    atomic_write_text(arguments.output, "".join(f"{line}\n" for line in lines))
    print(f"{len(lines)} texts, {len(set(lines))} different")
    return 0


if __name__ == "__main__":
    sys.exit(main())
