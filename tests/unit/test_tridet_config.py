import json
import logging
from pathlib import Path

import numpy as np
import pytest
from refusals import refused

from tridet.config import Config, DatasetConfig, from_dict, load, to_dict
from tridet.errors import InputError

FILES = Path(__file__).parents[2] / "tridet"


def flattened(nested, prefix=""):
    for key, value in nested.items():
        if isinstance(value, dict):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


@pytest.fixture
def written(tmp_path):
    def write(text, name="own.yaml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def test_defaults_are_the_published_ones(shared):
    published = json.loads(str(np.load(shared / "golden/tridet/config_defaults.npz")["defaults_json"]))
    own = dict(flattened(to_dict(Config())))
    differing = {key: own.get(key, "absent") for key, value in flattened(published) if own.get(key, "absent") != value}
    # The published window is invalid, its data set one of its four; ours is the one there is.
    assert differing == {"model.n_sgp_win_size": 1, "dataset_name": "thumos"}


def test_the_published_merged_configuration_is_read(shared):
    merged = json.loads(str(np.load(shared / "golden/tridet/config_defaults.npz")["project_merged_json"]))
    config = from_dict(merged)
    assert (config.dataset.input_dim, config.dataset.num_classes, config.dataset.max_seq_len) == (768, 20, 2304)
    own = dict(flattened(to_dict(config)))
    for key, value in flattened(merged):
        if key.startswith(("model.train_cfg", "model.test_cfg")):
            key = key.removeprefix("model.")
        if key in ("model.input_dim", "model.num_classes", "model.max_seq_len"):
            key = key.replace("model", "dataset")
        assert own[key] == value, key


def test_our_first_file_is_the_published_configuration(shared):
    merged = json.loads(str(np.load(shared / "golden/tridet/config_defaults.npz")["project_merged_json"]))
    config = load(FILES / "thumos_videoMAE.yaml")
    own = from_dict(merged)
    for section in ("model", "train_cfg", "test_cfg", "opt"):
        assert getattr(config, section) == getattr(own, section), section


def test_our_files_load():
    paths = sorted(FILES.glob("*.yaml"))
    assert len(paths) >= 4
    for path in paths:
        assert load(path).dataset.json_file, path


def test_a_dictionary_goes_there_and_back():
    config = from_dict({"model": {"n_sgp_win_size": [1, 3, 5, 3, 1, 1]}, "dataset": {"crop_ratio": [0.9, 1]}})
    assert config.model.n_sgp_win_size == (1, 3, 5, 3, 1, 1)
    assert config.dataset.crop_ratio == (0.9, 1.0)
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


def test_only_a_range_may_have_no_end(written):
    ranges = "[[0, 4], [4, 8], [8, 16], [16, 32], [32, 64], [64, .inf]]"
    config = load(written(f"model: {{regression_range: {ranges}}}\n"))
    assert config.model.regression_range[-1] == (64.0, float("inf"))
    with refused("test_cfg.min_score", error=InputError):
        load(written("test_cfg: {min_score: .inf}\n"))


def test_what_follows_from_the_pyramid():
    config = from_dict({"model": {"n_sgp_win_size": 3}})
    assert config.strides == (1, 2, 4, 8, 16, 32)
    assert config.windows == (3,) * 6
    assert config.divisor == 96
    assert Config().divisor == 32
    ranges = [[0, 4], [4, 8], [8, 16], [16, 32], [32, 10000]]
    model = {"backbone_arch": [2, 2, 4], "regression_range": ranges, "n_sgp_win_size": [1, 3, 5, 3, 1]}
    uneven = from_dict({"model": model})
    assert uneven.divisor == 48  # the public program's 24 is no multiple of the coarsest stride, 16


def test_epochs_trained():
    assert from_dict({"opt": {"epochs": 20, "warmup_epochs": 20}}).opt.num_epochs == 40
    assert from_dict({"opt": {"epochs": 20, "warmup_epochs": 20, "warmup": False}}).opt.num_epochs == 20
    assert from_dict({"opt": {"epochs": 20, "early_stop_epochs": 7}}).opt.num_epochs == 7


def test_files_over_a_base_over_defaults_and_overrides_over_all(written):
    written("dataset: {input_dim: 10, num_classes: 3}\nopt: {learning_rate: 1e-4}\n", "base.yaml")
    path = written("base: base.yaml\ndataset:\n  input_dim: 20\nval_split: [test]\n")
    config = load(path, {"dataset": {"num_frames": 16}})
    assert (config.dataset.input_dim, config.dataset.num_classes, config.dataset.num_frames) == (20, 3, 16)
    assert config.opt.learning_rate == 0.0001  # which YAML reads as text
    assert config.val_split == ("test",)
    assert config.dataset.feat_stride == 16


def test_both_spellings_of_the_boundary_kernel():
    assert from_dict({"model": {"boundary_kernel_size": 5}}).model.boudary_kernel_size == 5
    assert from_dict({"model": {"boudary_kernel_size": 5}}).model.boudary_kernel_size == 5
    with refused("config: model.boudary_kernel_size", InputError):
        from_dict({"model": {"boudary_kernel_size": 3, "boundary_kernel_size": 5}})


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"modle": {}}, ("'modle'", "'model'")),
        ({"opt": {"learnin_rate": 1}}, ("'opt.learnin_rate'", "'learning_rate'")),
        ({"opt": {"learnin_rate": 1}, "modle": {}}, ("learnin_rate", "'modle'", "'model'")),
        ({"opt": {"xyzzy": 1}}, ("xyzzy", "early_stop_epochs")),
        ({"opt": 3}, ("opt", "mapping")),
        ({"opt": {"epochs": "ten"}}, ("opt.epochs", "'ten'")),
        ({"opt": {"epochs": True}}, ("opt.epochs", "True")),
        ({"opt": {"warmup": 1}}, "opt.warmup"),
        ({"opt": {"type": "Adam"}}, ("'Adam'", "'AdamW'", "'SGD'")),
        ({"dataset": {"crop_ratio": [0.9]}}, "dataset.crop_ratio"),
        ({"train_split": "training"}, "train_split"),
    ],
)
def test_keys_and_types(changes, names):
    with refused("config", InputError, naming=names):
        from_dict(changes)


