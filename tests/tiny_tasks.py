"""The smallest settings of every training task, as words of a command line."""

from __future__ import annotations

from pathlib import Path

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
}
SHORT = (
    "batch.batch_s=4",
    "batch.max_rows=3",
    "trainer.steps=2",
    "trainer.warmup_steps=1",
    "trainer.evaluate_every=2",
    "trainer.checkpoint_every=2",
    "trainer.log_every=1",
)


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
    path = folder / "recipes" / "tiny" / f"{task}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"task: {task}\n"
        "data: {train: [tones, chords], dev: [tones], noise: [hiss], responses: [room]}\n"
        "batch: {join_prob: 0.5, join_s: [0.5, 1.5]}\n"
    )
    return [f"recipe=tiny/{task}", f"data.root={pack}", *TINY[task], *SHORT]
