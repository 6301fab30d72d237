"""The head of a card as model hubs read it: base, tags, languages, licence, scores.

Source: https://huggingface.co/docs/hub/model-cards (the fields), and its list of licence names
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from speechadapt.core.errors import CheckpointError

RECOGNITION = "automatic-speech-recognition"
_FENCE = "---"
_LIBRARY = "speechadapt"
_RATES = ("wer", "cer", "accuracy")  # fractions here, per cent in a card
_CREATIVE = re.compile(r"cc[ -](by(?:-(?:sa|nd|nc|nc-sa|nc-nd))?)[ -](\d\.\d)")
_OPEN = re.compile(r"(?:apache|mpl|l?gpl|agpl)-\d\.\d|bsd-[23]-clause|cc0-1\.0|mit")
_SPELLINGS = {"apache 2.0": "apache-2.0", "apache license 2.0": "apache-2.0", "cc0 1.0": "cc0-1.0"}


@dataclass(frozen=True)
class Figure:
    """One score.

    Args:
        test_set: What it was measured on.
        metric: `wer`, `cer`, `accuracy` ...
        value: A fraction where the metric is a rate.
    """

    test_set: str
    metric: str
    value: float


@dataclass(frozen=True)
class CardHead:
    """What the head of a card says.

    Args:
        name: The model's name.
        task: What it does, as hubs name it; empty where that is not one of their tasks.
        tags: Words to find it by.
        base: The model it belongs to, a hub id where it has one; empty for none.
        languages: BCP 47 codes.
        licence: As hubs name it, or any text; empty where nobody says.
        figures: What it scored.
    """

    name: str
    task: str = ""
    tags: tuple[str, ...] = ()
    base: str = ""
    languages: tuple[str, ...] = ()
    licence: str = ""
    figures: tuple[Figure, ...] = ()

    def fields(self) -> dict[str, Any]:
        """Return the fields, those that say nothing left out."""
        licence = hub_licence(self.licence)
        head: dict[str, Any] = {
            "library_name": _LIBRARY,
            "pipeline_tag": self.task,
            "tags": list(self.tags),
            "base_model": self.base,
            "language": list(self.languages),
            "license": licence,
            "license_name": self.licence if licence == "other" else "",
            "metrics": sorted({one.metric for one in self.figures if one.metric in _RATES}),
            "model-index": self._index() if self.figures and self.task else [],
        }
        return {name: value for name, value in head.items() if value}

    def _index(self) -> list[dict[str, Any]]:
        by_set: dict[str, list[Figure]] = {}
        for one in self.figures:
            by_set.setdefault(one.test_set, []).append(one)
        results = [
            {
                "task": {"type": self.task},
                "dataset": {"name": name, "type": name},
                "metrics": [_shown(one) for one in figures],
            }
            for name, figures in by_set.items()
        ]
        return [{"name": self.name, "results": results}]


def adapter_head(name: str, details: Mapping[str, Any]) -> CardHead:
    """Gather what the file of an adapter or a composition says of it.

    Args:
        name: What it is called.
        details: The content of `adapter_config.json` or `composition.json`.
    """
    head = details.get("head") or {}
    training = details.get("training") or {}
    method = details.get("method") or ("composition" if "composition" in details else "head")
    language = head.get("language") or training.get("language")
    return CardHead(
        name=name,
        task=RECOGNITION if head.get("kind") == "ctc" else "",
        tags=("speech", "adapter", str(method)),
        base=str((details.get("base") or {}).get("name") or ""),
        languages=(str(language),) if language else (),
        licence=str(training.get("licence") or ""),
        figures=tuple(_figures(details.get("scores"))),
    )


def with_head(
    text: str, head: CardHead, *, licence: str = "", languages: tuple[str, ...] = ()
) -> str:
    """Return a card with a head; what its own head says already stays as it is.

    Args:
        text: The card, with or without a head.
        head: What the head is to say where the card says nothing.
        licence: A licence that goes before the card's own.
        languages: BCP 47 codes that go before the card's own.

    Raises:
        CheckpointError: The card has a head that is no YAML mapping.
    """
    known, body = split_head(text)
    given = CardHead("", licence=licence, languages=languages).fields()
    fields = head.fields()
    for stated in (known, given):
        if "license" in stated:
            fields.pop("license_name", None)
        fields |= stated
    if fields == known:
        return text
    dumped = yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)
    return f"{_FENCE}\n{dumped}{_FENCE}\n\n{body.lstrip()}"


def split_head(text: str) -> tuple[dict[str, Any], str]:
    """Split a card into the fields of its head and the rest.

    Raises:
        CheckpointError: The head is no YAML mapping.
    """
    lines = text.splitlines(keepends=True)
    if not lines or lines[0].rstrip() != _FENCE:
        return {}, text
    end = next((place for place, line in enumerate(lines) if place and line.rstrip() == _FENCE), 0)
    try:
        known = yaml.safe_load("".join(lines[1:end])) if end else None
    except yaml.YAMLError as error:
        problem = str(error).splitlines()[0]
        raise CheckpointError(f"the head of README.md is no YAML: {problem}.") from error
    if not isinstance(known, dict):
        raise CheckpointError(
            f"README.md begins with '{_FENCE}', but what follows up to the next '{_FENCE}' is no "
            "mapping of fields. Mend it, or leave the head out and it will be written."
        )
    return known, "".join(lines[end + 1 :])


def hub_licence(text: str) -> str:
    """Return a licence as hubs name it: `cc-by-sa-4.0` of `CC BY-SA 4.0`; `other` where unknown."""
    low = _SPELLINGS.get(text.strip().lower(), text.strip().lower())
    found = _CREATIVE.fullmatch(low)
    if found:
        return f"cc-{found[1]}-{found[2]}"
    return low if not low or _OPEN.fullmatch(low) else "other"


def _shown(figure: Figure) -> dict[str, Any]:
    rate = figure.metric in _RATES
    value = round(100 * figure.value, 2) if rate else figure.value
    name = figure.metric.upper() + (", per cent" if rate else "")
    return {"type": figure.metric, "name": name, "value": value}


def _figures(scores: Any) -> Iterable[Figure]:
    """Yield the headline of each set, of what a training noted as its dev scores."""
    for name, found in (scores if isinstance(scores, dict) else {}).items():
        metric = found.get("headline") if isinstance(found, dict) else None
        value = found.get(metric) if isinstance(metric, str) else None
        if isinstance(value, int | float):
            yield Figure(f"{name}/dev", str(metric), float(value))
