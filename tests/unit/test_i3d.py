"""Inception I3D and I3D ResNet-50: weight files that fit or are refused, and features of any clip and batch."""

from __future__ import annotations

import itertools
import logging
import math
import re
from collections import OrderedDict

import pytest
import torch
from refusals import refused
from torch import Tensor, nn

from splavu.data.encoders import encoder_spec
from splavu.extraction.encoders import load_encoder
from splavu.extraction.encoders.i3d import InceptionI3D, SameMaxPool, pool, same_padding
from splavu.extraction.encoders.i3d_resnet import Bottleneck, I3DResNet50
from splavu.extraction.extract import Job, extract
from splavu.extraction.preprocessing import normalise

WIDTHS = {"i3d": 1024, "largei3d": 2048}
NUM_CLASSES = 5


def randomised(network: nn.Module) -> nn.Module:
    """Convolutions that keep the variance (with torch's defaults all clips look alike), and batch norms that work."""
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm3d):
            for values in (module.running_mean, module.weight.data, module.bias.data):
                values.add_(0.1 * torch.randn_like(values))
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


@pytest.fixture(scope="module")
def networks() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    with torch.no_grad():
        return {
            "i3d": randomised(InceptionI3D(num_classes=NUM_CLASSES)),
            "largei3d": randomised(I3DResNet50(num_classes=NUM_CLASSES)),
        }


def assert_close(found: Tensor, expected: Tensor) -> None:
    """Up to float rounding, which grows with the values: they reach thousands in the ResNet."""
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def differ(one: Tensor, other: Tensor) -> bool:
    """By far more than rounding."""
    return bool((one - other).abs().max() > 1e-2 * one.abs().max())


def weights_of(network: nn.Module) -> dict[str, Tensor]:
    """As the files of 2017 hold them: without the counters of batch norms."""
    state = network.state_dict()
    return OrderedDict((name, weight) for name, weight in state.items() if not name.endswith("num_batches_tracked"))


def prefixed(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: weight for name, weight in state.items()}


def frozen_norms(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weight of a batch norm under its other name."""
    return {re.sub(r"(bn\d|downsample\.1)\.weight", r"\1.scale", name): weight for name, weight in state.items()}


def wrapped(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As TeD-SPAD saves the network: in a wrapper with a head of its own."""
    head = {"mlp.fc1.weight": torch.ones(512, 2048), "mlp.bn1.running_mean": torch.ones(512)}
    return {**prefixed("i3d.", state), **head}


LAYOUTS = {
    ("i3d", "plain"): weights_of,
    ("i3d", "counters"): lambda network: network.state_dict(),
    ("i3d", "entry"): lambda network: {"state_dict": weights_of(network), "epoch": 3},
    ("i3d", "module"): lambda network: prefixed("module.", weights_of(network)),
    ("i3d", "entry and module"): lambda network: {"state_dict": prefixed("module.", network.state_dict())},
    ("largei3d", "plain"): weights_of,
    ("largei3d", "scale"): lambda network: frozen_norms(weights_of(network)),
    ("largei3d", "entry"): lambda network: {"state_dict": prefixed("module.", network.state_dict())},
    ("largei3d", "saved"): lambda network: {
        "ft_model_state_dict": prefixed("module.", wrapped(network.state_dict())),
        "epoch": 3,
    },
    ("largei3d", "saved, scale"): lambda network: {"ft_model_state_dict": wrapped(frozen_norms(weights_of(network)))},
}


@pytest.mark.parametrize(("name", "layout"), LAYOUTS)
@torch.inference_mode()
def test_files_of_every_layout_give_the_features_of_their_network(networks, tmp_path, name, layout):
    network, path = networks[name], tmp_path / "weights.pt"
    torch.save(LAYOUTS[name, layout](network), path, _use_new_zipfile_serialization=layout != "plain")  # as in 2017
    encoder = load_encoder(name, str(path))
    clips = torch.rand(2, 16, 3, 40, 48) * 2 - 1
    features = encoder(clips)
    assert features.shape == (2, WIDTHS[name])
    assert_close(features, network(clips.transpose(1, 2)))
    assert differ(*features)


@pytest.mark.parametrize("name", WIDTHS)
def test_the_hash_does_not_depend_on_counters_and_wrappers(networks, tmp_path, name):
    hashes = set()
    counted = networks[name].state_dict()
    counted |= {key: torch.tensor(77) for key in counted if key.endswith("num_batches_tracked")}
    for number, content in enumerate((weights_of(networks[name]), counted, prefixed("module.", counted))):
        torch.save(content, tmp_path / f"{number}.pt")
        hashes.add(load_encoder(name, str(tmp_path / f"{number}.pt")).weights_hash)
    assert len(hashes) == 1


@pytest.mark.parametrize("name", WIDTHS)
def test_every_name_that_does_not_fit_is_told_in_one_line(networks, tmp_path, name):
    path, state = tmp_path / "weights.pt", weights_of(networks[name])
    first, second, third, *_ = (key for key in state if not key.startswith("fc."))
    del state[first], state[second]
    state |= {third: torch.ones(7), "layer9.0.weight": torch.ones(1), "head.bias": torch.ones(1)}
    torch.save(state, path)
    with refused(path, naming=("2", first, second, "layer9.0.weight", "head.bias", "1", third)):
        load_encoder(name, str(path))


def test_a_file_of_another_network_is_refused_with_counts(networks, tmp_path):
    torch.save(weights_of(networks["largei3d"]), tmp_path / "resnet.pt")
    with refused("resnet.pt"):
        load_encoder("i3d", str(tmp_path / "resnet.pt"))


def test_weights_for_optical_flow_are_refused(tmp_path):
    torch.save(weights_of(InceptionI3D(in_channels=2)), tmp_path / "flow_imagenet.pt")
    with refused("flow_imagenet.pt"):
        load_encoder("i3d", str(tmp_path / "flow_imagenet.pt"))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ({"state_dict": OrderedDict(), "hook": print}, "plain tensors"),
        ({"state_dict": 3}, "weights missing"),
        ({"weights": OrderedDict(), "epoch": 1}, "weights missing"),
        ([1, 2], "no dictionary of weights"),
    ],
)
@pytest.mark.parametrize("name", WIDTHS)
def test_what_is_no_file_of_weights_is_refused(tmp_path, name, content, problem):
    torch.save(content, tmp_path / "weights.pt")
    with refused("weights.pt"):
        load_encoder(name, str(tmp_path / "weights.pt"))


