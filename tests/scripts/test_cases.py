"""The kinds of fault of a list of 1,200 hostile and careless inputs, one row a test, by commands alone.

Only commands and what they write are used, so the same file runs on an earlier version, where each of these tests fails
(docs/reliability.md has the table). Most inputs are made here; those of ../shared/cases are added where it is.
"""

from __future__ import annotations

import csv
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import REPOSITORY

from splavu.__main__ import main
from splavu.errors import UserError

WIDTH, VIDEOS = 8, 24
NAMES = [f"v{i:02d}" for i in range(VIDEOS)]


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A folder with a store, its tables and PCA fitted to it."""
    monkeypatch.chdir(tmp_path)
    write_store("raw.h5")
    write_table(
        "private.csv", {"subject": [f"p{i // 2}" for i in range(VIDEOS)], "tall": [i % 2 for i in range(VIDEOS)]}
    )
    write_table("labels.csv", {"label": ["abc"[i % 3] for i in range(VIDEOS)]})
    done, said = run("fit", "pca", "--raw", "raw.h5", "--keep", "3", "--out", "pca.pth")
    assert done == 0, said
    return tmp_path


def features(seed: int = 0, names: list[str] = NAMES) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=(3, WIDTH)).astype(np.float32) for name in names}


def write_store(path: str, content: dict[str, np.ndarray] | None = None, **attributes: object) -> None:
    with h5py.File(path, "w") as file:
        for key, value in (features() if content is None else content).items():
            file[key.encode(errors="surrogateescape")] = value
        file.attrs.update({"encoder": "made up", **attributes})


def write_table(path: str, columns: dict[str, list], names: list[str] = NAMES) -> None:
    with Path(path).open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", *columns])
        writer.writerows([name, *cells] for name, *cells in zip(names, *columns.values(), strict=True))


def run(*argv: object) -> tuple[int, str]:
    """(exit code, the line of a refusal); another exception is the fault that is looked for, and is raised."""
    try:
        return main([*map(str, argv), "--quiet"]), ""
    except UserError as error:
        return 2, str(error)
    except SystemExit as left:
        return left.code or 0, ""


def refused(*argv: object) -> str:
    """The command must refuse; its line."""
    code, line = run(*argv)
    assert code == 2, f"exit code {code}"
    assert "\n" not in line
    return line


def process(*argv: object, **options: object) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    return subprocess.run(
        [sys.executable, *map(str, argv)], capture_output=True, timeout=120, env=environment, **options
    )


# 1. A wrong result without a word.


@pytest.mark.parametrize("spelling", [("False", "True"), ("no", "yes"), ("0.0", "1.0"), ("-1", "1")])
def test_an_attribute_is_read_in_every_spelling(here, spelling):
    cells = [spelling[i % 2] for i in range(VIDEOS)]
    cells[3] = ""
    write_table("words.csv", {"subject": NAMES, "tall": cells, "old": [(i // 2) % 2 for i in range(VIDEOS)]})
    assert run("fit", "leace", "--raw", "raw.h5", "--private", "words.csv", "--out", "l.pth")[0] == 0
    recorded = torch.load("l.pth", weights_only=True)["fa_architecture"]
    assert recorded["rank"] == 2 if "rank" in recorded else "2 of" in json.dumps(recorded)


def test_a_blank_subject_is_no_subject(here):
    write_table("blank.csv", {"subject": [""] * VIDEOS, "tall": [i % 2 for i in range(VIDEOS)]})
    audit = ["audit", "--released", "raw.h5", "--labels", "blank.csv", "--quick", "--attributes-only", "--workers", "1"]
    assert "blank.csv" in refused(*audit)


def test_the_end_of_a_key_is_no_extension(here):
    """Labels of keys with dots are those of their own rows: after LEACE nothing of them is left."""
    names = [f"walk_1.{i:02d}" for i in range(VIDEOS)]
    tall = [i % 2 for i in range(VIDEOS)]
    content = {name: value + 3 * bit for (name, value), bit in zip(features(names=names).items(), tall, strict=True)}
    write_store("dots.h5", content)
    write_table("dots.csv", {"tall": tall}, names)
    assert run("fit", "leace", "--raw", "dots.h5", "--private", "dots.csv", "--out", "l.pth")[0] == 0
    assert run("anonymize", "--aam", "l.pth", "dots.h5", "out.h5")[0] == 0
    with h5py.File("out.h5") as file:
        means = np.array([file[name][()].mean(axis=0) for name in names])
    assert np.abs(means[1::2].mean(axis=0) - means[::2].mean(axis=0)).max() < 0.01


@pytest.mark.parametrize("out", ["raw.h5", "private.csv", "link.pth"])
def test_an_output_is_no_input(here, out):
    Path("link.pth").symlink_to("raw.h5")
    before = Path("raw.h5").read_bytes(), Path("private.csv").read_bytes()
    refused("fit", "leace", "--raw", "raw.h5", "--private", "private.csv", "--out", out)
    refused("export", "--aam", "pca.pth", "pca.pth")
    assert before == (Path("raw.h5").read_bytes(), Path("private.csv").read_bytes())
    assert Path("link.pth").is_symlink()


def test_a_release_of_another_content_is_made_again(here):
    anonymize = ("anonymize", "--aam", "pca.pth", "raw.h5", "out.h5")
    assert run(*anonymize)[0] == 0
    first = Path("out.h5").read_bytes()
    write_store("raw.h5", features(1))
    os.utime("raw.h5", (10**9, 10**9))
    assert run(*anonymize)[0] == 0
    assert Path("out.h5").read_bytes() != first


@pytest.mark.parametrize("is_link", [False, True])
def test_a_foreign_partial_folder_is_kept(here, is_link):
    Path("mine").mkdir()
    Path("mine/precious.txt").write_text("mine")
    Path("out.h5.partial").symlink_to("mine") if is_link else Path("mine").rename("out.h5.partial")
    run("anonymize", "--aam", "pca.pth", "raw.h5", "out.h5")
    assert Path("out.h5.partial/precious.txt").read_text() == "mine"


@pytest.mark.parametrize("kind", ["soft", "dangling", "external"])
def test_links_are_named(here, kind):
    with h5py.File("raw.h5", "r+") as file:
        links = {
            "soft": h5py.SoftLink("/v00"),
            "dangling": h5py.SoftLink("/no"),
            "external": h5py.ExternalLink("o.h5", "/a"),
        }
        file["zzz"] = links[kind]
    assert "zzz" in refused("anonymize", "--aam", "pca.pth", "raw.h5", "out.h5")
    assert run("verify", "raw.h5")[0] == 1


@pytest.mark.parametrize("kind", ["external storage", "virtual", "symlinked .npy"])
def test_nothing_is_read_outside_the_store(here, kind):
    secret = np.full((3, WIDTH), 42, np.float32)
    source, target = "raw.h5", "out.h5"
    if kind == "symlinked .npy":
        source, target = "long", "out"
        Path("long").mkdir()
        np.save("secret.npy", secret)
        np.save("long/a.npy", secret + 1)
        Path("long/b.npy").symlink_to("../secret.npy")
    else:
        secret.tofile("secret.bin")
        with h5py.File("s.h5", "w") as file:
            file["secret"] = secret
        with h5py.File("raw.h5", "r+") as file:
            if kind == "virtual":
                layout = h5py.VirtualLayout((3, WIDTH), "f4")
                layout[:] = h5py.VirtualSource("s.h5", "secret", shape=(3, WIDTH))
                file.create_virtual_dataset("zzz", layout)
            else:
                file.create_dataset("zzz", (3, WIDTH), "f4", external=[("secret.bin", 0, secret.nbytes)])
    refused("anonymize", "--aam", "pca.pth", source, target)
    assert not Path(target).exists()
    assert run("verify", source)[0] == 1


def test_a_key_of_an_annotation_file_stays_in_its_folder(here):
    from tridet.annotations import read_annotations
    from tridet.errors import InputError

    video = {
        "subset": "Test",
        "fps": 25,
        "duration": 9,
        "annotations": [{"label": "a", "label_id": 0, "segment": [1, 2]}],
    }
    Path("a.json").write_text(json.dumps({"database": {"../secret": video}}))
    with pytest.raises(InputError, match="secret"):
        read_annotations("a.json")


def test_the_best_stream_is_read(shared):
    from splavu.extraction.videos import open_video

    with open_video(shared / "cases/cover_stream0.mp4", "pyav") as video:
        assert sum(len(batch) for batch in video.frames(batch_size=16)) > 1


@pytest.mark.parametrize("name", ["vfr_long.mp4", "vfr_long.mkv", "vfr_long_h264.ts", "pir_cut.ts", "m2_cut.ts"])
def test_recordings_of_variable_rate_or_cut_are_whole(shared, name):
    """To the last frame; and a frame's time is its presentation time, not its number over the rate."""
    import av

    from splavu.extraction.videos import open_video

    path = shared / "cases" / name
    with open_video(path, "pyav") as video:
        count = sum(len(batch) for batch in video.frames(batch_size=16))
        times = getattr(video, "times", None)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        wanted = sorted(float(f.pts * stream.time_base) for f in container.decode(stream) if f.pts is not None)
    assert count >= len(wanted) - 1
    assert times is not None
    found = np.asarray(times() if callable(times) else times)
    assert np.abs((found - found[0])[: len(wanted)] - (np.array(wanted) - wanted[0])[: len(found)]).max() < 0.05


