"""`speechadapt score`: error rates of transcripts that already exist, with intervals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from speechadapt.metrics.pairs import Joined
    from speechadapt.metrics.report import SetScore

HELP = "Score transcripts against references: WER and CER with 95 % intervals."

_LISTED = 5


_Reference = Annotated[
    Path,
    typer.Argument(
        metavar="REF",
        help="References: a text file (one utterance a line), a folder of .txt, JSON lines "
        "with 'text', or a transcripts.jsonl or job folder that holds both sides.",
    ),
]
_Hypothesis = Annotated[
    Path | None,
    typer.Argument(
        metavar="HYP",
        help="Hypotheses in the same forms; JSON lines with 'pred_text' (or 'text'), joined "
        "by audio_filepath, id or path.",
        show_default=False,
    ),
]
_NormaliserName = Annotated[
    str,
    typer.Option(
        help="verbatim, whisper, basic, or whisper:FILE with the spelling map of a Whisper "
        "model (normalizer.json)."
    ),
]
_Language = Annotated[
    str | None,
    typer.Option(
        "--lang", help="Language of all texts; by default each row's own.", show_default=False
    ),
]
_PerItem = Annotated[
    Path | None,
    typer.Option(help="Write edits per item to this JSONL file.", show_default=False),
]
_GroupBy = Annotated[
    str | None,
    typer.Option(
        metavar="FIELD", help="Also score by this field, such as speaker.", show_default=False
    ),
]
_Worst = Annotated[
    int, typer.Option(min=0, metavar="N", help="Show the alignment of the N worst items.")
]


def command(
    reference: _Reference,
    hypothesis: _Hypothesis = None,
    normaliser: _NormaliserName = "verbatim",
    language: _Language = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of text.")] = False,
    per_item: _PerItem = None,
    group_by: _GroupBy = None,
    worst: _Worst = 3,
) -> None:
    """Score transcripts: corpus WER and CER, edits apart, 95 % bootstrap intervals.

    Missing hypotheses count as deletions; items without speech are listed apart.
    """
    from speechadapt.core.files import write_lines
    from speechadapt.metrics.pairs import read_pairs
    from speechadapt.metrics.report import item_rows, score_set
    from speechadapt.metrics.wer import group_pairs

    joined = read_pairs(reference, hypothesis)
    groups = {"all": list(joined.pairs)}
    if group_by is not None:
        found = group_pairs(joined.pairs, group_by)
        groups |= {f"{group_by}={value or '(none)'}": pairs for value, pairs in found.items()}
    sets = [
        score_set(name, pairs, normaliser=normaliser, language=language)
        for name, pairs in groups.items()
    ]
    if per_item is not None:
        write_lines(per_item, item_rows(sets[0]))
    print(_json(sets, joined) if as_json else _text(sets, joined, worst))


def _json(sets: list[SetScore], joined: Joined) -> str:
    from speechadapt.metrics.report import to_json

    whole = to_json(sets[0]) | {
        "joined_by": joined.joined_by,
        "hypotheses_without_reference": len(joined.extra),
    }
    if len(sets) > 1:
        whole["groups"] = [to_json(one) for one in sets[1:]]
    return json.dumps(whole, ensure_ascii=False, indent=2)


def _text(sets: list[SetScore], joined: Joined, worst: int) -> str:
    from speechadapt.metrics.report import markdown_table

    whole = sets[0]
    lines = [_summary(whole, joined)]
    if len(sets) > 1:
        lines += ["", markdown_table(sets[1:]).rstrip()]
    shown = _worst(whole, worst)
    if shown:
        lines += ["", f"Worst {len(shown)} of {len(whole.score.items)} items:"]
        lines += [f"\n{block}" for block in shown]
    return "\n".join(lines)


def _summary(whole: SetScore, joined: Joined) -> str:
    from speechadapt.metrics.report import percent

    score = whole.score
    words, characters = score.words, score.characters
    rates = [
        f"WER %       {percent(whole.wer)}",
        f"CER %       {percent(whole.cer)}",
    ]
    lines = [
        *(reversed(rates) if score.headline == "cer" else rates),
        f"words       {words.reference}: {words.hits} right, {words.insertions} inserted, "
        f"{words.deletions} deleted, {words.substitutions} substituted",
        f"characters  {characters.reference}: {characters.hits} right, "
        f"{characters.insertions} inserted, {characters.deletions} deleted, "
        f"{characters.substitutions} substituted",
        f"coverage    {score.references - score.missing} of {score.references} references have a "
        f"hypothesis (joined by {joined.joined_by}); {score.missing} missing, as deletions",
        f"interval    {whole.wer.description}",
        f"normaliser  {', '.join(score.normalisers)}",
        f"scorer      {score.scorer}",
    ]
    if score.non_speech:
        lines.append(
            f"non-speech  {len(score.non_speech)} items, {score.inserted_in_non_speech} words "
            f"inserted there, in no rate"
        )
    if score.unscored:
        lines.append(f"unscored    {score.unscored} items without a reference")
    if joined.extra:
        names = ", ".join(joined.extra[:_LISTED])
        more = ", ..." if len(joined.extra) > _LISTED else ""
        lines.append(
            f"extra       {len(joined.extra)} hypotheses without a reference: {names}{more}"
        )
    return "\n".join(lines)


def _worst(whole: SetScore, number: int) -> list[str]:
    """Return the items with the most edits, each as a block of lines."""
    from speechadapt.metrics.align import alignment_lines

    wrong = [item for item in whole.score.items if item.words.edits or item.missing]
    wrong.sort(key=lambda item: (-item.words.edits, -item.words.rate, item.pair.id))
    blocks = []
    for item in wrong[:number]:
        state = ", no hypothesis" if item.missing else ""
        above, below, marks = alignment_lines(item.reference, item.hypothesis)
        blocks.append(
            f"{item.pair.id}: {item.words.edits} of {item.words.reference}{state}\n"
            f"  REF {above}\n  HYP {below}\n      {marks.rstrip()}"
        )
    return blocks
