"""Error rates of a trained `coda` adapter by the share of the frames that go through the encoder.

    python tools/coda_curve.py runs/adapt-coda/best --sets asc/dev --output curve.json

The share is changed after training (`set_share`), not trained anew; the one it was trained for is
marked. How much time a share saves says `tools/bench_coda.py`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechadapt.adapters.handle import attachments
from speechadapt.adapters.methods.coda import set_share
from speechadapt.bench.clips import Clip, batches_of, read_clips
from speechadapt.core.errors import ConfigError, SpeechadaptError
from speechadapt.core.files import atomic_write_json
from speechadapt.metrics.bootstrap import bootstrap_ratio
from speechadapt.metrics.wer import Pair, score_pairs
from speechadapt.models.build import load
from speechadapt.models.recogniser import Recogniser

SHARES = (1.0, 0.5, 0.25, 0.125, 0.0625)
ROWS = 16


def curve(
    recogniser: Recogniser, clips: Sequence[Clip], shares: Sequence[float], normaliser: str
) -> list[dict[str, Any]]:
    """Score a recogniser with every share.

    Args:
        recogniser: With one `coda` adapter.
        clips: With transcripts.
        shares: To set one after the other.
        normaliser: Rules by which texts are compared.

    Raises:
        ConfigError: Its adapter is of another method.
    """
    handles = list(attachments(recogniser.encoder).values())
    if [handle.method_name for handle in handles] != ["coda"]:
        found = ", ".join(handle.method_name for handle in handles) or "none"
        raise ConfigError(f"a curve over shares needs one adapter of the method coda, got {found}.")
    adapters, trained = handles[0].module.adapters(), handles[0].config.share
    rows = []
    for share in shares:
        set_share(adapters, share)
        rows.append(
            {"share": share, "trained": share == trained, **_scored(recogniser, clips, normaliser)}
        )
    return rows


def _scored(recogniser: Recogniser, clips: Sequence[Clip], normaliser: str) -> dict[str, Any]:
    pairs = []
    for batches in batches_of(clips, ROWS).values():
        for batch in batches:
            found = recogniser.decode_batch([clip.waveform for clip in batch])
            pairs += [
                Pair(clip.id, clip.text, one.text, clip.speaker, clip.language)
                for clip, one in zip(batch, found, strict=True)
            ]
    items = score_pairs(pairs, normaliser).items
    speakers = [one.pair.speaker for one in items]
    scores: dict[str, Any] = {"items": len(items)}
    for name in ("words", "characters"):
        counts = [getattr(one, name) for one in items]
        rate = bootstrap_ratio(
            [one.edits for one in counts], [one.reference for one in counts], speakers
        )
        key = {"words": "wer", "characters": "cer"}[name]
        scores |= {key: rate.estimate, f"{key}_interval": [rate.low, rate.high]}
    return scores


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("adapter", type=Path)
    parser.add_argument("--model", help="its base, where not found by name")
    parser.add_argument("--sets", nargs="+", default=["asc/dev"], metavar="CORPUS/SPLIT")
    parser.add_argument("--shares", nargs="+", type=float, default=list(SHARES))
    parser.add_argument("--data", default=os.environ.get("SPEECHADAPT_DATA", ""))
    parser.add_argument("--normaliser", default="verbatim")
    parser.add_argument("--output", type=Path, metavar="FILE")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    arguments = parse(list(sys.argv[1:] if words is None else words))
    try:
        recogniser = load(arguments.model, adapter=arguments.adapter)
        clips = read_clips(arguments.sets, Path(arguments.data), recogniser.sample_rate)
        rows = curve(recogniser, clips, arguments.shares, arguments.normaliser)
    except SpeechadaptError as error:
        print(f"coda_curve: {error}", file=sys.stderr)
        return 2
    for row in rows:
        low, high = (100 * one for one in row["wer_interval"])
        mark = " (trained)" if row["trained"] else ""
        print(
            f"share {row['share']:<7g} WER {100 * row['wer']:5.1f} % [{low:.1f}, {high:.1f}]  "
            f"CER {100 * row['cer']:5.1f} %{mark}"
        )
    if arguments.output is not None:
        atomic_write_json(arguments.output, {"sets": arguments.sets, "rows": rows})
    return 0


if __name__ == "__main__":
    sys.exit(main())