def test_keys_that_are_there_twice_are_refused(here):
    from mgfn.data.ground_truth import GroundTruth
    from mgfn.data.lists import read_list
    from mgfn.errors import InputError as MgfnError
    from tridet.annotations import read_annotations
    from tridet.errors import InputError

    action = {"label": "a", "label_id": 0, "segment": [1, 2]}
    video = json.dumps({"subset": "Test", "fps": 25, "duration": 9, "annotations": [action]})
    Path("a.json").write_text(f'{{"database": {{"a": {video}, "a": {video}}}}}')
    with pytest.raises(InputError, match="'a'"):
        read_annotations("a.json")
    Path("a.list").write_text("Abuse001_x264.npy\n")
    Path("gt.txt").write_text("Abuse001_x264.mp4 Abuse 1 4 -1 -1\nAbuse001_x264.mp4 Abuse 5 9 -1 -1\n")
    with pytest.raises(MgfnError, match="Abuse001_x264"):
        GroundTruth(Path("gt.txt"), read_list("a.list", "UCF"), [4], frames_per_snippet=16, dataset="UCF")


def warnings_of(*options: object) -> list[str]:
    """What an audit of a store warns of."""
    given = ["audit", "--labels", "private.csv", "--out", "report", "--quick", "--attributes-only", "--workers", "1"]
    run(*given, "--anyway", *options)
    return json.loads(Path("report/evidence.json").read_text())["warnings"]