@pytest.mark.parametrize(("name", "official"), [("i3d", "rgb_imagenet.pt"), ("largei3d", "TeD-SPAD")])
def test_without_weights_the_file_to_get_is_named(tmp_path, name, official):
    with refused(f"encoder '{name}'", naming=(official, "--weights FILE")):
        load_encoder(name)
    with refused("nowhere.pt"):
        load_encoder(name, str(tmp_path / "nowhere.pt"))


def test_heads_that_are_left_out_are_told(networks, tmp_path, caplog):
    torch.save({"ft_model_state_dict": wrapped(weights_of(networks["largei3d"]))}, tmp_path / "saved.pth")
    with caplog.at_level(logging.INFO):
        load_encoder("largei3d", str(tmp_path / "saved.pth"))
    assert "fc.bias, fc.weight, mlp.bn1.running_mean, mlp.fc1.weight" in caplog.text


def test_a_weight_that_a_file_holds_twice_is_refused(networks, tmp_path):
    state = weights_of(networks["largei3d"])
    torch.save(state | {"bn1.scale": torch.zeros(64)}, tmp_path / "twice.pth")
    with refused("twice.pth"):
        load_encoder("largei3d", str(tmp_path / "twice.pth"))


@pytest.mark.parametrize("name", WIDTHS)
@torch.inference_mode()
def test_frames_are_fed_in_the_range_of_the_official_weights(networks, tmp_path, name):
    torch.save(weights_of(networks[name]), tmp_path / "weights.pt")
    encoder = load_encoder(name, str(tmp_path / "weights.pt"))
    clips = torch.randint(0, 256, (2, 16, 32, 32, 3), dtype=torch.uint8)
    scaled = clips.double() / 127.5 - 1 if name == "i3d" else clips.double() / 255
    expected = networks[name](scaled.float().permute(0, 4, 1, 2, 3))
    preprocessing = encoder.spec.preprocessing
    assert (preprocessing.short_side, preprocessing.crop) == (256, 224)
    assert_close(encoder(normalise(clips, preprocessing)), expected)


