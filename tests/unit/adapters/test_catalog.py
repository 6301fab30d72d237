from __future__ import annotations

import subprocess
import sys

import pytest

from speechadapt.adapters.catalog import method, method_names, title
from speechadapt.core.errors import CatalogError
from tests.contract.outside import SOURCE, offered


def test_every_file_of_the_folder_is_a_method():
    assert {"lora", "parallel"} <= set(method_names())
    assert method("lora").config.__name__ == "LoraConfig"


def test_listing_imports_no_torch():
    code = (
        "import sys; from speechadapt.adapters.catalog import method_names, title; "
        "assert all(title(name) for name in method_names()); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_method_of_another_package_is_found_and_titled(tmp_path):
    with offered(tmp_path) as name:
        assert name in method_names()
        assert title(name).startswith("Multiply each channel")
        assert method(name).tiny.width == 2
    with pytest.raises(CatalogError, match="no adapter method 'gain'"):
        method("gain")
    with pytest.raises(CatalogError, match="no adapter method 'gain'"):
        title("gain")


def test_a_name_that_is_taken_is_refused(tmp_path):
    with offered(tmp_path, "lora"), pytest.raises(CatalogError, match="has the name of a method"):
        method_names()


def test_a_file_without_a_method_says_so(tmp_path):
    with (
        offered(tmp_path, "empty", '"""Nothing."""\n'),
        pytest.raises(CatalogError, match="publishes no METHOD"),
    ):
        method("empty")


def test_a_file_that_cannot_be_imported_says_why(tmp_path):
    with (
        offered(tmp_path, "broken", SOURCE.replace("import torch\n", "import not_there\n")),
        pytest.raises(CatalogError, match="No module named 'not_there'"),
    ):
        method("broken")
