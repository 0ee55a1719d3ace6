"""Subject protocols against their rules, counted again from the names."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from refusals import refused

from splavu.data import splits
from splavu.data.subjects import read_ntu_genders

TEST = [2, 5, 6, 11, 12, 13, 14, 22, 23, 24, 26, 29, 30, 31, 32, 33, 34, 35, 36, 38]
LEFT_OUT = [3, 4, 9, 19, 21, 40]
WOMEN = {1, 2, 11, 12, 15, 16, 17, 18, 22, 24, 26, 28, 29, 32, 36, 38, 39}  # of P001 to P040
GENDERS = {f"P{number:03d}": "female" if number in WOMEN else "male" for number in range(1, 41)}


def ntu_names(seed: int = 0, num_actions: int = 7) -> list[str]:
    """Forty subjects, each in one to four setups; a tenth of the videos is missing, as some are in NTU RGB+D."""
    rng = np.random.default_rng(seed)
    return [
        f"S{setup:03d}C{camera:03d}P{subject:03d}R{repetition:03d}A{action:03d}_rgb"
        for subject in range(1, 41)
        for setup in range(1, rng.integers(2, 6))
        for camera in (1, 2, 3)
        for repetition in (1, 2)
        for action in range(1, num_actions + 1)
        if rng.random() > 0.1
    ]


def both_sides(variant, names, genders, **options) -> splits.Split:
    """The training and the test side of a biased subset."""
    names = list(names)
    return splits.Split(*(splits.ntu_bias_side(variant, names, genders, side, **options) for side in ("train", "test")))


def cells(names) -> Counter:
    """(action, gender) -> number of videos."""
    return Counter((int(name[17:20]), GENDERS[name[8:12]]) for name in names)


def test_ntu_names_are_taken_apart():
    assert splits.ntu_name("S001C002P003R002A013_rgb.avi") == splits.NtuName(1, 2, "P003", 2, 13)
    for bad in ("clip7", "S001C002P003R002A0131", "S1C2P3R2A13", "xS001C002P003R002A013"):
        with refused(bad):
            splits.ntu_name(bad)


def test_ntu_protocol_is_by_subject_and_knows_sixty_actions():
    names = [f"S001C001P{subject:03d}R001A{action:03d}" for subject in range(1, 107) for action in (1, 60, 61, 120)]
    split = splits.ntu_split(names)
    assert {int(name[9:12]) for name in split.test} == set(TEST)
    assert {int(name[9:12]) for name in split.train} == set(range(1, 107)) - set(TEST) - set(LEFT_OUT)
    assert {name[17:20] for name in (*split.train, *split.test)} == {"001", "060"}
    with refused(names[0]):
        splits.ntu_split(names[:1] * 2)


def test_ntu_protocol_has_equally_many_men_and_women(shared):
    genders = read_ntu_genders(shared / "annotations/ntu_subject_gender_labels.json")
    assert {subject: genders[subject] for subject in GENDERS} == GENDERS
    split = splits.ntu_split([f"S001C001P{subject:03d}R001A001" for subject in range(1, 41)])
    assert Counter(genders[name[8:12]] for name in split.train) == {"male": 7, "female": 7}
    assert Counter(genders[name[8:12]] for name in split.test) == {"male": 10, "female": 10}


@pytest.mark.parametrize(("variant", "majority", "minority"), [("f", "male", "female"), ("m", "female", "male")])
def test_biased_training_is_95_to_5_but_for_one_action(variant, majority, minority):
    names = ntu_names()
    split = both_sides(f"ntu_bias_{variant}", names, GENDERS)
    count = cells(split.train)
    for action in range(1, 8):
        many, few = (minority, majority) if action == 4 else (majority, minority)
        total = count[action, many] + count[action, few]
        assert abs(count[action, many] - 0.95 * total) <= 1
        assert abs(count[action, few] - 0.05 * total) <= 1
        assert count[action, few] >= 1
    assert {int(name[9:12]) for name in split.train}.isdisjoint(TEST + LEFT_OUT)
    assert set(split.train) <= set(names)


@pytest.mark.parametrize("variant", ["ntu_bias_f", "ntu_bias_m"])
def test_biased_subsets_have_equal_subjects_and_equal_test_videos(variant):
    split = both_sides(variant, ntu_names(), GENDERS)
    for side, number in (("train", 7), ("test", 10)):
        subjects = {name[8:12] for name in getattr(split, side)}
        assert Counter(GENDERS[subject] for subject in subjects) == {"female": number, "male": number}
    count = cells(split.test)
    assert {action for action, _ in count} == set(range(1, 8))
    assert all(count[action, "female"] == count[action, "male"] for action in range(1, 8))
    assert {int(name[9:12]) for name in split.test} == set(TEST)


def test_biased_pools_keep_all_that_equality_allows():
    """Of each action the gender with fewer videos loses none: counted over what the protocol lets in."""
    names = ntu_names()
    available = {side: cells(getattr(splits.ntu_split(names), side)) for side in ("train", "test")}
    male = cells(both_sides("ntu_bias_f", names, GENDERS).train)
    female = cells(both_sides("ntu_bias_m", names, GENDERS).train)
    tested = cells(both_sides("ntu_bias_f", names, GENDERS).test)
    for action in range(1, 8):
        fewest = min(available["train"][action, gender] for gender in ("female", "male"))
        many, mirrored = ("female", "male") if action == 4 else ("male", "female")
        assert male[action, many] == female[action, mirrored] == fewest
        assert tested[action, "male"] == min(available["test"][action, gender] for gender in ("female", "male"))


def test_minority_is_dealt_evenly_among_its_subjects():
    split = both_sides("ntu_bias_f", ntu_names(), GENDERS)
    women = Counter(n[8:12] for n in split.train if GENDERS[n[8:12]] == "female" and n[16:20] != "A004")
    assert len(women) == 7
    assert max(women.values()) - min(women.values()) <= 1


def test_biased_subset_follows_from_seed_and_not_from_order():
    names = ntu_names()
    first = both_sides("ntu_bias_f", names, GENDERS, seed=3)
    again = both_sides("ntu_bias_f", names[::-1], GENDERS, seed=3)
    other = both_sides("ntu_bias_f", names, GENDERS, seed=4)
    assert again.train == first.train[::-1]
    assert again.test == first.test[::-1]
    assert set(other.train) != set(first.train)
    assert cells(other.train) == cells(first.train)


def test_variants_are_mirror_images():
    """Only the roles change: each keeps the majority of the pool of which the other keeps a twentieth."""
    names = ntu_names()
    male, female = (both_sides(f"ntu_bias_{letter}", names, GENDERS) for letter in "fm")
    assert male.test == female.test
    for few, many in ((male, female), (female, male)):
        gender = "female" if few is male else "male"
        minority = {n for n in few.train if GENDERS[n[8:12]] == gender and n[16:20] != "A004"}
        assert minority
        assert minority <= set(many.train)


def test_surplus_subjects_of_one_gender_are_left_out():
    names = [n for n in ntu_names() if n[8:12] not in ("P001", "P015", "P002")]  # two women of 7, one of 10
    split = both_sides("ntu_bias_f", names, GENDERS)
    for side, number in (("train", 5), ("test", 9)):
        subjects = {name[8:12] for name in getattr(split, side)}
        assert Counter(GENDERS[subject] for subject in subjects) == {"female": number, "male": number}


@pytest.mark.parametrize(
    ("change", "culprit", "names"),
    [
        ({"variant": "ntu_bias_g"}, "dataset", "'ntu_bias_g'"),
        ({"minority_share": 0.5}, "minority_share", "0.5"),
        ({"genders": {s: g for s, g in GENDERS.items() if s not in ("P007", "P010")}}, "P007", "2"),
        ({"genders": dict.fromkeys(GENDERS, "male")}, "NTU RGB+D", ("female", "train")),
    ],
)
def test_bad_bias_requests_are_named(change, culprit, names):
    arguments = {"variant": "ntu_bias_f", "names": ntu_names(num_actions=1), "genders": GENDERS} | change
    with refused(culprit, naming=names):
        both_sides(**arguments)


def casia_names(repetitions: dict[str, int]) -> list[str]:
    return [
        f"{subject:03d}-{walk}-{repetition:02d}-{view:03d}.avi"
        for subject in (1, 124)
        for walk, number in repetitions.items()
        for repetition in range(1, number + 1)
        for view in range(0, 181, 18)
    ]


def test_casia_gallery_and_probe():
    assert splits.casia_name("001-nm-05-090.avi") == splits.CasiaName("001", "nm", 5, 90)
    split = splits.casia_split(casia_names({"nm": 6, "bg": 2, "cl": 2}))
    assert {name[4:9] for name in split.gallery} == {"nm-01", "nm-02", "nm-03", "nm-04"}
    assert {name[4:9] for name in split.probe} == {"nm-05", "nm-06", "bg-01", "bg-02", "cl-01", "cl-02"}
    assert (len(split.gallery), len(split.probe)) == (2 * 4 * 11, 2 * 6 * 11)


def test_casia_rule_holds_for_six_of_each_walk_and_for_a_part_of_the_set():
    split = splits.casia_split(casia_names({"nm": 6, "bg": 6, "cl": 6}))
    assert {name[7:9] for name in split.gallery} == {"01", "02", "03", "04"}
    assert {name[7:9] for name in split.probe} == {"05", "06"}
    assert len({name[4:6] for name in split.gallery}) == 3
    assert splits.casia_split(casia_names({"nm": 4})).probe == ()


@pytest.mark.parametrize("bad", ["001-nm-05", "1-nm-05-090", "001-xx-05-090", "001-nm-05-0900"])
def test_bad_casia_names_are_named(bad):
    with refused(bad):
        splits.casia_name(bad)


def test_the_control_has_as_many_videos_half_of_each_gender():
    names = ntu_names()
    control = cells(both_sides("ntu_balanced", names, GENDERS).train)
    biased = cells(both_sides("ntu_bias_f", names, GENDERS).train)
    for action in range(1, 8):
        women, men = control[action, "female"], control[action, "male"]
        assert women == men
        assert 0 <= biased[action, "female"] + biased[action, "male"] - women - men <= 1


@pytest.mark.parametrize("variant", splits.NTU_BIAS)
def test_a_side_is_the_same_from_its_own_store(variant):
    names = ntu_names()
    whole = both_sides(variant, names, GENDERS)
    of_store = splits.ntu_split(names)
    for side in ("train", "test"):
        alone = splits.ntu_bias_side(variant, getattr(of_store, side), GENDERS, side)
        assert alone == getattr(whole, side)