def test_what_is_labelled_and_not_released_is_said(here):
    write_store("some.h5", dict(list(features().items())[:22]))
    assert any("2 of 24" in text for text in warnings_of("--released", "some.h5"))


@pytest.mark.parametrize("value", [0.0, 3e38])
def test_features_that_nothing_can_be_fitted_to_are_refused(here, value):
    write_store("odd.h5", {name: np.full((3, WIDTH), value, np.float32) for name in NAMES})
    refused("fit", "pca", "--raw", "odd.h5", "--keep", "3", "--out", "p.pth")
    assert not Path("p.pth").exists()


def test_an_audit_of_those_it_was_fitted_to_is_warned_of(here):
    assert run("fit", "leace", "--raw", "raw.h5", "--private", "private.csv", "--out", "l.pth")[0] == 0
    assert run("anonymize", "--aam", "l.pth", "raw.h5", "out.h5")[0] == 0
    found = warnings_of("--released", "out.h5", "--raw", "raw.h5", "--aam", "l.pth")
    assert any("fitted to" in text for text in found)


def test_a_second_run_of_a_run_folder_is_refused(here, monkeypatch):
    """The first holds it until it ends."""
    from splavu.runtime.run_folder import RunFolder

    code = "from splavu.runtime.run_folder import RunFolder\nimport sys, time\nr = RunFolder('runs', 'one')\n"
    code += "e = getattr(r, 'claimed', None) or getattr(r, 'held', None)\n"
    code += "c = e() if e else None\nc.__enter__() if c else None\n"
    code += "print('held' if c else 'free', flush=True)\ntime.sleep(30)"
    first = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=here)
    try:
        assert first.stdout is not None
        assert first.stdout.readline() == b"held\n"
        run_folder = RunFolder("runs", "one")
        with pytest.raises(UserError), (getattr(run_folder, "claimed", None) or run_folder.held)():
            pass
    finally:
        first.kill()
        first.wait()


