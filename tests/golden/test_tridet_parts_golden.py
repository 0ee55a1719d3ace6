"""Layers, points, targets, decoding and losses one by one, against the public program's numbers."""

import numpy as np
import pytest
import torch

from tridet.layers import SGP, ChannelNorm, ConvBlock, DropPath, MaskedConv, large_kernel
from tridet.losses import distance_iou_loss, focal_loss, interval_iou
from tridet.predictions import Level, distances
from tridet.pyramid import position_table
from tridet.targets import assign, pyramid_points

ATOL = 2e-5  # the public program with other kernels and thread counts differs by up to 7e-6


@pytest.fixture
def golden(shared):
    return lambda name: np.load(shared / f"golden/tridet/{name}.npz")


def tensor(array):
    return torch.from_numpy(array.copy())


def load(module, arrays, prefix):
    state = {key.removeprefix(prefix): tensor(arrays[key]) for key in arrays if key.startswith(prefix)}
    assert state
    module.load_state_dict(state)
    return module.eval()


def assert_close(actual, expected, atol=ATOL):
    np.testing.assert_allclose(actual.detach().numpy(), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("case", range(6))
def test_masked_convolutions(golden, case):
    arrays, name = golden("blocks"), f"maskedconv{case}"
    kernel, stride, has_bias = map(int, arrays[f"{name}/cfg"])
    x = tensor(arrays[f"{name}/x"])
    width_out = arrays[f"{name}/y"].shape[1]
    conv = load(MaskedConv(x.shape[1], width_out, kernel, stride=stride, bias=bool(has_bias)), arrays, f"{name}/state/")
    y, mask = conv(x, tensor(arrays[f"{name}/mask"]))
    assert_close(y, arrays[f"{name}/y"])
    np.testing.assert_array_equal(mask, arrays[f"{name}/mask_out"])


def test_layer_normalisation(golden):
    arrays = golden("blocks")
    norm = load(ChannelNorm(16), arrays, "layernorm/state/")
    assert_close(norm(tensor(arrays["layernorm/x"])), arrays["layernorm/y"])


@pytest.mark.parametrize("case", range(7))
def test_sgp_layers(golden, monkeypatch, case):
    arrays, name = golden("blocks"), f"sgp{case}"
    value = {key: arrays[f"{name}/{key}"].item() for key in ("win", "k", "stride", "downsample", "hidden", "droppath")}
    layer = SGP(
        16,
        window=value["win"],
        ratio=value["k"],
        stride=value["stride"],
        downsample=value["downsample"],
        hidden=None if value["hidden"] < 0 else value["hidden"],
        drop_path=value["droppath"],
    )
    load(layer, arrays, f"{name}/state/")
    x, mask = tensor(arrays[f"{name}/x"]), tensor(arrays[f"{name}/mask"])
    y, pooled_mask = layer(x, mask)
    assert_close(y, arrays[f"{name}/y"])
    np.testing.assert_array_equal(pooled_mask, arrays[f"{name}/mask_out"])
    if value["droppath"] > 0:
        draws = iter([arrays[f"{name}/train_rand_first"], arrays[f"{name}/train_rand_second"]])
        monkeypatch.setattr(torch, "rand", lambda shape, **_: tensor(next(draws)).reshape(shape))
        assert_close(layer.train()(x, mask)[0], arrays[f"{name}/train_y"])
        assert next(draws, None) is None
        assert sum(isinstance(module, DropPath) for module in layer.modules()) == 2


def test_sizes_of_large_kernels(golden):
    arrays = golden("blocks")
    sizes = [[large_kernel(int(w), float(k)) for k in arrays["kernel_table/k"]] for w in arrays["kernel_table/win"]]
    np.testing.assert_array_equal(sizes, arrays["kernel_table/large_kernel"])


def test_position_table(golden):
    arrays = golden("blocks")
    table = position_table(12, 16)
    assert_close(table, arrays["abs_pe/table"])
    longer = torch.nn.functional.interpolate(table, 20, mode="linear", align_corners=False)
    assert_close(longer, arrays["abs_pe/interp20"])


@pytest.mark.parametrize("case", range(2))
def test_blocks_of_the_plain_backbone(golden, case):
    arrays, name = golden("blocks"), f"convblock{case}"
    block = load(ConvBlock(8, stride=int(arrays[f"{name}/stride"])), arrays, f"{name}/state/")
    y, mask = block(tensor(arrays[f"{name}/x"]), tensor(arrays[f"{name}/mask"]))
    assert_close(y, arrays[f"{name}/y"])
    np.testing.assert_array_equal(mask, arrays[f"{name}/mask_out"])


def test_points(golden):
    arrays = golden("points_targets")
    expected = [arrays[f"points/L{level}"] for level in range(4)]
    ranges = [tuple(level[0, 1:3]) for level in expected]
    points = pyramid_points([len(level) for level in expected], (1, 2, 4, 8), ranges)
    np.testing.assert_array_equal(points, np.concatenate(expected))


def test_targets_are_exact(golden):
    arrays = golden("points_targets")
    strides = [2**level for level in range(6)]
    longest, num_classes = int(arrays["max_seq_len"]), int(arrays["num_classes"])
    points = pyramid_points([longest // stride for stride in strides], strides, arrays["regression_range"].tolist())
    cases = sorted({key.split("/")[0] for key in arrays if key.startswith("case")})
    batches = {}
    for case in cases:
        value = {key: arrays[f"{case}/{key}"] for key in ("segments", "labels", "pos_index", "pos_cls", "pos_offsets")}
        assert len(points) == arrays[f"{case}/num_points"]
        radius = float(arrays[f"{case}/radius"]) if arrays[f"{case}/center_sample"] == "radius" else None
        batches.setdefault(radius, []).append(value)
    assert None in batches
    for radius, videos in batches.items():
        targets = assign(
            points,
            [tensor(video["segments"]) for video in videos],
            [tensor(video["labels"]) for video in videos],
            num_classes=num_classes,
            radius=radius,
        )
        for number, video in enumerate(videos):
            rows = targets.video == number
            once = targets.first_rows[targets.video[targets.first_rows] == number]
            np.testing.assert_array_equal(targets.point[once], video["pos_index"])
            np.testing.assert_array_equal(targets.distances[once], video["pos_offsets"])
            where, label = np.nonzero(video["pos_cls"])
            np.testing.assert_array_equal(targets.point[rows], video["pos_index"][where])
            np.testing.assert_array_equal(targets.label[rows], label)
            np.testing.assert_array_equal(targets.distances[rows], video["pos_offsets"][where])
        assert targets.num_points == sum(len(video["pos_index"]) for video in videos)


@pytest.mark.parametrize("case", range(3))
def test_decoding(golden, case):
    arrays, name = golden("decode"), f"case{case}"
    starts, ends = (tensor(arrays[f"{name}/{side}_logits"])[None] for side in ("start", "end"))
    offsets = tensor(arrays[f"{name}/offset_logits"]).T[None]
    _, num_classes, steps = starts.shape
    level = Level(1, torch.ones(1, 1, steps, dtype=torch.bool), starts, offsets, starts, ends)
    label, point = torch.cartesian_prod(torch.arange(num_classes), torch.arange(steps)).T
    decoded = distances([level], torch.zeros_like(point), point, label)
    assert_close(decoded.reshape(num_classes, steps, 2), arrays[f"{name}/decoded"])


@pytest.mark.parametrize("kind", ["hard", "smooth"])
def test_focal_loss_and_its_gradient(golden, kind):
    arrays = golden("losses")
    logits = tensor(arrays["focal/logits"]).requires_grad_()
    loss = focal_loss(logits, tensor(arrays[f"focal_{kind}/targets"]))
    loss.sum().backward()
    assert_close(loss, arrays[f"focal_{kind}/loss"])
    assert_close(logits.grad, arrays[f"focal_{kind}/grad"])


def test_focal_loss_of_extreme_logits(golden):
    arrays = golden("losses")
    logits = tensor(arrays["focal_extreme/logits"])
    assert_close(focal_loss(logits, torch.zeros_like(logits)), arrays["focal_extreme/loss_t0"])
    assert_close(focal_loss(logits, torch.ones_like(logits)), arrays["focal_extreme/loss_t1"])


@pytest.mark.parametrize(
    ("name", "function"), [("giou", lambda p, t: 1 - interval_iou(p, t)), ("diou", distance_iou_loss)]
)
def test_overlap_losses_and_their_gradients(golden, name, function):
    arrays = golden("losses")
    predicted, target = (tensor(arrays[f"iou/{side}"]) for side in ("pred", "target"))
    assert_close(function(predicted, target), arrays[f"{name}/loss"])
    ordinary = predicted[5:].requires_grad_()
    function(ordinary, target[5:]).sum().backward()
    assert_close(ordinary.grad, arrays[f"{name}/grad_rows5on"])
