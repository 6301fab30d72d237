"""The smallest settings of every training task, as words of a command line."""

from __future__ import annotations

from pathlib import Path

from transformers import WhisperFeatureExtractor

from speechadapt.audio.augment import AugmentConfig
from speechadapt.decoders.masked_diffusion.store import save_folder
from speechadapt.decoders.masked_diffusion.tiny import tiny_network as tiny_network_of_text
from speechadapt.decoders.masked_diffusion.tiny import tiny_vocabulary
from speechadapt.decoders.whisper_ar.tiny import tiny_network, tiny_tokenizer
from speechadapt.encoders.source import quiet_progress
from speechadapt.encoders.tiny import write_tiny
from tests import synthetic

_CONFORMER = (
    "model.dim=16",
    "model.layers=1",
    "model.heads=2",
    "model.feed_forward=16",
    "model.kernel=3",
)
TINY: dict[str, tuple[str, ...]] = {
    "ctc": _CONFORMER,
    "best_rq": (*_CONFORMER, "quantiser.codes=16", "quantiser.dim=4"),
    "seq2seq": (
        "model.dim=16",
        "model.encoder_layers=1",
        "model.decoder_layers=1",
        "model.heads=2",
        "model.feed_forward=16",
        "model.window_s=2",
        "model.text_tokens=260",
        "model.target_tokens=64",
    ),
    "masked_patch": (
        "model.dim=16",
        "model.layers=1",
        "model.heads=2",
        "model.feed_forward=16",
        "model.window_frames=64",
        "masking.decoder_dim=16",
        "masking.decoder_layers=1",
    ),
    "adapt": (),
    "microphones": ("microphones=2", "degrade.noise_prob=1", "roles=[]"),
    "conditioned": ("batch.join_prob=0",),
    "multitask": ("roles=[]", "prefix.cache=none"),
    "classify": (),
    "diffusion": (
        "model.dim=16",
        "model.layers=1",
        "model.heads=2",
        "model.feed_forward=16",
        "model.text_tokens=260",
        "model.positions=64",
        "dev.num_candidates=2",
        "dev.num_steps=2",
    ),
    "distil": ("decoder_weight=1", "language=en"),
    "bridge": (
        "adapter.hidden=12",
        "decoder_weight=1",
        "language=en",
        "augment.formant=0",
        "augment.tempo=[1,1]",
        "augment.tilt_db=0",
        "augment.time_masks=0",
        "augment.band_masks=0",
    ),
    "speaker": (
        "model.dim=8",
        "model.channels=[8,8]",
        "model.kernels=[3,1]",
        "model.dilations=[1,1]",
        "model.vector=6",
        "crop_s=[0.2,0.4]",
        "piece_s=0.15",
        "start_batches=3",
        "damage.preset=telephone",
    ),
    "clean": ("layer=1", "damage.preset=telephone"),
    "vocoder": (
        "layer=1",
        "crop_s=0.2",
        "wavefit.upsample=1",
        "wavefit.factors=[10,8,4]",
        "wavefit.channels=[8,4,4]",
        "wavefit.down_channels=[4,4,8]",
        "wavefit.width=8",
        "wavefit.layers=1",
        "wavefit.iterations=2",
        "istft.upsample=1",
        "istft.width=8",
        "istft.layers=1",
        "discriminators.scales=1",
        "discriminators.scale_channels=4",
        "discriminators.periods=[3]",
        "discriminators.period_channels=1",
    ),
}
_BASED = (
    "adapt",
    "conditioned",
    "microphones",
    "multitask",
    "clean",
    "vocoder",
)  # tasks that start from a tiny Conformer
# Augmentation that changes nothing.
PLAIN = AugmentConfig(
    speed_prob=0.0,
    band_limit_prob=0.0,
    noise_prob=0.0,
    reverb_prob=0.0,
    gain_db=(0.0, 0.0),
    tilt_db=0.0,
    formant=0.0,
    tempo=(1.0, 1.0),
    time_masks=0,
    band_masks=0,
)
SHORT = (
    "batch.max_rows=3",
    "trainer.steps=2",
    "trainer.warmup_steps=1",
    "trainer.evaluate_every=2",
    "trainer.checkpoint_every=2",
    "trainer.log_every=1",
)


def short(task: str) -> tuple[str, ...]:
    """Return the words of a run of two small steps."""
    return SHORT if task == "classify" else ("batch.batch_s=4", *SHORT)


def write_recipe(folder: Path, task: str, pack: Path) -> list[str]:
    """Write a recipe of a task on made tones and return the words that run it.

    Args:
        folder: A configuration folder; the recipe is `tiny/<task>` in it.
        task: The training task.
        pack: Where the made data pack is (written here).

    Returns:
        Words for `resolve`, without `--config-dir`.
    """
    if not (pack / "manifests").is_dir():
        synthetic.write_pack(pack, ("tones", "chords"), ("hiss",), ("room",))
        synthetic.write_labelled(pack, "sounds")
        synthetic.write_pack(pack, ("people",), dev=4)
    path = folder / "recipes" / "tiny" / f"{task}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    spoken = "train: [tones, chords], dev: [tones]"
    if task == "conditioned":  # whose people speak more than once
        spoken = "train: [people], dev: [people]"
    data = f"{{{spoken}, noise: [hiss], responses: [room]}}"
    if task == "classify":
        path.write_text(f"task: {task}\ndata: {{train: [sounds], noise: [], responses: []}}\n")
    else:
        joined = "{join_prob: 0.5, join_s: [0.5, 1.5]}"
        path.write_text(f"task: {task}\ndata: {data}\nbatch: {joined}\n")
    words = [f"recipe=tiny/{task}", f"data.root={pack}", *TINY[task], *short(task)]
    return [*words, *base_words(folder, task)]


def base_words(folder: Path, task: str) -> list[str]:
    """Return the words that name the tiny models a task starts from.

    Args:
        folder: Holds such models.
        task: The training task.
    """
    if task == "diffusion":
        return [f"encoder={base_folder(folder)}"]
    if task == "distil":
        return [f"base={whisper_folder(folder)}", "batch.max_s=1.5"]
    if task == "bridge":
        models = [f"base={base_folder(folder)}", f"decoder={whisper_folder(folder)}"]
        return [*models, "batch.max_s=1.5"]
    if task == "classify":
        return [f"base={base_folder(folder, 'ast')}"]
    return [f"base={base_folder(folder)}"] if task in _BASED else []


def whisper_folder(folder: Path) -> Path:
    """Return a tiny random Whisper with its decoder and tokenizer, written where it is missing.

    Args:
        folder: Holds such models.
    """
    base = folder / "bases" / "whisper_ar"
    if not base.is_dir():
        with quiet_progress():
            tiny_network().save_pretrained(base)
        WhisperFeatureExtractor(chunk_length=2).save_pretrained(base)
        tiny_tokenizer().save(str(base / "tokenizer.json"))
    return base


def diffusion_folder(folder: Path) -> Path:
    """Return a tiny random masked-diffusion network of text alone, written where it is missing.

    Args:
        folder: Holds such models.
    """
    base = folder / "bases" / "masked_diffusion"
    if not base.is_dir():
        vocabulary = tiny_vocabulary()
        save_folder(base, tiny_network_of_text(vocabulary), vocabulary, None)
    return base


def base_folder(folder: Path, family: str = "w2v_bert") -> Path:
    """Return a tiny random model to adapt, written where it is missing.

    Args:
        folder: Holds such models.
        family: An encoder family.
    """
    base = folder / "bases" / family
    return base if base.is_dir() else write_tiny(family, base)
