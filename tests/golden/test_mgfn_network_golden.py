"""Network, selection, losses and training steps give what the public programs give (golden data of ../shared)."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from mgfn.layers import ChannelNorm, FeedForward, Focus, Glance
from mgfn.losses import Objective, clustering, separation, terms, training_terms
from mgfn.model import build_model, model_from_state
from mgfn.selection import Selected, select

SALT = "mgfn-dev"


def noise(tag: str, shape: tuple[int, ...]) -> np.ndarray:
    """z(tag, shape) of the golden README."""
    seed = int.from_bytes(hashlib.sha256(tag.encode()).digest()[:8], "big")
    numbers = np.random.Generator(np.random.PCG64(seed)).random(int(np.prod(shape)))
    return ((numbers - 0.5) * np.sqrt(12)).reshape(shape)


def generated(salt: str, name: str, like: torch.Tensor) -> torch.Tensor:
    """Rule 2 of the golden README."""
    last = name.rpartition(".")[2]
    if last == "num_batches_tracked":
        return torch.zeros_like(like)
    value = noise(f"{salt}:{name}", tuple(like.shape))
    if last == "running_mean":
        value = 0.1 * value
    elif last == "running_var":
        value = 1 + 0.25 * value
    elif last == "g" or (last == "weight" and like.ndim == 1):
        value = 1 + 0.1 * value
    elif like.ndim >= 2 and last != "b":
        value = value / np.sqrt(np.prod(like.shape[1:]))
    else:
        value = 0.1 * value
    return torch.from_numpy(value.astype(np.float32))


def generated_state(module: torch.nn.Module, salt: str) -> dict[str, torch.Tensor]:
    return {name: generated(salt, name, value) for name, value in module.state_dict().items()}


def checks(state: dict[str, torch.Tensor], names: np.ndarray) -> np.ndarray:
    """The golden README's row for each name."""
    flat = [state[str(name)].double().flatten() for name in names]
    return np.array([[len(x), float(x.sum()), float(x.abs().sum()), float(x[0]), float(x[-1])] for x in flat])


def load(shared, name):
    return dict(np.load(shared / "golden/mgfn" / name, allow_pickle=False))


def tensor(value) -> torch.Tensor:
    return torch.from_numpy(np.asarray(value))


def close(found, expected, *, atol=0.0, rtol=0.0):
    found = found.detach() if isinstance(found, torch.Tensor) else found
    np.testing.assert_allclose(np.asarray(found), expected, rtol=rtol, atol=atol)


