"""The claims of the README's speed table with their bars.

A claim is one line of the table. A bar is written here once; whether it is met is always computed.
"""

from __future__ import annotations

from dataclasses import dataclass

ADAPTERS = "adapters_speed.json"
FUSION = "fusion_speed.json"
CODA = "coda_speed.json"
RESTORED = "restoration.json"
LANGUAGES = "languages.json"
MULTITASK = "multitask.json"


@dataclass(frozen=True)
class Claim:
    """One figure that is measured and shown.

    Args:
        label: What it is, as the table says it.
        file: The file of `docs/results` that holds it.
        unit: Written after the figure.
        bar: The value to reach; None where the figure is only shown.
        at_least: The figure must be at least the bar; otherwise at most.
    """

    label: str
    file: str
    unit: str = ""
    bar: float | None = None
    at_least: bool = False

    def met(self, value: float) -> bool | None:
        """Say whether a figure reaches the bar; None where there is no bar."""
        if self.bar is None:
            return None
        return value >= self.bar if self.at_least else value <= self.bar

    @property
    def bar_text(self) -> str:
        """The bar in words, such as `<= 0.05`."""
        if self.bar is None:
            return "-"
        return f"{'>=' if self.at_least else '<='} {number(self.bar)}{self.unit}"


CLAIMS = {
    "transcribe_cold": Claim(
        "`speechadapt transcribe`, 200 real clips, end-to-end RTF from process start to exit, cold",
        "transcribe.json",
        bar=0.05,
    ),
    "transcribe_warm": Claim("... the same with warm file caches", "transcribe.json"),
    "transcribe_model": Claim("... the model alone, loaded and warm", "transcribe.json"),
    "pipeline_equal_padding": Claim(
        "mini-whisper, time against the transformers pipeline, equal padding and search",
        "bench.json",
        unit="x",
        bar=1.05,
    ),
    "pipeline_defaults": Claim(
        "... with our default options (temperature fallback) against the same", "bench.json", "x"
    ),
    "native_encoder": Claim(
        "Whisper-tiny geometry, 12 tokens: encoder at native length, times faster than the "
        "pipeline's",
        "bench.json",
        unit="x",
        bar=4.0,
        at_least=True,
    ),
    "native_whole": Claim("... features and decoding included", "bench.json", "x"),
    "native_small": Claim(
        "5 s clip through a Whisper-small-sized encoder, native time over padded time",
        "native.json",
        bar=0.2,
    ),
    "memory_long": Claim(
        "resident memory for 3 h of audio, above that for 3 min", "memory.json", " MB", bar=300.0
    ),
    "memory_files": Claim(
        "... growth over the second half of 2,000 files, per 1,000 files", "memory.json", " MB"
    ),
    "lora_step": Claim(
        "training step of LoRA, time against peft's own LoRA on the same encoder, targets, rank "
        "and batch",
        ADAPTERS,
        unit="x",
        bar=1.05,
    ),
    "lora_memory": Claim(
        "... memory that a process grows by while it trains, against the same",
        ADAPTERS,
        unit="x",
        bar=1.05,
    ),
    "lora_reuse": Claim(
        "... time with the frozen layers below kept, upper half adapted in both",
        ADAPTERS,
        unit="x",
        bar=0.75,
    ),
    "lora_reuse_build": Claim("... once to fill the cache, per batch", ADAPTERS, " s"),
    "parallel_forward": Claim(
        "forward pass of a Whisper-small-sized encoder with an unmerged parallel adapter of width "
        "64, above the bare one",
        ADAPTERS,
        unit=" %",
        bar=8.0,
    ),
    "merged_forward": Claim(
        "... with a merged LoRA, tensor operations above the bare one's",
        ADAPTERS,
        unit=" %",
        bar=0.0,
    ),
    "merged_time": Claim("... and time, where all is noise", ADAPTERS, " %"),
    "fusion_mean": Claim(
        "forward pass of a Whisper-small-sized encoder with ten parallel adapters of width 32, "
        "their mean, over the bare one's time",
        FUSION,
        unit="x",
        bar=1.2,
    ),
    "fusion_gated": Claim("... weighed by a gate for every frame", FUSION, unit="x", bar=1.2),
    "fusion_attention": Claim("... weighed by attention", FUSION, unit="x", bar=1.35),
    "fusion_attention_in_turn": Claim(
        "... by attention, the adapters run one after another", FUSION, "x"
    ),
    "fusion_attention_full_in_turn": Claim("... and with full-rank maps", FUSION, "x"),
    "coda_usm": Claim(
        "mini-usm, 25 s clip: encoder with conditional adapters, an eighth of the frames through "
        "attention and feed-forwards, times faster than bare",
        CODA,
        unit="x",
        bar=2.0,
        at_least=True,
    ),
    "coda_usm_ffn": Claim("... through the feed-forwards alone", CODA, "x"),
    "coda_small_20s": Claim(
        "Whisper-small-sized encoder, 20 s clip: the same with a quarter of the frames",
        CODA,
        unit="x",
        bar=2.0,
        at_least=True,
    ),
    "coda_small": Claim("... 30 s clip", CODA, unit="x", bar=2.0, at_least=True),
    "coda_small_all": Claim("... the chosen frames attend to all frames", CODA, "x"),
    "coda_small_ffn": Claim("... through the feed-forwards alone", CODA, "x"),
    "native_length_5s": Claim(
        "mini-whisper's geometry (10 s window), 5 s clip: encoder at native length with a merged "
        "native_length adapter, times faster than padded",
        ADAPTERS,
        unit="x",
        bar=1.8,
        at_least=True,
    ),
    "native_length_2s": Claim("... 2 s clip", ADAPTERS, unit="x", bar=4.0, at_least=True),
    "native_length_unmerged": Claim("... 2 s clip, the adapter not merged", ADAPTERS, "x"),
    "native_length_2s_one_thread": Claim(
        "... 2 s clip on one thread, as a worker of many has",
        ADAPTERS,
        unit="x",
        bar=4.0,
        at_least=True,
    ),
    "native_length_small": Claim(
        "... Whisper-small-sized encoder (30 s window), 5 s clip",
        ADAPTERS,
        unit="x",
        bar=5.0,
        at_least=True,
    ),
    "native_recovered": Claim(
        "mini-whisper at native length: share of the word errors it adds to the padded window's "
        "that a native_length adapter takes away",
        "native_length.json",
        unit=" %",
        bar=90.0,
        at_least=True,
    ),
    "native_parameters": Claim(
        "... parameters of that adapter, of the encoder's", "native_length.json", " %", bar=2.0
    ),
    "bridge_errors": Claim(
        "mini-usm's frames through a bridge into mini-whisper's frozen decoder: word errors over "
        "mini-whisper's own",
        "bridge.json",
        unit="x",
        bar=1.3,
    ),
    "language_ar": Claim(
        "Arabic words on frozen mini-usm: character errors of the adapter method that is best on "
        "dev, over those of full fine-tuning",
        LANGUAGES,
        unit="x",
        bar=1.1,
    ),
    "language_es": Claim("... Spanish words, likewise", LANGUAGES, unit="x", bar=1.1),
    "language_zh": Claim(
        "... Mandarin words in pinyin, likewise; a rate was added after a first look at test",
        LANGUAGES,
        unit="x",
        bar=1.1,
    ),
    "multitask_oracle": Claim(
        "thirteen tasks on frozen mini-usm, the way that is best on dev and is not told the task: "
        "character errors over those of the single-task adapters, told the task",
        MULTITASK,
        unit="x",
        bar=1.03,
    ),
    "multitask_oracle_high": Claim("... upper end of that interval", MULTITASK, "x", bar=1.1),
    "multitask_full": Claim(
        "... over those of full fine-tuning on all tasks", MULTITASK, unit="x", bar=0.92
    ),
    "multitask_held": Claim(
        "... numbers beside the encoder, of the encoder's", MULTITASK, unit=" %", bar=17.0
    ),
    "multitask_head": Claim(
        "... ways not surely better than the head alone, of those measured", MULTITASK, bar=0.0
    ),
    "retrieval_accuracy": Claim(
        "adapters found by sound: the nearest is the task's own",
        MULTITASK,
        unit=" %",
        bar=95.0,
        at_least=True,
    ),
    "retrieval_false": Claim(
        "... recordings with an adapter that are left to the base", MULTITASK, unit=" %", bar=5.0
    ),
    "retrieval_sounds": Claim(
        "... sounds that are no speech that are left to the base",
        MULTITASK,
        unit=" %",
        bar=80.0,
        at_least=True,
    ),
    "retrieval_left_out": Claim(
        "... recordings of a corpus without an adapter that are left to the base",
        MULTITASK,
        unit=" %",
        bar=80.0,
        at_least=True,
    ),
    "cleaner_l1": Claim(
        "the feature cleaner alone, speech degraded by `miipher`: share of the error of features "
        "that is left",
        "cleaner.json",
        bar=0.6,
    ),
    "cleaner_words": Claim(
        "... word errors of mini-usm's own head on cleaned features over those on degraded ones",
        "cleaner.json",
        unit="x",
        bar=0.8,
    ),
    "restored_lsd": Claim(
        "mini-restorer on degraded test recordings: change of the log-spectral distance",
        RESTORED,
        unit=" dB",
        bar=0.0,
    ),
    "restored_lsd_gate": Claim("... against a spectral gate", RESTORED, unit=" dB", bar=0.0),
    "restored_bak": Claim("... change of DNSMOS BAK", RESTORED, bar=0.0, at_least=True),
    "restored_bak_gate": Claim("... against a spectral gate", RESTORED, bar=0.0, at_least=True),
    "restored_ovrl_oracle": Claim(
        "... DNSMOS OVRL against its own vocoder on clean features",
        RESTORED,
        bar=-0.1,
        at_least=True,
    ),
    "restored_speaker": Claim(
        "... change of the likeness of the voice (cosine, mini-xvector)",
        RESTORED,
        bar=-0.02,
        at_least=True,
    ),
    "restoration_words": Claim(
        "mini-restorer: mini-whisper's word errors after restoration over those before it",
        "restoration_words.json",
        unit="x",
        bar=1.1,
    ),
    "restoration_ar": Claim(
        "... Arabic words, which neither cleaner nor vocoder heard: character errors of a judge on "
        "mini-whisper's encoder",
        "restoration_words_ar.json",
        unit="x",
        bar=1.1,
    ),
    "restoration_es": Claim("... Spanish words", "restoration_words_es.json", unit="x", bar=1.1),
    "restoration_zh": Claim("... Mandarin words", "restoration_words_zh.json", unit="x", bar=1.1),
    "parastep": Claim(
        "mini-diffusion, 8 steps: decoder's time with the steps shared by two processes over one's",
        "parastep.json",
        unit="x",
    ),
    "ray_overhead": Claim(
        "one job of 2,000 clips, wall time of Ray with one worker over one process",
        "engines.json",
        unit="x",
        bar=1.15,
    ),
    "ray_two": Claim(
        "... two workers, times faster than one", "engines.json", "x", bar=1.7, at_least=True
    ),
    "process_two": Claim("... the same with worker processes", "engines.json", "x"),
    "report_open": Claim(
        "`speechadapt report` of 2,000 files: seconds to open in headless Chromium",
        "report.json",
        unit=" s",
        bar=2.0,
    ),
    "report_size": Claim("... and its size", "report.json", unit=" MB", bar=25.0),
    "shard_plan": Claim(
        "plan of ten million manifest rows as shards", "shards.json", unit=" s", bar=300.0
    ),
    "shard_plan_memory": Claim("... memory of the process", "shards.json", " MB", bar=1000.0),
    "shard_resume": Claim("... seconds to find what is left", "shards.json", " s", bar=60.0),
    "kill": Claim(
        "`kill -9` at ten random moments and resume: items lost, doubled or different",
        "kill.json",
        bar=0.0,
    ),
    "kill_restore": Claim("... the same of `restore`", "kill_restore.json", bar=0.0),
    "restore_memory_long": Claim(
        "`restore`: resident memory for 3 h of audio, above that for 3 min",
        "memory_restore.json",
        " MB",
        bar=300.0,
    ),
    "restore_memory_files": Claim(
        "... growth over the second half of 200 files, per 1,000 files",
        "memory_restore.json",
        " MB",
    ),
}


def number(value: float) -> str:
    """Write a figure with three digits that count, never in powers of ten."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 4
    text = f"{value:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
