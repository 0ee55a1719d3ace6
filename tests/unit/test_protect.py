"""What little data allows: the floor, the split, the recipe; each against counting by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from refusals import refused

from splavu.anonymizers.apply import apply_to_array
from splavu.anonymizers.closed_form.codes import QUANTIZER, most_supported, whole_codebook
from splavu.anonymizers.closed_form.fit_data import FitData
from splavu.anonymizers.closed_form.support import COMMON_FLOOR
from splavu.protect.inventory import Inventory, read_inventory
from splavu.protect.recipe import choose, dealt, fewest_subjects, refuse_too_few


def inventory(num_subjects: int, videos: int = 4, clips: int = 2, **tables: dict[str, str]) -> Inventory:
    """Videos `p0_0`, `p0_1`, ... of as many subjects."""
    keys = [f"p{subject}_{video}" for subject in range(num_subjects) for video in range(videos)]
    return Inventory(dict.fromkeys(keys, clips), {key: key.split("_")[0] for key in keys}, **tables)


def most_by_search(clips: list[int], at_least: int) -> int:
    """The largest K for which a flow of supporters exists: slots of K vectors, filled by owners with distinct slots."""
    found = 0
    for count in itertools.count(1):
        if count * at_least > sum(clips):
            return found
        left = [at_least] * count
        for owner in sorted(clips, reverse=True):  # each owner to the slots that lack most
            for slot in sorted(range(count), key=lambda s: -left[s])[:owner]:
                left[slot] -= 1
        if max(left) <= 0:
            found = count


@pytest.mark.parametrize("seed", range(20))
def test_no_more_vectors_than_owners_can_support(seed):
    rng = np.random.default_rng(seed)
    clips = rng.integers(1, 12, size=rng.integers(2, 12))
    at_least = int(rng.integers(1, 6))
    assert most_supported(clips, at_least) == most_by_search(clips.tolist(), at_least)


def test_104_clips_dont_get_12_bits():
    there = inventory(26, videos=2, clips=2)
    split = dict.fromkeys(there.num_clips, "train")
    allowed = choose(there, split, "videos", at_least=5, width=192, has_static=True)
    assert (allowed.fitted_clips, allowed.bits) == (104, 3), "8 vectors x 5 subjects x 2 <= 104 < 16 x 5 x 2"
    with refused("--bits", naming=("12", "3", str(4096 * 5 * 2))):
        choose(there, split, "videos", at_least=5, width=192, has_static=True, bits=12)


def test_every_released_vector_has_its_subjects():
    rng = np.random.default_rng(0)
    subjects = np.repeat(np.arange(30), 10).astype(str)
    classes = np.tile(np.arange(5), 60)
    features = rng.normal(size=(300, 12)).astype(np.float32) + 3 * np.eye(5, 12, dtype=np.float32)[classes]
    data = FitData(features, classes=classes, videos=np.arange(300), subjects=subjects)
    for floor, fewest in (("vector", 5), ("centroid", 1)):
        made = QUANTIZER.fitted(data, QUANTIZER.read({"bits": 5, "floor": floor}))
        released = apply_to_array(made.eval(), features)
        vectors = np.unique(released, axis=0, return_inverse=True)[1].ravel()
        counts = [len(set(subjects[vectors == vector])) for vector in np.unique(vectors)]
        assert min(counts) >= fewest
        assert len(counts) > 5, "more than the means of the actions"
        if floor == "centroid":
            assert min(counts) < 5, "a floor of centroids is none of vectors"


@pytest.mark.parametrize("seed", range(12))
def test_ten_subjects_are_enough_for_one_bit(seed):
    rng = np.random.default_rng(seed)
    subjects = np.repeat(np.arange(10), rng.integers(1, 5)).astype(str)
    features = rng.normal(size=(10, 8))[subjects.astype(int)] + 0.1 * rng.normal(size=(len(subjects), 8))
    data = FitData(features.astype(np.float32), videos=np.arange(len(subjects)), subjects=subjects)
    made = QUANTIZER.fitted(data, QUANTIZER.read({"bits": 1, "floor": "vector"}))
    chosen = made.codes(torch.from_numpy(data.features)).numpy().ravel()
    assert [len(set(subjects[chosen == code])) >= 5 for code in (0, 1)] == [True, True]


def test_a_whole_codebook_holds_all_sums():
    books = [np.array([[0.0, 1], [2, 3]]), np.array([[10.0, 0], [20, 0], [30, 0]])]
    expected = [a + b for a in books[0] for b in books[1]]
    np.testing.assert_array_equal(whole_codebook(books), expected)


def test_a_floor_of_vectors_takes_few_bits():
    data = FitData(np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32))
    for given in ({"bits": 15}, {"codes": 4}):
        with refused("floor"):
            QUANTIZER.fitted(data, QUANTIZER.read({"floor": "vector", **given}))


@pytest.mark.parametrize("num_subjects", [12, 13, 17, 40, 100])
def test_subjects_are_dealt_whole_and_enough_are_fitted_to(num_subjects):
    there = inventory(num_subjects)
    actions = {key: "abcd"[int(key.split("_")[1])] for key in there.num_clips}
    there = Inventory(there.num_clips, there.subjects, actions)
    labels = {key: np.array([int(key[1:].split("_")[0]) % 2]) for key in there.num_clips}
    split = dealt(there, COMMON_FLOOR, private=labels, before={})
    sides = {side: {there.subjects[k] for k in split if split[k] == side} for side in ("train", "test")}
    assert not sides["train"] & sides["test"]
    assert len(sides["train"]) + len(sides["test"]) == num_subjects
    assert len(sides["train"]) >= max(2 * COMMON_FLOOR, 0.55 * num_subjects)
    assert len(sides["test"]) >= 2
    if num_subjects == 40:
        assert len(sides["test"]) == 16
        assert 6 <= sum(int(name[1:]) % 2 for name in sides["test"]) <= 10, "alike shares of the attribute"
    choose(there, split, "videos", at_least=COMMON_FLOOR, width=192, has_static=True)


def test_who_comes_later_is_not_fitted_to_and_others_stay():
    before = dealt(inventory(20), COMMON_FLOOR, before={})
    after = dealt(inventory(23), COMMON_FLOOR, before=before)
    assert {key: after[key] for key in before} == before
    assert {split for key, split in after.items() if key not in before} == {"test"}


def test_a_split_that_is_given_is_kept():
    there = inventory(20)
    given = {key: "train" if int(key[1:].split("_")[0]) < 12 else "val" for key in there.num_clips}
    assert dealt(Inventory(there.num_clips, there.subjects, {}, given), 5, before={}) == given


def test_too_few_subjects_are_told_how_many_would_do():
    for number in (3, fewest_subjects(5) - 1):
        with refused("videos", naming=str(fewest_subjects(5))):
            refuse_too_few(inventory(number), "videos", 5)
    refuse_too_few(inventory(fewest_subjects(5)), "videos", 5)
    with refused("--min-subjects", naming="5"):
        refuse_too_few(inventory(40), "videos", 4)


def test_too_few_to_fit_to_are_told_how_many_would_do():
    there = inventory(12)
    split = {key: "train" if int(key[1:].split("_")[0]) < 9 else "test" for key in there.num_clips}
    with refused("table", naming="10"):
        choose(there, split, "table", at_least=5, width=192, has_static=True)


def test_the_rank_follows_width_and_videos():
    def rank(videos: int, width: int, **asked: int) -> int | None:
        there = inventory(20, videos=videos)
        split = dict.fromkeys(there.num_clips, "train")
        return choose(there, split, "x", at_least=5, width=width, has_static=True, **asked).rank

    assert rank(6, 192) == 32
    assert rank(6, 48) == 8
    assert rank(2, 192) == 19
    assert rank(2, 192, rank=39) == 39
    with refused("--rank", naming="19"):
        rank(2, 192, rank=40)


def test_tables_are_put_together_and_may_not_disagree(tmp_path):
    clips = {"a": 1, "b": 1}
    (tmp_path / "who.csv").write_text("filename,subject\na.mp4,anna\nb.mp4,ben\n")
    (tmp_path / "actions.csv").write_text("filename,label,split\na,run,train\nb,,test\n")
    found = read_inventory(clips, subjects=tmp_path / "who.csv", actions=tmp_path / "actions.csv")
    assert (found.subjects, found.actions) == ({"a": "anna", "b": "ben"}, {"a": "run"})
    assert found.splits == {"a": "train", "b": "test"}
    (tmp_path / "actions.csv").write_text("filename,label,subject\na,run,anna\nb,run,carla\n")
    with refused("actions.csv", naming=("ben", "carla")):
        read_inventory(clips, subjects=tmp_path / "who.csv", actions=tmp_path / "actions.csv")
    with refused("who.csv", naming="c"):
        read_inventory({**clips, "c": 1}, subjects=tmp_path / "who.csv")
