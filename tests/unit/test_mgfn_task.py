"""MGFN as a co-training task: what the anonymizer sees, and what comes after it."""

import numpy as np
import pytest
import torch
from mgfn_world import WIDTH, write_world
from refusals import refused
from torch import nn

import mgfn.task
from mgfn.anonymize import anonymizing
from mgfn.data.lists import read_list
from mgfn.errors import InputError
from mgfn.task import WeakVideos, anomaly_detection, load_detector
from splavu.anonymizers import IdentityAnonymizer, TransformerAnonymizer
from splavu.runtime import checkpoints

CPU = torch.device("cpu")
SMALL = ["--widths", "64", "64", "64", "--depths1", "1", "--depths2", "1", "--depths3", "1", "--seg-length", "8"]


@pytest.fixture
def world(tmp_path):
    return write_world(tmp_path)


def task_of(world, arguments=SMALL, **changes):
    torch.manual_seed(0)
    options = {
        "train_list": world.root / "train.list",
        "feat_folder": world.features,
        "feature_dim": WIDTH,
        "batch_size": 3,
        "learning_rate": 1e-3,
        "seed": 0,
        "device": CPU,
        **changes,
    }
    return anomaly_detection(arguments, **options)


class Recording(nn.Module):
    """Says double what it is given, and keeps both."""

    def __init__(self):
        super().__init__()
        self.seen, self.said = [], []

    def forward(self, features, mask=None):
        assert mask is None
        safe = 2 * features
        self.seen.append(features)
        self.said.append(safe.requires_grad_())
        safe.retain_grad()
        return safe


def test_each_video_is_one_whole_sequence_and_every_snippet_gets_a_gradient(world):
    task = task_of(world)
    batch = next(task.source.steps(0, 1))
    assert batch.is_abnormal.tolist() == [False] * 3 + [True] * 3
    recording = Recording()
    task.loss(recording, batch).backward()
    assert [tuple(video.shape) for video in recording.seen] == [tuple(video.shape) for video in batch.videos]
    assert len({video.shape[1] for video in batch.videos}) > 1  # full lengths, not pooled ones
    for safe in recording.said:
        assert safe.grad.abs().sum(dim=-1).min() > 0


def test_magnitudes_are_those_of_the_anonymized_features(world, monkeypatch):
    task, seen = task_of(world), {}
    monkeypatch.setattr(
        mgfn.task, "training_terms", lambda network, items, *rest: seen.update(items=items) or {"total": 0}
    )
    batch = next(task.source.steps(0, 1))
    task.loss(Recording(), batch)
    features, magnitudes = seen["items"][..., :-1], seen["items"][..., -1]
    np.testing.assert_allclose(magnitudes.detach(), features.detach().square().sum(dim=-1).sqrt(), rtol=1e-5)
    whole = 2 * batch.videos[0][0]  # [T, D], doubled by the anonymizer
    edges = np.floor(np.linspace(0, len(whole), 9)).astype(int)
    first = whole[edges[0] : max(edges[1], edges[0] + 1)].mean(dim=0)
    np.testing.assert_allclose(features[0, 0, 0].detach(), first, rtol=1e-5)


def test_batches_start_over_in_a_new_order(world):
    source = task_of(world).source
    once, laps = list(source.steps(0, len(source))), list(source.steps(0, 3 * len(source)))
    assert len(laps) == 3 * len(once)

    def same(first, second):
        return all(torch.equal(a, b) for a, b in zip(first.videos, second.videos, strict=True))

    assert all(map(same, once, laps))
    assert not all(map(same, once, laps[len(once) :]))
    assert all(map(same, laps[1:], source.steps(1, 3 * len(source) - 1)))  # whatever was drawn before


def test_validation_videos_are_kept_apart_and_whole(world):
    task = task_of(world)
    names = [entry.name for entry in read_list(world.root / "train.list", "UCF")]
    assert not {names[i] for i in task.validation} & {names[i] for i in task.source.indices.tolist()}
    assert len(task.validation) + len(task.source.indices) == len(names)
    found = task.evaluate(IdentityAnonymizer(WIDTH))
    assert set(found) == {"auc", "bce"}
    assert 0 <= found["auc"] <= 1
    with refused("--validation-share"):
        task_of(world, [*SMALL, "--validation-share", "0"])


def test_a_long_video_is_thinned_evenly(world, monkeypatch):
    monkeypatch.setattr(mgfn.task, "MAX_SNIPPETS", 5)
    source: WeakVideos = task_of(world).source
    whole = source.videos[int(source.indices[0])].transpose(0, 1)  # [N, T, D]
    thinned = source._video(0)
    assert thinned.shape[1] == 5
    assert torch.equal(thinned[:, 0], whole[:, 0])
    assert torch.equal(thinned[:, -1], whole[:, -1])


def test_an_anonymizer_serves_videos_or_snippets(tmp_path):
    torch.manual_seed(0)
    anonymizer = TransformerAnonymizer(WIDTH, num_layers=1, num_heads=4, identity=False).eval()
    content = {"fa_model_state_dict": anonymizer.state_dict(), "fa_architecture": anonymizer.architecture}
    path = checkpoints.write(tmp_path / "aam.pth", content)
    video = torch.randn(7, WIDTH)
    with torch.no_grad():
        sequence, alone = anonymizer(video[None])[0], torch.stack([anonymizer(row) for row in video])
    assert torch.equal(anonymizing(path)(video), sequence)
    assert torch.equal(anonymizing(path, serving="alone")(video), alone)
    assert not torch.allclose(sequence, alone, atol=1e-3)
    with refused("aam.pth", InputError):
        anonymizing(path)(torch.randn(7, 5))
    with refused("none.pth", InputError):
        anonymizing(tmp_path / "none.pth")


def test_faults_are_told_as_the_study_tells_them(world, tmp_path):
    with refused("nowhere"):
        task_of(world, feat_folder=tmp_path / "nowhere")
    with refused("Fighting000_x264.npy"):
        task_of(world, feature_dim=WIDTH + 1)
    with refused("none.pth"):
        task_of(world, saved_model=tmp_path / "none.pth")
    with refused("--dropout-rate"):
        task_of(world, [*SMALL, "--dropout-rate", "2"])
    name = read_list(world.root / "train.list", "UCF")[0].name
    np.save(world.features / f"{name}.npy", np.full((9, WIDTH), np.nan, dtype=np.float32))
    task = task_of(world)
    assert 0 in task.source.indices
    with refused("Fighting000_x264.npy"):
        list(task.source.steps(0, len(task.source)))


def test_a_network_starts_from_a_checkpoint(world, tmp_path):
    trained = load_detector(SMALL, WIDTH)
    path = checkpoints.write(tmp_path / "joint.pth", {"ft_model_ad_state_dict": trained.state_dict()})
    started = task_of(world, saved_model=path).learner.network
    for name, value in trained.state_dict().items():
        assert torch.equal(started.state_dict()[name], value)
    with refused("b.pth"):
        task_of(world, feature_dim=WIDTH, saved_model=checkpoints.write(tmp_path / "b.pth", {
            "ft_model_ad_state_dict": load_detector(SMALL, WIDTH + 1).state_dict()}))  # fmt: skip
