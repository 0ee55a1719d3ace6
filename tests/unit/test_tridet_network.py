"""The detector: its two ways of padding, where gradients go and where they don't, and what it refuses."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from refusals import refused
from torch import nn

import tridet
from tridet import config as configuration
from tridet.config import Config, DatasetConfig, ModelConfig, TrainConfig, load, to_dict
from tridet.errors import InputError
from tridet.layers import ChannelNorm, DropPath, dead_parameters
from tridet.losses import distance_iou_loss, interval_iou, iou_weight
from tridet.predictions import Level, distances, expected_distances

REPOSITORY = Path(__file__).parents[2]
STEPS = 96  # max_seq_len


def config(*, num_classes=4, loss_normaliser=20.0, smoothing=0.0, droppath=0.1, **model) -> Config:
    chosen = {
        "backbone_arch": (1, 1, 2),
        "regression_range": ((0, 4), (4, 8), (8, 10000)),
        "embd_dim": 32,
        "fpn_dim": 32,
        "head_dim": 32,
        "sgp_mlp_dim": 48,
        "k": 5.0,
        "num_bins": 8,
        "iou_weight_power": 0.2,
        "init_conv_vars": 0.3,
    }
    return Config(
        dataset=DatasetConfig(input_dim=12, num_classes=num_classes, max_seq_len=STEPS),
        model=ModelConfig(**(chosen | model)),
        train_cfg=TrainConfig(init_loss_norm=loss_normaliser, label_smoothing=smoothing, droppath=droppath),
        test_cfg=configuration.TestConfig(pre_nms_thresh=0.01, pre_nms_topk=50, min_score=0.001, max_seg_num=30),
    )


def build(made: Config) -> tridet.TriDet:
    """A model whose every parameter matters, without dropped paths."""
    torch.manual_seed(0)
    model = tridet.build_model(made)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    for module in model.modules():
        if isinstance(module, DropPath):
            nn.init.constant_(module.scale, 0.5)
            module.probability = 0.0
    return model


def video(steps, *, segments=((3.2, 9.7), (20.5, 41.0), (33.0, 36.0)), labels=(0, 1, 3), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "video_id": f"video_{steps}",
        "feats": torch.randn(12, steps, generator=generator),
        "segments": torch.tensor(segments) if segments else None,
        "labels": torch.tensor(labels) if segments else None,
        "fps": 30.0,
        "duration": steps * 16 / 30,
        "feat_stride": 16,
        "feat_num_frames": 16,
    }


def padded(model, length, videos):
    """A batch as `preprocess` makes it, padded to a length of our choice."""
    batch = torch.stack([nn.functional.pad(each["feats"], (0, length - each["feats"].shape[1])) for each in videos])
    steps = torch.tensor([each["feats"].shape[1] for each in videos])
    return model.predict(batch, torch.arange(length) < steps[:, None, None])


def valid_outputs(levels, index):
    """Class, boundary and offset outputs of one video at its own points."""
    return [
        part[index, :, level.mask[index, 0]]
        for level in levels
        for part in (level.classes, level.starts, level.ends, level.offsets)
    ]


MASKED = [
    {},
    {"downsample_type": "avg", "n_sgp_win_size": 3},
    {"scale_factor": 4, "backbone_arch": (2, 1, 2)},
    {"fpn_type": "fpn", "fpn_dim": 24, "head_kernel_size": 5},
    {"backbone_type": "conv", "embd_with_ln": False, "head_with_ln": False},
]


@pytest.mark.parametrize("options", MASKED)
def test_masked_padding_changes_no_output_and_no_gradient(options):
    model = build(config(mask_padding=True, **options)).train()
    videos = [video(37), video(50, seed=1)]
    results = []
    for length in (64, 192):
        model.zero_grad()
        model.loss_normaliser = 20.0
        levels = padded(model, length, videos)
        model.losses(levels, videos)["final_loss"].backward()
        gradients = [parameter.grad.clone() for parameter in model.parameters()]
        results.append((valid_outputs(levels, 0) + valid_outputs(levels, 1), gradients))
    for short, long in zip(*results, strict=True):
        for a, b in zip(short, long, strict=True):
            torch.testing.assert_close(a, b, rtol=2e-4, atol=2e-5)


def test_published_padding_changes_outputs():
    model = build(config()).eval()
    short, long = (valid_outputs(padded(model, length, [video(37)]), 0) for length in (64, 192))
    assert max((a - b).abs().max() for a, b in zip(short, long, strict=True)) > 1e-2


def test_padded_length():
    published, masked = build(config()), build(config(mask_padding=True))
    lengths = [(30, 50), (STEPS + 1,), (7,)]
    for model, expected in ((published, [STEPS, STEPS + 4, STEPS]), (masked, [52, STEPS + 4, 8])):
        model.eval()
        for steps, length in zip(lengths, expected, strict=True):
            batch, mask = model.preprocess([video(each) for each in steps])
            assert batch.shape == (len(steps), 12, length)
            assert mask.sum(dim=2).flatten().tolist() == list(steps)
    assert masked.train().preprocess([video(30)])[0].shape[2] == 32
    assert published.train().preprocess([video(30)])[0].shape[2] == STEPS


@pytest.mark.parametrize(
    "options",
    [{}, {"mask_padding": True}, {"use_abs_pe": True}, {"use_abs_pe": True, "mask_padding": True}],
)
def test_videos_of_any_length_together_or_alone(options):
    model = build(config(**options)).eval()
    videos = [video(37), video(130, seed=1), video(50, seed=2), video(STEPS, seed=3), video(150, seed=4), video(1)]
    together = model(videos)
    assert [result["video_id"] for result in together] == [each["video_id"] for each in videos]
    assert sum(len(result["scores"]) for result in together) > 50
    for each, result in zip(videos, together, strict=True):
        (alone,) = model([each])
        for key in ("segments", "scores", "labels"):
            torch.testing.assert_close(result[key], alone[key], rtol=1e-4, atol=1e-4)
        assert (result["segments"] >= 0).all()
        assert (result["segments"] <= each["duration"]).all()


@pytest.mark.parametrize(
    "options",
    [{}, {"mask_padding": True, "downsample_type": "avg"}, {"fpn_type": "fpn"}, {"use_trident_head": False}],
)
def test_training_never_waits_for_its_device(options):
    """On the device without values a tensor of unknown shape, a number read back or a tensor elsewhere is an error."""
    model = build(config(input_noise=0.1, use_abs_pe=True, **options)).to("meta").train()
    model([video(50), video(37, seed=1)])["final_loss"].backward()
    assert all(parameter.grad.device.type == "meta" for parameter in model.parameters())


@pytest.mark.parametrize("mask_padding", [False, True])
def test_gradients_reach_the_features(mask_padding):
    """And are right: a step along them changes the loss as they say."""
    model = build(config(mask_padding=mask_padding)).train()
    each = video(50)
    feats = each["feats"].clone().requires_grad_()
    model.loss_normaliser = 20.0
    model([{**each, "feats": feats}])["final_loss"].backward()
    step = feats.grad / feats.grad.norm() * 5e-3
    values = []
    for moved in (each["feats"] + step, each["feats"] - step):
        model.loss_normaliser = 20.0
        values.append(model([{**each, "feats": moved}])["final_loss"].item())
    assert values[0] - values[1] == pytest.approx(2 * (feats.grad * step).sum().item(), rel=0.05)


def test_gradient_of_the_layer_normalisation():
    """By differences, in double precision; its value is torch's over the channels."""
    generator = torch.Generator().manual_seed(0)
    x, weight, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 6, 5), (1, 6, 1), (1, 6, 1))
    )
    norm = ChannelNorm(6).double()

    def normalised(x, weight, bias):
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (x,))

    expected = nn.functional.layer_norm(x.transpose(1, 2), (6,), weight.flatten(), bias.flatten())
    torch.testing.assert_close(normalised(x, weight, bias), expected.transpose(1, 2))
    assert torch.autograd.gradcheck(normalised, (x, weight, bias))


