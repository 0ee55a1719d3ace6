"""Parsers of labels, splits, annotations and lists on damaged input: an error of our own, or a result that holds.

2,000 damaged inputs for each family of parsers. What a result must hold is the parser's own promise, written here as a
property: classes are whole numbers from 0, vectors hold 0 and 1 and have their length, ranges lie within the video.
"""

from __future__ import annotations

import io
import json
import pickle
import random
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pytest
from mutations import ODD_TEXT, damaged_bytes, damaged_json
from refusals import refused

from mgfn.data.ground_truth import GroundTruth
from mgfn.data.lists import read_list
from mgfn.errors import InputError as MgfnError
from splavu.data import labels, pahmdb51, private_labels, splits, subjects
from splavu.data.datasets import read_side_table
from splavu.errors import UserError
from tridet.annotations import read_annotations
from tridet.errors import InputError as TridetError

COUNT = 2000
"""Damaged inputs for each family."""

Parser = tuple[str, Callable[[random.Random], bytes], Callable[[Path], object], Callable[[object], None]]
"""File name, what makes a damaged file, the parser, the property of its results."""


def fuzz(parsers: list[Parser], folder: Path, kind: type[Exception], *, count: int = COUNT) -> None:
    """Damaged input for each parser in turn; some must be refused, and some must pass, or the damage is of no use."""
    rng = random.Random(20260101)
    refused, passed = 0, 0
    for number in range(count):
        name, damaged, parse, holds = parsers[number % len(parsers)]
        path = folder / name
        path.write_bytes(data := damaged(rng))
        try:
            result = parse(path)
        except kind as error:
            message = str(error)
        except Exception as error:
            raise AssertionError(f"{name}: {type(error).__name__}: {error} for {data[:500]!r}") from error
        else:
            message = None
        if message is not None:
            assert "\n" not in message, f"{name}: not one line for {data[:500]!r}"
            refused += 1
            continue
        try:
            holds(result)
        except AssertionError as error:
            raise AssertionError(f"{name}: broken promise for {data[:500]!r}") from error
        passed += 1
    assert refused > count // 10
    assert passed > count // 100


def of_text(text: str) -> Callable[[random.Random], bytes]:
    return lambda rng: damaged_bytes(text.encode(), rng)


def of_json(value: object) -> Callable[[random.Random], bytes]:
    return lambda rng: damaged_json(value, rng)


def are_keys(names: Iterable[object]) -> None:
    for name in names:
        assert isinstance(name, str), name
        assert name, "an empty key"


def are_classes(num_classes: int | None = None) -> Callable[[Mapping], None]:
    def check(found: Mapping) -> None:
        are_keys(found)
        for label in found.values():
            assert type(label) is int, label
            assert 0 <= label < (num_classes or 10**400), label

    return check


def are_vectors(length: int) -> Callable[[Mapping], None]:
    def check(found: Mapping) -> None:
        are_keys(found)
        for vector in found.values():
            assert (vector.dtype, vector.shape) == (np.float32, (length,))
            assert set(vector.tolist()) <= {0.0, 1.0}

    return check


def are_vectors_or_unknown(found: Mapping) -> None:
    are_keys(found)
    for vector in found.values():
        assert vector.dtype == np.float32
        assert np.isin(vector[~np.isnan(vector)], (0, 1)).all()


def test_labels(tmp_path):
    csv = "filename,label\nbrush_01.avi,3\nbrush_02.avi,4\nclap_01.avi,0\n"
    vectors = 'filename,label\na.avi,"[0. 1. 0. 1. 1.]"\nb.avi,[1. 1. 0. 0. 0.]\n'
    private = f"filename,subject,{','.join(labels.VISPR_ATTRIBUTES)}\na.mp4,p1,0,1,0,1,0,0,1\nb.mp4,p2,1,1,0,0,0,0,0\n"
    split = "Clap/v_Clap_g01_c01.avi 1\nSwing/v_Swing_g02_c01.avi 2\nClap/v_Clap_g02_c01.avi 1\n"
    classes = tmp_path / "classes.json"
    classes.write_text('{"classes": {"Clap": 1, "Swing": 2}}')
    ucf = tmp_path / "trainlist.txt"
    ucf.write_text(split)

    def private_holds(found) -> None:
        labelled = found.of(found.names)
        assert list(labelled.values) == list(found.names)
        are_vectors_or_unknown(labelled.values)
        assert all(len(vector) == len(found.attributes) for vector in labelled.values.values())
        assert all(np.isfinite(column.values).any() for column in found.columns)

    parsers = [
        ("a.csv", of_text(csv), lambda p: labels.read_csv_labels(p, num_classes=5), are_classes(5)),
        ("k.json", of_json({"a": 1, "b": 2, "c.d": 400}), labels.read_json_labels, are_classes()),
        ("split.txt", of_text(split), lambda p: labels.read_ucf_labels(p, classes), are_classes()),
        (
            "ucf.json",
            of_json({"classes": {"Clap": 1, "Swing": 2}}),
            lambda p: labels.read_ucf_labels(ucf, p),
            are_classes(),
        ),
        ("vp.csv", of_text(vectors), labels.read_vector_csv, are_vectors(5)),
        ("private.csv", of_text(private), private_labels.read_private_table, private_holds),
    ]
    fuzz(parsers, tmp_path, UserError)


