"""The one atomic write: the old file or the new one, and never something that must not be replaced."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import pytest
from conftest import REPOSITORY
from refusals import refused

from splavu.runtime import checkpoints
from splavu.runtime.files import check_target, claimed, file_hash, files_of, replacing, write_bytes, write_text
from splavu.runtime.run_folder import RunFolder

POSIX = pytest.mark.skipif(os.name != "posix", reason="links, pipes and sockets")


def content(folder):
    """Every file below a folder with its bytes, links by where they lead, other things by their kind."""
    found = {}
    for path in sorted(folder.rglob("*")):
        state = path.lstat()
        if path.is_symlink():
            found[path.relative_to(folder)] = path.readlink()
        else:
            found[path.relative_to(folder)] = path.read_bytes() if path.is_file() else (state.st_mode, state.st_ino)
    return found


def test_writes_the_whole_file_and_makes_its_folder(tmp_path):
    path = tmp_path / "new/folder/name.txt"
    assert write_text(path, "überall\n") == path
    assert path.read_bytes() == "überall\n".encode()
    write_bytes(path, b"second")
    assert content(path.parent) == {path.relative_to(path.parent): b"second"}


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt(), ValueError("ours")])
def test_an_error_leaves_what_was_there(tmp_path, error, durable):
    def fail(path):
        with replacing(path, durable=durable) as temporary:
            temporary.write_bytes(b"half")
            raise error

    path = tmp_path / "name"
    for before in (None, b"before"):
        if before is not None:
            path.write_bytes(before)
        with pytest.raises(type(error)):
            fail(path)
        assert content(tmp_path) == ({} if before is None else {path.relative_to(tmp_path): before})


def test_a_killed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "name"
    path.write_bytes(b"before")
    script = """
        import sys, time
        from splavu.runtime.files import replacing
        with replacing(sys.argv[1]) as temporary:
            temporary.write_bytes(b"half")
            print("ready", flush=True)
            time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(path)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert path.read_bytes() == b"before"
    (torn,) = set(tmp_path.iterdir()) - {path}
    assert torn.name.startswith(".name.")
    assert torn.name.endswith(".tmp")
    write_bytes(path, b"after")
    assert path.read_bytes() == b"after"


def test_a_failed_write_blames_the_target(tmp_path):
    (tmp_path / "file").write_bytes(b"a file, and no folder")
    before = content(tmp_path)
    for write in (lambda path: write_bytes(path, b""), lambda path: checkpoints.write(path, {})):
        with refused("out"):
            write(tmp_path / "file/out")
    assert content(tmp_path) == before


@POSIX
@pytest.mark.parametrize("kind", ["folder", "pipe", "socket", "link to a pipe", "link out", "broken link out"])
def test_what_is_no_regular_file_is_not_replaced(tmp_path, kind, monkeypatch):
    folder = tmp_path / "in"
    folder.mkdir()
    outside = tmp_path / "outside"
    target = folder / "out"
    server = socket.socket(socket.AF_UNIX)
    if kind == "folder":
        target.mkdir()
    elif kind == "pipe":
        os.mkfifo(target)
    elif kind == "socket":
        monkeypatch.chdir(folder)  # a socket's path has at most some 100 characters
        server.bind(target.name)
    elif kind == "link to a pipe":
        os.mkfifo(folder / "pipe")
        target.symlink_to("pipe")
    else:
        if kind == "link out":
            outside.write_bytes(b"someone else's")
        target.symlink_to(outside)
    before = content(tmp_path)
    for write in (check_target, lambda path: write_bytes(path, b"new"), lambda path: checkpoints.write(path, {})):
        with refused("out"):
            write(target)
    assert content(tmp_path) == before
    server.close()


@POSIX
def test_a_link_within_its_folder_is_replaced_and_not_what_it_leads_to(tmp_path):
    (tmp_path / "epoch_7").write_bytes(b"seven")
    (tmp_path / "latest").symlink_to("epoch_7")
    write_bytes(tmp_path / "latest", b"eight")
    assert (tmp_path / "epoch_7").read_bytes() == b"seven"
    assert (tmp_path / "latest").read_bytes() == b"eight"
    assert not (tmp_path / "latest").is_symlink()