def test_boundary_heads_do_not_shape_the_pyramid():
    model = build(config()).train()
    levels = model.predict(*model.preprocess([video(50)]))
    sum(level.starts.sum() + level.ends.sum() for level in levels).backward()
    reached = {name.split(".")[0] for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert reached == {"start_head", "end_head"}


def test_published_start_leaves_sgp_kernels_without_gradient():
    torch.manual_seed(0)
    model = tridet.build_model(config(init_conv_vars=0.0)).train()
    model([video(50)])["final_loss"].backward()
    still = [parameter for parameter in model.parameters() if not parameter.grad.any()]
    names = ("psi", "convw", "convkw", "fc", "global_fc")
    kernels = [p for name, p in model.named_parameters() if set(names) & set(name.split("."))]
    assert {id(parameter) for parameter in kernels} <= {id(parameter) for parameter in still}
    assert dead_parameters(model) == sum(parameter.numel() for parameter in kernels)


def test_kernels_that_start_at_random_learn():
    torch.manual_seed(0)
    model = tridet.build_model(config(init_conv_vars=0.1)).train()
    model([video(50)])["final_loss"].backward()
    names = {"psi", "convw", "convkw", "fc", "global_fc"}
    kernels = [p for name, p in model.named_parameters() if names & set(name.split(".")) and p.ndim == 3]
    assert all(parameter.grad.any() for parameter in kernels)
    assert all(parameter.detach().std() == pytest.approx(0.1, rel=0.6) for parameter in kernels)
    assert dead_parameters(model) == 0


@pytest.mark.parametrize(("name", "dead"), [("psi", 0.0), ("fc", 1.0), ("global_fc", 0.0)])
def test_one_live_factor_is_enough_except_before_the_relu(name, dead):
    """What is counted as dead gets no gradient; here a single kernel of the layer isn't zero."""
    torch.manual_seed(0)
    model = tridet.build_model(config(init_conv_vars=0.0, backbone_arch=(1, 1, 0), regression_range=((0, 1e4),)))
    layer = model.train().backbone.stem[0]
    nn.init.normal_(getattr(layer, name).weight)
    model([video(50)])["final_loss"].backward()
    branch = (layer.psi, layer.convw, layer.convkw) if name == "psi" else (layer.fc, layer.global_fc)
    other = (layer.fc, layer.global_fc) if name == "psi" else (layer.psi, layer.convw, layer.convkw)
    assert any(p.grad.any() for conv in branch for p in conv.parameters()) == (not dead)
    assert not any(p.grad.any() for conv in other for p in conv.parameters())
    counted = other + (branch if dead else ())
    assert dead_parameters(model) == sum(p.numel() for conv in counted for p in conv.parameters())


def test_dead_parameters_of_the_published_model():
    model = tridet.build_model(load(REPOSITORY / "tridet/thumos_videoMAE.yaml", {"model": {"init_conv_vars": 0}}))
    assert dead_parameters(model) == 71_680


def test_weight_of_no_overlap_has_no_gradient():
    iou = torch.tensor([0.0, 0.0, 0.3, 1.0], requires_grad=True)
    weight = iou_weight(iou, 0.2)
    weight.sum().backward()
    torch.testing.assert_close(weight, iou.detach() ** 0.2)
    torch.testing.assert_close(iou.grad, torch.tensor([0.0, 0.0, 0.2 * 0.3**-0.8, 0.2]))
    plain = torch.zeros(1, requires_grad=True)
    (plain**0.2).sum().backward()
    assert not plain.grad.isfinite().all()  # what is guarded against


@pytest.mark.parametrize("power", [0.2, 1.0, 2.0])
def test_a_prediction_of_no_length_has_finite_gradients(power):
    predicted = torch.tensor([[0.0, 0.0], [1.0, 2.0]], requires_grad=True)
    target = torch.tensor([[1.0, 2.0], [1.0, 2.0]])
    (iou_weight(interval_iou(predicted, target), power).sum() + distance_iou_loss(predicted, target).sum()).backward()
    assert predicted.grad.isfinite().all()


def test_a_side_that_is_no_number_counts_nothing():
    starts, ends, offsets = torch.zeros(1, 5), torch.zeros(1, 5), torch.zeros(1, 10)
    assert expected_distances(starts, ends, offsets).tolist() == [[2.0, 2.0]]
    assert expected_distances(starts * math.nan, ends, offsets).tolist() == [[0.0, 2.0]]
    assert expected_distances(starts, ends * math.nan, offsets).tolist() == [[2.0, 0.0]]


def test_distances_bin_by_bin():
    """Against the formula, in loops over points and bins; two levels, the coarser shorter than a window."""
    num_bins, generator = 6, torch.Generator().manual_seed(0)
    levels = [
        Level(
            stride,
            torch.ones(2, 1, steps, dtype=torch.bool),
            torch.zeros(2, 3, steps),
            torch.randn(2, 2 * (num_bins + 1), steps, generator=generator),
            torch.randn(2, 3, steps, generator=generator),
            torch.randn(2, 3, steps, generator=generator),
        )
        for stride, steps in ((1, 10), (2, 5))
    ]
    indices = torch.cartesian_prod(torch.arange(2), torch.arange(15), torch.arange(3))
    indices = indices[torch.randperm(len(indices), generator=generator)]
    found = distances(levels, *indices.T)
    for (batch, point, label), pair in zip(indices.tolist(), found, strict=True):
        level, time = (levels[0], point) if point < 10 else (levels[1], point - 10)
        at = [
            [level.offsets[batch, side * (num_bins + 1) + bin, time].item() for bin in range(num_bins + 1)]
            for side in range(2)
        ]
        for side, logits in ((0, level.starts), (1, level.ends)):
            weights = []
            for bin in range(num_bins + 1):
                step = time - num_bins + bin if side == 0 else time + bin
                logit = logits[batch, label, step].item() if 0 <= step < len(level) else 0.0
                weights.append(math.exp(logit + at[side][bin]))
            expected = sum(weight * (num_bins - bin if side == 0 else bin) for bin, weight in enumerate(weights)) / sum(
                weights
            )
            assert pair[side].item() == pytest.approx(expected, abs=1e-4)


def test_validation_loss_is_the_training_loss():
    model = build(config(smoothing=0.1)).train()
    videos = [video(50), video(37, segments=())]
    training = model(videos)
    normaliser = model.loss_normaliser
    assert normaliser != 20.0
    model.eval()
    with torch.no_grad():
        validation = model.losses(model.predict(*model.preprocess(videos)), videos)
    assert model.loss_normaliser == normaliser
    for name, value in training.items():
        torch.testing.assert_close(validation[name], value.detach())


def test_nothing_annotated_is_zero_segments():
    model = build(config()).train()
    empty = {"segments": torch.zeros(0, 2), "labels": torch.zeros(0, dtype=torch.int64)}
    losses = []
    for each in (video(50, segments=()), {**video(50), **empty}):
        model.loss_normaliser = 20.0
        model.zero_grad()
        found = model([each])
        found["final_loss"].backward()
        assert model.loss_normaliser == pytest.approx(0.9 * 20 + 0.1)
        assert found["reg_loss"] == 0
        assert all(parameter.grad is not None for parameter in model.parameters())
        losses.append(found["final_loss"].item())
    assert losses[0] == losses[1]


def test_noise_falls_on_padding_and_in_training_only():
    model = build(config(input_noise=0.5))
    silent = {**video(20), "feats": torch.zeros(12, 20)}
    batch, _ = model.train().preprocess([silent])
    assert batch[..., 20:].std() == pytest.approx(0.5, rel=0.1)
    assert not model.eval().preprocess([silent])[0].any()


def test_classes_without_an_example_start_lower():
    made = config()
    model = tridet.build_model(replace(made, train_cfg=replace(made.train_cfg, head_empty_cls=(2,))))
    for head in (model.cls_head, model.start_head, model.end_head):
        probability = head.cls_head.conv.bias.detach().sigmoid()
        torch.testing.assert_close(probability, torch.tensor([0.01, 0.01, 1e-6, 0.01]), rtol=1e-4, atol=0)


@pytest.mark.parametrize("options", [{}, {"use_abs_pe": True}, {"use_trident_head": False}])
def test_checkpoints_hold_parameters_only(options):
    model = build(config(**options))
    assert list(model.state_dict()) == [name for name, _ in model.named_parameters()]
    assert ("start_head.cls_head.conv.bias" in model.state_dict()) == model.config.model.use_trident_head


def test_merged_dictionary_and_config_build_the_same():
    made = config()
    state = tridet.build_model(to_dict(made)).state_dict()
    assert {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in tridet.build_model(made).state_dict().items()
    }


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"feats": torch.zeros(13, 20)}, ("(13, 20)", "12")),
        ({"feats": torch.zeros(12, 0)}, "(12, 0)"),
        ({"feats": torch.zeros(12, STEPS + 1)}, ("97", "dataset.max_seq_len", "96")),
        ({"labels": torch.tensor([0, 4, 1])}, ("0 to 4", "4")),
        ({"labels": torch.tensor([0, -1, 1])}, ("-1 to 1", "4")),
    ],
)
def test_refused(change, names):
    with refused("video_50", InputError, naming=names):
        build(config()).train()([{**video(50), **change}])
