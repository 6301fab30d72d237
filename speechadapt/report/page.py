"""Write the page of a job: figures as HTML, files as data that the page draws when they are seen.

The page is a function of the job folder: it states no time of its own and asks no network.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from speechadapt.core.files import atomic_write_text, read_json
from speechadapt.jobs.folder import JobFolder
from speechadapt.jobs.report import intervals
from speechadapt.metrics.bootstrap import Interval
from speechadapt.metrics.wer import CorpusScore, EditCounts
from speechadapt.report.histogram import histogram_svg, make_histogram
from speechadapt.report.rows import PageJob, make_rows, read_job

PAGE = "report.html"
_Card = tuple[str, str, str]


def write_page(output: Path, page: Path | None = None, embed_bytes: int = 0) -> Path:
    """Write the page of a job, finished or not.

    Args:
        output: The job's output folder.
        page: The file; `report.html` in the output folder where None is given.
        embed_bytes: Most bytes of audio that stand in the page itself, the worst files first; all
            other audio is linked.

    Returns:
        The file.

    Raises:
        JobError: There is no such job.
    """
    folder = JobFolder(output)
    folder.check_exists()
    summary = read_json(folder.summary) if folder.summary.is_file() else {}
    job = read_job(output, summary)
    target = output / PAGE if page is None else page
    atomic_write_text(target, render(job, make_rows(job, target.parent, embed_bytes)))
    return target


def render(job: PageJob, rows: list[dict[str, Any]]) -> str:
    """Return the page.

    Args:
        job: The job.
        rows: Its items as `make_rows` gives them.
    """
    title = f"{job.identity.get('job', 'job')}: {job.folder.output.resolve().name}"
    text = _part("page.html")
    return Template(text).substitute(
        title=escape(title),
        state=escape(_state(job)),
        style=_part("page.css"),
        totals="\n".join(_card(*card) for card in _cards(job)),
        histograms=_histograms(job),
        reasons=_reasons(job),
        facts="\n".join(
            f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in _facts(job)
        ),
        # Without "<" no text can end the element that holds the data.
        data=json.dumps(rows, separators=(",", ":")).replace("<", "\\u003c"),
        script=_part("page.js"),
    )


def _part(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8").rstrip()


def _state(job: PageJob) -> str:
    totals = job.totals
    if totals.pending:
        done = totals.items - totals.pending
        return f"Under way or interrupted: {done} of {totals.items} files done."
    return f"Complete: {totals.items} files."


def _cards(job: PageJob) -> Iterator[_Card]:
    totals = job.totals
    counts = totals.to_json()["statuses"]
    yield (
        "files",
        str(totals.items),
        ", ".join(f"{number} {name}" for name, number in counts.items()),
    )
    yield "audio", f"{totals.audio_s / 3600:.2f} h", f"{totals.audio_s:.1f} s decoded"
    if job.score is not None:
        yield from _score_cards(job.score)
    yield from ((name, text, "") for name, text in job.lines)
    if totals.coverage is not None:
        note = f"of {totals.speech_s:.1f} s of speech lies under text"
        yield "coverage", f"{totals.coverage:.1%}", note
    speed = job.summary.get("speed")
    if speed is not None:
        for key, name in (("model", "RTF of the model"), ("end_to_end", "RTF end to end")):
            figures = speed[key]
            yield name, _number(figures["rtf"]), f"RTFx {_number(figures['rtfx'])}, last run"


def _score_cards(score: CorpusScore) -> Iterator[_Card]:
    words, characters = intervals(score)
    cards = [
        _rate_card("WER", score.words, words, "words"),
        _rate_card("CER", score.characters, characters, "characters"),
    ]
    if score.items:
        yield from cards if score.headline == "wer" else reversed(cards)
    if score.non_speech:
        note = f"inserted words in {len(score.non_speech)} files without speech, in no rate"
        yield "non-speech", str(score.inserted_in_non_speech), note


def _rate_card(name: str, counts: EditCounts, interval: Interval, unit: str) -> _Card:
    note = (
        f"{interval.low:.2%} to {interval.high:.2%}, {interval.description}; {counts.reference} "
        f"{unit}: {counts.insertions} insertions, {counts.deletions} deletions, "
        f"{counts.substitutions} substitutions"
    )
    return name, f"{counts.rate:.2%}", note


def _card(name: str, value: str, note: str) -> str:
    return (
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>"
    )


def _histograms(job: PageJob) -> str:
    rates = [each.error_rate for each in job.items]
    speeds = [each.rtf for each in job.items]
    lengths = [each.record.audio_s for each in job.items if each.record.audio_s > 0]
    parts = [
        _histogram("WER of a file", rates, "%", 100.0),
        _histogram("RTF of a file", speeds, "s/s"),
        _histogram("length of a file", lengths, "s"),
    ]
    if not any(parts):
        return ""
    return (
        '<section aria-labelledby="spread"><h2 id="spread">Spread</h2>'
        f'<div class="histograms">{"".join(parts)}</div></section>'
    )


def _histogram(title: str, values: Iterable[float | None], unit: str, scale: float = 1.0) -> str:
    histogram = make_histogram([value for value in values if value is not None])
    if histogram is None:
        return ""
    return f"<div><h3>{escape(title)}</h3>{histogram_svg(histogram, title, unit, scale)}</div>"


def _reasons(job: PageJob) -> str:
    """Return failures by reason and doubts by flag, as buttons that filter the list."""
    totals = job.totals
    sections = []
    for title, counts in (("Failures by reason", totals.reasons), ("Doubts", totals.flags)):
        if counts:
            chips = "".join(
                f'<li><button type="button" data-query="{escape(name)}">{escape(name)}: {number}'
                "</button></li>"
                for name, number in counts.most_common()
            )
            sections.append(f'<section><h2>{title}</h2><ul class="chips">{chips}</ul></section>')
    return "\n".join(sections)


def _facts(job: PageJob) -> Iterator[tuple[str, str]]:
    job_file = read_json(job.folder.job)
    yield "fingerprint", str(job_file.get("fingerprint", ""))
    yield from _flat(job.identity)
    if job.score is not None:
        yield "scored by", f"{job.score.scorer}; {', '.join(job.score.normalisers)}"
    speed = job.summary.get("speed")
    if speed is not None:
        yield from _flat({"last run": {**speed["environment"], "workers": speed["workers"]}})


def _flat(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, part in value.items():
        if isinstance(part, Mapping):
            yield from _flat(part, f"{before}{name}.")
        elif isinstance(part, list):
            yield f"{before}{name}", ", ".join(map(str, part)) or "none"
        else:
            yield f"{before}{name}", "none" if part is None else str(part)


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.4g}"
