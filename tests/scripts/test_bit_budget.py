"""The budget of bits, end to end: what is fitted, stated, released and read from it stays within log2 K bits a clip."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import NUM_ACTIONS, WIDTH, Study, write_study
from sklearn.linear_model import LogisticRegression

import config
import splavu
from multitask_train_fa import train
from splavu import metrics
from splavu.__main__ import main
from splavu.anonymizers import Anonymizer, array_map
from splavu.anonymizers.guarantees import budget_of
from splavu.anonymizers.loading import load_anonymizer
from splavu.attackers import ATTACKERS
from splavu.attacks.rows import Rows
from splavu.metrics.inference import platt_scaling, usable_bits
from splavu.runtime import checkpoints
from splavu.runtime.distributed import NOT_DISTRIBUTED
from splavu.stores import open_features
from study.datasets.loading import privacy_rows
from study.training.anonymizer_params import AnonymizerParams

SPLITS = ("train", "val", "test")
ROUNDING = 1e-9

RECIPES = {
    "erased, 5 bits": (32, {"fa_arch": "eraser+quantizer", "erase_rank": 20, "bits": 5}),
    "erased, 12 bits in two codebooks": (64 * 64, {"fa_arch": "eraser+quantizer", "erase_rank": 8, "bits": 12}),
    "trained, 4 bits": (16, {"fa_arch": "encoder+quantizer", "num_layers_fa": 1, "num_epochs": 1, "bits": 4}),
    "3 bits, then noise": (8, {"fa_arch": "quantizer+noise", "bits": 3, "noise_sd": 1.0}),
}
"""K at most, and parameters of multitask_train_fa.py."""
FITS = {
    "one vector": (1, "--codes 1"),
    "2 vectors": (2, "--codes 2"),
    "12 vectors": (12, "--codes 12"),
    "8 x 4 vectors": (32, "--codes 8,4"),
    "3 x 3 x 3 vectors": (27, "--codes 3,3,3"),
    "7 bits": (128, "--bits 7"),
}
"""K at most, and options of `splavu fit quantizer`."""


@dataclass(frozen=True)
class Release:
    """An anonymizer and the stores that it released."""

    num_vectors: int
    """K of its budget, as many as were asked for or fewer."""
    checkpoint: Path
    raw: dict[str, Rows]
    released: dict[str, Rows] = field(default_factory=dict)
    """The same rows, features as they are in the released stores."""

    @property
    def bits(self) -> float:
        return math.log2(self.num_vectors)

    @property
    def anonymizer(self) -> Anonymizer:
        return load_anonymizer(self.checkpoint).eval()


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Study:
    return write_study(tmp_path_factory.mktemp("budget"))


@pytest.fixture(scope="module", params=[*FITS, *RECIPES])
def case(request, world) -> Release:
    """Made, and put to every clip there is, by the commands that users call."""
    name, stores = request.param, {s: world.features / f"features_hmdb_{s}_demo.h5" for s in SPLITS}
    folder = world.root / name.replace(" ", "-").replace(",", "")
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for root, place in (("DATA", world.data), ("FEATURES", world.features), ("RUNS", folder)):
            patch.setattr(config, root, place)
        raw = {split: privacy_rows("hmdb51", split, "temporal", encoder="demo")[0] for split in SPLITS}
        if name in FITS:
            num_vectors, options = FITS[name]
            checkpoint = folder / "fitted.pth"
            labels = world.data / "hmdb51/hmdb51_train_labels.csv"
            command = ["fit", "quantizer", "--raw", stores["train"], "--labels", labels, "--out", checkpoint, "--quiet"]
            assert main([*map(str, command), *options.split()]) == 0
        else:
            num_vectors, settings = RECIPES[name]
            small = {"run_id": "trained", "ar_dataset": "hmdb51", "ft_arch": "demo", "batch_size_ar": 24, **settings}
            checkpoint = Path(train(AnonymizerParams(**small), NOT_DISTRIBUTED)["checkpoint"])
    asked, num_vectors = num_vectors, vectors_of(checkpoint)
    # The floor of subjects (30 of them are fitted to) and whole levels take less than a bit.
    assert asked / 2 < num_vectors <= asked
    made = Release(num_vectors, checkpoint, raw)
    for split, store in stores.items():
        target = folder / store.name
        assert main(["anonymize", "--aam", str(checkpoint), str(store), str(target), "--quiet"]) == 0
        content, rows = open_features(target), raw[split]
        features = np.concatenate([content[video] for video in dict.fromkeys(rows.videos.tolist())])
        made.released[split] = Rows(features, rows.labels, rows.clusters, rows.videos)
    return made


def vectors_of(checkpoint: Path) -> int:
    """Products of codes, counted by hand in the architecture."""
    architecture = checkpoints.read(checkpoint)["fa_architecture"]
    (codes,) = [stage["codes"] for stage in architecture.get("stages", [architecture]) if stage["arch"] == "quantizer"]
    return math.prod(codes)


def vectors(rows: np.ndarray) -> list[bytes]:
    """Rows by their bits: two that differ in the last one, or in the sign of a zero, are two."""
    return [row.tobytes() for row in np.ascontiguousarray(rows)]


def entropy(values: Sequence[Hashable]) -> float:
    """Plug-in, in bits."""
    return -sum(n / len(values) * math.log2(n / len(values)) for n in Counter(values).values())


def shared_bits(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Plug-in mutual information: the most that anything read from `first` tells of `second` on these rows."""
    return entropy(first) + entropy(second) - entropy(list(zip(first, second, strict=True)))


def everything(parts: dict[str, Rows]) -> Rows:
    names = ("features", "labels", "clusters", "videos")
    return Rows(*(np.concatenate([getattr(rows, name) for rows in parts.values()]) for name in names))


