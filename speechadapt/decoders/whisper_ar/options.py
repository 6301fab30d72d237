"""The decode options of Whisper, under Whisper's names and with its defaults."""

from __future__ import annotations

from dataclasses import dataclass

from speechadapt.core.errors import ConfigError

LADDER = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class WhisperOptions:
    """How Whisper decodes.

    Clips are decoded apart from one another: text is never conditioned on what came before
    (Whisper's `condition_on_previous_text` is off), so a batch gives what its clips give alone.

    Args:
        language: Code of a language the model knows (`en`); None takes the one
            `generation_config.json` names, else detects it clip by clip.
        task: `transcribe` or `translate` (into English).
        temperature: Tried in turn while the text fails a threshold; 0 takes the likeliest token.
        beam_size: Beams at temperature 0; None means 1 (greedy). Whisper's command line uses 5,
            which costs about five times the time.
        best_of: Samples drawn at a temperature above 0; the likeliest per token is kept.
        length_penalty: Exponent of the length by which beams are compared.
        compression_ratio_threshold: A text that compresses better than this failed (it repeats
            itself); None never fails.
        logprob_threshold: A text with a lower average log-probability failed; None never fails.
        no_speech_threshold: A clip above this probability of no speech, whose text is below
            `logprob_threshold`, is silence; None never is.
        without_timestamps: Ask for text alone. Off, the text is cut into timed segments by the
            model's own timestamp tokens.
        max_initial_timestamp: Seconds the first timestamp may be late.
        word_timestamps: Align words by cross-attention, where the model names alignment heads.
        sample_len: Most tokens to write; None means half the model's positions.
        padding: How the encoder saw the clips: `full` attends to the padded window, `native` to
            each clip's own frames.
        cache: Keys and values of what is written: `dynamic` grows with the text; `static` has room
            for all of it from the start, so that on CUDA transformers compiles the step
            (CUDA graphs): slow for the first texts, then faster for batches of one size.
    """

    language: str | None = None
    task: str = "transcribe"
    temperature: tuple[float, ...] = LADDER
    beam_size: int | None = None
    best_of: int = 5
    length_penalty: float = 1.0
    compression_ratio_threshold: float | None = 2.4
    logprob_threshold: float | None = -1.0
    no_speech_threshold: float | None = 0.6
    without_timestamps: bool = True
    max_initial_timestamp: float = 1.0
    word_timestamps: bool = False
    sample_len: int | None = None
    padding: str = "full"
    cache: str = "dynamic"

    def __post_init__(self) -> None:
        if self.task not in ("transcribe", "translate"):
            raise ConfigError(f"task must be transcribe or translate, got '{self.task}'.")
        if self.padding not in ("full", "native"):
            raise ConfigError(f"padding must be full or native, got '{self.padding}'.")
        if self.cache not in ("dynamic", "static"):
            raise ConfigError(f"cache must be dynamic or static, got '{self.cache}'.")
        if self.cache == "static" and self.padding == "native":
            raise ConfigError(
                "cache=static is for frames of one length; with padding=native every batch has its "
                "own. Set padding=full or cache=dynamic."
            )
        for name in ("beam_size", "best_of", "sample_len"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be 1 or more, got {value}.")
        if not self.temperature or min(self.temperature) < 0:
            raise ConfigError(
                f"temperature must list numbers of 0 or more, got {self.temperature}."
            )
