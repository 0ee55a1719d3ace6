import json

import numpy as np
import pytest
import torch
from conftest import WIDTH
from refusals import refused
from thumos_world import write_world
from torch import nn

from splavu.anonymizers import IdentityAnonymizer, TransformerAnonymizer, build_anonymizer
from splavu.stores import ATTRIBUTES_FILE
from tridet import config as configuration
from tridet.anonymize import anonymizing
from tridet.detector import TriDet
from tridet.errors import InputError
from tridet.eval import evaluate
from tridet.optim import MovingAverage, build_optimizer
from tridet.task import DetectorLearner, VideoBatch, load_detector, temporal_action_detection
from tridet.train import train

CPU = torch.device("cpu")


@pytest.fixture
def world(tmp_path):
    return write_world(tmp_path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A world and the folder of a detector that was trained on its raw features."""
    torch.set_num_threads(1)
    world = write_world(tmp_path_factory.mktemp("world"))
    train(configuration.load(world.config), world.run("raw"), device=CPU)
    return world


def task_of(world, **changes):
    torch.manual_seed(0)
    options = {"json_file": world.annotations, "feat_folder": world.features, "feature_dim": WIDTH, "seed": 0}
    return temporal_action_detection(world.config, device=CPU, **{**options, **changes})


def mixing():
    """An anonymizer whose attention does something."""
    torch.manual_seed(1)
    return TransformerAnonymizer(WIDTH, num_layers=1, num_heads=4, identity=False).train()


class Recording(nn.Module):
    """Passes on what the anonymizer says, and keeps it with its gradient."""

    def __init__(self, anonymizer):
        super().__init__()
        self.anonymizer, self.said = anonymizer, []

    def forward(self, features, mask=None):
        assert mask is None
        safe = self.anonymizer(features)
        safe.retain_grad()
        self.said.append(safe)
        return safe


def test_the_gradient_reaches_the_anonymizer_through_every_video(world):
    world.annotate("video_validation_0000002", [])  # one in which nothing happens teaches too
    task = task_of(world)
    anonymizer = Recording(mixing())
    for batch in task.source.steps(0, len(task.source)):
        task.loss(anonymizer, batch).backward()
    assert len(anonymizer.said) == 8
    for safe in anonymizer.said:
        assert (safe.grad.abs().amax(dim=-1) > 0).all()  # each step of each video
    for name, parameter in anonymizer.named_parameters():
        assert parameter.grad.abs().max() > 0, name


def test_each_video_is_one_sequence_of_its_own(world):
    task, anonymizer = task_of(world), mixing()
    task.learner.network = Recorded()
    first, second = next(task.source.steps(0, 1))

    def seen(*batch):
        task.loss(anonymizer, VideoBatch(batch))
        return [video["feats"] for video in task.learner.network.videos]

    before, _ = seen(first, second)
    after, _ = seen(first, {**second, "feats": second["feats"] * 2 + 1})
    assert torch.equal(before, after)
    torch.testing.assert_close(before, anonymizer(first["feats"].T[None])[0].T, rtol=0, atol=0)
    changed = first["feats"].clone()
    changed[:, 0] += 5
    within, _ = seen({**first, "feats": changed}, second)
    assert (within[:, 1:] != before[:, 1:]).any(dim=0).all()  # the steps of a video do see one another


class Recorded(nn.Module):
    """In the detector's place: what it is given."""

    def forward(self, videos):
        self.videos = videos
        return {"final_loss": torch.stack([video["feats"].sum() for video in videos]).sum()}


def test_batches_start_over_in_a_new_order_until_there_are_enough(world):
    source = task_of(world).source
    assert len(source) == 4  # of 8 videos

    def names(first, count):
        return [tuple(video["video_id"] for video in batch) for batch in source.steps(first, count)]

    long = names(12, 10)
    assert len(long) == 10
    first, second, third = long[:4], long[4:8], long[8:]
    everything = {video for batch in first for video in batch}
    assert len(everything) == 8
    assert {video for batch in second for video in batch} == everything
    assert second != first
    assert len({video for batch in third for video in batch}) == 4
    assert names(12, 4) == first
    assert names(14, 5) == long[2:7]  # whatever was drawn before


def test_a_batch_moves_its_features_and_nothing_else(world):
    batch = next(task_of(world).source.steps(0, 1))
    moved = batch.to(torch.device("meta"))
    assert isinstance(moved, VideoBatch)
    assert [video["feats"].device.type for video in moved] == ["meta", "meta"]
    assert [video["feats"].device.type for video in batch] == ["cpu", "cpu"]
    assert all(new["segments"] is old["segments"] for new, old in zip(moved, batch, strict=True))


def test_provenance_is_what_the_feature_folder_says(world):
    (world.features / ATTRIBUTES_FILE).write_text(json.dumps({"encoder": "demo"}))
    assert task_of(world).source.provenance == {"encoder": "demo"}


def learner_of(world, **opt):
    """A learner of the world's detector, before its schedule is planned."""
    config = configuration.load(world.config, {"opt": opt})
    torch.manual_seed(0)
    network = TriDet(config)
    average = MovingAverage(network, decay=0.9)
    optimizer = build_optimizer(network, config.opt)
    return DetectorLearner("ft_tad", network, optimizer, clip_norm=1.0, average=average, schedule_every="step")


def rates(learner, steps):
    """The learning rate of each step."""
    found = []
    for _ in range(steps):
        found.append(learner.optimizer.param_groups[0]["lr"])
        learner.schedule.step()
    return found


def test_the_schedule_is_stretched_over_the_co_training(world):
    learner = learner_of(world, learning_rate=0.1, epochs=20, warmup_epochs=20, eta_min=0.01)
    learner.plan(num_epochs=10, steps_per_epoch=6)
    found = rates(learner, 61)
    np.testing.assert_allclose(found[:30], np.linspace(0, 0.1, 30))  # half of it is warm-up, as configured
    np.testing.assert_allclose(found[45], (0.1 + 0.01) / 2)  # a cosine is half-way down in its middle
    assert found[60] == pytest.approx(0.01)
    assert (np.diff(found[30:]) < 0).all()


def test_milestones_are_stretched_too(world):
    learner = learner_of(
        world, learning_rate=0.1, epochs=20, warmup=False, schedule_type="multistep", schedule_steps=[10, 15]
    )
    learner.plan(num_epochs=8, steps_per_epoch=5)
    np.testing.assert_allclose(rates(learner, 40), [0.1] * 20 + [0.01] * 10 + [0.001] * 10)


def advance(learner, source, epochs):
    for epoch in epochs:
        torch.manual_seed(epoch)  # noise and dropped paths
        learner.network.train()
        for batch in source.steps(epoch * len(source), len(source)):
            learner.network(batch)["final_loss"].backward()
            learner.step()


def same(first, second):
    first, second = first.state_dict(), second.state_dict()
    return all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("forgotten", [None, "loss_normaliser_ft_tad"])
def test_a_resumed_learner_goes_on_where_it_was(world, tmp_path, forgotten):
    """With its optimizer, schedule, average and loss normaliser; without the last it would be another training."""
    source, learners = task_of(world).source, [learner_of(world), learner_of(world)]
    for learner in learners:
        learner.plan(num_epochs=4, steps_per_epoch=len(source))
    whole, resumed = learners
    advance(whole, source, range(2))
    torch.save({"weights": whole.network.state_dict(), **whole.state()}, tmp_path / "state.pth")
    saved = torch.load(tmp_path / "state.pth", weights_only=True)
    if forgotten is not None:
        saved[forgotten] = resumed.network.loss_normaliser
    resumed.network.load_state_dict(saved["weights"])
    resumed.load_state(saved)
    for learner in learners:
        advance(learner, source, range(2, 4))
    expected = forgotten is None
    assert same(whole.network, resumed.network) is expected
    assert same(whole.average.network, resumed.average.network) is expected
    assert (whole.network.loss_normaliser == resumed.network.loss_normaliser) is expected
    assert whole.schedule.num_steps == resumed.schedule.num_steps == 16


def test_a_training_of_another_length_is_not_resumed(world):
    learner, other = learner_of(world), learner_of(world)
    learner.plan(num_epochs=4, steps_per_epoch=5)
    other.plan(num_epochs=8, steps_per_epoch=5)
    with refused("num_epochs"):
        other.load_state(learner.state())


class Blank(IdentityAnonymizer):
    def forward(self, features, mask=None):
        return torch.zeros_like(features)


@pytest.mark.slow
def test_validation_is_the_average_map_of_the_averaged_weights(trained):
    task = task_of(trained, saved_model=trained.run("raw"))
    raw = task.evaluate(IdentityAnonymizer(WIDTH))
    assert list(raw) == ["average_map", "map@0.3", "map@0.4", "map@0.5", "map@0.6", "map@0.7"]
    assert raw["average_map"] == pytest.approx(np.mean(list(raw.values())[1:]))
    assert raw["average_map"] > 0.75
    direct = evaluate(load_detector(trained.config, trained.run("raw")), task.validation, task.truth, device=CPU)
    assert raw["average_map"] == direct.average
    assert task.evaluate(Blank(WIDTH))["average_map"] < raw["average_map"] / 2
    for parameter in task.learner.network.parameters():
        nn.init.zeros_(parameter)
    assert task.evaluate(IdentityAnonymizer(WIDTH)) == raw  # the trained weights aren't what is judged
    for parameter in task.learner.average.network.parameters():
        nn.init.zeros_(parameter)
    assert task.evaluate(IdentityAnonymizer(WIDTH))["average_map"] < raw["average_map"] / 2


def test_validation_anonymizes_whole_videos_as_they_are_released(trained, tmp_path):
    """The same figure as of a detector that reads the anonymized features from files."""
    anonymizer = mixing()
    path, released = tmp_path / "aam.pth", tmp_path / "released"
    torch.save({"fa_model_state_dict": anonymizer.state_dict(), "fa_architecture": anonymizer.architecture}, path)
    released.mkdir()
    serve = anonymizing(path, feature_dim=WIDTH)
    for file in trained.features.glob("*.npy"):
        np.save(released / file.name, serve(torch.from_numpy(np.load(file))).numpy())
    task = task_of(trained, saved_model=trained.run("raw"))
    there = task_of(trained, saved_model=trained.run("raw"), feat_folder=released)
    assert task.evaluate(anonymizer) == there.evaluate(IdentityAnonymizer(WIDTH))
    assert not anonymizer.training


def test_both_servings(tmp_path):
    anonymizer, features, path = mixing().eval(), torch.randn(7, WIDTH), tmp_path / "aam.pth"
    torch.save({"fa_model_state_dict": anonymizer.state_dict(), "fa_architecture": anonymizer.architecture}, path)
    video, alone = (anonymizing(path, feature_dim=WIDTH, serving=serving)(features) for serving in ("video", "alone"))
    with torch.no_grad():
        assert torch.equal(video, anonymizer(features[None])[0])
        for row in range(7):
            assert torch.equal(alone[row], anonymizer(features[row]))
    assert not torch.allclose(video, alone, atol=0.1)


def test_what_an_anonymizer_lacks_is_told_to_tridet(tmp_path):
    with refused("none.pth", InputError):
        anonymizing(tmp_path / "none.pth", feature_dim=WIDTH)
    torch.save({"fa_model_state_dict": build_anonymizer("mlp", 64).state_dict()}, tmp_path / "narrow.pth")
    with refused("narrow.pth", InputError):
        anonymizing(tmp_path / "narrow.pth", feature_dim=WIDTH)


def spoiled(world, what):
    """What to ask of a world with one fault."""
    if what == "key":
        world.config.write_text(world.config.read_text().replace("embd_dim", "embed_dim"))
    if what == "features":
        for path in world.features.glob("*validation*"):
            path.unlink()
    if what == "segment":
        world.annotate("video_validation_0000001", [{"segment": [5, 3], "label": "Run", "label_id": 1}])
    return {"width": {"feature_dim": 768}, "checkpoint": {"saved_model": world.root / "none.pth.tar"}}.get(what, {})


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("key", "small.yaml"),
        ("features", "features"),
        ("segment", "thumos14.json: video_validation_0000001: annotation 0"),
        ("width", "small.yaml"),
        ("checkpoint", "none.pth.tar"),
    ],
)
def test_what_the_detector_refuses_is_told_as_the_study_tells_it(world, what, message):
    with refused(message):
        task_of(world, **spoiled(world, what))


def test_faults_that_show_later_are_told_so_too(world):
    for split in ("validation", "test"):
        path = world.features / f"video_{split}_0000003.npy"
        np.save(path, np.full_like(np.load(path), np.nan))
    task = task_of(world)
    with refused("video_validation_0000003.npy"):
        list(task.source.steps(0, len(task.source)))
    with refused("video_test_0000003.npy"):
        task.evaluate(IdentityAnonymizer(WIDTH))
    batch = next(task_of(write_world(world.root / "sound")).source.steps(0, 1))
    with refused("video_validation_0000007"):
        task.loss(IdentityAnonymizer(WIDTH), VideoBatch({**video, "labels": video["labels"] * 7} for video in batch))
    with refused("none.yaml"):
        load_detector(world.root / "none.yaml")
