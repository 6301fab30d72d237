from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from speechadapt.core import storage
from speechadapt.core.errors import ConfigError, JobError, StoreError
from speechadapt.core.storage import Store
from speechadapt.jobs import place_remote
from speechadapt.jobs.commit import ItemFiles
from speechadapt.jobs.folder import JobFolder
from speechadapt.jobs.ledger import Ledger, Record
from speechadapt.jobs.place import STATE, Place
from speechadapt.jobs.place_remote import SplitPlace, StoredPlace

URL = "memory://place"


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch) -> Store:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(storage, "WAITS_S", (0.0,))
    store = Store(URL)
    store.delete(store.names())
    return store


def record(name: str) -> Record:
    return Record(name, "key", "ok")


def folder_of(part: str = "1-of-1", run: str = "") -> JobFolder:
    place = StoredPlace(URL, part, run)
    return JobFolder(place.folder, place)


def segments(store: Store) -> list[str]:
    return store.names(f"{STATE}/journal")


def done(folder: JobFolder) -> list[str]:
    folder.place.pull()
    return sorted(Ledger(folder.journal).entries)


def test_both_are_places(tmp_path: Path):
    assert isinstance(StoredPlace(URL, "1-of-1"), Place)
    assert isinstance(SplitPlace(URL, tmp_path / "state"), Place)


def test_outputs_become_objects_and_finished_files_are_gone_here(store, tmp_path: Path):
    made = tmp_path / "made.flac"
    made.write_bytes(b"sound")
    place = StoredPlace(URL, "1-of-1")
    items = [ItemFiles("a", {"deep/a.txt": "\udcffwords"}), ItemFiles("b", {"b.flac": made})]
    assert place.commit(tmp_path, items) == {}
    assert store.read("deep/a.txt") == b"\xffwords"
    assert store.read("b.flac") == b"sound"
    assert not made.exists()
    assert place.missing(["deep/a.txt", "b.flac", "c.txt"]) == {"c.txt"}
    with place.near("b.flac") as path:
        assert (path.name, path.read_bytes()) == ("b.flac", b"sound")
    with pytest.raises(FileNotFoundError), place.near("c.txt"):
        raise AssertionError("there is nothing to lend")


def test_an_output_that_cannot_be_written_costs_its_item_alone(store, tmp_path, monkeypatch):
    true_put = Store.put

    def put(self, name, content):
        if name == "a.txt":
            raise PermissionError("not allowed")
        true_put(self, name, content)

    monkeypatch.setattr(Store, "put", put)
    items = [ItemFiles("a", {"a.txt": "x", "a.json": "{}"}), ItemFiles("b", {"b.txt": "y"})]
    problems = StoredPlace(URL, "1-of-1").commit(tmp_path, items)
    assert problems == {"a": "cannot write 'a.txt': not allowed"}
    assert store.read("b.txt") == b"y"


def test_lines_are_held_back_for_a_while_and_written_at_the_end(store, monkeypatch):
    folder = folder_of()
    journal = folder.open_journal("1-of-1-worker-0")
    journal.append([record("a")])
    assert segments(store) == []
    monkeypatch.setattr(place_remote, "PUSH_S", 0.0)
    journal.append([record("b")])
    monkeypatch.setattr(place_remote, "PUSH_S", 30.0)
    journal.append([record("c")])
    assert len(segments(store)) == 1
    assert done(folder_of("look")) == ["a", "b"]
    journal.close()
    assert len(segments(store)) == 2
    assert done(folder_of("look")) == ["a", "b", "c"]


def test_two_writers_of_one_name_share_no_segment(store):
    first, second = folder_of(), folder_of()
    for folder, name in ((first, "a"), (second, "b")):
        journal = folder.open_journal("1-of-1-worker-0")
        journal.append([record(name)])
        journal.close()
    assert done(folder_of("look")) == ["a", "b"]


def test_what_a_worker_that_was_killed_left_here_is_written_by_its_driver(store):
    driver = folder_of()
    worker = folder_of(run=driver.place.run)
    assert worker.output == driver.output
    journal = worker.open_journal("1-of-1-worker-0")
    journal.append([record("a")])
    journal.append([record("b")])  # and then it is killed
    assert segments(store) == []
    driver.place.push()
    driver.place.push()
    assert len(segments(store)) == 1
    assert done(folder_of("look")) == ["a", "b"]


def test_what_workers_elsewhere_wrote_comes_in_piece_by_piece(store, monkeypatch):
    monkeypatch.setattr(place_remote, "PUSH_S", 0.0)
    driver, journal = folder_of("1-of-2"), folder_of("2-of-2").open_journal("2-of-2-worker-0")
    journal.append([record("a")])
    assert done(driver) == ["a"]
    journal.append([record("b")])
    assert done(driver) == ["a", "b"]
    assert done(driver) == ["a", "b"]
    assert not Ledger(driver.journal).repeated


def test_a_segment_that_cannot_be_written_waits_for_the_driver(store, monkeypatch):
    folder = folder_of()
    journal = folder.open_journal("w")
    journal.append([record("a")])

    def fail(self, name, content):
        raise StoreError("no route")

    with monkeypatch.context() as patch:
        patch.setattr(Store, "put", fail)
        journal.close()
        with pytest.raises(StoreError, match="no route"):
            folder.place.push()
    folder.place.push()
    assert done(folder_of("look")) == ["a"]


