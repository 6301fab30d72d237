from __future__ import annotations

import subprocess
import sys

import pytest

import speechadapt


def test_importing_the_package_loads_neither_torch_nor_transformers():
    code = (
        "import sys, speechadapt; "
        "sys.exit(bool({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_every_public_name_can_be_had():
    for name in speechadapt.__all__:
        assert getattr(speechadapt, name) is not None
        assert name in dir(speechadapt)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        _ = speechadapt.lod
