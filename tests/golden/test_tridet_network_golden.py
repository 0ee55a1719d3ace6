"""The whole detector against the public program: outputs, detections, losses, gradients, parameters, other options."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import tridet
from tridet import config as configuration
from tridet.layers import DropPath
from tridet.predictions import distances

LOGITS, OFFSETS, SEGMENTS, SCORES, LOSSES, GRADIENTS = (
    5e-5,
    1e-4,
    1e-3,
    1e-5,
    1e-5,
    2e-4,
)  # the golden data's tolerances
VIDEOS = range(4)
MODES = {
    "soft_multi": {},
    "soft_agnostic_vote": {"multiclass_nms": False},
    "soft_agnostic_novote": {"multiclass_nms": False, "voting_thresh": 0.0},
    "hard_multi": {"nms_method": "hard", "iou_threshold": 0.1},
    "hard_agnostic_vote": {"nms_method": "hard", "iou_threshold": 0.1, "multiclass_nms": False},
    "none": {"nms_method": "none"},
    "soft_multi_max100": {"max_seg_num": 100},
    "soft_agnostic_vote_max100": {"max_seg_num": 100, "multiclass_nms": False},
}


@pytest.fixture
def golden(shared):
    return lambda name: np.load(shared / f"golden/tridet/{name}.npz")


def tensor(array):
    return torch.from_numpy(array.copy())


def assert_close(actual, expected, atol):
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=0, atol=atol)


def config_of(arrays, name="config_json", **test_options):
    config = configuration.from_dict(json.loads(str(arrays[name])))
    return replace(config, test_cfg=replace(config.test_cfg, **test_options))


def model_of(config, state):
    """Weights as given; no noise and no dropped path, so that training is a function of them."""
    model = tridet.build_model(replace(config, model=replace(config.model, input_noise=0.0)))
    model.load_state_dict({name: tensor(state[name]) for name in state})
    for module in model.modules():
        if isinstance(module, DropPath):
            module.probability = 0.0
    return model


def evaluation_videos(arrays, meta):
    return [
        {
            "video_id": f"v{number}",
            "feats": tensor(arrays[f"v{number}/feats"]),
            "segments": None,
            "labels": None,
            **{key: float(meta[f"v{number}/{key}"]) for key in ("fps", "duration", "feat_stride", "feat_num_frames")},
        }
        for number in VIDEOS
    ]


def training_videos(arrays):
    return [
        {
            "video_id": f"b{number}",
            "feats": tensor(arrays[f"b{number}/feats"]),
            "segments": tensor(arrays[f"b{number}/segments"]),
            "labels": tensor(arrays[f"b{number}/labels"]),
        }
        for number in range(3)
    ]


def assert_same_detections(result, arrays, prefix):
    """Scores one by one, in the public order; each segment is one of its label and, within rounding, its score."""
    expected = {key: arrays[f"{prefix}/{key}"] for key in ("segments", "scores", "labels")}
    actual = {key: np.asarray(result[key]) for key in expected}
    assert len(actual["scores"]) == len(expected["scores"])
    np.testing.assert_allclose(actual["scores"], expected["scores"], rtol=0, atol=SCORES)
    for label in np.unique(expected["labels"]):
        mine, theirs = (
            np.array([(score, *segment) for *segment, score in _rows(each, label)]) for each in (actual, expected)
        )
        assert len(mine) == len(theirs)
        for row in mine:
            near = np.abs(theirs - row)
            assert ((near[:, 0] <= SCORES) & (near[:, 1:] <= SEGMENTS).all(axis=1)).any()


def _rows(detections, label):
    of_label = detections["labels"] == label
    return np.column_stack([detections["segments"][of_label], detections["scores"][of_label]]).tolist()


def decode_all(levels):
    """The distances of every class at every point, [B, C, P, 2]."""
    videos, num_classes, _ = levels[0].classes.shape
    shape = (videos, num_classes, sum(map(len, levels)))
    video, label, point = torch.cartesian_prod(*map(torch.arange, shape)).T
    return distances(levels, video, point, label).reshape(*shape, 2)


@pytest.fixture
def small(golden):
    return model_of(config_of(golden("eval_small")), golden("state_small")).eval()


@pytest.mark.parametrize("number", VIDEOS)
def test_outputs_at_every_level(golden, small, number):
    arrays = golden("eval_small")
    video = {"video_id": "v", "feats": tensor(arrays[f"v{number}/feats"])}
    batch, mask = small.preprocess([video])
    assert batch.shape[2] == arrays[f"v{number}/padded_len"]
    if f"v{number}/embd_out" in arrays:
        assert_close(small.backbone.embed(batch, mask)[0], arrays[f"v{number}/embd_out"], LOGITS)
    if f"v{number}/L0/backbone" in arrays:
        features, masks = small.backbone(batch, mask)
        for level, (before, after) in enumerate(zip(features, small.neck(features, masks), strict=True)):
            assert_close(before[0], arrays[f"v{number}/L{level}/backbone"], 1e-4)
            assert_close(after[0], arrays[f"v{number}/L{level}/neck"], LOGITS)
    levels = small.predict(batch, mask)
    decoded = decode_all(levels).split([len(level) for level in levels], dim=2)
    for number_of_level, level in enumerate(levels):
        expected = {
            key: arrays[f"v{number}/L{number_of_level}/{key}"]
            for key in ("mask", "cls_logits", "start_logits", "end_logits", "offset_logits", "decoded_offsets")
        }
        np.testing.assert_array_equal(level.mask[0, 0], expected["mask"])
        assert_close(level.classes[0], expected["cls_logits"], LOGITS)
        assert_close(level.starts[0], expected["start_logits"], LOGITS)
        assert_close(level.ends[0], expected["end_logits"], LOGITS)
        assert_close(level.offsets[0], expected["offset_logits"], LOGITS)
        assert_close(decoded[number_of_level][0], expected["decoded_offsets"], OFFSETS)


@pytest.mark.parametrize(
    ("kind", "options"), [("prenms", {}), ("prenms_tight", {"pre_nms_thresh": 0.05, "pre_nms_topk": 40})]
)
def test_candidates(golden, kind, options):
    arrays = golden("detections_small")
    model = model_of(config_of(arrays, **options), golden("state_small")).eval()
    for video in evaluation_videos(golden("eval_small"), arrays):
        with torch.no_grad():
            (found,) = model.candidates(model.predict(*model.preprocess([video])))
        assert_same_detections(vars(found), arrays, f"{video['video_id']}/{kind}")


@pytest.mark.parametrize("mode", MODES)
def test_detections_of_a_mixed_batch(golden, mode):
    """The videos differ in length, one is longer than the longest of training; the public program took them singly."""
    arrays = golden("detections_small")
    model = model_of(config_of(arrays, **MODES[mode]), golden("state_small")).eval()
    videos = evaluation_videos(golden("eval_small"), arrays)
    for video, result in zip(videos, model(videos), strict=True):
        assert result["video_id"] == video["video_id"]
        assert_same_detections(result, arrays, f"{video['video_id']}/final_{mode}")


def test_training_outputs_and_targets(golden):
    arrays = golden("train_small")
    model = model_of(config_of(arrays), golden("state_small")).train()
    videos = training_videos(arrays)
    levels = model.predict(*model.preprocess(videos))
    assert [len(level) for level in levels] == arrays["level_lengths"].tolist()
    np.testing.assert_array_equal(torch.cat([level.mask[:, 0] for level in levels], dim=1), arrays["masks"])
    for name, attribute in (("cls", "classes"), ("offset", "offsets"), ("start", "starts"), ("end", "ends")):
        outputs = torch.cat([getattr(level, attribute) for level in levels], dim=2)
        if name in ("cls", "offset"):
            outputs = outputs.transpose(1, 2)
        assert_close(outputs, arrays[f"{name}_logits"], LOGITS)
    assert_close(decode_all(levels).transpose(1, 2), arrays["decoded_offsets"], OFFSETS)

    targets = model.targets(levels, videos)
    expected = (arrays["gt_cls"] > 0) & arrays["masks"][..., None]
    np.testing.assert_array_equal(np.column_stack([targets.video, targets.point, targets.label]), np.argwhere(expected))
    np.testing.assert_array_equal(targets.distances, arrays["gt_offsets"][targets.video, targets.point])
    assert targets.num_points == arrays["num_pos"]
    level = torch.repeat_interleave(torch.arange(len(levels)), tensor(arrays["level_lengths"]))
    per_level = torch.bincount(level[targets.point[targets.first_rows]], minlength=len(levels))
    np.testing.assert_array_equal(per_level, arrays["positives_per_level"])


def losses_of(model, videos):
    losses = model(videos)
    return [losses[name].item() for name in ("cls_loss", "reg_loss", "final_loss")] + [model.loss_normaliser]


def test_losses_of_four_forwards(golden):
    arrays = golden("train_small")
    model = model_of(config_of(arrays), golden("state_small")).train()
    sequence = [losses_of(model, training_videos(arrays)) for _ in range(4)]
    np.testing.assert_allclose(sequence, arrays["losses_seq"], rtol=0, atol=LOSSES)


def test_gradients_of_every_parameter(golden):
    arrays = golden("train_small")
    model = model_of(config_of(arrays), golden("state_small")).train()
    model(training_videos(arrays))["final_loss"].backward()
    for name, parameter in model.named_parameters():
        assert_close(parameter.grad, arrays[f"grad/{name}"], GRADIENTS)
    total = torch.nn.utils.get_total_norm([parameter.grad for parameter in model.parameters()])
    np.testing.assert_allclose(total, arrays["grad_total_norm"], rtol=1e-4)


def test_losses_without_a_positive_point(golden):
    arrays = golden("train_small")
    model = model_of(config_of(arrays), golden("state_small")).train()
    losses = losses_of(model, training_videos(arrays)[2:])
    np.testing.assert_allclose(losses, arrays["losses_no_pos"], rtol=0, atol=LOSSES)


def test_losses_that_balance_themselves(golden):
    arrays = golden("train_small")
    config = config_of(arrays)
    config = replace(config, train_cfg=replace(config.train_cfg, loss_weight=-1.0))
    model = model_of(config, golden("state_small")).train()
    losses = losses_of(model, training_videos(arrays))
    np.testing.assert_allclose(losses, arrays["losses_auto_weight"], rtol=0, atol=LOSSES)


def test_losses_with_noise_on_features_and_padding(golden, monkeypatch):
    arrays = golden("train_small")
    config = config_of(arrays)
    model = model_of(config, golden("state_small")).train()
    model.config = replace(config, model=replace(config.model, input_noise=float(arrays["noise_scale"])))
    monkeypatch.setattr(torch, "randn_like", lambda batch: tensor(arrays["noise"]))
    losses = losses_of(model, training_videos(arrays))
    np.testing.assert_allclose(losses, arrays["losses_with_noise"], rtol=0, atol=LOSSES)


@pytest.mark.parametrize("size", ["small", "project"])
def test_names_shapes_and_start_of_the_parameters(golden, size):
    """Constants exactly; random weights have the distribution's mean and deviation and stay in its range."""
    arrays, stats = golden("param_names"), golden("init_stats")
    config = (
        config_of(golden("eval_small"))
        if size == "small"
        else config_of(golden("config_defaults"), "project_merged_json")
    )
    model = tridet.build_model(config)
    state = model.state_dict()
    assert list(state) == arrays[f"{size}/names"].tolist() == [name for name, _ in model.named_parameters()]
    shapes = ["x".join(map(str, value.shape)) for value in state.values()]
    assert shapes == arrays[f"{size}/shapes"].tolist()
    assert sum(map(torch.numel, state.values())) == arrays[f"{size}/num_parameters"]

    assert stats[f"{size}/names"].tolist() == list(state)
    for value, (low, high, mean, deviation) in zip(state.values(), stats[f"{size}/min_max_mean_std"], strict=True):
        if low == high:
            np.testing.assert_allclose(value, low, rtol=1e-6)
            continue
        error = deviation / value.numel() ** 0.5  # of a mean
        assert abs(value.mean() - mean) < 8 * error
        assert abs(value.std() - deviation) < 8 * error
        bound = value[0].numel() ** -0.5  # uniform within it
        assert value.abs().max() <= bound
        assert max(-low, high) <= bound


