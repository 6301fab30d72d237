"""The doctor: what is broken is found, named, and met with one command."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy
import pytest
import typer
from safetensors.numpy import save_file

from speechadapt.cli import doctor
from speechadapt.models.restorer_tiny import write_tiny_restorer


def by_name(findings: list[doctor.Finding]) -> dict[str, doctor.Finding]:
    """Index findings by what was checked."""
    return {finding.name: finding for finding in findings}


def test_this_installation_is_healthy() -> None:
    findings = doctor.diagnose()
    core = [finding for finding in findings if finding.area == "core"]
    assert {finding.state for finding in core} == {"ok"}
    names = by_name(core)
    assert {"torch", "torchaudio", "feature extractors", "forced alignment"} <= set(names)
    assert "Everything in the core works." in doctor.report(core)


def break_import(monkeypatch: pytest.MonkeyPatch, broken: str, error: Exception) -> None:
    """Let importing one module fail, as it does beside a library it was not built for."""
    real = importlib.import_module

    def fail(name: str, package: str | None = None) -> ModuleType:
        if name == broken:
            raise error
        return real(name, package)

    monkeypatch.setattr(doctor.importlib, "import_module", fail)


def test_a_torchaudio_of_another_torch_is_installed_but_not_loadable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    error = OSError("libtorchaudio.so: undefined symbol: _ZNK3c1010TensorImpl")
    break_import(monkeypatch, "torchaudio", error)
    findings = doctor.diagnose()
    found = by_name(findings)["torchaudio"]
    assert found.state == "failed"
    assert "does not load: OSError: libtorchaudio.so: undefined symbol" in found.detail
    assert "feature extractors" not in by_name(findings)
    last = doctor.report(findings).splitlines()[-1]
    assert "-m pip install --force-reinstall" in last
    assert "torch==2.11.0" in last
    assert "torchaudio==2.11.0" in last


def test_a_missing_library_alone_is_installed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.importlib.metadata.version

    def version(name: str) -> str:
        if name == "jiwer":
            raise doctor.importlib.metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(doctor.importlib.metadata, "version", version)
    findings = doctor.diagnose()
    assert by_name(findings)["jiwer"].detail == "not installed"
    last = doctor.report(findings).splitlines()[-1]
    assert "jiwer" in last
    assert "torch" not in last
    assert "--force-reinstall" not in last


def test_a_version_out_of_range_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    real = doctor.importlib.metadata.version
    monkeypatch.setattr(
        doctor.importlib.metadata,
        "version",
        lambda name: "2.12.0" if name == "torch" else real(name),
    )
    found = by_name(doctor.diagnose())["torch"]
    assert found.state == "failed"
    assert found.detail.startswith("2.12.0, wanted torch")


def test_a_failure_in_the_core_leaves_with_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    break_import(monkeypatch, "soxr", ImportError("no soxr"))
    with pytest.raises(typer.Exit) as caught:
        doctor.command()
    assert caught.value.exit_code == 1
    assert "Not working: soxr." in capsys.readouterr().out


def test_a_missing_extra_is_no_failure_and_names_its_install_line() -> None:
    requirements = ["nothing-of-this-name>=1; extra == 'fancy'", "numpy>=2; extra == 'plain'"]
    fancy, plain = doctor._check_extras(requirements)
    assert (fancy.name, fancy.state) == ("fancy", "absent")
    assert "pip install 'speechadapt[fancy]'" in fancy.detail
    assert (plain.name, plain.state) == ("plain", "ok")


def write_model(folder: Path, weights: bytes | None) -> Path:
    """Write a model folder whose weights are whole, damaged or absent."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "whisper"}))
    if weights is None:
        save_file({"a": numpy.zeros(3, dtype=numpy.float16)}, folder / "model.safetensors")
    elif weights:
        (folder / "model.safetensors").write_bytes(weights)
    return folder


@pytest.mark.parametrize(
    ("weights", "state", "detail"),
    [
        (None, "ok", "1 tensors"),
        (b"", "failed", "no weights"),
        (b"version https://git-lfs", "failed", "model.safetensors"),
    ],
)
def test_bundled_weights_are_opened(
    tmp_path: Path, weights: bytes | None, state: str, detail: str
) -> None:
    found = doctor._check_model("tiny", write_model(tmp_path / "tiny", weights))
    assert found.state == state
    assert detail in found.detail


def test_every_part_of_a_restorer_is_read(tmp_path: Path) -> None:
    folder = write_tiny_restorer(tmp_path / "tiny")
    assert doctor._check_model("tiny", folder).state == "ok"
    damaged = folder / "vocoder" / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert doctor._check_model("tiny", folder).state == "failed"


def test_damaged_weights_in_a_clone_are_restored_by_git() -> None:
    failed = [doctor.Finding("model", "tiny", "failed", "damaged")]
    assert doctor.mend(failed).startswith("git -C ")
    assert doctor.mend(failed).endswith("checkout -- speechadapt/pretrained")