@pytest.mark.parametrize("name", WIDTHS)
def test_extraction_gives_a_row_per_clip_whatever_the_batch(networks, tmp_path, name):
    torch.save(weights_of(networks[name]), tmp_path / "weights.pt")
    encoder = load_encoder(name, str(tmp_path / "weights.pt"))
    clips = torch.randint(0, 256, (3, 16, 32, 32, 3), dtype=torch.uint8)
    jobs = [
        Job("three", lambda: iter([("clips", clips)])),
        Job("one", lambda: iter([("clips", clips[:1])])),
        Job("still", lambda: iter([("clips", clips[:1, :1])])),  # a frame, to be tiled
    ]
    rows = {
        size: {
            result.key: torch.from_numpy(result.features["clips"])
            for result in extract(
                jobs,
                encoder,
                preprocessing=encoder.spec.preprocessing,
                device=torch.device("cpu"),
                batch_size=size,
            )
        }
        for size in (1, 5)
    }
    assert {key: found.shape for key, found in rows[1].items()} == {
        "three": (3, WIDTHS[name]),
        "one": (1, WIDTHS[name]),
        "still": (1, WIDTHS[name]),
    }
    for key, found in rows[1].items():
        assert_close(found, rows[5][key])
    assert_close(rows[1]["three"][:1], rows[1]["one"])
    assert differ(rows[1]["still"][0], rows[1]["one"][0])
    assert differ(*rows[1]["three"][:2])


def test_rows_of_the_table():
    spec = encoder_spec("i3d")
    assert (spec.preprocessing.mean, spec.preprocessing.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert encoder_spec("largei3d").preprocessing.mean == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (16, 7, 2, (2, 3)),
        (17, 7, 2, (3, 3)),
        (5, 2, 2, (0, 1)),
        (6, 2, 2, (0, 0)),
        (1, 3, 1, (1, 1)),
        (4, 1, 2, (0, 0)),
    ],
)
def test_same_padding_is_that_of_the_specification(size, kernel, stride, expected):
    assert same_padding(size, kernel, stride) == expected


