from __future__ import annotations

from pathlib import Path

import pytest

from speechadapt.bench.options import DecoderBench
from speechadapt.bench.sides import searches, trained_sides
from speechadapt.core.errors import CatalogError, ConfigError


def test_every_side_shares_the_encoder_of_the_diffusion_decoder(diffusion: Path) -> None:
    options = DecoderBench(
        model=str(diffusion), num_candidates="1,15", num_steps="2,4", selections="mbr,rover"
    )
    sides, margin_s, missing = trained_sides(options)
    assert [one.name for one in sides] == [
        "autoregressive, greedy",
        "autoregressive, greedy, static cache",
        "autoregressive, beam 5",
        "diffusion, mbr, K=15, 4 steps",
        "diffusion, rover, K=15, 4 steps",
        "diffusion, mbr, K=1, 4 steps",
        "diffusion, mbr, K=15, 2 steps",
        "diffusion, mbr, K=15, 4 steps, 2 at once",
    ]
    assert len({id(one.encoder) for one in sides}) == 1
    assert margin_s == 0.0
    assert len(missing) == 1
    assert missing[0].startswith("CTC: ")


def test_a_search_is_called_compiled_only_where_it_is() -> None:
    compiled = {
        device: "compiled" in " ".join(searches(device)) for device in ("cpu", "mps", "cuda:1")
    }
    assert compiled == {"cpu": False, "mps": False, "cuda:1": True}


def test_a_model_without_a_diffusion_decoder_is_refused(diffusion: Path) -> None:
    whisper = diffusion.parent / "bases" / "whisper_ar"
    with pytest.raises(ConfigError, match="decodes by whisper_ar; name a diffusion decoder"):
        trained_sides(DecoderBench(model=str(whisper)))
    with pytest.raises(CatalogError, match="'mini-diffussion'"):
        trained_sides(DecoderBench(model="mini-diffussion"))
