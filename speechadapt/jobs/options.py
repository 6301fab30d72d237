"""What can be asked of a transcription: one frozen value with the defaults and their help.

The command line grows its flags from these fields; programs construct the value directly. Nothing
heavy is imported here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, ClassVar

from speechadapt.jobs.job_options import JobOptions, at_least, one_of, setting, words_of

FORMATS = ("txt", "srt", "vtt", "tsv", "json")
PADDINGS = ("native", "full")


@dataclass(frozen=True)
class TranscribeOptions(JobOptions):
    """Everything a transcription job can be asked.

    Raises:
        ConfigError: A value is out of its range or set; all such values are named at once.
    """

    job: ClassVar[str] = "transcribe"

    formats: str = setting(
        "txt,json", "Output formats: txt,srt,vtt,tsv,json.", "-f", "--output_format"
    )
    model: str | None = setting(None, "A bundled name, a local folder or a hub id.")
    revision: str | None = setting(None, "Revision of a hub model.")
    adapter: str | None = setting(None, "An adapter's folder, or several: fuse(A, B), auto(INDEX).")
    condition: str | None = setting(
        None, "With --adapter: a recording of the speaker to listen to (target_speaker)."
    )
    hot_words: str | None = setting(
        None, "With --adapter: a file of words to expect, one a line (hot_words)."
    )
    strength: float | None = setting(
        None, "How much --condition or --hot-words counts; None: as trained; 0: not at all."
    )
    decoder: str | None = setting(
        None, "Decoder: ctc, whisper_ar, or diffusion (means --model mini-diffusion)."
    )
    language: str | None = setting(None, "Language of the speech; detected where None.")
    beam_size: int | None = setting(None, "Hypotheses kept by the search; None: as the model says.")
    num_candidates: int | None = setting(None, "Diffusion: texts written for each clip.")
    num_steps: int | None = setting(None, "Diffusion: passes of the network.")
    select: str | None = setting(
        None, "Diffusion: the text kept: confidence, mbr, rover, mbr+confidence."
    )
    keep_candidates: bool = setting(False, "Diffusion: write every candidate into the json.")
    option: tuple[str, ...] = setting(
        (), "A decoder's own option, name=value (repeatable): lm=words.txt, temperature=[0].", "-O"
    )
    word_timestamps: bool = setting(False, "Write word times.")
    vad: bool = setting(True, "Find speech: cuts long recordings, flags clips without speech.")
    encoder_padding: str | None = setting(
        None, "Whisper: native (true length) or full (padded window); None: as the model says."
    )
    batch_size: int = setting(16, "Most clips in a batch.", same_output=True)
    batch_s: float = setting(120.0, "Most seconds of padded audio in a batch.", same_output=True)

    @property
    def format_names(self) -> tuple[str, ...]:
        """The output formats, in the order of `FORMATS`."""
        asked = set(words_of(self.formats))
        return FORMATS if "all" in asked else tuple(name for name in FORMATS if name in asked)

    @property
    def batch_note(self) -> str:
        """What a batch may hold, in words."""
        return f"<= {self.batch_size} clips and {self.batch_s:g} s"

    @property
    def decoder_options(self) -> dict[str, Any]:
        """Options for the decoder by name: those with a field here and those of `option`."""
        named = {
            "language": self.language,
            "beam_size": self.beam_size,
            "num_candidates": self.num_candidates,
            "num_steps": self.num_steps,
            "select": self.select,
            "keep_candidates": self.keep_candidates or None,
        }
        given = {name: value for name, value in named.items() if value is not None}
        own = (text.partition("=") for text in self.option)
        return (
            given
            | {"word_timestamps": self.word_timestamps}
            | {name.strip(): _value(text) for name, _, text in own}
        )

    def plain_values(self) -> dict[str, Any]:
        """Return the formats as a list in one order, and the options as a list."""
        return {"formats": list(self.format_names), "option": list(self.option)}

    def own_problems(self) -> list[str | None]:
        """Say what is wrong with the fields of this job; None where nothing is."""
        return [
            *(one_of("--formats", name, (*FORMATS, "all")) for name in words_of(self.formats)),
            None if words_of(self.formats) else "--formats names no format; give at least txt.",
            one_of("--encoder-padding", self.encoder_padding, PADDINGS),
            at_least("--strength", self.strength, 0),
            at_least("--beam-size", self.beam_size, 1),
            at_least("--num-candidates", self.num_candidates, 1),
            at_least("--num-steps", self.num_steps, 1),
            at_least("--batch-size", self.batch_size, 1),
            at_least("--batch-s", self.batch_s, 1),
            *(_option_problem(text) for text in self.option),
        ]


def _value(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text.strip()
    return tuple(value) if isinstance(value, list) else value


def _option_problem(text: str) -> str | None:
    if re.match(r"\s*[a-z_]+\s*=", text):
        return None
    return f"--option takes name=value, got {text!r}."
