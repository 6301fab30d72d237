"""A masked-diffusion text decoder on a frozen encoder, in stages: text, adapter, decoder.

`text` learns from texts alone; `adapter` learns to hear, the text network frozen but for what joins
its parallel streams, if it has several; `decoder` trains all of it, lower layers more slowly. The
encoder is never trained, nor saved with the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from speechadapt.audio.augment import AugmentConfig, Signal
from speechadapt.audio.margin import add_margin
from speechadapt.core.errors import CatalogError, ConfigError
from speechadapt.core.limits import CountOrNone, NotNegative, Probability
from speechadapt.core.seed import generator
from speechadapt.data.batch import BatchConfig, Row
from speechadapt.data.recombine import Recombiner
from speechadapt.decoders.masked_diffusion.decoder import DiffusionDecoder
from speechadapt.decoders.masked_diffusion.losses import (
    Places,
    Ratios,
    Rows,
    bound,
    masked_cross_entropy,
)
from speechadapt.decoders.masked_diffusion.options import DiffusionOptions
from speechadapt.decoders.masked_diffusion.store import Heard, save_folder
from speechadapt.encoders.base import PADDINGS
from speechadapt.encoders.source import fingerprint_folder
from speechadapt.models.build import find_model
from speechadapt.training.adapt.features import FeatureMaker
from speechadapt.training.adapt.parts import is_hub_id, load_base
from speechadapt.training.diffusion.config import (
    DevConfig,
    MaskingConfig,
    NetworkConfig,
    RateConfig,
    Stage,
    TextConfig,
)
from speechadapt.training.diffusion.repeats import Repeats
from speechadapt.training.diffusion.rows import TokenRows
from speechadapt.training.diffusion.start import start, train_only
from speechadapt.training.distil.models import base_sources
from speechadapt.training.loop import TrainerConfig
from speechadapt.training.objective import Batch, Group, Objective
from speechadapt.training.scores import corpus_wer
from speechadapt.training.sources import missing_models, weight_files
from speechadapt.training.speech import DataConfig, SpeechBatches, SpeechRow, mix_problems

_DEV_ROWS = 16


@dataclass(frozen=True)
class Config:
    """Everything a run is made of.

    Args:
        data: Recordings; the stage `text` reads their transcripts alone.
        batch: Batches.
        augment: Augmentation.
        model: Shape of a new network.
        masking: What is hidden.
        rates: What is learned how fast.
        texts: Other texts, for the stage `text`.
        dev: How dev sets are decoded.
        trainer: Steps; `trainer.average` is the moving average that is scored and saved.
        stage: `text`, `adapter` or `decoder`.
        encoder: The model whose frozen encoder is heard: a bundled one, a folder or a hub id.
        padding: How it is padded: `full` or `native`.
        margin_s: Hiss on either side of a clip, in seconds; stored with the model.
        init: What to start from: the folder of an earlier stage, or a `.safetensors` file of SMDM
            or Whisfusion; empty for none.
        tokenizer: Folder of the Llama tokenizer that goes with such a file.
        no_speech_prob: Share of rows that hold noise alone, and no text.
        repeats: Batches of recordings in all, heard again and again under other masks; their frames
            are kept in memory. 0 draws new recordings at every step.
    """

    data: DataConfig = field(default_factory=DataConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    model: NetworkConfig = field(default_factory=NetworkConfig)
    masking: MaskingConfig = field(default_factory=MaskingConfig)
    rates: RateConfig = field(default_factory=RateConfig)
    texts: TextConfig = field(default_factory=TextConfig)
    dev: DevConfig = field(default_factory=DevConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    stage: Stage = "decoder"
    encoder: str = "mini-whisper"
    padding: str = "full"
    margin_s: NotNegative = 0.0
    init: str = ""
    tokenizer: str = ""
    no_speech_prob: Probability = 0.05
    repeats: CountOrNone = 0

    def problems(self) -> list[str]:
        """Say which settings do not fit one another or the models at hand."""
        found = mix_problems(self.data, self.batch)
        foreign = self.init.endswith(".safetensors")
        if foreign and not Path(self.init).expanduser().is_file():
            found.append(f"init '{self.init}' is no file.")
        if foreign and not self.tokenizer:
            found.append(f"init '{self.init}' needs the folder of its tokenizer: tokenizer=FOLDER.")
        if not foreign:
            found += missing_models({"init": self.init})
        if self.stage == "adapter" and not self.init:
            found.append(
                "stage=adapter trains what hears alone, on a text network that is there already: "
                "init=FOLDER of a run of stage=text."
            )
        if self.padding not in PADDINGS:
            found.append(f"padding is one of {', '.join(PADDINGS)}, got '{self.padding}'.")
        if self.texts.file and not Path(self.texts.file).expanduser().is_file():
            found.append(f"texts.file '{self.texts.file}' is no file.")
        return found + self._encoder_problems()

    def sources(self) -> dict[str, Path]:
        """Name the files, besides the manifests, that the result depends on."""
        own = Path(self.init).expanduser()
        found = {f"init/{own.name}": own} if own.suffix else weight_files({"init": self.init})
        if self.texts.file:
            found["texts"] = Path(self.texts.file).expanduser()
        return found if self.stage == "text" else found | base_sources(self.encoder, "encoder")

    def _encoder_problems(self) -> list[str]:
        if self.stage == "text" or is_hub_id(self.encoder):
            return []
        try:
            find_model(self.encoder or None)
        except (CatalogError, ConfigError) as error:
            return [f"encoder: {error}"]
        return []


def build(config: Config) -> DiffusionObjective:
    """Make the objective of a run."""
    return DiffusionObjective(config)


class DiffusionObjective(Objective):
    """A masked-diffusion network with the cross-entropy of hidden tokens.

    Args:
        config: The run.

    Raises:
        CheckpointError: The encoder or what is started from is damaged, or they do not fit.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.score = "loss" if config.stage == "text" else "wer"
        self.speech = SpeechBatches(config.data, config.batch, config.augment, config.trainer.seed)
        self.ids = self.speech.ids
        self._lines = _lines(config.texts.file)
        self._recombiner = Recombiner(self.speech.utterances)
        self._encoder = []  # listed: not a submodule, neither trained nor saved
        self.heard: Heard | None = None
        dim = 0
        if config.stage != "text":
            encoder, folder = load_base(config.encoder, config.padding)
            self._encoder = [encoder]
            self._features = FeatureMaker(encoder, config.augment, config.margin_s)
            self.heard = Heard(
                config.encoder or folder.name,
                fingerprint_folder(folder),
                config.padding,
                config.margin_s,
            )
            dim = encoder.dim
        torch.manual_seed(config.trainer.seed)
        texts = sorted(item.text or "" for item in self.speech.utterances)
        self.network, self.vocabulary = start(
            config.model, config.init, config.tokenizer, [*texts, *self._lines], dim
        )
        train_only(self.network, config.stage)
        self.skips_parameters = self.network.length_head is not None and not (
            config.rates.length_weight
        )
        self._rows = TokenRows(self.vocabulary, self.network.shape.positions, config.masking)
        self._repeats = Repeats(config.repeats, config.trainer.seed)
        self._dev = self.speech.dev()

    def batch(self, step: int, rank: int) -> Batch:
        """Build token rows and, where there is an encoder, features; see `Objective.batch`."""
        seed = self.config.trainer.seed
        if self.config.stage == "text":
            random = generator(seed, "diffusion rows", step, rank)
            texts = [self._text(row, random) for row in self.speech.plan.rows(step, rank)]
            return self._rows(texts, seed, step, rank)
        texts, heard = self._recordings(self._repeats.source(step), rank)
        return self._rows(texts, seed, step, rank) | heard

    def forward(self, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        """Return the cost of the hidden tokens and of the length, in nats."""
        frames = self._frames(batch)
        log_probs = self._log_probs(batch, frames)
        tokens, hidden, ratios = _flat(batch)
        plain = masked_cross_entropy(log_probs, tokens, hidden)
        loss = plain
        if self.config.masking.weighted:
            costs = bound(log_probs, tokens, hidden, ratios)
            loss = costs.sum() / _counted(batch)
        wanted = tokens[hidden]
        spoken = -log_probs.detach().gather(1, wanted[:, None])[wanted != self.vocabulary.pad_id]
        figures = {
            "hidden": float(plain.detach()),
            "words": float(spoken.sum() / max(1, len(spoken))),
            "cut": float(batch["cut"].float().mean()),
        }
        if frames is not None and self.network.length_head is not None:
            counts = self.network.length_head(*frames)
            length = -counts.gather(1, batch["counts"][:, None]).mean()
            figures["length"] = float(length.detach())
            loss = loss + self.config.rates.length_weight * length
        return loss, figures

    def summary(self) -> dict[str, str]:
        """Say what the run reads; see `Objective.summary`."""
        more = {"texts": f"{len(self._lines)} lines"} if self._lines else {}
        if self.config.texts.recombine:
            more["recombined"] = f"{len(self._recombiner)} sentences with slots"
        return self.speech.summary() | more

    def groups(self) -> Mapping[str, Group]:
        """Return the layers' rates in the stage `decoder`: the lower, the slower.

        What hears and what belongs to the streams keeps the full rate.
        """
        decay, layers = self.config.rates.layer_decay, self.network.shape.layers
        if self.config.stage != "decoder" or decay == 1.0:
            return {}
        rates = {f"network.{name}.": decay**layers for name in ("embed", "norm", "head")}
        for number in range(layers):
            start_of = f"network.layers.{number}."
            rates[start_of] = decay ** (layers - 1 - number)
            rates |= {f"{start_of}{name}.": 1.0 for name in ("cross", "norm_cross")}
        return {name: Group(rate) for name, rate in rates.items()}

    def evaluate(self) -> dict[str, float]:
        """Score the dev sets: the bound in nats per token for `text`, else WER by corpus."""
        most = self.config.dev.items
        sets = {name: items[:: max(1, len(items) // most)] for name, items in self._dev.items()}
        if self.config.stage != "text":
            return corpus_wer(sets, self._read, _DEV_ROWS)
        texts = [text for items in sets.values() for _, text in items]
        total, tokens = 0.0, 0
        for number in range(0, len(texts), _DEV_ROWS):
            rows = self._rows(texts[number : number + _DEV_ROWS], "dev", number)
            batch = {name: part.to(self.device) for name, part in rows.items()}
            costs = bound(self._log_probs(batch, None), *_flat(batch))
            total += float(costs.sum())
            tokens += _counted(batch)
        return {"loss": total / max(1, tokens)}

    def save(self, folder: Path) -> None:
        """Write the model's folder in fp16."""
        save_folder(folder, self.network, self.vocabulary, self.heard)

    def _recordings(self, source: int, rank: int) -> tuple[list[str], Batch]:
        """Return what is said in a batch of recordings, and their features or kept frames."""
        known = self._repeats.known(source)
        if known is not None:
            return known
        random = generator(self.config.trainer.seed, "diffusion rows", source, rank)
        rows = [self._or_noise(row, random) for row in self.speech.rows(source, rank)]
        features, lengths = self._features(rows, source)
        texts = [row.text for row in rows]
        heard = {"features": features, "lengths": lengths}
        return texts, heard | self._repeats.note(source, texts)

    def _frames(self, batch: Batch) -> tuple[Tensor, Tensor] | None:
        if not self._encoder:
            return None
        if "frames" in batch:
            return batch["frames"].to(self.network.embed.weight.dtype), batch["frame_lengths"]
        encoder = self._encoder[0].to(batch["features"].device)
        with torch.no_grad():
            frames, lengths = encoder(batch["features"], batch["lengths"])
        lengths = lengths.clamp(min=1)
        return self._repeats.keep(batch, frames, lengths), lengths

    def _log_probs(
        self, batch: Batch, frames: tuple[Tensor, Tensor] | None
    ) -> Float[Tensor, "hidden vocab"]:
        condition = None if frames is None else self.network.condition(*frames)
        given = batch["tokens"][:, None].masked_fill(batch["hidden"], self.network.shape.mask_id)
        states = self.network(given, batch["valid"], condition)
        logits: Tensor = self.network.head(states[batch["hidden"]])
        return logits.float().log_softmax(-1)

    def _text(self, row: Row, random: np.random.Generator) -> str:
        texts = self.config.texts
        if self._lines and random.random() < texts.share:
            return self._lines[int(random.integers(len(self._lines)))]
        said = [self.speech.plan.utterances[index] for index in row.parts]
        return " ".join(
            self._recombiner.draw(item, random)
            if random.random() < texts.recombine
            else item.text or ""
            for item in said
        )

    def _or_noise(self, row: SpeechRow, random: np.random.Generator) -> SpeechRow:
        if random.random() >= self.config.no_speech_prob:
            return row
        seconds = float(random.uniform(0.3, min(10.0, self._encoder[0].window_s or 10.0) * 0.9))
        return SpeechRow(self.speech.noise_row(seconds, row.random), "", row.random)

    def _read(self, signals: list[Signal]) -> list[str]:
        encoder, config = self._encoder[0], self.config
        most = None if encoder.window_s is None else round(encoder.window_s * encoder.sample_rate)
        clips = [add_margin(one, encoder.sample_rate, config.margin_s)[:most] for one in signals]
        waveforms = [torch.from_numpy(np.ascontiguousarray(clip)) for clip in clips]
        options = DiffusionOptions(
            num_candidates=config.dev.num_candidates,
            num_steps=config.dev.num_steps,
            select=config.dev.select,
        )
        decoder = DiffusionDecoder(self.network, self.vocabulary, options)
        found = decoder.decode(*encoder.to(self.device).encode(waveforms), encoder.frame_rate)
        return [one.text for one in found]


def _flat(batch: Batch) -> tuple[Rows, Places, Ratios]:
    """Return tokens, hidden places and ratios with a row for every draw."""
    hidden = batch["hidden"]
    tokens = batch["tokens"][:, None].expand_as(hidden)
    return tokens.flatten(0, 1), hidden.flatten(0, 1), batch["ratios"].flatten()


def _counted(batch: Batch) -> int:
    """Return how many tokens may be hidden, over all draws."""
    return int((batch["valid"] - 1).sum()) * batch["hidden"].shape[1]


def _lines(name: str) -> list[str]:
    if not name:
        return []
    text = Path(name).expanduser().read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip()]
