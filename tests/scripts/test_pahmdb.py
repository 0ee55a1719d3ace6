"""pahmdb/eval_pahmdb.py as a user runs it, on made-up films: people and actions add up linearly in each feature."""

from __future__ import annotations

import csv
import itertools
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import NUM_ACTIONS, REPOSITORY, WIDTH, Study
from refusals import assert_names, assert_refuses, refused

import config
from pahmdb import eval_pahmdb
from pahmdb.dl_pahmdb import ATTRIBUTES, read_dataset
from pahmdb.judgeable import judgeable
from pahmdb.report import _staircase, draw_curve, report_section
from splavu.anonymizers import build_anonymizer
from splavu.attacks.rows import Rows
from splavu.data.pahmdb51 import PAHMDB51_VALUES
from splavu.metrics import tradeoff
from splavu.stores import StoreWriter

PARAMS = str(REPOSITORY / "pahmdb/params_pahmdb.py")
SMALL = (
    "ft_arch=demo",
    "saved_fa_models=()",
    "transfer=False",
    "attackers=('logistic',)",
    "folds=3",
    "num_resamples=100",
    "num_epochs=40",
    "batch_size=32",
    "learning_rate=0.01",
)
ACTIONS = ("brush_hair", "clap", "run", "wave")
FILMS, OTHERS = 30, 20  # with annotations and without


def arguments(*overrides: str) -> list[str]:
    settings = [part for text in (*SMALL, *overrides) for part in ("--set", text)]
    return ["--params", PARAMS, "--device", "cpu", "--quiet", *settings]