def test_an_output_within_an_input_is_refused(here):
    Path("long").mkdir()
    np.save("long/a.npy", features()["v00"])
    refused("anonymize", "--aam", "pca.pth", "long", "long/out")
    assert not Path("long/out").exists()


def test_an_attribute_is_not_taken_for_a_checksums_place(here):
    write_store("raw.h5", None, note="splavu-checksum-of-item-0000000000000000")
    assert run("anonymize", "--aam", "pca.pth", "raw.h5", "out.h5")[0] == 0
    assert run("verify", "out.h5")[0] == 0
    with h5py.File("out.h5") as file:
        assert (
            file.attrs.get("note", "splavu-checksum") == "splavu-checksum-of-item-0000000000000000"
            or "note" not in file.attrs
        )


@pytest.mark.parametrize(
    "options",
    [
        ("inlp", "--private", "private.csv", "--rounds", "-1"), ("leace", "--private", "private.csv", "--ridge", "-1"),
        ("quantizer", "--labels", "labels.csv", "--bits", "2", "--dims", "0"), ("quantizer", "--codes", "0"),
        ("random", "--keep", "3", "--seed", "-1"), ("random", "--keep", "3", "--seed", "9" * 40),
        ("quantizer", "--labels", "labels.csv", "--bits", "1000000000"),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused(here, options):
    refused("fit", *options, "--raw", "raw.h5", "--out", "x.pth")
    assert not Path("x.pth").exists()


@pytest.mark.parametrize("options", [("--opset", "99"), ("--opset", "-1")])
def test_an_opset_out_of_range_is_refused(here, options):
    refused("export", "--aam", "pca.pth", "x.onnx", *options)
    assert not Path("x.onnx").exists()


def test_a_column_that_is_there_twice_is_refused(here):
    rows = Path("private.csv").read_text().splitlines()
    Path("twice.csv").write_text("\n".join(f"{row},{row.rsplit(',', 1)[1]}" for row in rows) + "\n")
    assert "tall" in refused("fit", "leace", "--raw", "raw.h5", "--private", "twice.csv", "--out", "l.pth")


# 2. Good input refused.


@pytest.mark.parametrize("name", ["vispr_protocol2.pkl", "vispr_ordereddict.pkl"])
def test_harmless_pickles_are_read(shared, name):
    from splavu.data.labels import read_attribute_pickle

    assert read_attribute_pickle(shared / "cases" / name)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_pickles_of_every_protocol_are_read(here, protocol):
    from splavu.data.labels import read_attribute_pickle

    Path("a.pkl").write_bytes(pickle.dumps({"2017_1": np.array([0.0, 1, 0, 1, 0, 0, 1])}, protocol))
    assert list(read_attribute_pickle("a.pkl")) == ["2017_1"]


def test_harmless_values_beside_weights_are_read(here):
    import argparse
    import collections

    for value in (np.float64(0.5), argparse.Namespace(lr=0.1), Path("a/b"), collections.defaultdict(int, a=1)):
        torch.save({**torch.load("pca.pth", weights_only=True), "args": value}, "more.pth")
        code, line = run("anonymize", "--aam", "more.pth", "raw.h5", f"out-{type(value).__name__}.h5")
        assert code == 0, line


class Evil:
    def __reduce__(self):
        return os.system, ("touch was_run",)


def test_code_beside_weights_is_not_run(here):
    """The opposite of the row before; this one held before, too."""
    torch.save({**torch.load("pca.pth", weights_only=True), "args": Evil()}, "evil.pth")
    refused("anonymize", "--aam", "evil.pth", "raw.h5", "out.h5")
    assert not Path("was_run").exists()


def test_data_behind_a_jpegs_end_are_no_damage(here):
    cv2 = pytest.importorskip("cv2")
    from splavu.extraction.images import read_image

    picture = np.random.default_rng(0).integers(0, 255, (32, 32, 3)).astype(np.uint8)
    _, coded = cv2.imencode(".jpg", picture)
    for number, tail in enumerate((bytes(500), b"\0\0\0\x20ftypmp42" + bytes(300))):
        Path(f"{number}.jpg").write_bytes(coded.tobytes() + tail)
        assert read_image(Path(f"{number}.jpg")).shape == (32, 32, 3)


def test_companions_of_macos_are_no_features(here):
    Path("long").mkdir()
    np.save("long/a.npy", features()["v00"])
    Path("long/._a.npy").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(60))
    assert run("verify", "long")[0] == 0
    assert run("anonymize", "--aam", "pca.pth", "long", "out")[0] == 0
    assert [path.name for path in Path("out").rglob("*.npy")] == ["a.npy"]


def test_class_ids_may_have_gaps(here):
    from tridet.annotations import read_annotations

    segments = [{"label": name, "label_id": number, "segment": [1, 2]} for name, number in (("a", 0), ("b", 7))]
    video = {"subset": "Test", "fps": 25, "duration": 9, "annotations": segments}
    Path("a.json").write_text(json.dumps({"database": {"v": video}}))
    assert len(read_annotations("a.json").classes) == 2


@pytest.mark.parametrize("kind", ["f2", "f8", ">f4"])
def test_floats_of_every_kind_are_converted(here, kind):
    write_store("other.h5", {name: value.astype(kind) for name, value in features().items()})
    assert run("anonymize", "--aam", "pca.pth", "other.h5", "out.h5")[0] == 0


def test_files_of_other_endings_are_read_or_listed(here, capsys):
    """A file that isn't read is named; it isn't left out in silence."""
    from feature_extraction.feature_extraction_action import main as extract

    cv2 = pytest.importorskip("cv2")
    Path("v").mkdir()
    writer = cv2.VideoWriter("v/a.avi", cv2.VideoWriter_fourcc(*"MJPG"), 25, (32, 32))
    for i in range(16):
        writer.write(np.full((32, 32, 3), 9 * i, np.uint8))
    writer.release()
    Path("v/b.divx").write_bytes(Path("v/a.avi").read_bytes())
    Path("v/c.vob").write_bytes(b"no video")
    Path("v/d.mp4").symlink_to("nowhere.mp4")
    code = extract(["--videos", "v", "--out", "v.h5", "--workers", "0", "--device", "cpu", "--quiet"])
    said = "".join(capsys.readouterr())
    assert code == 1
    for name in ("c.vob", "d.mp4"):
        assert name in said
    with h5py.File("v.h5") as file:
        assert set(file) == {"a", "b"}


# 3. A traceback, a hang, work lost.


def test_the_installed_program_handles_errors(here):
    """Its entry point, by a process of its own."""
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    module, function = project["scripts"]["splavu"].split(":")
    done = process("-c", f"from {module} import {function}; {function}()", "verify", "nowhere.h5", cwd=here)
    assert done.returncode in (1, 2)
    assert b"Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_names_that_are_not_utf8_are_released(here, capsys):
    key = os.fsdecode(b"caf\xe9")
    write_store("odd.h5", {key: features()["v00"]})
    assert run("anonymize", "--aam", "pca.pth", "odd.h5", "out.h5")[0] == 0
    assert run("verify", "out.h5")[0] == 0
    with h5py.File("out.h5") as file:
        names = []
        h5py.h5o.visit(file.id, lambda name: names.append(name))
    assert names == [b"caf\xe9"]


def test_a_video_whose_name_is_not_utf8_is_extracted(shared, here):
    import tarfile

    with tarfile.open(shared / "cases/nonutf8_name.tar", errors="surrogateescape") as archive:
        archive.extractall("v", filter="data")
    script = REPOSITORY / "feature_extraction/feature_extraction_action.py"
    done = process(script, "--videos", "v", "--out", "v.h5", "--workers", "0", "--device", "cpu", "--quiet", cwd=here)
    assert done.returncode == 0, done.stderr
    assert Path("v.h5").is_file()


@pytest.mark.parametrize("kind", ["empty", "missing weight", "other field", "compiled"])
def test_odd_checkpoints_are_one_line(here, kind, request):
    content = torch.load("pca.pth", weights_only=True)
    if kind == "empty":
        Path("odd.pth").write_bytes(b"")
    elif kind == "missing weight":
        content["fa_model_state_dict"].popitem()
        torch.save(content, "odd.pth")
    elif kind == "other field":
        torch.save({**content, "fa_architecture": ["pca"]}, "odd.pth")
    else:
        path = request.getfixturevalue("shared") / "cases/ckpt_compiled_block.pth"
        code, _ = run("export", "--aam", path, "x.onnx")
        assert code in (0, 2)
        return
    refused("anonymize", "--aam", "odd.pth", "raw.h5", "out.h5")
    assert not Path("out.h5").exists()


def test_attributes_of_every_kind_are_one_line_or_read(here, shared):
    with h5py.File("raw.h5", "r+") as file:
        file.attrs["array"] = np.arange(3)
        file.attrs["reference"] = file.ref
        file.attrs["text"] = np.bytes_(b"caf\xe9")
    assert run("anonymize", "--aam", "pca.pth", "raw.h5", "out.h5")[0] in (0, 2)
    assert run("verify", "raw.h5")[0] in (0, 1, 2)
    assert run("verify", shared / "cases/attr.h5")[0] in (0, 1, 2)


@pytest.mark.parametrize("name", ["results.json", "metrics.jsonl", "params.json"])
def test_damaged_records_of_a_run_are_one_line(here, name):
    Path("runs/one").mkdir(parents=True)
    for file in ("params.json", "results.json", "metrics.jsonl", "versions.json"):
        Path(f"runs/one/{file}").write_text('{"anon": false, "features": "raw", "test": {"top1": 0.5}}\n')
    Path(f"runs/one/{name}").write_text('{"anon": \n')
    assert name in refused("report", "runs")


@pytest.mark.parametrize("rows", [10**9, 10**12])
def test_a_declared_size_is_not_believed(here, rows):
    with h5py.File("bomb.h5", "w") as file:
        file.create_dataset("a", (rows, WIDTH), "f4", chunks=(1024, WIDTH))
    started = time.monotonic()
    refused("anonymize", "--aam", "pca.pth", "bomb.h5", "out.h5")
    assert run("verify", "bomb.h5")[0] in (1, 2)
    assert time.monotonic() - started < 10


def test_keys_nested_without_end_are_named(here):
    with h5py.File("deep.h5", "w") as file:
        group = file
        for _ in range(3000):
            group = group.create_group("d")
        group["x"] = features()["v00"]
    assert run("verify", "deep.h5")[0] in (1, 2)
    refused("anonymize", "--aam", "pca.pth", "deep.h5", "out.h5")


@pytest.mark.parametrize("method", ["inlp", "quantizer", "pca"])
@pytest.mark.parametrize("kind", ["rank 3", "a constant dimension", "width 1"])
def test_closed_forms_fit_or_refuse(here, method, kind):
    content = features()
    if kind == "rank 3":
        content = {name: np.stack([value] * 2) for name, value in content.items()}
    elif kind == "a constant dimension":
        content = {
            name: np.concatenate([value[:, :-1], np.ones((3, 1), np.float32)], 1) for name, value in content.items()
        }
    else:
        content = {name: value[:, :1] for name, value in content.items()}
    write_store("odd.h5", content)
    needs = {
        "inlp": ["--private", "private.csv"],
        "quantizer": ["--bits", "2", "--labels", "labels.csv"],
        "pca": ["--keep", "1"],
    }
    code, _ = run("fit", method, "--raw", "odd.h5", *needs[method], "--out", "x.pth")
    assert code in (0, 2)
    if code == 0:
        weights = torch.load("x.pth", weights_only=True)["fa_model_state_dict"]
        assert all(value.isfinite().all() for value in weights.values())


QUICK_AUDIT = ("audit", "--released", "raw.h5", "--labels", "private.csv", "--quick", "--workers", "1", "--anyway")


@pytest.mark.parametrize(
    "options", [("--max-train-rows", "0"), ("--seed", "-1"), ("--seed", "9" * 30), ("--out", ""), ("--margin", "-1")]
)
def test_options_of_an_audit_out_of_range_are_one_line(here, options):
    refused(*QUICK_AUDIT, "--attributes-only", *options)


@pytest.mark.parametrize(
    "override", ["learning_rate=-1", "batch_size=0", "num_modes=0", f"run_id={'n' * 300}", "num_modes=1000000"]
)
def test_parameters_out_of_range_are_one_line(here, override, monkeypatch):
    from conftest import write_study

    import config
    import train_ft

    made = write_study(here, videos_per_subject=2)
    for name, root in (("DATA", made.data), ("FEATURES", made.features), ("RUNS", made.runs)):
        monkeypatch.setattr(config, name, root)
    settings = ("data_root=None", "anon=False", "num_epochs=1", override)
    with pytest.raises(UserError) as caught:
        train_ft.main(
            ["--params", str(REPOSITORY / "params/params_demo_ft.py"), "--device", "cpu", "--quiet"]
            + [part for text in settings for part in ("--set", text)]
        )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("after", [0.05, 1.0])
def test_sigterm_ends_a_command_in_one_line(here, after):
    """While it imports, and while it works."""
    write_store(
        "large.h5",
        {f"{i:05d}": value for i, value in enumerate(np.random.default_rng(0).normal(size=(4000, 40, WIDTH)))},
    )
    line = [
        sys.executable,
        "-m",
        "splavu",
        "audit",
        "--released",
        "raw.h5",
        "--labels",
        "private.csv",
        "--workers",
        "2",
        "--anyway",
        "--quiet",
    ]
    started = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    time.sleep(after)
    started.send_signal(signal.SIGTERM)
    _, said = started.communicate(timeout=20)
    assert started.returncode in (143, -signal.SIGTERM if after < 0.5 else 143)
    assert b"Traceback" not in said
    time.sleep(2)
    with pytest.raises(ProcessLookupError):
        os.killpg(started.pid, 0)


def test_an_output_that_cannot_be_written_is_noticed_before_the_work(here, monkeypatch):
    from splavu.audit import run as audit_run

    monkeypatch.setattr(audit_run, "examine", lambda *args, **options: pytest.fail("the work was done first"))
    Path("file").write_text("x")
    refused(*QUICK_AUDIT, "--out", "file/report")


def test_a_store_open_elsewhere_is_said_to_be(here):
    code = "import h5py, sys; f = h5py.File('raw.h5', 'r+'); print(1, flush=True); sys.stdin.read()"
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=here)
    try:
        assert other.stdout is not None
        other.stdout.readline()
        line = refused("anonymize", "--aam", "pca.pth", "raw.h5", "out.h5")
        assert "open" in line
        assert "delete" not in line
    finally:
        other.communicate(b"")


