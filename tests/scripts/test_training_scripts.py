"""The training scripts as a user runs them, in processes of their own."""

import json
import subprocess

import pytest
import torch
from conftest import REPOSITORY
from refusals import assert_refuses, refused

import multitask_train_fa
import pretrain_fa
import train_ft
from splavu.anonymizers import build_anonymizer
from splavu.stores import FeatureStore, StoreWriter

PARAMS = str(REPOSITORY / "params/params_demo.py")
HEAD_PARAMS = str(REPOSITORY / "params/params_demo_ft.py")
HERE = ["--device", "cpu", "--set", "data_root=None"]  # the made-up study instead of the demo's world
CLIPS_ONLY = ["--set", "ft_tad_loss_weight=0", "--set", "ft_ad_loss_weight=0"]  # it has no untrimmed videos


def train(study, *overrides):
    settings = [part for text in overrides for part in ("--set", text)]
    return study.script("multitask_train_fa.py", "--params", PARAMS, *CLIPS_ONLY, *HERE, *settings)


def test_from_features_to_a_head_on_anonymized_features(study):
    """Run in this process, for coverage; the exit path is tested below."""
    small = ["--quiet", *HERE, "--set", "val_freq=2"]
    assert multitask_train_fa.main(["--params", PARAMS, *CLIPS_ONLY, *small, "--set", "num_epochs=4"]) == 0
    run = study.runs / "demo/aam"
    assert {"params.json", "versions.json", "metrics.jsonl", "results.json", "model_temp.pth"} <= {
        path.name for path in run.iterdir()
    }
    checkpoint = torch.load(run / "model_temp.pth", weights_only=True)
    assert {"fa_model_state_dict", "ft_model_ar_state_dict", "optimizer_fa", "optimizer_ft_ar", "epoch"} <= set(
        checkpoint
    )
    assert checkpoint["epoch"] == 4

    head = ["--params", HEAD_PARAMS, *small, "--set", "num_epochs=20"]
    saved = f"saved_fa_model={run / 'model_temp.pth'}"
    assert train_ft.main([*head, "--set", saved]) == 0
    assert train_ft.main([*head, "--set", "anon=False", "--set", "run_id=raw"]) == 0
    for name, features in (("demo/ft_anonymized", "anonymized, served alone"), ("raw", "raw")):
        results = json.loads((study.runs / name / "results.json").read_text())
        assert results["features"] == features
        assert results["test"]["top1"] > 0.6  # four actions


def test_a_head_is_not_taken_for_trained_when_its_anonymizer_changed(study):
    head = ["--params", HEAD_PARAMS, "--quiet", *HERE, "--set", "num_epochs=2"]
    head += ["--set", f"saved_fa_model={study.root / 'aam.pth'}"]
    for seed in (0, 1):
        torch.manual_seed(seed)
        anonymizer = build_anonymizer("mlp", 192, identity=False)
        torch.save({"fa_model_state_dict": anonymizer.state_dict()}, study.root / "aam.pth")
        if seed == 0:
            assert train_ft.main(head) == 0
            assert train_ft.main(head) == 0  # the same again is done already
    with refused("model_temp.pth", naming="anonymizer ="):
        train_ft.main(head)
    assert train_ft.main([*head, "--restart"]) == 0


