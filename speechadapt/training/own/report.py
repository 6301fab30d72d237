"""What was found in one's own data, as lines for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from speechadapt.data.manifest import Utterance
from speechadapt.data.split import seconds_of, speakers_of
from speechadapt.training.own.data import LEFT_OUT, NOTED, Checked, Finding, Spell
from speechadapt.training.own.split import Parts

_SHOWN = 3
_LITTLE_S = 600.0
_FEW_TESTS = 20


def data_lines(checked: Checked, listed: str) -> list[str]:
    """Say how much can be used, what was left out and what is doubtful.

    Args:
        checked: The rows, looked over.
        listed: Where every finding is listed.
    """
    rows = checked.rows
    out = checked.total - len(rows)
    lines = [f"{len(rows)} of {checked.total} recordings can be used: {_amount(rows)}"]
    if out:
        lines.append(f"{out} left out, listed with the reason in {listed}:")
        lines += _kinds(checked.by_kind(LEFT_OUT), LEFT_OUT)
    noted = checked.by_kind(NOTED)
    if noted:
        lines.append("used, but worth a look:")
        lines += _kinds(noted, NOTED)
    return lines


def part_lines(parts: Parts) -> list[str]:
    """Say how the rows were divided.

    Args:
        parts: The rows by use.
    """
    uses = {"train": "to learn from", "dev": "to choose the best step", "test": "held out"}
    return [f"{uses[name]}: {_amount(rows)}" for name, rows in parts.named().items()]


def cautions(parts: Parts) -> list[str]:
    """Say where there is little to learn from.

    Args:
        parts: The rows by use.
    """
    seconds = seconds_of(parts.train)
    if seconds >= _LITTLE_S:
        return []
    return [f"{seconds / 60:.1f} minutes to learn from are little; ten or more usually pay"]


def remarks(checked: Checked, parts: Parts, spell: Spell) -> list[str]:
    """Say what the score is worth, one sentence or two each.

    Args:
        checked: The rows, looked over.
        parts: The same rows by use.
        spell: Gives the text as it is trained on.
    """
    found = _about_speakers(checked, parts)
    known = {spell(row) for row in parts.train}
    again = sum(spell(row) in known for row in parts.test)
    if again:
        found.append(
            f"{again} of the {len(parts.test)} held-out texts are spoken in training too: the "
            "score says less about other sentences."
        )
    if len(parts.test) < _FEW_TESTS:
        found.append(
            f"{_counted(len(parts.test), 'recording')} held out: the interval will be wide."
        )
    return found


def _about_speakers(checked: Checked, parts: Parts) -> list[str]:
    names = speakers_of(checked.rows)
    if names is None:
        return [
            "not every recording says who speaks, so the same voices may be in training and held "
            "out: the score says nothing about other speakers. Name them in a manifest "
            "('speaker'), or, where each has a folder, with -O split.speakers=folder."
        ]
    if len(names) == 1:
        return ["one speaker: the held-out score says nothing about other speakers."]
    if not parts.new_speakers:
        return [
            f"{len(names)} speakers, but those held out speak in training too: the score says "
            "little about other speakers."
        ]
    return []


def about_letters(lacking: Sequence[str], rows: Sequence[Utterance], spell: Spell) -> str:
    """Say which letters a model lacks and in how many rows they stand.

    Args:
        lacking: The letters.
        rows: The rows.
        spell: Gives the text as it is trained on.
    """
    count = sum(any(letter in lacking for letter in spell(row)) for row in rows)
    shown = " ".join(lacking[:40]) + (" ..." if len(lacking) > 40 else "")
    digits = " Writing numbers as words would help." * any(one.isdigit() for one in lacking)
    return (
        f"{count} of {len(rows)} texts have letters that the model does not write: {shown}.{digits}"
    )


def _kinds(found: Mapping[str, Sequence[Finding]], titles: Mapping[str, str]) -> list[str]:
    return [
        f"  {len(members)} {titles[kind]}: {_first(members)}" for kind, members in found.items()
    ]


def _first(members: Sequence[Finding]) -> str:
    shown = "; ".join(f"{one.id} ({one.detail})" for one in members[:_SHOWN])
    return shown + ("; ..." if len(members) > _SHOWN else "")


def _amount(rows: Sequence[Utterance]) -> str:
    seconds = seconds_of(rows)
    length = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
    names = speakers_of(rows)
    who = "speakers unknown" if names is None else _counted(len(names), "speaker")
    languages = Counter(row.lang for row in rows if row.lang)
    spoken = f", {' '.join(sorted(languages))}" if languages else ""
    return f"{_counted(len(rows), 'recording')}, {length}, {who}{spoken}"


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")