VARIANTS = [
    "abs_pe_label_smoothing",
    "plain_reg_head_avg_pool_no_ln",
    "fpn_neck_center_none",
    "conv_backbone",
    "single_class",
]


@pytest.mark.parametrize("name", VARIANTS)
def test_other_options(golden, name):
    arrays = golden("variants")
    assert sorted(arrays["names"]) == sorted(VARIANTS)
    config = config_of(arrays, f"{name}/config_json")
    prefix = f"{name}/state/"
    state = {key.removeprefix(prefix): arrays[key] for key in arrays if key.startswith(prefix)}
    model = model_of(config, state).eval()
    assert list(model.state_dict()) == list(state)
    videos = []
    for number in range(3):
        here = f"{name}/v{number}"
        fps, duration, stride, frames = map(float, arrays[f"{here}/meta"])
        videos.append(
            {
                "video_id": str(number),
                "feats": tensor(arrays[f"{here}/feats"]),
                "segments": tensor(arrays[f"{here}/segments"]),
                "labels": tensor(arrays[f"{here}/labels"]),
                "fps": fps,
                "duration": duration,
                "feat_stride": stride,
                "feat_num_frames": frames,
            }
        )
    for number, result in enumerate(model(videos)):
        here = f"{name}/v{number}"
        levels = model.predict(*model.preprocess(videos[number : number + 1]))
        assert len(levels[0]) == arrays[f"{here}/padded_len"]
        for key, attribute in (("cls", "classes"), ("offset", "offsets"), ("start", "starts"), ("end", "ends")):
            if f"{here}/{key}_logits" in arrays:
                outputs = torch.cat([getattr(level, attribute)[0] for level in levels], dim=1)
                assert_close(outputs, arrays[f"{here}/{key}_logits"], LOGITS)
        assert arrays[f"{here}/official_ok"]
        assert_same_detections(result, arrays, f"{here}/final")

    losses = model.train()(videos[:2])
    actual = [losses[key].item() for key in ("cls_loss", "reg_loss", "final_loss")] + [model.loss_normaliser]
    np.testing.assert_allclose(actual, arrays[f"{name}/train_losses"], rtol=0, atol=LOSSES)
    losses["final_loss"].backward()
    parameters = dict(model.named_parameters())
    for key, expected in zip(arrays[f"{name}/grad_names"], arrays[f"{name}/grad_norms"], strict=True):
        gradient = parameters[str(key)].grad
        assert (gradient is None) == np.isnan(expected)
        if gradient is not None:
            np.testing.assert_allclose(gradient.norm(), expected, rtol=1e-3, atol=GRADIENTS)
