"""A run directory is one run's: it refuses others, survives kills and damage, runs no code from a file."""

from __future__ import annotations

import os
import pickle
import resource
import subprocess
import sys
import tempfile
import threading
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from dsonas_hw.checkpoint_file import load_checkpoint_file
from dsonas_hw.config import RunConfig, build_config, load_preset, overlay
from dsonas_hw.errors import RunError, UserError
from dsonas_hw.run_directory import LOGS, RunDirectory


def config_with(**changes: Any) -> RunConfig:
    return build_config(overlay(load_preset("digits"), changes))


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    run = RunDirectory(tmp_path / "runs" / "one")
    run.create(config_with())
    return run


# -- whose directory -------------------------------------------------------------------------------------


def test_the_configuration_comes_back_with_versions_beside_it(run: RunDirectory) -> None:
    assert run.load_config() == config_with()
    text = run.config_path.read_text()
    assert "versions:" in text
    assert f"torch: {metadata.version('torch')}" in text
    assert "seed: 0" in text


def test_a_run_is_not_started_over(run: RunDirectory) -> None:
    run.log("metrics.jsonl", {"epoch": 1})
    with pytest.raises(
        RunError, match="holds a run already; choose another --out, or go on there: dsonas-hw run --resume"
    ):
        run.create(config_with())
    run.create(config_with(), resume=True)


def test_what_a_refused_run_leaves_does_not_stand_in_the_way_of_the_next_try(run: RunDirectory) -> None:
    run.create(config_with(seed=3))
    assert run.load_config() == config_with(seed=3)


def test_a_configuration_that_somebody_wrote_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("preset: digits\n")
    with pytest.raises(RunError, match="holds a run already"):
        RunDirectory(tmp_path).create(config_with())
    assert (tmp_path / "config.yaml").read_text() == "preset: digits\n"


def test_another_configuration_is_refused_naming_the_fields(run: RunDirectory) -> None:
    other = config_with(seed=3, search={"lr": 0.5}, space={"stages": [1, 1, 1]})
    with pytest.raises(RunError, match=r"differs in seed, space\.stages, search\.lr\)"):
        run.create(other, resume=True)
    assert run.load_config() == config_with()


def test_a_folder_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(RunError, match="is not empty and is not a run"):
        RunDirectory(tmp_path).create(config_with())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_an_empty_or_locked_folder_is_taken(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with run.lock():
        run.create(config_with())
    assert run.load_config() == config_with()


def test_a_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = RunDirectory(tmp_path / "file" / "run")
    with pytest.raises(RunError, match=r"run directory .*/file/run"):
        run.create(config_with())
    with pytest.raises(RunError, match="cannot be written"):
        run.lock()
    with pytest.raises(RunError, match="cannot write"):
        run.save_checkpoint("search", 1, {})


def test_an_unwritable_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)  # chmod would not stop root
    with pytest.raises(RunError, match="cannot be written; choose another with --out"):
        RunDirectory(tmp_path / "run").create(config_with())


def test_not_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not a run directory"):
        RunDirectory(tmp_path).load_config()


@pytest.mark.parametrize("text", ["preset: [", "preset: digits\nsurprise: 1\n", "- 1\n", ""])
def test_a_damaged_configuration_is_refused(run: RunDirectory, text: str) -> None:
    run.config_path.write_text(text)
    for use in (run.load_config, lambda: run.create(config_with(), resume=True)):
        with pytest.raises(UserError, match=r"config\.yaml"):
            use()


# -- one process at a time -------------------------------------------------------------------------------


def test_the_lock_keeps_others_out_until_it_is_given_back(run: RunDirectory) -> None:
    other = RunDirectory(run.path)
    with run.lock(), pytest.raises(RunError, match="another process works in"):
        other.lock()
    with other.lock(), pytest.raises(RunError, match="another process works in"):
        run.lock()


def test_who_has_the_directory_is_told_from_others(run: RunDirectory) -> None:
    other = RunDirectory(run.path)
    assert not other.is_in_use()
    with run.lock():
        assert other.is_in_use()
        assert not run.is_in_use(), "the lock is its own"
    assert not other.is_in_use()