@pytest.mark.parametrize(
    ("kernel", "stride"),
    [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2)), ((3, 3, 3), (1, 1, 1))],
)
def test_pooling_of_negative_maps_sees_no_padding(kernel, stride):
    generator = torch.Generator().manual_seed(1)
    for shape in itertools.product((1, 2, 3, 4), (1, 5, 6), (2, 7)):
        maps = -1 - torch.rand(1, 2, *shape, generator=generator)
        pooled = SameMaxPool(kernel, stride)(maps)
        assert pooled.shape[2:] == tuple(math.ceil(size / step) for size, step in zip(shape, stride, strict=True))
        for position in itertools.product(*(range(count) for count in pooled.shape[2:])):
            window = [
                slice(max(0, start), start + size)
                for start, size in (
                    (index * step - max(size - (length % step or step), 0) // 2, size)
                    for index, length, size, step in zip(position, shape, kernel, stride, strict=True)
                )
            ]
            expected = maps[(slice(None), slice(None), *window)].amax(dim=(2, 3, 4))
            assert torch.equal(pooled[(slice(None), slice(None), *position)], expected)


def test_pooling_that_cannot_be_padded_is_refused():
    with pytest.raises(ValueError, match=r"\(2, 3, 3\)"):
        SameMaxPool((2, 3, 3), (1, 1, 1))


def test_sliding_windows_are_means_of_2_x_7_x_7():
    maps = torch.randn(2, 3, 4, 8, 9)
    pooled = pool(maps, "sliding")
    assert pooled.shape == (2, 3, 3, 2, 3)
    for t, h, w in itertools.product(range(3), range(2), range(3)):
        window = maps[:, :, t : t + 2, h : h + 7, w : w + 7]
        torch.testing.assert_close(pooled[:, :, t, h, w], window.mean(dim=(2, 3, 4)), atol=1e-6, rtol=0)
    torch.testing.assert_close(
        pool(maps[:, :, :2, :7, :7], "sliding").flatten(1), pool(maps[:, :, :2, :7, :7], "global")
    )


@torch.inference_mode()
def test_sliding_windows_need_9_frames_and_193_pixels_and_the_global_mean_nothing(networks):
    network = networks["i3d"]
    assert network(torch.rand(1, 3, 9, 193, 193), pooling="sliding").shape == (1, 1024, 1, 1, 1)
    with pytest.raises(ValueError, match=r"\b9\b.*\b193 x 193\b"):
        network(torch.rand(1, 3, 8, 193, 193), pooling="sliding")
    with pytest.raises(ValueError, match="'slidng'.*'sliding'"):
        network(torch.rand(1, 3, 1, 1, 1), pooling="slidng")
    assert network(torch.rand(1, 3, 1, 1, 1)).shape == (1, 1024)


@torch.inference_mode()
def test_an_early_endpoint_runs_nothing_later(networks):
    network, ran = networks["i3d"], []
    hooks = [
        network.get_submodule(name).register_forward_hook(lambda *_, name=name: ran.append(name))
        for name in network.endpoints
    ]
    clips = torch.rand(1, 3, 8, 32, 32)
    early = network.feature_map(clips, "Conv3d_2c_3x3")
    assert early.shape == (1, 192, 4, 8, 8)
    assert ran == ["Conv3d_1a_7x7", "MaxPool3d_2a_3x3", "Conv3d_2b_1x1", "Conv3d_2c_3x3"]
    for hook in hooks:
        hook.remove()
    maps = network.feature_maps(clips, ["Mixed_5c", "Conv3d_2c_3x3"])
    assert list(maps) == ["Conv3d_2c_3x3", "Mixed_5c"]
    assert torch.equal(maps["Conv3d_2c_3x3"], early)
    with pytest.raises(ValueError, match="'Predictions'"):
        network.feature_map(clips, "Predictions")


@torch.inference_mode()
def test_scores_keep_every_axis(networks):
    assert networks["i3d"].classify(torch.rand(1, 1024)).shape == (1, NUM_CLASSES)
    assert networks["i3d"].classify(torch.rand(1, 1024, 1, 1, 1)).shape == (1, NUM_CLASSES, 1, 1, 1)
    assert networks["i3d"].classify(torch.rand(2, 1024, 3, 2, 1)).shape == (2, NUM_CLASSES, 3, 2, 1)
    assert networks["largei3d"].classify(torch.rand(1, 2048)).shape == (1, NUM_CLASSES)


@pytest.mark.parametrize("network", [InceptionI3D, I3DResNet50])
def test_dropout_is_the_probability_to_drop(network):
    for probability, is_dropped in ((1.0, True), (0.0, False)):
        model = network(num_classes=NUM_CLASSES, dropout=probability).train()
        width = WIDTHS["i3d" if network is InceptionI3D else "largei3d"]
        classifier = model.logits["conv3d"] if network is InceptionI3D else model.fc
        scores = model.classify(torch.ones(2, width))
        kept = 0 if is_dropped else classifier.weight.flatten(1).sum(dim=1)
        torch.testing.assert_close(scores, (classifier.bias + kept).expand(2, -1), atol=1e-4, rtol=0)


@torch.inference_mode()
def test_resnet_keeps_a_single_clip_and_says_what_is_too_small(networks):
    network = networks["largei3d"]
    assert network(torch.rand(1, 3, 7, 5, 5)).shape == (1, 2048)
    for shape in ((6, 5, 5), (7, 4, 5), (7, 5, 4)):
        with pytest.raises(ValueError, match=r"\b7\b.*\b5 x 5\b"):
            network(torch.rand(1, 3, *shape))


def test_temporal_blocks_of_the_resnet(networks):
    blocks = {name: block for name, block in networks["largei3d"].named_modules() if isinstance(block, Bottleneck)}
    temporal = [name for name, block in blocks.items() if block.conv1.kernel_size == (3, 1, 1)]
    assert temporal == [  # specification, appendix
        *(f"layer1.{block}" for block in (0, 1, 2)),
        *(f"layer2.{block}" for block in (0, 2)),
        *(f"layer3.{block}" for block in (0, 2, 4)),
        "layer4.1",
    ]
    assert len(blocks) == 3 + 4 + 6 + 3


@pytest.mark.parametrize("name", WIDTHS)
def test_encoders_stay_frozen(networks, tmp_path, name):
    torch.save(weights_of(networks[name]), tmp_path / "weights.pt")
    encoder = load_encoder(name, str(tmp_path / "weights.pt"))
    assert not any(module.training for module in encoder.train().modules())
    assert not any(weight.requires_grad for weight in encoder.parameters())
