from __future__ import annotations

import subprocess
import sys

import pytest

from speechadapt.core.errors import CatalogError
from speechadapt.decoders.catalog import decoder_class, decoder_for, decoder_names


def test_the_folders_are_the_names():
    assert {"ctc", "whisper_ar"} <= set(decoder_names())


def test_every_class_carries_the_name_of_its_folder():
    for name in decoder_names():
        assert decoder_class(name).name == name


def test_listing_names_does_not_import_torch():
    code = (
        "import sys; from speechadapt.decoders.catalog import decoder_names; decoder_names(); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_name_names_its_near_misses():
    with pytest.raises(CatalogError, match=r"no decoder 'whisper'\. Did you mean whisper_ar"):
        decoder_class("whisper")


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("Wav2Vec2BertForCTC", "ctc"),
        ("Wav2Vec2ForCTC", "ctc"),
        ("WhisperForConditionalGeneration", "whisper_ar"),
    ],
)
def test_the_architecture_decides_the_decoder(architecture, name):
    assert decoder_for({"architectures": [architecture]}).name == name


def test_an_architecture_without_decoder_is_refused():
    with pytest.raises(CatalogError, match=r"no decoder reads the architecture \['ASTModel'\]"):
        decoder_for({"architectures": ["ASTModel"]})
