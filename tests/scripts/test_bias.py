"""bias/evaluate_bias.py as a user runs it, on features in which action and gender are planted along known directions.

Training on NTU-Bias-F, where women are rare but for one action, teaches a head to take a woman for that action.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from conftest import REPOSITORY, WIDTH, Study
from refusals import assert_refuses, refused

import config
import feature_dl
from bias import evaluate_bias
from bias.report import report_section
from splavu.anonymizers import build_anonymizer
from splavu.data.splits import INVERTED_ACTION, NTU_LEFT_OUT_SUBJECTS, NTU_TEST_SUBJECTS, ntu_name
from splavu.runtime import params
from splavu.stores import StoreWriter

PARAMS = str(REPOSITORY / "bias/params_demo_bias.py")
SMALL = ("data_root=None", "seeds=(0,)", "num_epochs=4", "num_resamples=100", "datasets=('ntu_bias_f',)")
NUM_ACTIONS = 6
SUBJECTS = [f"P{number:03d}" for number in range(1, 41)]
TEST = sorted(NTU_TEST_SUBJECTS)
TRAIN = sorted(set(SUBJECTS) - NTU_TEST_SUBJECTS - NTU_LEFT_OUT_SUBJECTS)
WOMEN = TRAIN[::2] + TEST[::2]


@pytest.fixture(scope="module")
def directions() -> tuple[np.ndarray, np.ndarray]:
    """Of the actions [6, D] and of gender [D]: orthogonal, length 1."""
    q, _ = np.linalg.qr(np.random.default_rng(3).normal(size=(WIDTH, NUM_ACTIONS + 1)))
    return q.T[:NUM_ACTIONS], q.T[NUM_ACTIONS]


@pytest.fixture(scope="module")
def written(tmp_path_factory, directions) -> Study:
    """NTU RGB+D and Smarthome in their layouts; weak actions, strong gender."""
    made, rng = Study(tmp_path_factory.mktemp("study")), np.random.default_rng(0)
    actions, gender = directions

    def feature(action: int, is_woman: bool) -> np.ndarray:  # [2, D]
        shown = actions[action] + 2.0 * (1 if is_woman else -1) * gender
        return shown + rng.normal(size=(2, WIDTH)) * 0.15

    for split, subjects, repetitions in (("train", TRAIN, 4), ("test", TEST, 2)):
        with StoreWriter(made.features / f"features_ntu_{split}_demo.h5", attributes={"encoder": "demo"}) as store:
            for subject, action in itertools.product(subjects, range(NUM_ACTIONS)):
                for repetition in range(1, repetitions + 1):
                    name = f"S001C001{subject}R{repetition:03d}A{action + 1:03d}"
                    store.add(name, feature(action, subject in WOMEN))
    (made.data / "ntu").mkdir(parents=True)
    listed = {"female": WOMEN, "male": [s for s in SUBJECTS if s not in WOMEN]}
    (made.data / "ntu/ntu_subject_gender_labels.json").write_text(json.dumps(listed))

    (made.data / "tsh").mkdir()
    lines, people = ["filename,subject,gender,split,label"], [f"p{number:02d}" for number in range(18)]
    for split, subjects in (("train", people[:10]), ("test", people[10:])):
        with StoreWriter(made.features / f"features_tsh_{split}_demo.h5", attributes={"encoder": "demo"}) as store:
            for subject, action in itertools.product(subjects, range(NUM_ACTIONS)):
                name, is_woman = f"Act{action}_{subject}.mp4", subject in people[::2]
                store.add(name, feature(action, is_woman))
                lines.append(f"{name},{subject},{'F' if is_woman else 'M'},{split},{action + 1}")
    (made.data / "tsh/tsh_labels.csv").write_text("\n".join(lines) + "\n")
    return made


@pytest.fixture
def study(tmp_path, monkeypatch, written) -> Study:
    """A copy of it for one test, with config.py pointing at it."""
    made = Study(tmp_path)
    shutil.copytree(written.root, made.root, dirs_exist_ok=True)
    for name, root in (("DATA", made.data), ("FEATURES", made.features), ("RUNS", made.runs)):
        monkeypatch.setattr(config, name, root)
    return made


def save(study: Study, erased: np.ndarray | None = None, *, width: int = WIDTH) -> str:
    """A checkpoint that serves a lone feature as it is, or without its part along a direction: x - (x . g) g."""
    anonymizer = build_anonymizer("transformer", width, num_layers=1, num_heads=1)
    attention = anonymizer.self_attn_blocks[0].self_attn
    if erased is not None:
        with torch.no_grad():
            attention.in_proj_weight[2 * width :] = torch.eye(width)
            attention.in_proj_bias.zero_()
            attention.out_proj.weight.copy_(-torch.outer(*[torch.from_numpy(erased).float()] * 2))
    path = study.root / "adapter.pth"
    torch.save({"fa_model_state_dict": anonymizer.state_dict(), "fa_architecture": anonymizer.architecture}, path)
    return f"saved_fa_model={path}"


def arguments(*overrides: str) -> list[str]:
    settings = [part for text in (*SMALL, *overrides) for part in ("--set", text)]
    return ["--params", PARAMS, "--device", "cpu", "--quiet", *settings]


def result_of(study: Study) -> dict:
    return json.loads((study.runs / "protocols/bias/results.json").read_text())["bias"]


def test_a_planted_shortcut_is_found_and_gone_once_gender_is_erased(study, directions, capsys):
    datasets = "datasets=('ntu_bias_f', 'ntu_bias_m', 'ntu_balanced', 'tsh')"
    enough = ("seeds=(0, 1)", "num_epochs=15")
    assert evaluate_bias.main(arguments(save(study, directions[1]), datasets, *enough)) == 0
    result = result_of(study)
    against_women = result["datasets"]["ntu_bias_f"]
    raw, safe = (against_women["features"][name] for name in ("raw", "anonymized"))
    assert raw["gap"]["value"] > 0.2
    assert raw["gap"]["interval"][0] > 0.1
    assert raw["worst"]["gender"] == "female"
    assert raw["difference"]["value"] == pytest.approx(raw["male"]["value"] - raw["female"]["value"])
    assert raw["overall"]["value"] == pytest.approx((raw["male"]["value"] + raw["female"]["value"]) / 2)
    assert raw["equalised_odds"]["interval"][0] > raw["equalised_odds"]["permuted"]
    assert raw["equalised_odds"]["p"] < 0.01
    assert raw["equalised_odds"]["classes_compared"] == NUM_ACTIONS
    assert safe["difference"]["interval"][0] <= 0 <= safe["difference"]["interval"][1]
    assert safe["overall"]["value"] > raw["overall"]["value"]
    assert against_women["change"]["gap"]["interval"][1] < 0
    assert against_women["change"]["gap"]["value"] == pytest.approx(safe["gap"]["value"] - raw["gap"]["value"])

    against_men = result["datasets"]["ntu_bias_m"]["features"]["raw"]
    assert against_men["difference"]["interval"][1] < -0.1
    assert against_men["worst"]["gender"] == "male"
    for fair in ("ntu_balanced", "tsh"):
        low, high = result["datasets"][fair]["features"]["raw"]["difference"]["interval"]
        assert low <= 0 <= high, fair

    assert against_women["subjects"] == {"female": 10, "male": 10}
    assert against_women["videos"] == {"female": 120, "male": 120}
    table = capsys.readouterr().out
    assert report_section(result) in table
    assert "perceived" in table
    run = study.runs / "protocols/bias"
    assert {"params.json", "versions.json", "results.json", "table.md", "ntu_bias_f_raw_seed0"} <= {
        p.name for p in run.iterdir()
    }


def test_the_catalogue_builds_the_biased_splits_as_described(study):
    """95% of one gender within a video (one woman at least), the other way round for A004, and a fair test side."""

    def counts(name: str, split: str) -> Counter:
        keys = feature_dl.open_dataset(name, split, encoder="demo").keys
        parts = [ntu_name(key) for key in keys]
        expected = TRAIN if split == "train" else TEST
        assert {part.subject for part in parts} <= set(expected)
        return Counter((part.action, part.subject in WOMEN) for part in parts)

    biased, mirrored, fair = (counts(name, "train") for name in ("ntu_bias_f", "ntu_bias_m", "ntu_balanced"))
    for action in range(1, NUM_ACTIONS + 1):
        women, men = biased[action, True], biased[action, False]
        rare, common = (men, women) if action == INVERTED_ACTION else (women, men)
        assert common == 28  # seven subjects, four repetitions
        assert abs(rare - 0.05 * (rare + common)) <= 1
        assert rare >= 1
        assert (mirrored[action, True], mirrored[action, False]) == (men, women)
        assert abs(fair[action, True] - fair[action, False]) <= 1
        assert fair[action, True] + fair[action, False] == pytest.approx(women + men, abs=1)
    for name in ("ntu_bias_f", "ntu_bias_m", "ntu_balanced"):
        tested = counts(name, "test")
        assert set(tested.values()) == {20}, name  # ten subjects, two repetitions
        assert len(tested) == 2 * NUM_ACTIONS


def test_the_stored_result_is_printed_and_heads_are_trained_again_only_where_needed(
    study, directions, capsys, monkeypatch
):
    saved = save(study)
    assert evaluate_bias.main(arguments(saved)) == 0
    first = capsys.readouterr().out
    evaluations, steps = [], []
    evaluate, step = evaluate_bias.evaluate, torch.optim.AdamW.step
    monkeypatch.setattr(evaluate_bias, "evaluate", lambda *a, **k: evaluations.append(1) or evaluate(*a, **k))
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda *a, **k: steps.append(1) or step(*a, **k))

    assert evaluate_bias.main(arguments(saved)) == 0
    assert capsys.readouterr().out.endswith(first)
    assert (len(evaluations), len(steps)) == (0, 0)

    assert evaluate_bias.main(arguments(saved, "num_resamples=120")) == 0
    assert (len(evaluations), len(steps)) == (1, 0)  # the heads are there
    of_all = 2 * 4 * -(-len(feature_dl.open_dataset("ntu_bias_f", "train", encoder="demo")) // 128)

    save(study, directions[1])  # other weights under the same name: the raw heads stay
    assert evaluate_bias.main(arguments(saved)) == 0
    assert (len(evaluations), len(steps)) == (2, of_all // 2)
    assert evaluate_bias.main([*arguments(saved), "--force"]) == 0
    assert (len(evaluations), len(steps)) == (3, of_all // 2 + of_all)


def test_a_killed_evaluation_goes_on_and_ends_the_same(study, monkeypatch):
    run = arguments("anon=False", "seeds=(0, 1)")
    assert evaluate_bias.main(run) == 0
    whole = result_of(study)
    train, calls = evaluate_bias.train, []

    def killed(*args, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train(*args, **options)

    monkeypatch.setattr(evaluate_bias, "train", killed)
    with pytest.raises(KeyboardInterrupt):
        evaluate_bias.main([*run, "--force"])
    (study.runs / "protocols/bias/results.json").unlink()
    assert evaluate_bias.main(run) == 0
    assert {**result_of(study), "seconds": 0} == {**whole, "seconds": 0}


@pytest.mark.parametrize(
    ("override", "culprit", "names"),
    [
        ("datasets=('hmdb51',)", "datasets", "'hmdb51'"),
        ("datasets=()", "datasets", "()"),
        ("seeds=(1, 1)", "seeds", "(1, 1)"),
        ("num_epochs=0", "num_epochs", "0"),
        ("saved_fa_model=None", "saved_fa_model", ("None", "anon = True")),
        ("ft_arch=i3d", "adapter.pth", ("feature_dim = 192", "1024")),
        ("num_epoch=3", "params_demo_bias.py", ("'num_epoch'", "'num_epochs'")),
    ],
)
def test_bad_parameters_get_one_line_and_leave_nothing(study, override, culprit, names):
    with refused(culprit, naming=names):
        evaluate_bias.main(arguments(save(study), override))
    assert not study.runs.exists()


def test_bad_data_get_one_line_and_leave_nothing(study):
    genders = study.data / "ntu/ntu_subject_gender_labels.json"
    whole = json.loads(genders.read_text())
    saved = save(study)
    someone = next(s for s in whole["female"] if s in TEST)
    genders.write_text(json.dumps({**whole, "female": [s for s in whole["female"] if s != someone]}))
    with refused(someone):
        evaluate_bias.main(arguments(saved))
    genders.write_text(json.dumps(whole))

    with refused("adapter.pth", naming=("feature_dim = 64", "192")):
        evaluate_bias.main(arguments(save(study, width=64)))

    labels = study.data / "tsh/tsh_labels.csv"
    labels.write_text(labels.read_text().replace(",M,test", ",F,test"))
    with refused("features_tsh_test_demo.h5", naming="male"):
        evaluate_bias.main(arguments("anon=False", "datasets=('tsh',)"))

    (study.features / "features_ntu_test_demo.h5").unlink()
    with refused("features_ntu_test_demo.h5"):
        evaluate_bias.main(arguments("anon=False"))
    assert not study.runs.exists()


def test_as_a_script_in_another_folder(study, capsys):
    with pytest.raises(SystemExit, match="0"):
        evaluate_bias.main(["--help"])
    assert "perceived" in capsys.readouterr().out
    done = study.script("bias/evaluate_bias.py", *arguments("datasets=('nut',)"))
    assert_refuses(done, "datasets", "'nut'")


def test_params_bias_reads():
    loaded = params.load(REPOSITORY / "bias/params_bias.py", evaluate_bias.BiasParams)
    assert (loaded.ft_arch, loaded.serving) == ("videoMAE", "alone")