@POSIX
def test_a_folder_that_is_reached_by_a_link_is_written_to(tmp_path):
    (tmp_path / "large disk").mkdir()
    (tmp_path / "runs").symlink_to("large disk")
    write_bytes(tmp_path / "runs/a", b"a")
    assert (tmp_path / "large disk/a").read_bytes() == b"a"


def test_an_input_is_not_replaced_whatever_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = tmp_path / "source"
    source.write_bytes(b"input")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/part").write_bytes(b"part")
    names = ["source", source, "folder/../source"]
    if os.name == "posix":
        (tmp_path / "hard").hardlink_to(source)
        (tmp_path / "soft").symlink_to("source")
        names += ["hard", "soft"]
    before = content(tmp_path)
    for target in names:
        for given in names:
            with refused(target), replacing(target, inputs=["other", given]) as temporary:
                temporary.write_bytes(b"new")
    for target in ("folder/part", "folder/new"):
        with refused(target):
            write_bytes(target, b"new", inputs=["folder"])
    assert content(tmp_path) == before
    write_bytes("folder/new", b"new", inputs=files_of("folder"))
    with refused("folder/part"):
        write_bytes("folder/part", b"new", inputs=files_of("folder"))


def test_a_folder_as_target(tmp_path):
    (tmp_path / "out/raw").mkdir(parents=True)
    (tmp_path / "file").write_bytes(b"")
    check_target(tmp_path / "new", is_folder=True, inputs=[tmp_path / "out"])
    check_target(tmp_path / "out", is_folder=True, inputs=[tmp_path / "file"])
    for target, inputs in (("file", []), ("out", ["out/raw"]), ("out", ["out"]), ("out/raw/deep", ["out/raw"])):
        with refused(tmp_path / target):
            check_target(tmp_path / target, is_folder=True, inputs=[tmp_path / name for name in inputs])


def test_the_hash_of_a_folder_is_that_of_its_names_and_bytes(tmp_path):
    for name in ("one", "two", "renamed", "changed"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep/a").write_bytes(b"a" * 3_000_000)
    (tmp_path / "renamed/deep/a").rename(tmp_path / "renamed/deep/b")
    (tmp_path / "changed/deep/a").write_bytes(b"a" * 2_999_999 + b"b")
    hashes = [file_hash(tmp_path / name) for name in ("one", "two", "renamed", "changed")]
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3
    assert file_hash(__file__) == subprocess.run(
        [sys.executable, "-c", "import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], 'rb').read()).hexdigest())",
         __file__], capture_output=True, text=True, check=True,
    ).stdout.strip()  # fmt: skip


HOLD = """
    import sys, time
    from splavu.runtime.files import claimed
    with claimed(sys.argv[1], is_folder=sys.argv[2] == "folder"):
        print("ready", flush=True)
        time.sleep(60)
"""


@POSIX
@pytest.mark.parametrize("kind", ["file", "folder"])
def test_one_process_writes_a_target_and_a_dead_one_holds_nothing(tmp_path, kind):
    target = tmp_path / "deep/out"
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(HOLD), str(target), kind],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.PIPE,
    )  # fmt: skip
    with process:
        assert process.stdout.readline() == b"ready\n"
        with refused(target), claimed(target, is_folder=kind == "folder"):
            pass
        if kind == "folder":
            with refused(target), RunFolder(tmp_path, "deep/out").held():
                pass
        with claimed(tmp_path / "deep/other"):  # another target in the same folder
            pass
        process.kill()
    with claimed(target, is_folder=kind == "folder"), claimed(target, is_folder=kind == "folder"):
        pass
    if kind == "file":
        with claimed(target):
            write_bytes(target, b"whole")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["out"] * (kind == "file")