# 4. Smaller.


def test_the_pages_say_that_params_is_python():
    import multitask_train_fa

    with pytest.raises(SystemExit):
        multitask_train_fa.main(["--help"])
    text = (REPOSITORY / "SECURITY.md").read_text()
    assert "--params" in text


def test_parameters_can_be_given_without_python(here):
    import train_ft

    Path("p.toml").write_text('run_id = "x"\nno_such = 1\n')
    with pytest.raises(UserError, match="no_such"):
        train_ft.main(["--params", "p.toml", "--quiet"])


def test_tridet_stays_in_its_folder(here):
    from tridet import train as tridet_train

    config = REPOSITORY / "tridet/thumos_demo.yaml"
    with pytest.raises(Exception, match="output"):
        tridet_train.main([str(config), "--output", "x/../../..", "--device", "cpu", "--quiet"])


def test_escapes_in_keys_are_not_printed_raw(here, capsys):
    write_store("odd.h5", {"\x1b[31mred": np.full((2, WIDTH), np.nan, np.float32)})
    run("verify", "odd.h5")
    _, line = run("anonymize", "--aam", "pca.pth", "odd.h5", "out.h5")
    assert "\x1b" not in "".join(capsys.readouterr()) + line


def test_reports_escape_names(here):
    Path("runs/a|b<i>").mkdir(parents=True)
    Path("runs/a|b<i>/params.json").write_text('{"anon": true, "saved_fa_model": "x/a|b<script>/m.pth"}')
    Path("runs/a|b<i>/results.json").write_text('{"features": "anonymized", "test": {"top1": 0.5}}')
    assert run("report", "runs")[0] == 0
    assert "<script>" not in Path("runs/report.md").read_text().replace("\\<", "")