def write_csv(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def write_films(root: Path, *, seed: int = 0) -> Study:
    """Three videos a film: annotated ones lie in the stores of val and test, the others in that of train."""
    study, rng = Study(root), np.random.default_rng(seed)
    actions = rng.normal(size=(NUM_ACTIONS, WIDTH))
    looks = {name: rng.normal(size=(len(values), WIDTH)) for name, values in PAHMDB51_VALUES.items()}
    attributes: dict[str, dict[str, object]] = {action: {} for action in ACTIONS}
    blocks: dict[str, dict[str, np.ndarray]] = {"train": {}, "val": {}, "test": {}}
    labels: dict[str, list[dict[str, object]]] = {split: [] for split in blocks}
    for film in range(FILMS + OTHERS):
        value = {name: int(rng.integers(len(values))) for name, values in PAHMDB51_VALUES.items()}
        split = "train" if film >= FILMS else ("val", "test")[film % 2]
        for video in range(3):
            action = int(rng.integers(NUM_ACTIONS))
            name = f"Film_{film}_(a)_{ACTIONS[action]}_u_nm_np1_fr_med_{video}"
            num_clips = int(rng.integers(1, 4))
            shown = actions[action] + sum(looks[attribute][held] for attribute, held in value.items())
            blocks[split][name] = shown + rng.normal(size=(num_clips, WIDTH)) * 0.5
            labels[split].append({"filename": f"{name}.avi", "label": action})
            if film < FILMS:
                last = 16 * num_clips + int(rng.integers(16)) - 1
                ranges = {attribute: [[0, last, held]] for attribute, held in value.items()}
                attributes[ACTIONS[action]][f"{name}.avi"] = {**ranges, "review": True, "note": None}
    for split, videos in blocks.items():
        with StoreWriter(study.features / f"features_hmdb_{split}_demo.h5", attributes={"encoder": "demo"}) as store:
            for name, block in videos.items():
                store.add(name, block)
        write_csv(study.data / f"hmdb51/hmdb51_{split}_labels.csv", labels[split])
    folder = study.data / "pa_hmdb51/PrivacyAttributes"
    folder.mkdir(parents=True)
    for action, found in attributes.items():
        (folder / f"{action}.json").write_text(json.dumps(found))
    write_images(study, looks, rng)
    return study


def write_images(study: Study, looks: dict[str, np.ndarray], rng: np.random.Generator, count: int = 60) -> None:
    """VISPR's images, of people of the same looks."""
    labels = {}
    with StoreWriter(study.features / "features_vispr_train_demo.h5", attributes={"encoder": "demo"}) as store:
        for image in range(count):
            skin, gender, nudity, relationship = (int(rng.integers(2)) for _ in range(4))
            face = int(rng.integers(3))
            held = {
                "skin_color": skin,
                "face": face,
                "gender": gender,
                "nudity": 2 * nudity,
                "relationship": relationship,
            }
            shown = sum(looks[name][value] for name, value in held.items())
            store.add(f"2017_{image:08d}.jpg", shown + rng.normal(size=(4, WIDTH)) * 0.5)
            vector = [skin, gender, face == 2, face == 1, nudity, relationship, rng.integers(2)]
            labels[f"2017_{image:08d}"] = np.array(vector, dtype=np.float64)
    (study.data / "vispr").mkdir(parents=True)
    (study.data / "vispr/train_labels.pkl").write_bytes(pickle.dumps(labels))


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Study:
    return write_films(tmp_path_factory.mktemp("films"))


def pointed_at(study: Study, monkeypatch) -> Study:
    monkeypatch.setattr(config, "DATA", study.data)
    monkeypatch.setattr(config, "FEATURES", study.features)
    monkeypatch.setattr(config, "RUNS", study.runs)
    return study


@pytest.fixture
def films(written, tmp_path, monkeypatch) -> Study:
    """The films, in folders that a test may damage."""
    shutil.copytree(written.root, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("runs"))
    return pointed_at(Study(tmp_path), monkeypatch)


def save(study: Study, name: str, *, width: int = WIDTH, erase: bool = False) -> str:
    """A checkpoint in a run folder `name`: an MLP that starts as the identity, or one that returns zeros."""
    anonymizer = build_anonymizer("mlp", width, residual=not erase)
    if erase:
        torch.nn.init.zeros_(anonymizer.fc2.weight)
    path = study.root / name / "model_temp.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"fa_model_state_dict": anonymizer.state_dict(), "fa_architecture": anonymizer.architecture}, path)
    return str(path)


def result_of(study: Study) -> dict:
    return json.loads((study.runs / "pahmdb_videomae/results.json").read_text())["pahmdb"]


def test_an_identity_leaks_all_zeros_leak_nothing_and_neither_conquers_any_area(films, capsys):
    points = (save(films, "identity"), save(films, "zeros", erase=True))
    assert eval_pahmdb.main(arguments(f"saved_fa_models={points}", "transfer=True")) == 0
    printed, result = capsys.readouterr().out, result_of(films)
    raw = result["cross_fitted"]["raw"]["mean"]
    assert raw["raw"]["ap"] > raw["chance"] + 0.2
    assert result["action"]["of"]["raw"]["top1"] > result["action"]["chance"] + 0.4
    assert list(result["checkpoints"]) == ["identity", "zeros"]
    for part in ("cross_fitted", "transfer"):
        identity, zeros = result[part]["identity"]["mean"], result[part]["zeros"]["mean"]
        assert identity["leakage"] == pytest.approx(1)
        assert zeros["anonymized"]["ap"] == pytest.approx(zeros["chance"])
        assert zeros["leakage"] == pytest.approx(0)
    curve = result["curve"]
    assert curve["points"]["identity"]["privacy"] == pytest.approx(0, abs=1e-6)
    assert curve["points"]["identity"]["utility"] == pytest.approx(1)
    assert (curve["points"]["zeros"]["privacy"], curve["points"]["zeros"]["utility"]) == pytest.approx((1, 0))
    assert curve["hypervolume"]["value"] == pytest.approx(0, abs=1e-6)
    assert tradeoff.DEFINITION in printed
    written = {path.name for path in (films.runs / "pahmdb_videomae").iterdir()}
    assert {"params.json", "versions.json", "results.json", "table.md", "curve.png", "head_raw"} <= written
    assert (films.runs / "pahmdb_videomae/table.md").read_text() == report_section(result) in printed


def test_numbers_are_those_of_the_labels(films):
    """Positive rates, counts and chance, counted from the annotation files by hand."""
    assert eval_pahmdb.main(arguments()) == 0
    result = result_of(films)
    positive: dict[str, int] = dict.fromkeys(ATTRIBUTES["values"], 0)
    clips, per_action = 0, []
    for path in (films.data / "pa_hmdb51/PrivacyAttributes").glob("*.json"):
        videos = json.loads(path.read_text())
        per_action.append(len(videos))
        for video in videos.values():
            count = (video["face"][0][1] + 1) // 16
            clips += count
            for name, values in PAHMDB51_VALUES.items():
                positive[f"{name}={values[video[name][0][2]]}"] += count
    assert (result["clips"], result["videos"], result["films"]) == (clips, 3 * FILMS, FILMS)
    assert result["other_videos"] == 3 * OTHERS
    chance = {name: entry["chance"] for name, entry in result["cross_fitted"]["raw"]["attributes"].items()}
    assert chance == pytest.approx({name: count / clips for name, count in positive.items()})
    assert result["action"]["chance"] == pytest.approx(max(per_action) / (3 * FILMS))
    assert result["curve"] is None
    assert not (films.runs / "pahmdb_videomae/curve.png").exists()


def test_the_same_inputs_print_the_stored_result_and_others_do_not(films, capsys, monkeypatch):
    calls = []
    evaluate = eval_pahmdb.evaluate
    monkeypatch.setattr(eval_pahmdb, "evaluate", lambda *args: calls.append(1) or evaluate(*args))
    point = save(films, "aam")
    small = ("num_epochs=2", "num_resamples=20", f"saved_fa_model={point}")
    assert eval_pahmdb.main(arguments(*small)) == 0
    first = capsys.readouterr().out
    assert eval_pahmdb.main(arguments(*small)) == 0
    assert capsys.readouterr().out.endswith(first)
    assert len(calls) == 1
    save(films, "aam", erase=True)  # other weights under the same name
    assert eval_pahmdb.main(arguments(*small)) == 0
    assert eval_pahmdb.main([*arguments(*small), "--force"]) == 0
    assert len(calls) == 3


def test_people_that_the_features_do_not_show_give_exit_code_3(films, capsys):
    rng = np.random.default_rng(0)
    for path in (films.data / "pa_hmdb51/PrivacyAttributes").glob("*.json"):
        videos = json.loads(path.read_text())
        for video in videos.values():
            for name, values in PAHMDB51_VALUES.items():
                video[name][0][2] = int(rng.integers(len(values)))
        path.write_text(json.dumps(videos))
    assert eval_pahmdb.main(arguments("num_epochs=2")) == 3
    printed = capsys.readouterr().out
    assert_names(printed, ("FAILED: ", "not valid"))


@pytest.mark.parametrize(
    ("override", "culprit", "names"),
    [
        ("labels=valued", "params_pahmdb.py", ("'labels'", "'valued'", "'values'", "'binary'", "'vispr'")),
        ("attackers=('logistc',)", "attackers", ("'logistc'", "'logistic'")),
        ("folds=2", "folds", "2"),
        ("folds=31", "labels", "31"),
        ("saved_fa_model=nowhere.pth", "nowhere.pth", ()),
        ("num_resamples=0", "num_resamples", "0"),
        ("learning_rate=0", "learning_rate", "0"),
        ("data_root=nowhere", "PrivacyAttributes", ()),
        ("run_id=../elsewhere", "run_id", "../elsewhere"),
    ],
)
def test_bad_parameters_get_one_line_and_exit_code_2(films, override, culprit, names):
    done = films.script("pahmdb/eval_pahmdb.py", *arguments(override))
    assert_refuses(done, culprit, names)
    assert not films.runs.exists()


def assert_told(study: Study, *overrides: str, culprit: object, naming: str | tuple[str, ...] = ()) -> None:
    """The evaluation refuses, and nothing is written."""
    with refused(culprit, naming=naming):
        eval_pahmdb.main(arguments(*overrides))
    assert not study.runs.exists()


def test_operating_points_that_are_wrong_are_told(films):
    one, wide = save(films, "one"), save(films, "wide", width=64)
    copy = films.root / "two/model_temp.pth"
    copy.parent.mkdir()
    shutil.copy(one, copy)
    assert_told(films, f"saved_fa_models=('{wide}',)", culprit=wide, naming=("64", "192"))
    assert_told(films, f"saved_fa_models=('{one}', '{copy}')", culprit=copy, naming=str(one))
    assert_told(films, f"saved_fa_models=('{one}',)", f"saved_fa_model={one}", culprit=one)


def test_checkpoints_of_one_folder_are_told_apart_by_their_names(films):
    paths = (save(films, "one"), save(films, "two", erase=True))
    shutil.move(paths[1], films.root / "one/model_5.pth")
    p = eval_pahmdb.PaHmdbParams("run", "demo", saved_fa_models=(paths[0], str(films.root / "one/model_5.pth")))
    assert list(eval_pahmdb.load_points(p, WIDTH)) == ["one_model_temp", "one_model_5"]


def edit(study: Study, change) -> str:
    """Change the entry of one annotated video; its name without .avi."""
    path = study.data / "pa_hmdb51/PrivacyAttributes/clap.json"
    videos = json.loads(path.read_text())
    name = next(iter(videos))
    change(videos, name)
    path.write_text(json.dumps(videos))
    return name.removesuffix(".avi")


def test_videos_that_do_not_fit_their_annotations_are_told(films):
    def lengthen(videos: dict, name: str) -> None:
        for attribute in PAHMDB51_VALUES:
            videos[name][attribute][0][1] += 48

    video = edit(films, lengthen)
    assert_told(films, culprit=video)


def test_labels_shorter_than_the_features_are_told(films):
    def shorten(videos: dict, name: str) -> None:
        for attribute in PAHMDB51_VALUES:
            videos[name][attribute][0][1] = 5
        videos["Film_99_(a)_clap_u_0.avi"] = videos[name]

    with StoreWriter(films.features / "extra.h5", attributes={"encoder": "demo"}) as store:
        store.add("Film_99_(a)_clap_u_0", np.zeros((3, WIDTH)))
    edit(films, shorten)
    assert_told(films, culprit="PrivacyAttributes", naming=("'Film_99_(a)_clap_u_0'", "1 of 91"))


def test_a_name_without_its_action_is_told(films):
    edit(films, lambda videos, name: videos.update({"stranger.avi": videos[name]}))
    assert_told(films, culprit="stranger", naming="'_clap_'")


def test_stores_that_are_missing_or_overlap_are_told(films):
    (films.features / "features_hmdb_val_demo.h5").rename(films.features / "kept.h5")
    assert_told(films, culprit="PrivacyAttributes")
    shutil.copy(films.features / "features_hmdb_test_demo.h5", films.features / "features_hmdb_val_demo.h5")
    assert_told(films, culprit="features_hmdb_test_demo.h5", naming="features_hmdb_val_demo.h5")
    for split in ("train", "val", "test"):
        (films.features / f"features_hmdb_{split}_demo.h5").unlink()
    assert_told(films, culprit="features_hmdb_test_demo.h5")


def test_a_head_without_videos_to_learn_from_is_told(films):
    (films.features / "features_hmdb_train_demo.h5").unlink()
    assert_told(films, culprit=films.features)


def test_a_store_that_nobody_needs_may_be_missing(films):
    """Without 'val', its videos' annotations taken out too."""
    (films.features / "features_hmdb_val_demo.h5").unlink()
    for path in (films.data / "pa_hmdb51/PrivacyAttributes").glob("*.json"):
        videos = json.loads(path.read_text())
        path.write_text(json.dumps({name: entry for name, entry in videos.items() if int(name.split("_")[1]) % 2}))
    data = read_dataset(encoder="demo", feature_dim=WIDTH)
    assert len(data.annotated) == 3 * FILMS // 2
    assert set(data.rows("binary").clusters) == {f"Film_{film}_(a)" for film in range(1, FILMS, 2)}


def test_clips_without_a_label_are_unknown(films):
    """A video whose face is labelled from its second clip on."""
    path = films.data / "pa_hmdb51/PrivacyAttributes/run.json"
    videos = json.loads(path.read_text())
    name = next(name for name, entry in videos.items() if entry["face"][0][1] >= 31)
    videos[name]["face"] = [[16, videos[name]["face"][0][1], 2]]
    path.write_text(json.dumps(videos))
    rows = read_dataset(encoder="demo", feature_dim=WIDTH).rows("values")
    of_video = rows.labels[rows.videos == name.removesuffix(".avi")]
    of_face = np.array([column.startswith("face") for column in ATTRIBUTES["values"]])
    assert np.isnan(of_video[0, of_face]).all()
    assert (of_video[1:, of_face] == [0, 0, 1]).all()
    assert len(of_video) > 1
    assert not np.isnan(of_video[:, ~of_face]).any()


@pytest.mark.parametrize(("labels", "width"), [("values", 15), ("binary", 5), ("vispr", 6)])
def test_every_published_annotation_can_be_read(shared, tmp_path, monkeypatch, labels, width):
    """515 videos, 377 films, with a made-up feature for every 16 frames."""
    study = Study(tmp_path)
    shutil.copytree(shared / "annotations/pa_hmdb51", study.data / "pa_hmdb51")
    frames = {}
    for path in (study.data / "pa_hmdb51/PrivacyAttributes").glob("*.json"):
        for name, entry in json.loads(path.read_text()).items():
            frames[name.removesuffix(".avi")] = (entry["face"][-1][1] + 1, path.stem)
    classes = sorted({action for _, action in frames.values()})
    halves = {"train": sorted(frames)[::2], "test": sorted(frames)[1::2]}
    for split, videos in halves.items():
        with StoreWriter(study.features / f"features_hmdb_{split}_demo.h5", attributes={"encoder": "demo"}) as store:
            for name in videos:
                store.add(name, np.zeros((max(1, frames[name][0] // 16), WIDTH)))
        listed = [{"filename": f"{n}.avi", "label": classes.index(frames[n][1])} for n in videos]
        write_csv(study.data / f"hmdb51/hmdb51_{split}_labels.csv", listed)
    pointed_at(study, monkeypatch)
    data = read_dataset(encoder="demo", feature_dim=WIDTH)
    rows = data.rows(labels)
    assert len(data.annotated) == 515
    assert len(np.unique(rows.clusters)) == 377
    assert len(rows) == sum(max(1, count // 16) for count, _ in frames.values())
    assert rows.labels.shape[1] == width == len(ATTRIBUTES[labels])
    assert data.others == []
    known = rows.labels[~np.isnan(rows.labels).any(axis=1)]
    assert len(known) >= len(rows) - 20
    assert 0 < known.mean() < 1
    if labels == "values":  # every clip shows at least one value of each attribute
        starts = np.cumsum([0, *(len(values) for values in PAHMDB51_VALUES.values())])
        for first, end in itertools.pairwise(starts):
            assert (known[:, first:end].sum(axis=1) >= 1).all()


def test_attributes_that_too_few_films_show_are_left_out_by_name():
    labels = np.zeros((40, 4), dtype=np.float32)
    labels[:8, 0] = labels[:6, 1] = labels[8:, 2] = 1  # 4, 3, 16 and no films of 20, two clips each
    labels[:2, 2] = np.nan
    films = np.arange(40) // 2
    rows = Rows(np.zeros((40, 1), dtype=np.float32), labels, films, films)
    found = judgeable(rows, ("a", "b", "c", "d"), 4)
    assert (found.attributes, found.too_rare) == (("a",), ("b", "c", "d"))  # 3 films are known not to show c
    np.testing.assert_array_equal(found.rows.labels[:, 0], labels[:, 0])
    assert judgeable(rows, ("a", "b", "c", "d"), 3).too_rare == ("d",)
    with refused("labels", naming="5"):
        judgeable(rows, ("a", "b", "c", "d"), 5)


def test_rare_attributes_are_named_beside_the_tables(films, capsys):
    for path in (films.data / "pa_hmdb51/PrivacyAttributes").glob("*.json"):
        videos = json.loads(path.read_text())
        for name, video in videos.items():
            video["gender"][0][2] = 0 if name.startswith(("Film_1_", "Film_2_")) else 1
        path.write_text(json.dumps(videos))
    assert eval_pahmdb.main(arguments("num_epochs=2")) == 0
    rare = ["gender=unidentifiable", "gender=male", "gender=female"]
    assert result_of(films)["too_rare"]["cross_fitted"] == rare
    assert f"by fewer than 3 films or by all but fewer: {', '.join(rare)}." in capsys.readouterr().out


def test_the_shaded_area_is_the_hypervolume():
    rng = np.random.default_rng(0)
    for _ in range(20):
        points = rng.random((5, 2))
        edge = np.array(_staircase(points.tolist()))
        area = np.trapezoid(edge[:, 1], edge[:, 0])
        assert area == pytest.approx(tradeoff.Curve(points[:, 0], points[:, 1]).hypervolume)


def test_attackers_who_do_worse_than_chance_are_no_good_news(films, capsys):
    assert eval_pahmdb.main(arguments(f"saved_fa_model={save(films, 'aam')}", "num_epochs=2")) == 0
    assert "do worse than chance" not in capsys.readouterr().out
    result = result_of(films)
    result["cross_fitted"]["aam"]["mean"]["leakage_interval"] = [-0.3, -0.1]
    assert "**Attackers of aam do worse than chance.**" in report_section(result)


def test_undefined_points_are_left_out_of_the_picture(tmp_path):
    point = {"privacy": 0.4, "privacy_interval": [0.3, None], "utility": 0.9, "utility_interval": [0.8, 1.0]}
    curve = {"points": {"a": point, "b": {**point, "utility": None}}, "hypervolume": {"value": None}}
    assert draw_curve({"curve": curve}, tmp_path / "curve.png").stat().st_size > 5000
    assert draw_curve({"curve": {**curve, "points": {"b": curve["points"]["b"]}}}, tmp_path / "curve.png") is None
    assert not (tmp_path / "curve.png").exists()