def test_a_key_with_two_values():
    with refused("config: dataset.input_dim", InputError, naming=("3", "4")):
        from_dict({"model": {"input_dim": 3}, "dataset": {"input_dim": 4}})


@pytest.mark.parametrize(
    ("section", "changes", "key"),
    [
        ("model", {"n_sgp_win_size": -1}, "model.n_sgp_win_size"),
        ("model", {"n_sgp_win_size": 2}, "model.n_sgp_win_size"),
        ("model", {"n_sgp_win_size": [3]}, "model.n_sgp_win_size"),
        ("model", {"embd_dim": 40, "fpn_dim": 40}, "model.embd_dim"),
        ("model", {"fpn_dim": 256}, "model.fpn_dim"),
        ("model", {"backbone_arch": [2, 2, 4]}, "model.regression_range"),
        ("model", {"scale_factor": 1}, "model.scale_factor"),
        ("model", {"scale_factor": 3}, "model.scale_factor"),
        ("model", {"head_kernel_size": 4}, "model.head_kernel_size"),
        ("dataset", {"max_seq_len": 2300}, "dataset.max_seq_len"),
        ("dataset", {"num_classes": 0}, "dataset.num_classes"),
        ("dataset", {"crop_ratio": [0.9, 1.2]}, "dataset.crop_ratio"),
        ("dataset", {"crop_ratio": [1.0, 0.9]}, "dataset.crop_ratio"),
        ("dataset", {"trunc_thresh": 0}, "dataset.trunc_thresh"),
        ("loader", {"batch_size": 0}, "loader.batch_size"),
        ("loader", {"num_workers": -1}, "loader.num_workers"),
        ("dataset", {"default_fps": 0}, "dataset.default_fps"),
        ("opt", {"weight_decay": -1}, "opt.weight_decay"),
        ("train_cfg", {"droppath": 1.0}, "train_cfg.droppath"),
        ("train_cfg", {"label_smoothing": 1.0}, "train_cfg.label_smoothing"),
        ("train_cfg", {"cls_prior_prob": 0}, "train_cfg.cls_prior_prob"),
        ("opt", {"learning_rate": float("nan")}, "opt.learning_rate"),
        ("test_cfg", {"max_seg_num": -1}, "test_cfg.max_seg_num"),
        ("opt", {"warmup_epochs": -1}, "opt.warmup_epochs"),
    ],
)
def test_values_that_would_fail_later_fail_at_once(section, changes, key):
    with refused(key, error=InputError):
        from_dict({section: changes})


def test_a_sequence_length_that_fits_is_offered():
    with refused("dataset.max_seq_len", error=InputError) as caught:
        from_dict({"dataset": {"max_seq_len": 2300}})
    assert "2304" in caught.value.remedy


@pytest.mark.parametrize(
    ("section", "changes"),
    [
        ("dataset", {"force_upsampling": True}),
        ("train_cfg", {"dropout": 0.1}),
        ("test_cfg", {"iou_threshold": 0.5}),
        ("test_cfg", {"voting_thresh": 0.7}),
    ],
)
def test_settings_without_effect_are_told(section, changes, caplog):
    with caplog.at_level(logging.INFO):
        from_dict({section: changes})
    [message] = caplog.messages
    [key] = changes
    assert f"{section}.{key}" in message


def test_settings_with_effect_are_not(caplog):
    with caplog.at_level(logging.INFO):
        from_dict(
            {"test_cfg": {"iou_threshold": 0.5, "voting_thresh": 0.7, "nms_method": "hard", "multiclass_nms": False}}
        )
        Config(dataset=DatasetConfig(input_dim=3))
    assert caplog.messages == []


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "\x00"])
def test_files_that_are_no_configuration(written, text):
    with refused("own.yaml", InputError):
        load(written(text))


def test_files_that_are_not_there_or_their_own_base(written, tmp_path):
    with refused("absent.yaml", InputError):
        load(tmp_path / "absent.yaml")
    with refused("absent.yaml", InputError):
        load(written("base: absent.yaml\n"))
    written("base: own.yaml\n", "base.yaml")
    with refused("own.yaml", InputError):
        load(written("base: base.yaml\n"))


def test_an_empty_file_is_the_defaults(written):
    assert load(written("")) == Config()