def test_fingerprint_and_plan_are_written_once_by_one(store):
    first, second = folder_of(), folder_of()
    assert first.claim({"job": "transcribe"})
    assert second.claim({"job": "restore"})
    first.place.push()
    with pytest.raises(JobError, match="another run began the job"):
        second.place.push()
    late = folder_of()
    late.place.pull()
    assert late.read_identity() == {"job": "transcribe"}
    late.place.push()


def test_files_are_uploaded_again_only_when_they_change(store, monkeypatch):
    folder, puts = folder_of(), []
    true_put = Store.put
    monkeypatch.setattr(
        Store, "put", lambda self, name, data: (puts.append(name), true_put(self, name, data))
    )
    folder.state.mkdir(parents=True)
    folder.summary.write_text("{}")
    folder.transcripts.write_text("row\n")
    folder.place.push()
    folder.place.push()
    assert puts == [f"{STATE}/summary.json", "transcripts.jsonl"]
    folder.summary.write_text('{"items": 1}')
    folder.place.push()
    assert puts[2:] == [f"{STATE}/summary.json"]


def test_a_job_that_is_forgotten_leaves_outputs_and_claims(store):
    folder = folder_of()
    with folder.place.claim("driver-1-of-1"):
        folder.claim({"job": "transcribe"})
        folder.transcripts.write_text("row\n")
        folder.place.push()
        store.put("a.txt", b"words")
        folder.place.forget()
        left = [name.split("/")[:2] for name in store.names()]
        assert left == [[STATE, "leases"], ["a.txt"]]
        folder.place.push()
        assert store.exists(f"{STATE}/job.json")


def test_the_whole_job_and_its_parts_exclude_one_another(store):
    with folder_of("1-of-2").place.claim("driver-1-of-2"):
        with folder_of("2-of-2").place.claim("driver-2-of-2"):
            for name in ("driver-1-of-1", "driver-1-of-3"):
                with pytest.raises(JobError, match=r"as driver-[12]-of-2: process \d+"):
                    folder_of().place.claim(name).__enter__()
        with pytest.raises(JobError, match="another run is at work"):
            folder_of().place.claim("driver-1-of-2").__enter__()
    with folder_of().place.claim("driver-1-of-1") as claim:
        assert not claim.lost


def test_plan_and_report_are_guarded_on_all_hosts_and_up_to_date(store):
    folder, other = folder_of(), folder_of()
    with folder.lock("plan"):
        folder.claim({"job": "transcribe"})
        folder.place.push()
        with pytest.raises(JobError, match=r"\(plan\)"), other.place.guard("plan", 0.0):
            raise AssertionError("it is held")
    with other.lock("report"):
        assert other.exists()
    with folder.place.guard("driver", 0.0), other.place.guard("driver", 0.0):
        pass


def test_what_a_killed_run_left_on_this_machine_is_removed_by_the_next(store):
    killed = StoredPlace(URL, "1-of-2")
    other = StoredPlace(URL, "2-of-2")
    with StoredPlace(URL, "1-of-2").claim("driver-1-of-2"):
        assert not killed.folder.exists()
        assert other.folder.exists()


def test_a_folder_of_its_own_goes_with_the_value(store):
    place = StoredPlace(URL, "1-of-1")
    folder = place.folder
    shared = StoredPlace(URL, "1-of-1", place.run)
    del shared
    assert folder.is_dir()
    del place
    assert not folder.exists()


def test_a_store_without_conditional_writes_holds_outputs_alone(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(Store, "conditional", False)
    with pytest.raises(ConfigError, match=r"memory:// offers no conditional write.*--job-folder"):
        StoredPlace(URL, "1-of-1")
    assert SplitPlace(URL, tmp_path).folder == tmp_path


def test_with_the_state_here_rows_and_outputs_go_to_the_store(store, tmp_path: Path):
    place = SplitPlace(URL, tmp_path)
    (tmp_path / "transcripts.jsonl").write_text("row\n")
    place.pull()
    place.push()
    assert place.commit(tmp_path / "staging", [ItemFiles("a", {"a.txt": "words"})]) == {}
    assert store.names() == ["a.txt", "transcripts.jsonl"]
    assert place.missing(["a.txt"]) == frozenset()
    with place.near("a.txt") as path:
        assert path.read_text() == "words"
    assert (place.run, place.journal_name("w"), place.shown) == ("", "w", URL)
    place.journalled(tmp_path / "j", True)
    with place.guard("plan", 0.0), place.claim("driver-1-of-1") as claim:
        assert not claim.lost
        assert (place.locks / "driver-1-of-1.lease").is_file()
    place.forget()
    assert store.names() == ["a.txt"]


def test_processes_that_share_a_folder_add_to_it_one_at_a_time(store, monkeypatch):
    monkeypatch.setattr(place_remote, "PUSH_S", 0.0)
    journal = folder_of("2-of-2").open_journal("2-of-2-worker-0")
    for name in "abcdef":
        journal.append([record(name)])
    driver = folder_of("1-of-2")
    sharers = [folder_of("1-of-2", driver.place.run) for _ in range(6)]
    with ThreadPoolExecutor(6) as executor:
        list(executor.map(lambda folder: folder.place.pull(), sharers))
    assert done(driver) == list("abcdef")
    assert not Ledger(driver.journal).repeated
