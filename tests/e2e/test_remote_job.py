"""Jobs whose inputs, outputs and state lie behind URLs give the bytes of local ones."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from speechadapt.core import storage
from speechadapt.jobs import place_remote
from speechadapt.jobs.place import STATE
from tests.command import call
from tests.e2e import fake_recogniser, fake_restorer
from tests.e2e.fake_recogniser import write_tones
from tests.e2e.jobs import journal, tree
from tests.e2e.stores import Failing, stored, stored_journal, upload

IN, OUT = "memory://in", "memory://out"
PLAIN = ("--no-vad", "--batch-size", "2")
CALLS = 55  # to the store, by a run of five clips


class Killed(BaseException):
    """The process ends here."""


@pytest.fixture(autouse=True)
def memory(monkeypatch, tmp_path):
    """Begin with an empty store, no pauses between repeated calls, and a cache of one's own."""
    from fsspec.implementations.memory import MemoryFileSystem

    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]
    monkeypatch.setattr(storage, "WAITS_S", (0.0,) * 5)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield
    MemoryFileSystem.store.clear()


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Return a small folder of tones that no test spoils."""
    folder = tmp_path_factory.mktemp("clips")
    write_tones(folder, 5)
    (folder / "clip01.txt").write_text("p210 l65")
    return folder


@pytest.fixture(scope="module")
def local(clips, tmp_path_factory) -> dict[str, bytes]:
    """Return what a local run of these tones writes."""
    output = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPEECHADAPT_LOADER", fake_recogniser.HOOK)
        assert call("transcribe", clips, "-o", output, *PLAIN) == 0
    return tree(output)


@pytest.fixture
def break_store(monkeypatch):
    """Let the calls of all stores opened from now on fail as told."""
    true_open = storage._open

    def fail(failing: Failing) -> Failing:
        def opened(url):
            inner, root = true_open(url)
            return failing.wrap(inner), root

        monkeypatch.setattr(storage, "_open", opened)
        return failing

    return fail


def test_a_folder_in_a_store_gives_the_bytes_of_a_local_run(cli, clips, local, tmp_path):
    upload(clips, IN)
    assert cli("transcribe", IN, "-o", OUT, *PLAIN) == 0
    assert stored(OUT) == local
    assert cli("job", "verify", OUT) == 0
    assert cli("job", "status", OUT) == 0
    before = stored_journal(OUT)
    assert cli("transcribe", IN, "-o", OUT, *PLAIN) == 0
    assert stored_journal(OUT) == before
    assert len({row["id"] for row in before}) == len(before) == 5
    assert not list((tmp_path / "cache").rglob("*.jsonl"))


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 12))]
)
def test_a_run_that_dies_anywhere_goes_on_and_leaves_no_trace(
    cli, clips, local, monkeypatch, break_store, seed
):
    upload(clips, IN)
    # The process that held the claims is gone: this one stands for its successor.
    monkeypatch.setattr("speechadapt.jobs.object_lease.process_runs", lambda pid: False)
    at = random.Random(seed).randint(1, CALLS)
    broken = break_store(Failing(at, error=Killed))
    with pytest.raises(Killed):
        cli("transcribe", IN, "-o", OUT, *PLAIN)
    assert broken.count >= at
    break_store(Failing())
    partial = {name: data for name, data in stored(OUT).items() if name != "transcripts.jsonl"}
    assert partial.items() <= local.items()
    assert cli("transcribe", IN, "-o", OUT, *PLAIN) == 0
    assert stored(OUT) == local
    done = [(row["id"], row["attempts"]) for row in stored_journal(OUT)]
    assert len(done) == len(set(done)) == 5
    assert cli("job", "verify", OUT) == 0


def test_calls_that_fail_for_a_while_are_repeated(cli, clips, local, break_store):
    upload(clips, IN)
    cut = break_store(Failing(CALLS // 2, calls=5))
    assert cli("transcribe", IN, "-o", OUT, *PLAIN) == 0
    assert cut.count > CALLS
    assert stored(OUT) == local
    assert {row["status"] for row in stored_journal(OUT)} == {"ok"}


def test_a_store_that_stays_away_ends_the_run_with_a_message(
    cli, clips, local, monkeypatch, break_store, capsys
):
    upload(clips, IN)
    break_store(Failing(CALLS // 2))
    assert cli("transcribe", IN, "-o", OUT, *PLAIN) == 1
    assert "tried 6 times: OSError" in capsys.readouterr().err
    break_store(Failing())
    monkeypatch.setattr("speechadapt.jobs.object_lease.process_runs", lambda pid: False)
    assert cli("transcribe", IN, "-o", OUT, *PLAIN) == 0
    assert stored(OUT) == local


def test_parts_in_one_store_together_write_what_one_run_writes(cli, clips, local):
    assert cli("transcribe", clips, "-o", OUT, *PLAIN, "--shard", "2/2") == 0
    assert "transcripts.jsonl" not in stored(OUT)
    assert cli("job", "merge", OUT) == 1
    assert cli("transcribe", clips, "-o", OUT, *PLAIN, "--shard", "1/2") == 0
    assert stored(OUT) == local
    storage.Store(OUT).delete(["transcripts.jsonl"])
    assert cli("job", "verify", OUT) == 3
    assert cli("job", "merge", OUT) == 0
    assert stored(OUT) == local


def test_workers_elsewhere_share_nothing_but_the_store(cli, clips, local, tmp_path, monkeypatch):
    # The driver asks first where it may keep things, then its worker does, on another host.
    hosts = itertools.chain([tmp_path / "driver"], itertools.repeat(tmp_path / "worker"))
    monkeypatch.setattr(place_remote, "_cache", lambda: next(hosts))
    assert cli("transcribe", clips, "-o", OUT, *PLAIN) == 0
    assert list((tmp_path / "worker").rglob("*-worker-0-*.jsonl"))
    assert stored(OUT) == local
    assert len(stored_journal(OUT)) == 5


def test_other_options_are_refused_and_beginning_anew_wipes_the_state(cli, clips, capsys):
    assert cli("transcribe", clips, "-o", OUT, *PLAIN, "--model", "first") == 0
    assert cli("transcribe", clips, "-o", OUT, *PLAIN, "--model", "second") == 5
    assert "model.model: 'first' there, 'second' now" in capsys.readouterr().err
    assert cli("transcribe", clips, "-o", OUT, *PLAIN, "--model", "second", "--overwrite") == 0
    assert len(stored_journal(OUT)) == 5
    assert cli("job", "verify", OUT) == 0


def test_a_job_folder_keeps_the_state_and_the_outputs_go_to_the_store(cli, tones, tmp_path):
    state, broken = tmp_path / "state", tones / "broken.wav"
    broken.write_text("no sound here")
    assert cli("transcribe", tones, "-o", OUT, "--job-folder", state, *PLAIN) == 3
    assert not storage.Store(OUT).names(STATE)
    assert len(journal(state)) == 8
    broken.write_bytes((tones / "clip01.wav").read_bytes())
    assert cli("job", "retry", state) == 0
    assert stored(OUT)["broken.txt"] == b"p210 l65\n"
    before = stored(OUT)
    storage.Store(OUT).delete(["clip01.txt"])
    assert cli("job", "verify", state) == 3
    assert cli("transcribe", tones, "-o", OUT, "--job-folder", state, *PLAIN) == 0
    assert stored(OUT) == before
    assert cli("job", "verify", state) == 0


def test_failed_items_are_tried_again_where_the_state_is_in_the_store(cli, tones):
    (tones / "broken.wav").write_text("no sound here")
    upload(tones, IN)
    assert cli("transcribe", IN, "-o", OUT, *PLAIN) == 3
    storage.Store(IN).put("broken.wav", tones / "clip01.wav")
    assert cli("job", "retry", OUT) == 0
    assert stored(OUT)["broken.txt"] == b"p210 l65\n"
    assert cli("job", "verify", OUT) == 0


def test_a_manifest_may_name_urls_and_a_missing_one_costs_itself_alone(cli, clips, tmp_path):
    upload(clips, IN)
    manifest = tmp_path / "rows.jsonl"
    names = (f"{IN}/clip01.wav", f"{IN}/gone.wav", f"file://{clips}/clip02.wav")
    manifest.write_text("".join(f'{{"audio_filepath": "{name}"}}\n' for name in names))
    assert cli("transcribe", manifest, "-o", f"file://{tmp_path}/out", *PLAIN) == 3
    rows = {row["id"]: row for row in journal(tmp_path / "out")}
    gone = rows.pop(f"{IN}/gone.wav")
    assert (gone["status"], gone["reason"]) == ("failed", "UNREADABLE")
    assert gone["message"] == "'gone.wav' cannot be opened: No such file or directory."
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert (tmp_path / "out/in/clip01.txt").read_text() == "p210 l30\n"


def test_what_cannot_work_with_a_url_is_refused_first(cli, clips, capsys):
    assert cli("transcribe", clips, "-o", OUT, "--workers", "2") == 2
    assert "seen by one process alone; give --engine serial" in capsys.readouterr().err
    assert cli("transcribe", clips, "-o", "out", "--job-folder", "state") == 2
    assert "--job-folder is for an -o that is a URL" in capsys.readouterr().err
    assert cli("transcribe", clips, "-o", OUT, "--job-folder", "memory://state") == 2
    assert "--job-folder must be a local folder" in capsys.readouterr().err
    assert cli("transcribe", "-", "-o", OUT) != 0


class TestRestore:
    @pytest.fixture
    def hook(self) -> str:
        return fake_restorer.HOOK

    def test_restored_files_go_to_the_store_whole(self, cli, clips, tmp_path):
        assert cli("restore", clips, "-o", tmp_path / "local") == 0
        upload(clips, IN)
        assert cli("restore", IN, "-o", OUT) == 0
        assert stored(OUT) == tree(tmp_path / "local")
        assert cli("job", "verify", OUT) == 0
        assert not list((tmp_path / "cache").rglob("*.flac"))