def test_pretraining_reduces_the_reconstruction_error(study):
    params = str(REPOSITORY / "params/params_pretrain.py")
    overrides = ["ar_dataset=hmdb51", "val_split=val", "ft_arch=demo", "num_epochs=30", "learning_rate=1e-3"]
    settings = [part for text in overrides for part in ("--set", text)]
    assert pretrain_fa.main(["--params", params, "--quiet", "--device", "cpu", *settings]) == 0
    lines = (study.runs / "pretrain_k400_videomae/metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["loss/latent"] < 0.5 * json.loads(lines[0])["loss/latent"]


@pytest.mark.parametrize("overrides", [("ft_ar_loss_weight=0",), ("fb_loss_weight=0",)])
def test_a_term_left_out(study, overrides):
    done = train(study, "num_epochs=2", *overrides)
    assert done.returncode == 0, done.stderr


def damage(study, how):
    """Harm the study as `how` says and give the overrides that lead there."""
    clips = study.features / "features_hmdb_train_demo.h5"
    static = study.features / "features_hmdb_train_demo_fb10.h5"
    labels = study.data / "hmdb51/hmdb51_train_labels.csv"
    if how == "missing store":
        clips.unlink()
    elif how == "missing static store":
        static.unlink()
    elif how == "label without feature":
        labels.write_text(labels.read_text() + "ghost.avi,1\n")
    elif how == "feature without label":
        labels.write_text("".join(labels.read_text().splitlines(keepends=True)[:-1]))
    elif how in ("wrong width", "NaN features"):
        features = dict(FeatureStore(clips))
        clips.unlink()
        width = 100 if how == "wrong width" else None
        with StoreWriter(clips, attributes={"encoder": "demo"}) as writer:
            for key, value in features.items():
                writer.add(key, value[:, :width])
        if how == "NaN features":
            import h5py

            with h5py.File(clips, "a") as file:  # what no writer of ours would let through
                file[next(iter(features))][0, 3] = float("nan")
    elif how == "truncated HDF5":
        clips.write_bytes(clips.read_bytes()[: clips.stat().st_size // 2])
    elif how == "unknown dataset":
        return ["ar_dataset=hmdb15"]
    elif how == "unknown architecture":
        return ["fa_arch=transfomer"]
    elif how == "unknown parameter":
        return ["num_epoch=3"]
    elif how == "checkpoint of another shape":
        torch.save({"fa_model_state_dict": build_anonymizer("transformer", 64).state_dict()}, study.root / "other.pth")
        return [f"saved_fa_model={study.root / 'other.pth'}"]
    elif how == "checkpoint with code":
        torch.save({"fa_model_state_dict": subprocess.Popen}, study.root / "evil.pth")
        return [f"saved_fa_model={study.root / 'evil.pth'}"]
    return []


@pytest.mark.parametrize(
    ("how", "culprit", "names"),
    [
        ("missing store", "features_hmdb_train_demo.h5", ()),
        ("missing static store", "features_hmdb_train_demo_fb10.h5", ()),
        ("label without feature", "features_hmdb_train_demo.h5", "'ghost'"),
        ("feature without label", "features_hmdb_train_demo.h5", ("'subject11_5'", "train")),
        ("wrong width", "features_hmdb_train_demo.h5", ("100", "192")),
        ("NaN features", "features_hmdb_train_demo.h5", "'subject00_0'"),
        ("truncated HDF5", "features_hmdb_train_demo.h5", "HDF5"),
        ("unknown dataset", "dataset", ("'hmdb15'", "'hmdb51'")),
        ("unknown architecture", "fa_arch", "'transformer'"),
        ("unknown parameter", "params_demo.py", "'num_epochs'"),
        ("checkpoint of another shape", "other.pth", ("feature_dim = 64", "192")),
        ("checkpoint with code", "evil.pth", ()),
    ],
)
def test_bad_input_gets_one_line_and_exit_code_2(study, how, culprit, names):
    done = train(study, "num_epochs=1", *damage(study, how))
    assert_refuses(done, culprit, names)
    assert not study.runs.exists()  # nothing half written


def test_help_teaches(study):
    done = study.script("multitask_train_fa.py", "--help")
    assert done.returncode == 0
    for word in ("--params", "--set", "--device", "--restart", "Exit codes"):
        assert word in done.stdout


def test_a_params_file_with_a_typo(study):
    (study.root / "p.py").write_text("run_id = 'x'\nar_dataset = 'hmdb51'\nft_arch = 'demo'\nlearning_rat_fa = 1\n")
    done = study.script("multitask_train_fa.py", "--params", "p.py")
    assert_refuses(done, "p.py", ("'learning_rat_fa'", "'learning_rate_fa'"))