@pytest.mark.parametrize("name", ["out", "deep/er/out"])
def test_what_would_stop_a_write_is_found_before_the_work(tmp_path, monkeypatch, name):
    """Nothing is left of a claim that fails, and of one whose work fails."""
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=2**20 - 1))
    with refused(tmp_path / name, naming="1.0 MiB"), claimed(tmp_path / name):
        raise AssertionError("begins")
    assert content(tmp_path) == {}
    monkeypatch.undo()
    with pytest.raises(ValueError, match="ours"), claimed(tmp_path / name, room=2**10):
        raise ValueError("ours")
    with refused(tmp_path / name), claimed(tmp_path / name, room=2**62):
        raise AssertionError("begins")
    assert content(tmp_path) == {}
    (tmp_path / "file").write_bytes(b"")
    with refused(tmp_path / "file/out"), claimed(tmp_path / "file/out"):
        raise AssertionError("begins")


@POSIX
@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_folder_that_is_read_only_is_found_before_the_work(tmp_path):
    (tmp_path / "kept").mkdir(mode=0o555)
    with refused(tmp_path / "kept/out"), claimed(tmp_path / "kept/out"):
        raise AssertionError("begins")


def test_a_name_as_long_as_the_file_system_takes(tmp_path):
    longest = tmp_path / ("n" * 255)
    with claimed(longest):
        write_bytes(longest, b"whole")
    assert content(tmp_path) == {longest.relative_to(tmp_path): b"whole"}
    with refused(tmp_path / ("n" * 256)), claimed(tmp_path / ("n" * 256)):
        pass


FOREIGN = {
    "store.h5": b"\x89HDF\r\n\x1a\n",
    "array.npy": b"\x93NUMPY",
    "labels.csv": b"filename,label\n",
    "film": b"\0\0",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_file_of_another_format_is_not_replaced(tmp_path, name):
    for other, ours in FOREIGN.items():
        (tmp_path / name).write_bytes(FOREIGN[name] + b"before")
        if other == name:
            write_bytes(tmp_path / name, ours + b"after")
            assert (tmp_path / name).read_bytes() == ours + b"after"
        else:
            with refused(tmp_path / name):
                write_bytes(tmp_path / name, ours)
            assert content(tmp_path) == {(tmp_path / name).relative_to(tmp_path): FOREIGN[name] + b"before"}
    (tmp_path / name).write_bytes(b"")  # nothing to lose
    write_bytes(tmp_path / name, b"text")


@pytest.mark.parametrize("where", ["near the beginning", "near the end"])
def test_a_file_without_the_mark_of_its_kind_is_not_replaced(tmp_path, where):
    before, after = (b"", b"x" * 9000) if where == "near the beginning" else (b"x" * 9000, b"")
    (tmp_path / "ours").write_bytes(before + b"mark" + after)
    (tmp_path / "theirs").write_bytes(before + b"else" + after)
    (tmp_path / "empty").write_bytes(b"")
    for name in ("ours", "empty", "absent"):
        check_target(tmp_path / name, marks=[b"another", b"mark"])
    with refused(tmp_path / "theirs"):
        check_target(tmp_path / "theirs", marks=[b"another", b"mark"])


@pytest.mark.parametrize(
    "run_id", ["", ".", "..", "a/../..", "a/../../b", "/absolute", "n" * 201, "a\nb", "a/" + "n" * 256]
)
def test_a_run_folder_has_a_name_below_its_root(tmp_path, run_id):
    with refused("run_id"):
        RunFolder(tmp_path / "runs", run_id)
    assert RunFolder(tmp_path / "runs", "group/run").path == tmp_path / "runs/group/run"


def test_a_link_that_leads_to_itself_is_an_input_like_any_other(tmp_path):
    (tmp_path / "loop").symlink_to("loop")
    check_target(tmp_path / "out", inputs=[tmp_path / "loop"])
    with refused("loop"):
        check_target(tmp_path / "loop", inputs=[tmp_path / "loop"])