BLOCKS = {
    "norm": lambda dim, heads, width: ChannelNorm(dim),
    "ffn": lambda dim, heads, width: FeedForward(dim),
    "glance": lambda dim, heads, width: Glance(dim, heads=heads, dim_head=width),
    "focus": lambda dim, heads, width: Focus(dim, heads=heads, dim_head=width),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks(shared, name):
    golden = load(shared, "blocks.npz")
    block = BLOCKS[name](int(golden["dim"]), int(golden["heads"]), int(golden["dim_head"]))
    state = generated_state(block, f"{SALT}-block-{name}")
    close(checks(state, golden[f"{name}_param_names"]), golden[f"{name}_param_checks"], atol=1e-12, rtol=1e-12)
    block.load_state_dict(state)
    x = tensor(golden[f"{name}_in"])
    if name == "focus":
        close(block.train()(x), golden["focus_out_train"], atol=1e-5)
        close(block.norm.running_mean, golden["focus_running_mean_after"], atol=1e-5)
        close(block.norm.running_var, golden["focus_running_var_after"], atol=1e-5)
        block.load_state_dict(state)
    close(block.eval()(x), golden[f"{name}_out_eval"], atol=1e-5)


@pytest.mark.parametrize("case", ["a", "b", "c"])
@pytest.mark.parametrize("mask", ["none", "mask", "single"])
def test_selection(shared, case, mask):
    golden = load(shared, "selection.npz")
    half, crops, time, width, k = golden[f"{case}_cfg"].tolist()
    features = tensor(golden[f"{case}_features"]).view(2 * half, crops, time, width)
    scores = tensor(golden[f"{case}_crop_scores"]).view(2 * half, crops, time).mean(dim=1)
    videos = {"normal": slice(0, half), "abnormal": slice(half, None)}
    if mask == "single":
        videos = {"normal": slice(0, 1)}
    close(scores[: 1 if mask == "single" else None, :, None], golden[f"{case}_{mask}_scores"], atol=1e-6)
    for name, part in videos.items():
        factors = tensor(golden[f"{case}_mask_{name}"]) if mask == "mask" else None
        chosen = select(features[part], scores[part], k=k, mask=factors)
        close(chosen.scores[:, None], golden[f"{case}_{mask}_score_{name}"], atol=1e-6)
        close(chosen.features.flatten(0, 1), golden[f"{case}_{mask}_{name[:3]}_feat"])


@pytest.mark.parametrize("case", ["p", "q", "r"])
def test_losses_and_gradients(shared, case):
    golden = {name[2:]: value for name, value in load(shared, "losses.npz").items() if name.startswith(case)}
    names = ("score_abnormal", "score_normal", "abn_feat", "nor_feat", "scores")
    leaves = {name: tensor(golden[name]).requires_grad_() for name in names}
    half = len(golden["score_normal"])

    def of_class(name: str) -> Selected:
        features = leaves[f"{name[:3]}_feat"].unflatten(0, (-1, half))
        return Selected(scores=leaves[f"score_{name}"].squeeze(1), features=features)

    scores = leaves["scores"].squeeze(-1)
    for variant in "AB":
        objective = Objective(variant=variant)
        found = terms(of_class("normal"), of_class("abnormal"), scores[:half], scores[half:], objective)
        expected = {
            "bce": golden["bce"],
            "separation": golden["con_pair"],
            "normal_clustering": golden["con_normal"],
            "abnormal_clustering": golden["con_abnormal"],
            "smoothness": golden[f"smooth_{variant}"],
            "sparsity": golden[f"sparsity_{variant}"],
            "total": golden[f"cost_{variant}"],
        }
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            close(found[name], value, rtol=1e-5)
        without = found["total"] - found["smoothness"] - found["sparsity"]
        close(without, golden["total_without_regularisers"], rtol=1e-5)
        if variant == "A":
            for name, gradient in zip(names, torch.autograd.grad(found["total"], leaves.values()), strict=True):
                expected = golden[f"gradA_{name}"]
                # Some entries are differences of nearly equal terms: those are exact to the scale of the terms.
                close(gradient, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def small_network(golden):
    model = build_model(
        int(golden["feature_size"]),
        dims=tuple(golden["dims"].tolist()),
        depths=tuple(golden["depths"].tolist()),
        types=tuple(golden["types"].tolist()),
        dim_head=int(golden["dim_head"]),
    )
    model.load_state_dict(generated_state(model, f"{SALT}-small"))
    return model


def selected_halves(model, x, half):
    """Scores, and the selection of each half; normal first."""
    output = model(x)
    halves = [select(output.features[part], output.scores[part]) for part in (slice(0, half), slice(half, None))]
    return output.scores, *halves


def test_small_network_in_evaluation(shared):
    golden = load(shared, "small_network.npz")
    model = small_network(golden).eval()
    state = model.state_dict()
    close(checks(state, golden["param_names"]), golden["param_checks"], atol=1e-12, rtol=1e-12)
    assert {str(name) for name in golden["param_names"]} <= state.keys()
    assert model_from_state(state).architecture == model.architecture
    cases = sorted(name[:-3] for name in golden if name.startswith("eval_") and name.endswith("_in"))
    assert len(cases) == 3
    for case in cases:
        scores, chosen, _ = selected_halves(model, tensor(golden[f"{case}_in"]), 1)
        close(scores[..., None], golden[f"{case}_scores"], atol=1e-5)
        close(chosen.scores[:, None], golden[f"{case}_score_normal"], atol=1e-5)
        close(chosen.features.flatten(0, 1), golden[f"{case}_nor_feat"], atol=1e-5)


@pytest.mark.parametrize("case", ["train_nc1", "train_nc10"])
def test_small_network_in_training(shared, case):
    golden = load(shared, "small_network.npz")
    half, batch = int(golden["batch_size"]), tensor(golden[f"{case}_in"])
    model = small_network(golden).train()
    scores, normal, abnormal = selected_halves(model, batch, half)
    close(scores[..., None], golden[f"{case}_scores"], atol=1e-5)
    for name, chosen in (("normal", normal), ("abnormal", abnormal)):
        close(chosen.scores[:, None], golden[f"{case}_score_{name}"], atol=1e-5)
        close(chosen.features.flatten(0, 1), golden[f"{case}_{name[:3]}_feat"], atol=1e-5)
    for name in (key.removeprefix(f"{case}_after_") for key in golden if key.startswith(f"{case}_after_")):
        close(model.state_dict()[name], golden[f"{case}_after_{name}"], atol=1e-5)

    # The order of the batch is no part of the contract: shuffled, the cost and its gradients stay the same
    # wherever the order within each class does.
    order = torch.tensor([4, 0, 5, 1, 2, 6, 7, 3])
    model = small_network(golden).train()
    found = training_terms(model, batch[order], order >= half, Objective(dropout=0.0))
    close(found["total"], golden[f"{case}_costA"], rtol=1e-5)
    found["total"].backward()
    gradients = {name: value.grad for name, value in model.named_parameters()}
    names = [str(name) for name in golden[f"{case}_grad_names"]]
    assert set(names) == gradients.keys()
    norms = golden[f"{case}_grad_l2"]
    close([float(gradients[name].double().norm()) for name in names], norms, rtol=1e-4, atol=1e-8)
    # A sum cancels: it's as exact as the norm of what is summed.
    sums = np.array([float(gradients[name].double().sum()) for name in names])
    scale = norms * np.sqrt([gradients[name].numel() for name in names])
    assert np.all(np.abs(sums - golden[f"{case}_grad_sum"]) <= 1e-4 * scale + 1e-8)
    expected = golden[f"{case}_grad_to_tokens"]
    close(gradients["to_tokens.weight"], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("variant", ["A", "B"])
def test_training_trace(shared, variant):
    golden = load(shared, "training_trace.npz")
    model = small_network(load(shared, "small_network.npz")).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, weight_decay=5e-4)
    costs = []
    for step in range(4):
        halves = [tensor(golden[f"{name}_{step}"]) for name in ("normal", "abnormal")]
        labels = torch.arange(sum(map(len, halves))) >= len(halves[0])
        found = training_terms(model, torch.cat(halves), labels, Objective(variant=variant, dropout=0.0))
        optimizer.zero_grad()
        found["total"].backward()
        optimizer.step()
        costs.append([found[name].item() for name in ("total", "smoothness", "sparsity")])
    close(costs, golden[f"{variant}_cost_smooth_sparse"], rtol=1e-4)
    state = model.state_dict()
    close(state["fc.weight"], golden[f"{variant}_final_fc_weight"], atol=1e-3)
    close(state["to_tokens.weight"], golden[f"{variant}_final_to_tokens_weight"], atol=1e-3)
    names = golden[f"{variant}_final_names"]
    found, expected = checks(state, names), golden[f"{variant}_final_checks"]
    close(found[:, [3, 4]], expected[:, [3, 4]], atol=1e-3)
    assert np.all(np.abs(found[:, [1, 2]] - expected[:, [1, 2]]) <= 1e-3 * expected[:, [0]])
    with torch.no_grad():
        scores = model.eval().score(tensor(golden["eval_in"]))
    close(scores[..., None], golden[f"{variant}_final_eval_scores"], atol=1e-3)


@pytest.mark.parametrize("width", [768, 2048])
def test_network_of_published_size(shared, width):
    golden = load(shared, f"full_{width}.npz")
    half, crops = int(golden["batch_size"]), int(golden["ncrops"])
    model = build_model(width)
    state = generated_state(model, f"{SALT}-full{width}")
    close(checks(state, golden["param_names"]), golden["param_checks"], atol=1e-9, rtol=1e-9)
    assert {str(name) for name in golden["param_names"]} == {n for n in state if not n.endswith("num_batches_tracked")}

    def made(purpose: str, shape: tuple[int, ...]) -> np.ndarray:
        values = np.maximum(0.1 + 0.4 * noise(f"{SALT}:input:full{width}_{purpose}", shape), 0)
        return values.astype(np.float32)

    amplitudes = np.abs(1 + 0.4 * noise(f"{SALT}:input:full{width}_amp", (2 * half, crops, 32, 1))).astype(np.float32)
    training = made("train", (2 * half, crops, 32, width)) * amplitudes
    evaluation = made("eval", (1, crops, golden["eval_scores"].shape[1], width))
    training, evaluation = (
        tensor(np.concatenate([x, np.linalg.norm(x, axis=-1, keepdims=True)], axis=-1)) for x in (training, evaluation)
    )

    def compare(prefix: str, chosen: Selected, name: str) -> None:
        features = chosen.features.flatten(0, 1)
        close(chosen.scores[:, None], golden[f"{prefix}_score_{name}"], atol=1e-4)
        close(features.abs().sum(-1), golden[f"{prefix}_{name[:3]}_feat_l1"], rtol=1e-4)
        close(features.norm(dim=-1), golden[f"{prefix}_{name[:3]}_feat_l2"], rtol=1e-4)
        if prefix == "train":
            close(features[..., :32], golden[f"train_{name[:3]}_feat_first32"], atol=1e-4)

    with torch.no_grad():
        model.load_state_dict(state)
        scores, normal, abnormal = selected_halves(model.train(), training, half)
        close(scores[..., None], golden["train_scores"], atol=1e-4)
        compare("train", normal, "normal")
        compare("train", abnormal, "abnormal")
        found = terms(normal, abnormal, scores[:half], scores[half:], Objective())
        without = found["total"] - found["smoothness"] - found["sparsity"]
        close(without, golden["train_total_without_regularisers"], rtol=1e-4)
        for layer in (0, 1):
            name = f"stages.2.0.layers.{layer}.1.norm.running_mean"
            close(model.state_dict()[name][:8], golden[f"after_{name}_first8"], atol=1e-4)

        model.load_state_dict(state)
        scores, chosen, _ = selected_halves(model.eval(), evaluation, 1)
        close(scores[..., None], golden["eval_scores"], atol=1e-4)
        compare("eval", chosen, "normal")


def test_named_terms_alone(shared):
    """The two contrastive functions on the golden rows, as a user would call them."""
    golden = load(shared, "losses.npz")
    crops = len(golden["p_abn_feat"]) // len(golden["p_score_normal"])
    sizes = [tensor(golden[f"p_{name}_feat"]).abs().sum(-1).unflatten(0, (crops, -1)) for name in ("abn", "nor")]
    close(separation(*sizes, margin=200.0), golden["p_con_pair"], rtol=1e-5)
    close(clustering(sizes[1]), golden["p_con_normal"], rtol=1e-5)
