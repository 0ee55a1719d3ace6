"""Who is trained on and who is tested on, by file names: NTU RGB+D, its gender-biased subsets, Casia-B; films.

Note: only the training half of NTU-Bias is biased. Its test half holds as many videos of women as of men for every
action, so that the accuracy of one group may be compared with that of the other.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from splavu.errors import UserError, nearest

Part = TypeVar("Part")

NTU_TEST_SUBJECTS = frozenset(
    f"P{number:03d}" for number in (2, 5, 6, 11, 12, 13, 14, 22, 23, 24, 26, 29, 30, 31, 32, 33, 34, 35, 36, 38)
)
NTU_LEFT_OUT_SUBJECTS = frozenset(f"P{number:03d}" for number in (3, 4, 9, 19, 21, 40))
"""Men left out of training, so that seven men and seven women remain (spec: splavu, section 4)."""
NTU_NUM_ACTIONS = 60
"""Later actions belong to NTU RGB+D 120 and to no split here."""

NTU_BIAS: Mapping[str, str | None] = {"ntu_bias_f": "male", "ntu_bias_m": "female", "ntu_balanced": None}
"""Name -> gender of the majority in training. The letter names those at a disadvantage; the last one is the control: as
many training videos, half of women and half of men for every action."""
INVERTED_ACTION = 4
"""A004, brush hair: in training the other gender has the majority (Fioresi et al. 2026, appendix A)."""

CASIA_B_REPETITIONS: Mapping[str, int] = {"nm": 6, "bg": 2, "cl": 2}
"""Walks of each subject and view: normal, with a bag, in a coat."""


@dataclass(frozen=True)
class NtuName:
    """What an NTU RGB+D file name says; numbers count from 1."""

    setup: int
    camera: int
    subject: str
    """As in the gender file: 'P003'."""
    repetition: int
    action: int


def ntu_name(name: str) -> NtuName:
    """Take `SsssCcccPpppRrrrAaaa`, with or without a tail such as `_rgb.avi`, apart."""
    match = re.match(r"S(\d{3})C(\d{3})(P\d{3})R(\d{3})A(\d{3})(?!\d)", name, re.ASCII)
    if match is None or any(int(number.removeprefix("P")) == 0 for number in match.groups()):
        raise UserError(name, "is no NTU RGB+D name of the form SsssCcccPpppRrrrAaaa", "check the store's keys")
    setup, camera, subject, repetition, action = match.groups()
    return NtuName(int(setup), int(camera), subject, int(repetition), int(action))


@dataclass(frozen=True)
class Split:
    """File names of the two sides, each in the order it was given in."""

    train: tuple[str, ...]
    test: tuple[str, ...]


def ntu_split(names: Iterable[str], said: Mapping[str, NtuName] | None = None) -> Split:
    """The subject protocol: 20 subjects are tested on, six are left out, the others trained on; actions 1 to 60.

    `said` holds what each name says, where a table does (`name_tables`) and not the names.
    """
    parts = {
        name: part
        for name, part in _parts(names, _reader(ntu_name, said)).items()
        if 1 <= part.action <= NTU_NUM_ACTIONS
    }
    train = tuple(n for n, part in parts.items() if part.subject not in NTU_TEST_SUBJECTS | NTU_LEFT_OUT_SUBJECTS)
    return Split(train, tuple(n for n, part in parts.items() if part.subject in NTU_TEST_SUBJECTS))


def ntu_bias_side(
    variant: str,
    names: Iterable[str],
    genders: Mapping[str, str],
    side: str,
    *,
    minority_share: float = 0.05,
    inverted_action: int = INVERTED_ACTION,
    seed: int = 0,
    said: Mapping[str, NtuName] | None = None,
) -> tuple[str, ...]:
    """NTU-Bias-F or NTU-Bias-M: of each action's training videos 95% show one gender, for one action the other.

    Both sides start from a pool with as many subjects of each gender and, for every action, as many videos of each;
    what is too much is drawn out by `seed`. The test side is its pool. The training side keeps the majority's pool and
    of the minority's as many videos as bring its share closest to `minority_share`, but at least one, dealt evenly
    among its subjects; the control has as many videos an action, half of each gender (one less where that is odd).
    Equal seeds give all variants the same pools, so one bias is the mirror image of the other.

    Args:
        variant: A name in `NTU_BIAS`.
        names: Videos; those of the other side and of actions beyond 60 are left out.
        genders: Subject -> 'male' or 'female' (`subjects.read_ntu_genders`).
        side: 'train' or 'test'. One doesn't depend on the other, so a store that holds one is enough.
        minority_share: 0 < share < 0.5.
        inverted_action: Counted from 1, as in the file names.
        seed: Of all draws; the order of `names` does not matter to them.
        said: What each name says, where the names don't; its order, in place of the alphabet's, matters to the draws.

    Raises:
        UserError: An unknown variant, a subject without a gender, a side without one of the genders.

    Source: Fioresi et al. 2026, appendix A. What it leaves open is settled here: the equal pools, the rounding and the
    control.
    """
    if variant not in NTU_BIAS:
        raise UserError("dataset", f"'{variant}' is no biased subset of NTU RGB+D", nearest(variant, NTU_BIAS))
    if not 0 < minority_share < 0.5:
        raise UserError("minority_share", f"is {minority_share}, expected between 0 and 0.5", "the paper has 0.05")
    of_side = getattr(ntu_split(names, said), side)
    parts = {name: ntu_name(name) for name in sorted(of_side)} if said is None else _those(said, of_side)
    generator = np.random.default_rng((seed, ("train", "test").index(side)))
    pool = _equal_pool(parts, genders, side, generator)
    if side == "test":
        chosen = {video for cell in pool.values() for video in cell}
        return tuple(name for name in of_side if name in chosen)

    chosen = set()
    dealt: Counter[str] = Counter()
    majority = NTU_BIAS[variant]
    for (action, gender), cell in pool.items():
        minority_count = max(1, round(len(cell) * minority_share / (1 - minority_share)))
        if majority is None:
            chosen.update(_dealt(cell, (len(cell) + minority_count) // 2, parts, dealt, generator))
        elif (gender == majority) != (action == inverted_action):
            chosen.update(cell)
        else:
            chosen.update(_dealt(cell, minority_count, parts, dealt, generator))
    return tuple(name for name in of_side if name in chosen)


@dataclass(frozen=True)
class CasiaName:
    """What a Casia-B video name `SSS-TT-NN-VVV` says."""

    subject: str
    walk: str
    """'nm', 'bg' or 'cl': normal, with a bag, in a coat."""
    repetition: int
    """Counts from 1."""
    view: int
    """Degrees, 0 to 180."""


def casia_name(name: str) -> CasiaName:
    """Take a Casia-B name, with or without an extension, apart."""
    match = re.match(r"(\d{3})-([a-z]{2})-(\d{2})-(\d{3})(?!\d)", name, re.ASCII)
    if match is None or int(match[3]) == 0 or int(match[4]) > 180:
        raise UserError(name, "is no Casia-B name of the form SSS-TT-NN-VVV", "check the store's keys")
    subject, walk, repetition, view = match.groups()
    if walk not in CASIA_B_REPETITIONS:
        raise UserError(name, f"has the unknown walk '{walk}'", f"known: {', '.join(CASIA_B_REPETITIONS)}")
    return CasiaName(subject, walk, int(repetition), int(view))


@dataclass(frozen=True)
class GaitSplit:
    """The walks of known subjects, and the walks to be recognised."""

    gallery: tuple[str, ...]
    probe: tuple[str, ...]


def casia_split(names: Iterable[str], said: Mapping[str, CasiaName] | None = None) -> GaitSplit:
    """The last two repetitions of each walk are probes, of the others the first four are the gallery.

    Casia-B has six normal walks a subject and view, and two each with a bag and in a coat: the gallery are the normal
    walks 1 to 4, the probes the normal walks 5 and 6 and all walks with a bag or in a coat. `said` as for `ntu_split`.
    """
    parts = _parts(names, _reader(casia_name, said))
    last = dict(CASIA_B_REPETITIONS)
    for part in parts.values():
        last[part.walk] = max(last[part.walk], part.repetition)
    probe = tuple(name for name, part in parts.items() if part.repetition > last[part.walk] - 2)
    gallery = tuple(n for n, part in parts.items() if part.repetition <= min(4, last[part.walk] - 2))
    return GaitSplit(gallery, probe)


def film_of(key: str) -> str:
    """The film or group in the name of an HMDB51 or UCF101 clip: clips of one film show the same subjects."""
    folder, _, name = key.rpartition("/")
    if group := re.match(r"(v_.+_g\d+)_c\d+", name):
        return group[1]
    return name.split(f"_{folder}_")[0] if folder else name


def _reader(parse: Callable[[str], Part], said: Mapping[str, Part] | None) -> Callable[[str], Part]:
    return parse if said is None else said.__getitem__


def _those(said: Mapping[str, Part], names: Iterable[str]) -> dict[str, Part]:
    """Some of the names, in the order of `said`."""
    wanted = set(names)
    return {name: part for name, part in said.items() if name in wanted}


def _parts(names: Iterable[str], parse: Callable[[str], Part]) -> dict[str, Part]:
    parts: dict[str, Part] = {}
    for name in names:
        if name in parts:
            raise UserError(name, "duplicate key", "name each video once")
        parts[name] = parse(name)
    return parts


def _equal_pool(
    parts: Mapping[str, NtuName], genders: Mapping[str, str], side: str, generator: np.random.Generator
) -> dict[tuple[int, str], list[str]]:
    """(action, gender) -> videos: for each action equally many of both, from equally many subjects."""
    num_videos = Counter(part.subject for part in parts.values())
    if strangers := sorted(set(num_videos) - set(genders)):
        raise UserError(
            strangers[0], f"has no gender ({len(strangers)} subjects have none)", "add it to the gender file"
        )
    subjects = {g: sorted(s for s in num_videos if genders[s] == g) for g in ("female", "male")}
    for gender, of_gender in subjects.items():
        if not of_gender:
            raise UserError("NTU RGB+D", f"no {gender} subject among the {side} videos", "extract the missing videos")
    fewest = min(map(len, subjects.values()))
    kept = {s for of_gender in subjects.values() for s in sorted(of_gender, key=lambda s: -num_videos[s])[:fewest]}

    cells: dict[tuple[int, str], list[str]] = defaultdict(list)
    for name, part in parts.items():
        if part.subject in kept:
            cells[part.action, genders[part.subject]].append(name)
    pool, dealt = {}, Counter()
    for action in sorted({action for action, _ in cells}):
        count = min(len(cells[action, gender]) for gender in subjects)
        for gender in subjects:
            if count:
                pool[action, gender] = _dealt(cells[action, gender], count, parts, dealt, generator)
    return pool


def _dealt(
    videos: Sequence[str],
    count: int,
    parts: Mapping[str, NtuName],
    dealt: Counter[str],
    generator: np.random.Generator,
) -> list[str]:
    """`count` of the videos, each from the subject with the fewest so far; `dealt` keeps the score across actions."""
    left: dict[str, list[str]] = defaultdict(list)
    for index in generator.permutation(len(videos)):
        video = videos[int(index)]
        left[parts[video].subject].append(video)
    chosen = []
    for _ in range(count):
        subject = min((s for s in left if left[s]), key=lambda s: (dealt[s], s))
        chosen.append(left[subject].pop())
        dealt[subject] += 1
    return chosen
