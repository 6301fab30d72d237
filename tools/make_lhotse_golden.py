"""Write `tests/data/lhotse` with lhotse 1.33: cuts as JSON lines, and a Shar folder of two shards.

It needs the extra `lhotse`; run `python tools/make_lhotse_golden.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import soundfile

FOLDER = Path(__file__).parents[1] / "tests" / "data" / "lhotse"
RATE = 16000


def main() -> None:
    """Write all files; paths in them are relative to the folder."""
    from lhotse import CutSet, MonoCut, Recording, SupervisionSegment

    (FOLDER / "audio").mkdir(parents=True, exist_ok=True)
    (FOLDER / "shar").mkdir(exist_ok=True)
    os.chdir(FOLDER)
    for name, samples, pitch in (("a", 8000, 300), ("b", 4800, 500)):
        tone = 0.1 * np.sin(2 * np.pi * pitch * np.arange(samples) / RATE)
        soundfile.write(f"audio/{name}.flac", tone, RATE)
    first, second = (
        Recording.from_file(f"audio/{name}.flac", recording_id=name) for name in ("a", "b")
    )
    whole = SupervisionSegment(
        "a-s", "a", 0.0, 0.5, text="z\u00e9ro un", language="fr", speaker="ann",
        custom={"mood": "calm"},
    )  # fmt: skip
    late = SupervisionSegment("late", "a", 0.1, 0.1, text="deux", language="fr", speaker="bob")
    early = SupervisionSegment("early", "a", 0.0, 0.1, text="un", language="fr", speaker="ann")
    train, dev = {"split": "train"}, {"split": "dev"}
    cuts = CutSet.from_cuts(
        [
            MonoCut("a-whole", 0.0, 0.5, 0, [whole], recording=first, custom=train),
            MonoCut("a-part", 0.125, 0.25, 0, [late, early], recording=first, custom=train),
            MonoCut("b/silent.1", 0.0, 0.3, 0, [], recording=second, custom=dev),
        ]
    )
    for name in ("cuts.jsonl", "cuts.jsonl.gz"):
        cuts.to_file(name)
    cuts.to_shar("shar", fields={"recording": "flac"}, shard_size=2)


if __name__ == "__main__":
    main()