def test_pickled_labels(tmp_path):
    """Both spellings of NumPy's module, several protocols, and vectors that are no vectors."""
    vectors = {"2017_10000001": np.array([0.0, 1, 0, 1, 0, 0, 1]), "2017_10000002": np.zeros(7)}
    sources = [pickle.dumps(vectors, protocol) for protocol in (0, 2, 4, 5)]
    sources.append(sources[2].replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    odd = [
        None,
        1,
        "x",
        b"x",
        [],
        [0] * 7,
        [0.5] * 7,
        [float("nan")] * 7,
        [10**400] * 7,
        {},
        np.zeros((7, 1)),
        [[], [1]],
    ]

    def damaged(rng: random.Random) -> bytes:
        if rng.random() < 0.3:
            key = rng.choice(["a", "", 3, None, (1, 2)])
            return pickle.dumps({**vectors, key: rng.choice(odd)})
        source = bytearray(rng.choice(sources))
        for _ in range(rng.choice((1, 1, 1, 3))):
            place = rng.randrange(len(source))
            if rng.random() < 0.5:
                source[place] = rng.randrange(256)
            else:
                del source[place : place + rng.randint(1, 6)]
        return bytes(source)

    fuzz([("labels.pkl", damaged, labels.read_attribute_pickle, are_vectors(7))], tmp_path, UserError)


def test_private_labels(tmp_path):
    side = f"filename,subject,{','.join(labels.VISPR_ATTRIBUTES)}\na.mp4,p1,0,1,0,1,0,0,1\nb.mp4,p2,1,1,0,0,0,0,0\n"
    genders = {"male": ["P001", "P003", "P008"], "female": ["P002", "P005"]}
    smarthome = (
        "filename,subject,gender,split,label\na.mp4,p02,M,train,3\nb.mp4,p03,female,test,31\nc.mp4,p02,m,train,1\n"
    )
    pahmdb = {
        f"{name}.avi": {
            "skin_color": [[0, 9, 1], [10, 19, [1, 3]]],
            "face": [[0, 19, 2]],
            "gender": [[0, 4, 1], [5, 19, [1, 2]]],
            "nudity": [[0, 19, 0]],
            "relationship": [[0, 19, 1]],
            "review": True,
        }
        for name in ("clap_a", "clap_b")
    }
    (tmp_path / "pa").mkdir()

    def genders_hold(found: Mapping) -> None:
        assert set(found.values()) <= set(subjects.GENDERS)

    def subjects_hold(found: Mapping) -> None:
        genders_hold(found)
        assert all(re.fullmatch("P[0-9]{3}", subject) for subject in found)

    def smarthome_holds(found: Mapping) -> None:
        are_classes(31)({key: video.label for key, video in found.items()})
        assert {video.split for video in found.values()} <= {"train", "val", "test"}
        genders_hold({key: video.gender for key, video in found.items()})
        assert len({(video.subject, video.gender, video.split) for video in found.values()}) == len(
            {video.subject for video in found.values()}
        )

    def frames_hold(found: Mapping) -> None:
        are_keys(found)
        for video in found.values():
            assert video.multi_hot.shape == (video.num_frames, 15)
            binary = video.binary()
            assert binary.shape == (video.num_frames, 5)
            assert set(binary[~np.isnan(binary)].tolist()) <= {0.0, 1.0}
            assert video.as_vispr().shape == (video.num_frames, 7)

    def frames_hold_within(found: Mapping) -> None:
        frames_hold(found)
        assert all(video.num_frames <= 20 for key, video in found.items() if key.startswith("clap_"))

    lengths = {"clap_a": 20, "clap_b": 20}
    parsers = [
        ("side.csv", of_text(side), lambda p: read_side_table(p, ["a", "b"]).values, are_vectors_or_unknown),
        ("ntu.json", of_json(genders), subjects.read_ntu_genders, subjects_hold),
        ("tsh.csv", of_text(smarthome), subjects.read_smarthome, smarthome_holds),
        ("pa/clap.json", of_json(pahmdb), lambda p: pahmdb51.read_pahmdb51(p.parent), frames_hold),
        (
            "pa/clap.json",
            of_json(pahmdb),
            lambda p: pahmdb51.read_pahmdb51(p.parent, num_frames=lengths),
            frames_hold_within,
        ),
    ]
    fuzz(parsers, tmp_path, UserError)


def test_names_that_splits_are_told_from(tmp_path):
    ntu = [f"S001C002P{p:03d}R001A{a:03d}_rgb.avi" for p in (1, 2, 3, 8) for a in (1, 4, 60, 61)]
    casia = [
        f"{s:03d}-{walk}-{n:02d}-{view:03d}.avi"
        for s in (1, 9)
        for walk in ("nm", "cl")
        for n in (1, 2)
        for view in (0, 90)
    ]

    def damaged(names: list[str]) -> Callable[[random.Random], bytes]:
        def damage(rng: random.Random) -> bytes:
            chosen = rng.sample(names, rng.randint(1, len(names)))
            victim = rng.randrange(len(chosen))
            name, place = chosen[victim], rng.randrange(len(chosen[victim]))
            chosen[victim] = rng.choice(
                (
                    name[:place] + rng.choice((*ODD_TEXT, "000", "7", "a")) + name[place + rng.randint(0, 3) :],
                    name[:place],
                    re.sub(r"\d{2,3}", lambda m: rng.choice((m[0], "0" * len(m[0]), "9" * len(m[0]))), name),
                    rng.choice(chosen),
                    "".join(chr(0x660 + int(c)) if c.isdigit() and rng.random() < 0.2 else c for c in name),
                )
            )
            return "\n".join(chosen).encode("utf-8", "surrogatepass")

        return damage

    def names_of(path: Path) -> list[str]:
        return path.read_bytes().decode("utf-8", "surrogatepass").split("\n")

    def numbers_hold(names: list[str]) -> None:
        for part in map(splits.ntu_name, names):
            assert min(part.setup, part.camera, part.repetition, part.action) >= 1
            assert re.fullmatch("P[0-9]{3}", part.subject)

    def split_holds(found) -> None:
        split, names = found
        assert not set(split.train) & set(split.test)
        assert {*split.train, *split.test} <= set(names)
        subjects = [{splits.ntu_name(name).subject for name in side} for side in (split.train, split.test)]
        assert not subjects[0] & subjects[1]
        assert subjects[1] <= splits.NTU_TEST_SUBJECTS

    def walks_hold(found) -> None:
        split, names = found
        assert not set(split.gallery) & set(split.probe)
        assert {*split.gallery, *split.probe} <= set(names)
        for part in map(splits.casia_name, names):
            assert part.repetition >= 1
            assert 0 <= part.view <= 180
            assert part.walk in splits.CASIA_B_REPETITIONS

    def ntu_names(path: Path) -> list[str]:
        for name in (names := names_of(path)):
            splits.ntu_name(name)
        return names

    parsers = [
        ("names", damaged(ntu), ntu_names, numbers_hold),
        ("names", damaged(ntu), lambda p: labels.read_ntu_actions(names_of(p)), are_classes(999)),
        ("names", damaged(ntu), lambda p: (splits.ntu_split(names_of(p)), names_of(p)), split_holds),
        ("names", damaged(casia), lambda p: (splits.casia_split(names_of(p)), names_of(p)), walks_hold),
    ]
    fuzz(parsers, tmp_path, UserError)


def test_temporal_annotations(tmp_path):
    database = {
        "video_test_0000004": {
            "subset": "Test",
            "duration": 33.64,
            "fps": 30.0,
            "annotations": [
                {"label": "CricketBowling", "segment": [0.2, 1.1], "segment(frames)": [6.0, 33.0], "label_id": 0},
                {"label": "Diving", "segment": [2, 4.5], "label_id": 1},
            ],
        },
        "video_validation_0000051": {
            "subset": "Validation",
            "duration": 20,
            "fps": 25,
            "annotations": [{"label": "Diving", "segment": [1.5, 3.25], "label_id": 1}],
        },
    }

    def holds(found) -> None:
        assert found.videos
        for video in found.videos:
            assert np.isfinite([video.fps, video.duration]).all()
            assert min(video.fps, video.duration) > 0
            assert video.segments.shape == (len(video.labels), 2)
            assert np.isfinite(video.segments).all()
            assert (video.segments[:, 1] > video.segments[:, 0]).all()
            assert video.labels.dtype == np.int64
            assert set(video.labels.tolist()) <= set(found.classes.values())
        assert len(set(found.classes.values())) == len(found.classes)
        assert all(label >= 0 for label in found.classes.values())

    def holds_two_classes(found) -> None:
        holds(found)
        assert sorted(found.classes.values()) == [0, 1]

    parsers = [
        ("a.json", of_json({"version": "1", "database": database}), read_annotations, holds),
        ("b.json", of_json({"database": database}), lambda p: read_annotations(p, default_fps=30.0), holds),
        ("c.json", of_json({"database": database}), lambda p: read_annotations(p, num_classes=2), holds_two_classes),
    ]
    fuzz(parsers, tmp_path, TridetError)


def test_anomaly_lists_and_ground_truth(tmp_path):
    ucf = "x/Abuse028_x264.npy\nx/Normal_Videos_003_x264.npy\nx/Arson009_x264.npy\nx/Normal_Videos_006_x264.npy\n"
    xd = "x/Bad.Boys__#00-01_label_B2-0-0.npy\nx/v=abc__#1_label_A.npy\nx/v=def__#0_label_B1-G-0__0.npy\n"
    shanghai = "01_0014.npy 1\n01_001.npy 0\nx/02_0128.npy 1\n"
    events = "Abuse028_x264.mp4 Abuse 5 40 -1 -1\nArson009_x264.mp4 Arson 10 20 30 63\n"
    films = "Bad.Boys__#00-01_label_B2-0-0 5 40\nv=def__#0_label_B1-G-0__0 10 20 30 63\n"
    (tmp_path / "ucf.list").write_text(ucf)
    (tmp_path / "xd.list").write_text(xd)
    (tmp_path / "gt").mkdir()
    entries = {"UCF": read_list(tmp_path / "ucf.list", "UCF"), "XD": read_list(tmp_path / "xd.list", "XD")}

    def entries_hold(found) -> None:
        assert found
        names = [entry.name for entry in found]
        assert len(set(names)) == len(names)
        for entry in found:
            assert entry.name
            assert not re.search(r"[/\\\x00]", entry.name)
            assert type(entry.is_abnormal) is bool
            assert entry.is_abnormal or not entry.classes

    def truth(dataset: str, mismatch: str = "error") -> Callable[[Path], list]:
        def read(path: Path) -> list:
            path = path.parent if path.parent.name == "gt" else path
            found = GroundTruth(
                path,
                entries[dataset],
                [4] * len(entries[dataset]),
                frames_per_snippet=16,
                dataset=dataset,
                mismatch=mismatch,
            )
            return found.scored([np.arange(4.0)] * len(entries[dataset]))

        return read

    def labels_hold(found) -> None:
        for video in found:
            values = np.asarray(video.truth)
            assert values.shape == np.asarray(video.scores).shape
            assert set(values.tolist()) <= {0, 1}

    def whole_labels_hold(found) -> None:
        labels_hold(found)
        assert all(len(video.truth) == 64 for video in found)
        assert not any(np.any(video.truth) for video in found if not video.is_abnormal)

    def array(length: int, dtype: str) -> Callable[[random.Random], bytes]:
        values = np.zeros(length, dtype)
        values[5:41] = 1
        buffer = io.BytesIO()
        np.save(buffer, values)

        def damaged(rng: random.Random) -> bytes:
            if rng.random() < 0.1:
                odd = io.BytesIO()
                np.savez(odd, values)
                return rng.choice((odd.getvalue(), odd.getvalue()[:50], json.dumps([0, 1]).encode()))
            return damaged_bytes(buffer.getvalue(), rng)

        return damaged

    parsers = [
        ("a.list", of_text(ucf), lambda p: read_list(p, "UCF"), entries_hold),
        ("b.list", of_text(xd), lambda p: read_list(p, "XD"), entries_hold),
        ("c.list", of_text(shanghai), lambda p: read_list(p, "ST"), entries_hold),
        ("events.txt", of_text(events), truth("UCF"), whole_labels_hold),
        ("films.txt", of_text(films), truth("XD"), whole_labels_hold),
        ("gt.npy", array(256, "f8"), truth("UCF"), whole_labels_hold),
        ("gt-stretched.npy", array(240, "i1"), truth("UCF", "stretch"), labels_hold),
        ("gt/Abuse028_x264.npy", array(64, "u1"), truth("UCF", "cut"), whole_labels_hold),
    ]
    np.save(tmp_path / "gt/Arson009_x264.npy", np.ones(64))
    fuzz(parsers, tmp_path, MgfnError)


@pytest.mark.parametrize("value", [True, "true", "1_0", None, [], float("nan"), 10**400, "9" * 5000, "1.5", ""])
def test_what_is_no_class(value):
    with refused("labels.json"):
        labels.class_index(value, "labels.json", "a", base=0)


def ntu_name_in(path: Path) -> splits.NtuName:
    return splits.ntu_name(path.read_text("utf-8"))


def casia_name_in(path: Path) -> splits.CasiaName:
    return splits.casia_name(path.read_text("utf-8"))


@pytest.mark.parametrize(
    ("content", "read", "culprit", "error", "names"),
    [
        (b'filename,label\na.avi,"' + b"x" * 140_000, labels.read_csv_labels, "a.txt", UserError, "2"),
        (b"filename,label\n,3\n", labels.read_csv_labels, "a.txt", UserError, "row 1"),
        (b'{"a": ' + b"9" * 5000 + b"}", labels.read_json_labels, "a.txt", UserError, ()),
        (b"[" * 50_000, labels.read_json_labels, "a.txt", UserError, "JSON"),
        (b'{"": 1}', labels.read_json_labels, "a.txt", UserError, "key"),
        (pickle.dumps({3: np.zeros(7)}), labels.read_attribute_pickle, "a.txt", UserError, "3"),
        (b"S001C001P\xd9\xa001R001A001", ntu_name_in, "S001C001P\u066001R001A001", UserError, "SsssCcccPpppRrrrAaaa"),
        (b"S001C001P001R001A000", ntu_name_in, "S001C001P001R001A000", UserError, "SsssCcccPpppRrrrAaaa"),
        (b"001-nm-01-270", casia_name_in, "001-nm-01-270", UserError, "SSS-TT-NN-VVV"),
        (b"[" * 50_000, read_annotations, "a.txt", TridetError, "JSON"),
        (b"x/ 1\n", lambda p: read_list(p, "ST"), "a.txt line 1", MgfnError, "'x/ 1'"),
    ],
)
def test_what_the_damage_found(tmp_path, content, read, culprit, error, names):
    """Each of these once ended in an exception of Python's, or in a result that was none."""
    (tmp_path / "a.txt").write_bytes(content)
    with refused(culprit, error, naming=names):
        read(tmp_path / "a.txt")


@pytest.mark.parametrize("field", ["fps", "duration", "segment", "label_id"])
def test_numbers_too_large_to_compute_with(tmp_path, field):
    annotation = {"label": "Diving", "label_id": 0, "segment": [1, 2]}
    video = {"subset": "Test", "fps": 30, "duration": 20, "annotations": [annotation]}
    (annotation if field in annotation else video)[field] = [1, 10**400] if field == "segment" else 10**400
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"database": {"video_1": video}}))
    place = "" if field in video else ": annotation 0"
    with refused(f"{path}: video_1{place}", TridetError, naming=field):
        read_annotations(path)


