"""gait/evaluate_gait.py as a user runs it: walkers whose features do, and don't, say who they are."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, WIDTH, Study
from refusals import assert_refuses, refused

import config
from gait import evaluate_gait
from gait.report import report_section
from splavu.anonymizers import build_anonymizer
from splavu.data.splits import CASIA_B_REPETITIONS
from splavu.runtime import params
from splavu.stores import FeatureStore, StoreWriter

PARAMS = str(REPOSITORY / "gait/params_demo_gait.py")
SPLITS = {"train": ("001", "002", "003", "074"), "test": ("075", "076", "077", "078", "079", "124")}
VIEWS = (0, 90, 180)
WALKS = [(walk, n) for walk, last in CASIA_B_REPETITIONS.items() for n in range(1, last + 1)]
CHANCE = 4 / (10 * 4)  # of ten people, four normal walks each, in each of the two other views


@pytest.fixture
def study(tmp_path, monkeypatch) -> Study:
    made = Study(tmp_path)
    for name, root in (("DATA", made.data), ("FEATURES", made.features), ("RUNS", made.runs)):
        monkeypatch.setattr(config, name, root)
    return made


def write(study: Study, *, identity: float = 1.0, noise: float = 0.1, coat: float = 0.0) -> None:
    """Both stores: identity, noise of each clip, and in a coat something strong that is new in every walk."""
    rng = np.random.default_rng(5)
    for split, subjects in SPLITS.items():
        path = study.features / f"features_casia_b_{split}_demo.h5"
        with StoreWriter(path, attributes={"encoder": "demo"}, resume=False) as store:
            for subject in subjects:
                person = rng.normal(size=WIDTH) * identity
                for (walk, repetition), view in itertools.product(WALKS, VIEWS):
                    shown = person + (rng.normal(size=WIDTH) * coat if walk == "cl" else 0)
                    clips = shown + rng.normal(size=(rng.integers(1, 4), WIDTH)) * noise
                    store.add(f"{subject}-{walk}-{repetition:02d}-{view:03d}", clips)


def save(study: Study, matrix: np.ndarray | None = None, *, width: int = WIDTH, attends_over: str = "time") -> str:
    """A checkpoint that serves a lone feature x as `matrix @ x`, by default as it is."""
    anonymizer = build_anonymizer("transformer", width, num_layers=1, num_heads=1, attends_over=attends_over)
    attention = anonymizer.self_attn_blocks[0].self_attn
    if matrix is not None:
        with torch.no_grad():
            attention.in_proj_weight[2 * width :] = torch.eye(width)
            attention.in_proj_bias.zero_()
            attention.out_proj.weight.copy_(torch.from_numpy(matrix - np.eye(width)))
    path = study.root / "adapter.pth"
    torch.save({"fa_model_state_dict": anonymizer.state_dict(), "fa_architecture": anonymizer.architecture}, path)
    return f"saved_fa_model={path}"


def arguments(*overrides: str) -> list[str]:
    settings = [part for text in ("data_root=None", *overrides) for part in ("--set", text)]
    return ["--params", PARAMS, "--device", "cpu", "--quiet", *settings]


def evaluated(study: Study, *overrides: str) -> dict:
    assert evaluate_gait.main(arguments(*overrides)) == 0
    return json.loads((study.runs / "protocols/gait/results.json").read_text())["gait"]


def test_identity_in_the_features_is_found_by_every_comparison_an_identity_adapter_allows(study, capsys):
    write(study)
    result = evaluated(study, save(study))
    assert (result["probes"], result["gallery"], result["subjects"]) == (10 * 6 * 3, 10 * 4 * 3, 10)
    assert list(result["comparisons"]) == ["raw", "anonymized", "anonymized_vs_raw"]
    for found in result["comparisons"].values():
        assert found["overall"] == {name: {"value": 1.0, "interval": [1.0, 1.0]} for name in ("rank1", "map")}
        assert list(found["by_walk"]) == ["bg", "cl", "nm"]
        assert list(found["by_view"]) == ["0", "90", "180"]
    assert result["chance"]["overall"] == pytest.approx(CHANCE)
    assert result["change"]["anonymized"]["rank1"] == {"value": 0.0, "interval": [0.0, 0.0]}
    assert report_section(result) in capsys.readouterr().out
    assert {p.name for p in (study.runs / "protocols/gait").iterdir()} == {
        "params.json",
        "versions.json",
        "results.json",
        "table.md",
    }


def test_noise_gives_chance(study):
    write(study, identity=0.0, noise=1.0)
    found = evaluated(study, "anon=False")
    assert list(found["comparisons"]) == ["raw"]
    assert found["change"] == {}
    raw = found["comparisons"]["raw"]
    low, high = raw["overall"]["rank1"]["interval"]
    assert low <= CHANCE <= high < 0.3
    assert raw["swapped"]["value"] == pytest.approx(CHANCE, abs=0.01)
    assert raw["swapped"]["p"] > 0.05


def test_a_rotation_hides_nobody_from_who_has_anonymized_features_too(study):
    """Old raw features no longer match; features of the same adapter do as well as ever."""
    write(study, identity=0.6, noise=1.0)
    rotation, _ = np.linalg.qr(np.random.default_rng(8).normal(size=(WIDTH, WIDTH)))
    result = evaluated(study, save(study, rotation))
    found = {name: entry["overall"]["rank1"] for name, entry in result["comparisons"].items()}
    assert found["raw"]["value"] > 0.95
    assert found["anonymized"]["value"] == pytest.approx(found["raw"]["value"], abs=0.01)
    swapped = result["comparisons"]["anonymized_vs_raw"]["swapped"]
    low, high = swapped["interval"]
    assert low <= found["anonymized_vs_raw"]["value"] <= high < 0.4
    assert low <= CHANCE <= high
    assert swapped["p"] > 0.05
    assert result["comparisons"]["anonymized"]["swapped"]["p"] < 0.01
    assert result["change"]["anonymized_vs_raw"]["rank1"]["interval"][1] < -0.6


def test_walks_and_views_are_means_of_their_own_probes(study):
    """A coat that hides the walker: rank-1 falls for walks in a coat alone; views and walks both average to overall."""
    write(study, coat=10.0)
    raw = evaluated(study, "anon=False")["comparisons"]["raw"]
    rank1 = {walk: found["rank1"]["value"] for walk, found in raw["by_walk"].items()}
    assert rank1["nm"] == rank1["bg"] == 1
    assert rank1["cl"] < 0.7
    for side in ("by_walk", "by_view"):  # as many probes of each
        for figure in ("rank1", "map"):
            values = [found[figure]["value"] for found in raw[side].values()]
            assert np.mean(values) == pytest.approx(raw["overall"][figure]["value"])


def test_a_video_is_the_mean_of_its_clips_each_served_alone(study):
    write(study, noise=1.0)
    matrix = np.random.default_rng(2).normal(size=(WIDTH, WIDTH)) / 10
    p = params.load(PARAMS, evaluate_gait.GaitParams, ["data_root=None", save(study, matrix)])
    clips = evaluate_gait.read_clips(p)
    anonymizer = evaluate_gait.load_adapter(p)
    found = evaluate_gait.video_features(clips, anonymizer, 16, torch.device("cpu"))
    store = FeatureStore(study.features / "features_casia_b_test_demo.h5")
    for row, key in enumerate(clips):
        if key in store:
            np.testing.assert_allclose(found["raw"][row], store[key].mean(axis=0), rtol=1e-5, atol=1e-6)
            expected = np.mean([matrix @ clip for clip in store[key]], axis=0)
            np.testing.assert_allclose(found["anonymized"][row], expected, rtol=1e-3, atol=1e-4)


def test_the_stored_result_is_printed_again(study, capsys, monkeypatch):
    write(study)
    saved = save(study)
    evaluated(study, saved)
    first = capsys.readouterr().out
    calls, recognise = [], evaluate_gait.recognise
    monkeypatch.setattr(evaluate_gait, "recognise", lambda *a, **k: calls.append(1) or recognise(*a, **k))
    evaluated(study, saved)
    assert capsys.readouterr().out.endswith(first)
    assert not calls
    assert evaluate_gait.main([*arguments(saved), "--force"]) == 0
    save(study, -np.eye(WIDTH))  # other weights under the same name
    evaluated(study, saved)
    write(study, noise=0.2)  # other features in the same store
    evaluated(study, saved)
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("override", "culprit", "names"),
    [
        ("splits=('val',)", "splits", "'val'"),
        ("splits=()", "splits", "()"),
        ("num_resamples=0", "num_resamples", "0"),
        ("saved_fa_model=None", "saved_fa_model", ("None", "anon = True")),
        ("saved_fa_model=nowhere.pth", "nowhere.pth", ()),
        ("fa_arch=mlp", "adapter.pth", ("arch = 'transformer'", "'mlp'")),
        ("ft_arch=i3d", "adapter.pth", ("feature_dim = 192", "1024")),
    ],
)
def test_bad_parameters_get_one_line_and_leave_nothing(study, override, culprit, names):
    with refused(culprit, naming=names):
        evaluate_gait.main(arguments(save(study), override))
    assert not study.runs.exists()


def test_bad_data_and_checkpoints_get_one_line_and_leave_nothing(study):
    saved = save(study)
    with refused("features_casia_b_train_demo.h5"):
        evaluate_gait.main(arguments(saved))
    write(study)
    with refused("adapter.pth", naming=("feature_dim = 64", "192")):
        evaluate_gait.main(arguments(save(study, width=64)))
    with refused("adapter.pth", naming="batch_as_sequence"):
        evaluate_gait.main(arguments(save(study, attends_over="batch")))
    path = study.features / "features_casia_b_test_demo.h5"
    with StoreWriter(path, attributes={"encoder": "demo"}) as store:
        store.add("080-cl-01-090", np.ones((1, WIDTH)))
    with refused("080-cl-01-090"):
        evaluate_gait.main(arguments("anon=False"))
    with StoreWriter(path, attributes={"encoder": "demo"}) as store:
        store.add("walking_home", np.ones((1, WIDTH)))
    with refused("walking_home", naming="SSS-TT-NN-VVV"):
        evaluate_gait.main(arguments("anon=False"))
    assert not study.runs.exists()


def test_as_a_script_in_another_folder(study, capsys):
    with pytest.raises(SystemExit, match="0"):
        evaluate_gait.main(["--help"])
    assert "attacker" in capsys.readouterr().out
    done = study.script("gait/evaluate_gait.py", *arguments("anon=False"))
    assert_refuses(done, "features_casia_b_train_demo.h5")


def test_params_gait_reads():
    loaded = params.load(REPOSITORY / "gait/params_gait.py", evaluate_gait.GaitParams)
    assert (loaded.ft_arch, loaded.splits) == ("videoMAE", ("train", "test"))