# What is released.


def test_all_released_clips_together_are_no_more_vectors_than_the_budget(case):
    raw, released = everything(case.raw), everything(case.released)
    assert len(set(vectors(raw.features))) == len(raw)  # every clip was its own
    found = set(vectors(released.features))
    assert len(found) <= case.num_vectors
    assert len(found) > min(case.num_vectors, 16) / 2  # and the budget is made use of
    assert np.isfinite(released.features).all()


def test_nor_do_any_features_at_all_add_another_vector(case):
    """100,000 features of every scale, far from all that was seen, beside the released clips."""
    found, rng = set(vectors(everything(case.released).features)), np.random.default_rng(0)
    serve = array_map(case.anonymizer)
    centre, spread = (function(case.raw["train"].features, axis=0) for function in (np.mean, np.std))
    for _ in range(20):
        rows = rng.normal(size=(5000, WIDTH)) * 10 ** rng.uniform(-3, 4, size=(5000, 1))
        found |= set(vectors(serve((centre + spread * rows).astype(np.float32))))
    assert len(found) <= case.num_vectors


def test_a_clip_gets_the_same_bits_alone_and_in_any_batch(case):
    anonymizer, rows = case.anonymizer, torch.from_numpy(case.raw["test"].features)
    released = vectors(case.released["test"].features)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for size in (1, 7, 64, len(rows)):
            assert vectors(torch.cat([anonymizer(batch) for batch in rows.split(size)]).numpy()) == released
        mixed = vectors(anonymizer(rows[order]).numpy())
    assert mixed == [released[place] for place in order]


# What is stated.


def test_checkpoint_and_model_card_state_the_budget(case, tmp_path):
    pytest.importorskip("safetensors", reason="needs the extra 'hub'")
    content = checkpoints.read(case.checkpoint)
    assert budget_of(content["fa_architecture"]) == pytest.approx(case.bits, abs=ROUNDING)
    said = content["fitted"]
    assert any(f"one of {case.num_vectors:,} vectors" in statement for statement in said["guarantees"])
    if "released" in said:  # of a recipe
        assert said["released"]["bits_at_most"] == pytest.approx(case.bits, abs=ROUNDING)
        assert said["released"]["distinct_vectors"] <= case.num_vectors
        assert said["released"]["bits_on_average"] <= case.bits + ROUNDING
    card = splavu.Anonymizer.from_pretrained(case.checkpoint).save_pretrained(tmp_path / "card") / "README.md"
    assert all(f"- {statement}" in card.read_text() for statement in said["guarantees"])


# What can be read.


def test_codes_tell_no_more_of_anything_than_of_the_video_and_that_within_the_budget(case):
    for rows in (everything(case.released), case.released["test"]):
        codes, videos = vectors(rows.features), rows.videos.tolist()
        told = shared_bits(codes, videos)
        assert told <= entropy(codes) + ROUNDING <= case.bits + 2 * ROUNDING
        people = rows.clusters.tolist()
        actions = [int(video.rsplit("_", 1)[1]) % NUM_ACTIONS for video in videos]
        for labels in (people, actions, *rows.labels.T.tolist()):  # each a function of the video
            assert shared_bits(codes, labels) <= told + ROUNDING
    raw = everything(case.raw)
    assert shared_bits(vectors(raw.features), raw.videos.tolist()) == pytest.approx(entropy(raw.videos.tolist()))


@pytest.mark.parametrize("family", ["logistic", "knn"])
def test_bits_that_an_attacker_uses_of_attributes_stay_within_the_budget(case, family):
    """The audit's figure: calibrated on validation people, judged on test people.

    On any rows it is at most I(code; label) + KL(labels there, prior), for it is a likelihood of labels given codes.
    """
    train, val, test = (case.released[split] for split in SPLITS)
    attacker = ATTACKERS[family].build(seed=0, device="cpu")
    attacker.fit(train.features, train.labels, (val.features, val.labels))
    scale = platt_scaling(val.labels, attacker.scores(val.features))
    prior = metrics.prevalences(train.labels)
    found = usable_bits(test.labels, scale(attacker.scores(test.features)), prior)
    codes = vectors(test.features)
    for used, labels, p in zip(found.raw, test.labels.T, prior, strict=True):
        share = labels.mean()
        surprise = share * math.log2(share / p) + (1 - share) * math.log2((1 - share) / (1 - p))
        assert used <= shared_bits(codes, labels.tolist()) + surprise + ROUNDING
        assert used <= case.bits + surprise + ROUNDING


def recognised(rows: Rows, names: np.ndarray) -> float:
    """Usable bits of an attacker who has seen the first clip of each video, of the name of the second one's."""
    _, first = np.unique(rows.videos, return_index=True)
    second = first + 1  # the next of the same video; each has two at least
    assert (rows.videos[first] == rows.videos[second]).all()
    _, index = np.unique(names, return_inverse=True)
    centre, spread = rows.features[first].mean(axis=0), rows.features[first].std() or 1.0
    attacker = LogisticRegression(C=1.0, max_iter=300).fit((rows.features[first] - centre) / spread, index[first])
    probabilities = attacker.predict_proba((rows.features[second] - centre) / spread)
    prior = np.bincount(index[second]) / len(second)
    return float(usable_bits(index[second], probabilities, prior).raw)


def test_bits_that_an_attacker_uses_of_who_and_which_video_stay_within_the_budget(case):
    raw, released = case.raw["test"], case.released["test"]
    for names in ("clusters", "videos"):
        assert recognised(released, getattr(released, names)) <= case.bits + ROUNDING
    if case.num_vectors <= 2:  # the same attacker uses more of raw features: the budget binds
        assert recognised(raw, raw.videos) > case.bits + 0.5