def test_a_range_that_would_fill_the_memory(tmp_path):
    ranges = {name: [[0, 10**12, 1]] for name in pahmdb51.PAHMDB51_VALUES}
    (tmp_path / "clap.json").write_text(json.dumps({"a.avi": ranges}))
    with refused("clap.json", naming=("'a'", "skin_color", "[0, 1000000000000, 1]")):
        pahmdb51.read_pahmdb51(tmp_path)


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path):
    (tmp_path / "a.list").write_bytes(b"\xef\xbb\xbfAbuse028_x264.npy\n")
    assert [entry.name for entry in read_list(tmp_path / "a.list", "UCF")] == ["Abuse028_x264"]


@pytest.mark.parametrize(
    ("line", "frames"), [("5 40", 35), ("7 7", 0), ("-5 40", None), ("40 5", None), ("\u0663", None)]
)
def test_events_lie_within_the_video(tmp_path, line, frames):
    (tmp_path / "a.list").write_text("a_label_B1-0-0.npy\n")
    (tmp_path / "gt.txt").write_text(f"a_label_B1-0-0 {line}\n", encoding="utf-8")
    entries = read_list(tmp_path / "a.list", "XD")
    arguments = {"frames_per_snippet": 16, "dataset": "XD"}
    if frames is None:
        with refused("gt.txt", MgfnError):
            GroundTruth(tmp_path / "gt.txt", entries, [4], **arguments)
    else:
        (video,) = GroundTruth(tmp_path / "gt.txt", entries, [4], **arguments).scored([np.arange(4.0)])
        assert video.truth.sum() == frames
