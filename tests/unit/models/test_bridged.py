"""A bridge in front of a decoder: rates and lengths, what is refused, and loading it by name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import speechadapt
from speechadapt.adapters import store
from speechadapt.adapters.attach import active, attach
from speechadapt.adapters.handle import Handle
from speechadapt.core.errors import CatalogError, CheckpointError, ConfigError
from speechadapt.encoders.base import Encoder
from speechadapt.encoders.catalog import load_encoder
from speechadapt.encoders.source import fingerprint_folder
from speechadapt.models.bridged import Bridge, BridgedEncoder, check_decoder, ratio, read_bridge
from tests.conftest import Signal

SETTINGS = {"hidden": 8, "dim": 4, "repeat": 3}


@pytest.fixture
def encoder(tiny_folder) -> Encoder:
    """Return the tiny Conformer with an untrained bridge."""
    loaded = load_encoder(tiny_folder("w2v_bert"))
    torch.manual_seed(0)
    attach(loaded, "pea_bridge", name="bridge", config=SETTINGS)
    return loaded


@torch.no_grad()
def test_frames_come_at_the_decoders_rate_and_width(encoder: Encoder, signal: Signal) -> None:
    bridged = BridgedEncoder(encoder, 4, 3, 2, 10.0)
    clips = [signal(16000), signal(9000, 1)]
    wide, counts = encoder.encode(clips)
    frames, lengths = bridged.encode(clips)
    assert bridged.frame_rate == encoder.frame_rate * 1.5
    assert frames.shape == (2, wide.shape[1] * 3 // 2, 4)
    assert torch.equal(lengths, counts * 3 // 2)
    rows = wide[0, :2].reshape(6, 4)  # three frames side by side
    assert torch.allclose(frames[0, :3], rows.reshape(3, 2, 4).mean(1), atol=1e-6)


@torch.no_grad()
def test_what_pads_a_row_is_never_averaged_in(encoder: Encoder, signal: Signal) -> None:
    bridged = BridgedEncoder(encoder, 4, 3, 2, None)
    short, long = signal(5200), signal(16000, 1)
    alone, count = bridged.encode([short])
    beside, counts = bridged.encode([short, long])
    assert int(counts[0]) == int(count[0])
    assert torch.allclose(alone[0, : int(count)], beside[0, : int(count)], atol=1e-5)


@torch.no_grad()
def test_a_clip_with_fewer_frames_than_are_averaged_gives_one(
    encoder: Encoder, signal: Signal
) -> None:
    bridged = BridgedEncoder(encoder, 12, 1, 8, None)
    frames, lengths = bridged.encode([signal(1500)])
    assert frames.shape == (1, 1, 12)
    assert lengths.tolist() == [1]
    assert bool(frames.isfinite().all())


def test_it_follows_the_encoder_and_its_adapter(encoder: Encoder) -> None:
    bridged = BridgedEncoder(encoder, 4, 3, 2, 10.0)
    assert bridged.window_s == 10.0
    assert bridged.attached is encoder.attached
    bridged.to(torch.float64)
    dtypes = {tensor.dtype for part in bridged.followers for tensor in part.parameters()}
    assert dtypes == {torch.float64}
    assert bridged.fingerprint() == encoder.fingerprint()


def test_without_its_bridge_it_says_what_is_missing(encoder: Encoder, signal: Signal) -> None:
    bridged = BridgedEncoder(encoder, 4, 3, 2, None)
    with (
        active(encoder, None),
        torch.no_grad(),
        pytest.raises(ConfigError, match=r"frames of width 12 were expected .* gives 32"),
    ):
        bridged.encode([signal(4000)])


@pytest.mark.parametrize(
    ("rates", "expected"),
    [((100 / 3, 50.0), (3, 2)), ((50.0, 50.0), (1, 1)), ((25.0, 50.0), (2, 1))],
)
def test_rates_meet_in_small_numbers(rates: tuple[float, float], expected: tuple[int, int]) -> None:
    assert ratio(*rates) == expected


def test_rates_without_a_small_ratio_are_refused() -> None:
    with pytest.raises(ConfigError, match="33 Hz were to be brought to 50 Hz"):
        ratio(33.0, 50.0)


@pytest.fixture
def saved(tiny_folder, whisper_folder: Path, tmp_path: Path) -> Path:
    """Return the folder of an untrained bridge from the tiny Conformer to the tiny Whisper."""
    loaded = load_encoder(tiny_folder("w2v_bert"))
    torch.manual_seed(0)
    settings = {"hidden": 8, "dim": 32, "repeat": 1}
    handle = attach(loaded, "pea_bridge", name="bridge", config=settings)
    return save(handle, whisper_folder, tmp_path / "bridge")


def save(handle: Handle, decoder: Path, folder: Path) -> Path:
    """Save a bridge as its training does."""
    bridge = Bridge(str(decoder), fingerprint_folder(decoder), 32, 1, 1, 2.0, 0.1)
    return store.save(handle, folder, head={}, head_config=bridge.to_json())


def test_a_saved_bridge_loads_as_a_recogniser(saved: Path, tiny_folder, signal: Signal) -> None:
    recogniser = speechadapt.load(
        tiny_folder("w2v_bert"), adapter=saved, language="en", temperature=(0.0,)
    )
    assert isinstance(recogniser.encoder, BridgedEncoder)
    assert recogniser.window_s == 2.0
    assert recogniser.margin_s == 0.1
    clip = signal(8000).numpy()
    whole = recogniser.decode_batch([clip, signal(20000, 1).numpy()])
    assert whole[0].text == recogniser.decode_batch([clip])[0].text
    assert any("adapter" in name for name in recogniser.fingerprint()["weights"])


def test_a_decoder_that_moved_is_named_and_another_one_refused(
    saved: Path, tiny_folder, whisper_folder: Path
) -> None:
    bridge = read_bridge(store.read(saved))
    assert bridge is not None
    check_decoder(whisper_folder, bridge)
    with pytest.raises(CheckpointError, match="decoder_model=FOLDER"):
        speechadapt.load(
            tiny_folder("w2v_bert"), adapter=saved, decoder_model=str(tiny_folder("whisper"))
        )


def test_a_decoder_that_is_nowhere_is_named(saved: Path, tiny_folder) -> None:
    with pytest.raises(CatalogError, match=r"leads to the decoder of .* decoder_model=FOLDER"):
        speechadapt.load(tiny_folder("w2v_bert"), adapter=saved, decoder_model="nowhere")


def test_a_bridge_gives_no_padded_window(saved: Path, tiny_folder) -> None:
    with pytest.raises(ConfigError, match="padding=full was asked of a bridge"):
        speechadapt.load(tiny_folder("w2v_bert"), adapter=saved, padding="full")


def test_a_damaged_description_is_refused(saved: Path) -> None:
    path = saved / store.CONFIG
    details = json.loads(path.read_text())
    del details["head"]["pool"]
    path.write_text(json.dumps(details))
    with pytest.raises(CheckpointError, match="pool"):
        read_bridge(store.read(saved))


def test_other_folders_hold_no_bridge(tiny_folder, tmp_path: Path) -> None:
    handle = attach(load_encoder(tiny_folder("w2v_bert")), "lora", config={"rank": 2})
    store.save(handle, tmp_path / "lora")
    assert read_bridge(store.read(tmp_path / "lora")) is None
