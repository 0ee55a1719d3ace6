"""Both I3D networks give the maps, features and scores of the public programs (golden data of ../shared)."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from splavu.extraction.encoders.i3d import InceptionI3D, SameMaxPool, Unit, pool
from splavu.extraction.encoders.i3d_resnet import I3DResNet50

GAIN = np.sqrt(2)
RELATIVE = 1e-4  # of the largest value: the golden tolerance


def noise(tag: str, shape: tuple[int, ...]) -> np.ndarray:
    """z(tag, shape) of the golden README."""
    seed = int.from_bytes(hashlib.sha256(tag.encode()).digest()[:8], "big")
    numbers = np.random.Generator(np.random.PCG64(seed)).random(int(np.prod(shape)))
    return ((numbers - 0.5) * np.sqrt(12)).reshape(shape)


def parameter(salt: str, name: str, shape: tuple[int, ...]) -> Tensor:
    """Rule 2 of the golden README, for the names that occur here."""
    value, kind = noise(f"{salt}:{name}", shape), name.rpartition(".")[2]
    if kind == "running_mean":
        value = 0.1 * value
    elif kind == "running_var":
        value = 1 + 0.25 * value
    elif kind == "weight" and len(shape) == 1:
        value = 1 + 0.1 * value
    elif len(shape) > 1:
        value = GAIN * value / np.sqrt(np.prod(shape[1:]))
    else:
        value = 0.1 * value
    return torch.from_numpy(value.astype(np.float32))


def fill(network: nn.Module, salt: str) -> nn.Module:
    """`network` with the golden weights, in evaluation mode."""
    names = [name for name in network.state_dict() if not name.endswith("num_batches_tracked")]
    shapes = {name: tuple(network.state_dict()[name].shape) for name in names}
    network.load_state_dict({name: parameter(salt, name, shapes[name]) for name in names}, strict=False)
    return network.eval()


def assert_golden_weights(network: nn.Module, data) -> None:
    """All names and shapes are the published ones, and the weights were generated as the data demand."""
    state = {name: weight for name, weight in network.state_dict().items() if "num_batches_tracked" not in name}
    assert sorted(state) == data["names"].tolist()
    for name, shape, check in zip(data["names"], data["shapes"], data["checks"], strict=True):
        assert ",".join(map(str, state[name].shape)) == shape
        flat = state[name].numpy().astype(np.float64).ravel()
        np.testing.assert_allclose([flat.size, flat.sum(), np.abs(flat).sum(), flat[0], flat[-1]], check, rtol=1e-6)


def assert_close(found: Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found.numpy(), expected, atol=RELATIVE * np.abs(expected).max(), rtol=0)


def assert_map(found: Tensor, data, name: str) -> None:
    """Shape, 64 samples and statistics of one map."""
    assert tuple(found.shape) == tuple(data[f"{name}_shape"])
    flat = found.numpy().ravel()
    largest = data[f"{name}_stats"][2]
    probe = flat[np.floor(np.linspace(0, flat.size - 1, 64)).astype(int)]
    np.testing.assert_allclose(probe, data[f"{name}_probe"], atol=RELATIVE * largest, rtol=0)
    stats = [flat.mean(dtype=np.float64), flat.std(dtype=np.float64), np.abs(flat).max()]
    np.testing.assert_allclose(stats, data[f"{name}_stats"][:3], atol=RELATIVE * largest, rtol=0)
    np.testing.assert_allclose(np.mean(flat == 0), data[f"{name}_stats"][3], atol=1e-3, rtol=0)


@pytest.fixture(scope="module")
def inception() -> InceptionI3D:
    return fill(InceptionI3D(), "i3d-dev")


def clip(data, tag: str, *, scale: float, offset: float = 0.0) -> Tensor:
    clips = (noise(tag, tuple(data["shape"])) * scale + offset).astype(np.float32)
    return torch.from_numpy(clips)


def test_inception_has_the_official_names_and_shapes(shared, inception):
    assert_golden_weights(inception, np.load(shared / "golden/i3d/params.npz"))
    assert sum(weight.numel() for weight in inception.parameters()) == 12_697_264  # specification, section 2


@pytest.mark.parametrize("name", ["clip_16x64x64", "clip_17x73x90", "clip_16x224x224", "clip_26x230x262"])
@torch.inference_mode()
def test_inception_maps_features_and_scores(shared, inception, name):
    data = np.load(shared / f"golden/i3d/{name}.npz")
    clips = clip(data, f"i3d-dev:input:{name}", scale=1 / np.sqrt(3))
    maps = inception.feature_maps(clips, inception.endpoints)
    for endpoint, found in maps.items():
        assert_map(found, data, endpoint)
    last = maps["Mixed_5c"]
    features = pool(last, "global")
    assert_close(features, data["Mixed_5c_global_mean"])
    assert_close(inception.classify(features), data["adaptive_logits"])
    if "logits" in data:
        windows = pool(last, "sliding")
        assert_close(windows, data["extract_features"])
        assert_close(inception.classify(windows).reshape(data["logits"].shape), data["logits"])  # squeezed there


@pytest.mark.parametrize("number", range(3))
def test_unit_in_evaluation_and_in_training(shared, number):
    data = np.load(shared / "golden/i3d/units.npz")
    part = {key.removeprefix(f"unit_{number}_"): data[key] for key in data.files if key.startswith(f"unit_{number}_")}
    kernel, stride = (tuple(part[key].tolist()) for key in ("kernel", "stride"))
    unit = fill(Unit(3, 4, kernel, stride), f"i3d-dev-unit{number}")
    clips = torch.from_numpy(part["in"])
    with torch.no_grad():
        assert_close(unit(clips), part["out_eval"])
        assert_close(unit.train()(clips), part["out_train"])
    assert_close(unit.bn.running_mean, part["running_mean_after"])
    assert_close(unit.bn.running_var, part["running_var_after"])


def reaches_out(size: int, kernel: int, stride: int) -> list[bool]:
    """For each position along an axis, whether its window holds padding; section 1.1 of the specification."""
    total = max(kernel - (size % stride or stride), 0)
    starts = [position * stride - total // 2 for position in range(-(-size // stride))]
    return [start < 0 or start + kernel > size for start in starts]


@pytest.mark.parametrize("kind", range(4))
@pytest.mark.parametrize("case", range(3))
def test_pooling_differs_from_the_original_only_where_a_zero_of_its_padding_wins(shared, kind, case):
    data = np.load(shared / "golden/i3d/units.npz")
    kernel, stride = (tuple(data[f"pool_{key}"][kind].tolist()) for key in ("kernels", "strides"))
    maps, published = torch.from_numpy(data[f"pool_{kind}_{case}_in"]), data[f"pool_{kind}_{case}_out"]
    pooled = SameMaxPool(kernel, stride)(maps).numpy()
    time, rows, columns = (np.array(reaches_out(*axis)) for axis in zip(maps.shape[2:], kernel, stride, strict=True))
    has_padding = time[:, None, None] | rows[:, None] | columns
    np.testing.assert_array_equal(np.where(has_padding, np.maximum(pooled, 0), pooled), published)


@torch.inference_mode()
def test_resnet(shared):
    data = np.load(shared / "golden/i3d/i3res50.npz")
    network = fill(I3DResNet50(), "i3d-dev-res50")
    assert_golden_weights(network, data)
    assert sum(weight.numel() for weight in network.parameters()) == 28_043_472  # specification, appendix
    stages: dict[str, Tensor] = {}
    names = ("conv1", "bn1", "maxpool1", "layer1", "maxpool2", "layer2", "layer3", "layer4")
    for name in names:
        network.get_submodule(name).register_forward_hook(
            lambda _module, _args, found, name=name: stages.__setitem__(name, found.clone())  # a ReLU works in place
        )
    features = network(clip(data, "i3d-dev:input:res50", scale=1 / (2 * np.sqrt(3)), offset=0.5))
    for name in names:
        assert_map(stages[name], data, name)
    assert_map(stages["bn1"].relu(), data, "relu")
    assert_close(features, data["features"])
    assert_close(features[..., None, None, None], data["extract_features"])
    assert_close(network.classify(features), data["logits"])
