"""Names are opaque: what the file system allows, a store keeps, every command reads, and no terminal obeys."""

from __future__ import annotations

import csv
import io
import logging
import os
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
from conftest import REPOSITORY

from splavu.__main__ import main
from splavu.errors import UserError, printable
from splavu.runtime import cli
from splavu.stores import FeatureFolder, FeatureStore, FolderWriter, StoreWriter

ODD = (
    "lat\udce9",  # Latin-1
    "\udcff\udcfe/clip\udc80",  # in a folder
    "clear\x1b[2J",
    "new\nline",
    "re\rturn",
    "tab\tand  spaces ",
    "nel\x85\u2028",
    "\u202etxt.exe",
    "quote'\"`$(id)",
    "a|b<script>",
    "back\\slash\\x1b",
    "show.S01.E05",
    "日本語 é",
)


def features(number, rows=3, width=8):
    return np.random.default_rng(number).normal(size=(rows, width)).astype(np.float32)


@pytest.fixture
def store(tmp_path):
    folder = tmp_path / "lat\udce9 \x1b[2J|<b>"
    folder.mkdir()
    with StoreWriter(folder / "raw.h5", attributes={"encoder": "demo"}) as writer:
        for number, key in enumerate(ODD):
            writer.add(key, features(number))
    return folder / "raw.h5"


def is_plain(text):
    return all(line.isprintable() for line in text.split("\n"))


def test_a_text_is_escaped_once_and_says_what_was_there():
    assert printable("lat\udce9 \x1b[2J\n é日") == r"lat\udce9 \x1b[2J\n é日"
    assert is_plain(printable("".join(ODD)))
    for name in ODD:
        assert printable(printable(name)) == printable(name)
        if "\\" not in name:  # what Python reads the escapes as is the name
            escaped = printable(name).encode("latin-1", "backslashreplace")
            assert escaped.decode("unicode_escape").encode("utf-16", "surrogatepass") == name.encode(
                "utf-16", "surrogatepass"
            )


def test_every_message_is_one_printable_line():
    error = UserError("a\x1b[31m.h5", "'x\ny' is twice", "rename\udce9 it")
    assert str(error) == r"a\x1b[31m.h5: 'x\ny' is twice; rename\udce9 it"
    assert (error.culprit, error.problem) == ("a\x1b[31m.h5", "'x\ny' is twice")


def test_a_store_keeps_the_bytes_of_a_name(store):
    assert set(FeatureStore(store).keys()) == set(ODD)
    with h5py.File(store) as file:
        np.testing.assert_array_equal(file[b"lat\xe9"], features(0))
    for number, key in enumerate(ODD):
        np.testing.assert_array_equal(FeatureStore(store)[key], features(number))


def test_a_folder_keeps_them_with_checksums_that_sha256sum_reads(tmp_path):
    writer = FolderWriter(tmp_path / "raw", attributes={"encoder": "demo"})
    for number, key in enumerate(ODD):
        writer.add(key, features(number))
    folder = FeatureFolder(tmp_path / "raw")
    assert set(folder.keys()) == set(ODD)
    assert all(folder.examined(key).is_as_written for key in ODD)
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "--check", "--status", "SHA256SUMS"], cwd=tmp_path / "raw", check=True)


def test_commands_read_any_name_and_print_none_raw(store, capsys, monkeypatch):
    folder = store.parent
    monkeypatch.setattr(sys, "stdout", cli._PrintableStream(sys.stdout))
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        csv.writer(file).writerows(
            [("filename", "subject", "hat"), *((key, f"s{n // 2}", n % 2) for n, key in enumerate(ODD))]
        )
    fit = ["fit", "leace", "--raw", store, "--private", folder / "labels.csv", "--out", folder / "l.pth"]
    assert main([*map(str, fit)]) == 0
    anonymize = ["anonymize", "--aam", folder / "l.pth", store]
    assert main([*map(str, [*anonymize, folder / "kept.h5"])]) == 0
    assert set(FeatureStore(folder / "kept.h5").keys()) == set(ODD)
    assert main([*map(str, [*anonymize, folder / "hashed.h5", "--keys", "secret"])]) == 0
    assert main(["verify", str(folder / "kept.h5"), "--feature-dim", "7"]) == 1  # every key is a fault
    audit = ["audit", "--released", folder / "hashed.h5", "--raw", store, "--labels", folder / "labels.csv"]
    audit += ["--keys", folder / "hashed.h5.keys.csv", "--quick", "--anyway", "--workers", "1", "--out", folder]
    main([*map(str, audit), "--device", "cpu", "--attributes-only"])
    main(["audit-report", str(folder / "evidence.json"), "--out", str(folder / "again.html")])
    page = (folder / "again.html").read_text(encoding="utf-8")
    assert "|<b>" not in page
    captured = capsys.readouterr()
    assert is_plain(captured.out.replace("\t", "")), captured.out
    assert r"lat\udce9" in captured.out


def test_output_of_a_strict_encoding_never_raises(store):
    done = subprocess.run(
        [sys.executable, "-m", "splavu", "verify", str(store), str(store), "--feature-dim", "7"],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONIOENCODING": "ascii:strict"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert is_plain(done.stdout.decode("ascii"))


def test_log_and_arguments_are_escaped(monkeypatch):
    log = io.StringIO()
    monkeypatch.setattr(sys, "stderr", log)
    made = cli.ArgumentParser(prog="splavu")
    cli.add_common(made)
    with pytest.raises(SystemExit):
        made.parse_args(["--odd\x1b[2J"])
    cli.start(made.parse_args([]))
    logging.getLogger("splavu").warning("'%s' is left out", "a\x1b[2J\nb")
    assert is_plain(log.getvalue())
    assert log.getvalue().count("\n") == 2


def test_videos_of_any_name_are_extracted(tmp_path, capsys):
    """Into a store of the names' bytes, also when it is extended; what can't be read is named on one line."""
    av = pytest.importorskip("av")
    from feature_extraction.feature_extraction_action import main as extract

    names = ["lat\udce9.mp4", "clear\x1b[2J.mp4", "a|b.mp4"]
    (tmp_path / "videos").mkdir()
    for shade, name in enumerate(names):
        with av.open(str(tmp_path / "made.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for _ in range(16):
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 60 * shade, np.uint8))
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        (tmp_path / "made.mp4").rename(tmp_path / "videos" / name)
    (tmp_path / "videos/bad\nline.mp4").write_bytes(b"no video")
    given = ["--videos", tmp_path / "videos", "--out", tmp_path / "s.h5", "--encoder", "demo", "--device", "cpu"]
    given = [*map(str, given), "--set", "num_workers=1", "--quiet"]
    assert extract(given) == 1
    assert set(FeatureStore(tmp_path / "s.h5").keys()) == {"lat\udce9", "clear\x1b[2J", "a|b"}
    assert [line for line in capsys.readouterr().out.split("\n") if line.startswith(r"failed: bad\nline: ")]
    (tmp_path / "videos/bad\nline.mp4").unlink()
    shutil.copy(tmp_path / "videos/a|b.mp4", tmp_path / "videos/\udcff.mp4")
    assert extract(given) == 0
    assert "\udcff" in FeatureStore(tmp_path / "s.h5")