def test_the_lock_keeps_other_processes_out(run: RunDirectory) -> None:
    code = (
        "import sys; from pathlib import Path; from dsonas_hw.run_directory import RunDirectory\n"
        "with RunDirectory(Path(sys.argv[1])).lock(): print('locked', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(run.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"locked\n"
    with pytest.raises(RunError, match="another process works in"):
        run.lock()
    holder.kill()
    holder.wait()
    with run.lock():  # a killed process leaves no lock behind
        pass


def test_who_is_patient_waits_for_the_lock(run: RunDirectory) -> None:
    entered = threading.Event()

    def wait_for_it() -> None:
        with RunDirectory(run.path, patience_s=60).lock():
            entered.set()

    waiting = threading.Thread(target=wait_for_it)
    with run.lock():
        waiting.start()
        assert not entered.wait(0.3)
    waiting.join()
    assert entered.is_set()


def leave_half_a_file(folder: Path, name: str) -> Path:
    """What a process leaves that is killed while it writes."""
    code = (
        "import os, sys; from pathlib import Path; from dsonas_hw.files import atomic_write\n"
        "with atomic_write(Path(sys.argv[1])) as file:\n"
        "    file.write(b'half'); file.flush(); os.kill(os.getpid(), 9)"
    )
    before = set(folder.iterdir()) if folder.is_dir() else set()
    subprocess.run([sys.executable, "-c", code, str(folder / name)], check=False)
    (left,) = set(folder.iterdir()) - before
    return left


def test_what_a_kill_left_half_written_is_removed_under_the_lock(run: RunDirectory) -> None:
    run.save_checkpoint("retrain", 1, {})
    left = [
        leave_half_a_file(run.checkpoints, "retrain-000002.pt"),
        leave_half_a_file(run.path, "model.onnx"),
    ]
    notes = [run.path / ".notes.settings", run.path / "thesis.part", run.checkpoints / ".x.part"]
    for note in notes:
        note.write_text("of the user")
    RunDirectory(run.path)
    assert all(path.exists() for path in left)
    with run.lock():
        assert not any(path.exists() for path in left)
        left = [leave_half_a_file(run.path, "weights.npz")]
        with run.lock():  # ours, again: what is being written is not removed
            assert left[0].exists()
    assert all(note.exists() for note in notes)
    assert [path.name for path in run.list_checkpoints("retrain")] == ["retrain-000001.pt"]


def test_killed_while_its_configuration_was_written_a_run_starts_again(tmp_path: Path) -> None:
    left = leave_half_a_file(tmp_path / "run", "config.yaml")
    run = RunDirectory(tmp_path / "run")
    run.create(config_with())
    assert run.load_config() == config_with()
    assert not left.exists()


def test_the_lock_is_given_back_after_an_error(run: RunDirectory) -> None:
    def fail() -> None:
        with run.lock():
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    with RunDirectory(run.path).lock():
        pass


# -- checkpoints -----------------------------------------------------------------------------------------

STATE = {"epoch": 3, "weights": torch.arange(6.0).view(2, 3), "nested": {"rng": [1, None, "x"]}}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return bool(a == b)


def test_a_checkpoint_comes_back(run: RunDirectory) -> None:
    assert run.load_checkpoint("search") == (None, [])
    run.save_checkpoint("search", 3, STATE)
    state, warnings = run.load_checkpoint("search")
    assert state is not None
    assert warnings == []
    assert state.pop("log_sizes") == dict.fromkeys(LOGS, 0)
    assert same(state, STATE)
    assert run.load_checkpoint("retrain") == (None, [])


def test_the_last_two_of_each_stage_are_kept(run: RunDirectory) -> None:
    for number in (1, 2, 10):
        run.save_checkpoint("search", number, {"number": number})
        run.save_checkpoint("retrain", number, {"number": number})
    names = sorted(path.name for path in run.checkpoints.iterdir())
    assert names == ["retrain-000002.pt", "retrain-000010.pt", "search-000002.pt", "search-000010.pt"]


def test_numbers_of_any_length_stay_in_order(run: RunDirectory) -> None:
    # The search counts thousandths of an epoch: a million of them are a thousand epochs.
    for number in (999_000, 999_999, 1_000_000, 12_000_000):
        run.save_checkpoint("search", number, {"number": number})
        state, _ = run.load_checkpoint("search")
        assert state is not None
        assert state["number"] == number
    assert len(run.list_checkpoints("search")) == 2


def damage(path: Path, how: str) -> None:
    raw = path.read_bytes()
    if how == "torn":
        path.write_bytes(raw[: len(raw) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "noise":
        path.write_bytes(bytes(range(256)) * 8)
    elif how == "not a state":
        torch.save([1, 2], path)


@pytest.mark.parametrize("how", ["torn", "empty", "noise", "not a state"])
def test_a_corrupt_newest_checkpoint_falls_back_with_a_warning(run: RunDirectory, how: str) -> None:
    run.save_checkpoint("search", 1, {"number": 1})
    damage(run.save_checkpoint("search", 2, {"number": 2}), how)
    state, warnings = run.load_checkpoint("search")
    assert state is not None
    assert state["number"] == 1
    assert len(warnings) == 1
    assert "search-000002.pt" in warnings[0]
    assert "falling back" in warnings[0]


def test_only_corrupt_checkpoints_are_an_error(run: RunDirectory) -> None:
    for number in (1, 2):
        damage(run.save_checkpoint("search", number, {}), "torn")
    with pytest.raises(RunError, match=r"no checkpoint in .* can be read; start again"):
        run.load_checkpoint("search")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_code_in_a_checkpoint_is_not_run(run: RunDirectory, tmp_path: Path) -> None:
    marker = tmp_path / "owned"

    class Attack:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(marker),)

    path = run.save_checkpoint("search", 1, {})
    for write in (
        lambda: torch.save({"x": Attack()}, path),
        lambda: path.write_bytes(pickle.dumps(Attack())),
    ):
        write()
        with pytest.raises(RunError, match="cannot be read"):
            load_checkpoint_file(path)
    assert not marker.exists()


def test_a_full_disk_keeps_the_checkpoint_before(run: RunDirectory) -> None:
    run.save_checkpoint("search", 1, STATE)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # writing more fails as on a full disk
    try:
        with pytest.raises(RunError, match=r"cannot write .*search-000002\.pt: .*; free space"):
            run.save_checkpoint("search", 2, {"weights": torch.rand(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in run.checkpoints.iterdir()] == ["search-000001.pt"]
    state, _ = run.load_checkpoint("search")
    assert state is not None
    assert same(state["weights"], STATE["weights"])


def test_a_clock_that_jumps_back_does_not_change_which_checkpoint_is_newest(run: RunDirectory) -> None:
    for number in (1, 2, 3):
        os.utime(run.save_checkpoint("search", number, {"number": number}), (10_000 - number,) * 2)
    state, _ = run.load_checkpoint("search")
    assert state is not None
    assert state["number"] == 3
    assert [path.name for path in run.list_checkpoints("search")] == ["search-000002.pt", "search-000003.pt"]


def test_other_files_are_no_checkpoints(run: RunDirectory) -> None:
    run.save_checkpoint("search", 1, {})
    for name in (".search-000002.pt.abcd", "search-2.pt.bak", "searching-000003.pt", "search-final.pt"):
        (run.checkpoints / name).write_bytes(b"")
    assert [path.name for path in run.list_checkpoints("search")] == ["search-000001.pt"]


# -- logs ------------------------------------------------------------------------------------------------


def test_logs_go_back_to_what_they_were_at_a_checkpoint(run: RunDirectory) -> None:
    run.log("metrics.jsonl", {"epoch": 1})
    run.save_checkpoint("search", 1, {})
    run.log("metrics.jsonl", {"epoch": 2})
    run.log("path.jsonl", {"step": 1})
    state, _ = run.load_checkpoint("search")
    assert state is not None
    run.truncate_logs(state["log_sizes"])
    assert run.log_path("metrics.jsonl").read_text() == '{"epoch": 1}\n'
    assert run.log_path("path.jsonl").read_text() == ""
    run.truncate_logs(state["log_sizes"])
    assert run.log_path("metrics.jsonl").read_text() == '{"epoch": 1}\n'


def test_logs_are_not_lengthened(run: RunDirectory) -> None:
    run.log("metrics.jsonl", {"epoch": 1})
    run.truncate_logs({"metrics.jsonl": 1000})
    assert run.log_path("metrics.jsonl").read_text() == '{"epoch": 1}\n'


def test_checkpoints_while_others_read(run: RunDirectory) -> None:
    """A reader sees a whole checkpoint at any moment."""
    run.save_checkpoint("search", 1, {"weights": torch.zeros(10_000)})
    failures: list[Exception] = []

    def write() -> None:
        for number in range(30):
            run.save_checkpoint("search", 1, {"weights": torch.full((10_000,), float(number))})

    writer = threading.Thread(target=write)
    writer.start()
    while writer.is_alive():
        try:
            weights = load_checkpoint_file(run.checkpoints / "search-000001.pt")["weights"]
            assert (weights == weights[0]).all()
        except Exception as error:
            failures.append(error)
    writer.join()
    assert failures == []


# -- a run from anyone -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["metrics.jsonl", ".lock", "checkpoints", "checkpoints/search-000001.pt"])
def test_a_link_in_a_run_does_not_lead_us_elsewhere(name: str, run: RunDirectory, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "search-000001.pt").write_bytes(b"keep")
    link = run.path / name
    link.unlink(missing_ok=True)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(elsewhere if name == "checkpoints" else elsewhere / "search-000001.pt")
    with pytest.raises(RunError, match="symbolic link"), run.lock():
        pass
    assert [path.name for path in elsewhere.iterdir()] == ["search-000001.pt"]
    assert (elsewhere / "search-000001.pt").read_bytes() == b"keep"


def test_the_run_itself_may_be_a_link(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run.path)
    with RunDirectory(tmp_path / "link").lock():
        pass


@pytest.mark.parametrize("sizes", [None, {"metrics.jsonl": -1}, {"metrics.jsonl": "1"}, [1]])
def test_sizes_of_logs_that_are_none_are_refused(sizes: object, run: RunDirectory) -> None:
    run.log("metrics.jsonl", {"epoch": 1})
    with pytest.raises(RunError, match="how long the logs were"):
        run.truncate_logs(sizes)
    assert run.log_path("metrics.jsonl").read_text() == '{"epoch": 1}\n'


def test_a_checkpoint_that_would_unpack_to_more_is_refused(run: RunDirectory, tmp_path: Path) -> None:
    path = run.save_checkpoint("search", 1, {"w": torch.zeros(1_000_000)})
    packed = tmp_path / "packed.pt"
    with zipfile.ZipFile(path) as stored, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for entry in stored.infolist():
            archive.writestr(entry.filename, stored.read(entry))
    assert packed.stat().st_size < path.stat().st_size / 50
    with pytest.raises(RunError, match="cannot be read"):
        load_checkpoint_file(packed)
    assert load_checkpoint_file(path)["w"].shape == (1_000_000,)
