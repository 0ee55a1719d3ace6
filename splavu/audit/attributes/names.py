"""What the names in a release reveal: keys, counts of clips, their order in the file, the file's attributes.

A key such as `htrain0012_clap_f_nm_np3` names the person and what is in the video, and a release that keeps it keeps
that. Two things are read here. The names themselves become numbers (`NameFeatures`) that attackers are trained on,
alone and beside the features. And names group: where a part of the name is the same in all videos of a training subject
(`best_grouping`), the same part shows which videos of test subjects are of one person. Their features and scores are
pooled, which is how names turn clips into persons.

Note: the raw features that a release is compared with are attacked under the same released names. So a leakage stays a
ratio of like with like: names that are kept count on both sides, and renaming is not credited to the anonymizer. A key
holds all clips of its video, so these attackers see the mean of the video, and of its group, where a single clip is
judged, too.

Shapes: `V` videos, `N` clips, `F` numbers of a name, `A` attributes.
"""

from __future__ import annotations

import dataclasses
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from splavu import metrics
from splavu.attacks.campaign import Attack, Campaign, Exposure, Scored, joined
from splavu.attacks.rows import AttackData
from splavu.audit.attributes.units import set_attack, set_rows
from splavu.audit.inputs import ReleasedKey

FAMILIES = ("logistic", "trees", "knn")
"""Trained on names and on what names pool; none is drawn at random, so each is trained once."""
MOST_ITEMS = 256
"""Parts and character n-grams of names that are kept, those in nearest to half of the training videos."""
LONGEST_GRAM = 4
NUM_PLACES = 8
"""Parts and numbers of a name that have a place of their own, from its start and from its end."""
LONGEST_PREFIX = 24
LEAST_PRECISION, LEAST_RECALL = 0.5, 0.1
"""Of pairs of videos with one group name, the share of one subject; of pairs of one subject, the share of one group."""
MOST_POOLED = 8
"""Attackers whose scores are pooled over groups, those that are best on validation subjects then."""


def parts_of(name: str) -> list[str]:
    """`"S001P034_rgb"` -> `["s", "001", "p", "034", "rgb"]`: runs of letters and runs of digits."""
    return re.findall(r"\d+|[^\W\d_]+", name.lower())


@dataclass(frozen=True)
class NameFeatures:
    """Names as numbers: which parts and character n-grams they have, and numbers, counts and places.

    The parts, n-grams and file attributes are those of training names that more than one subject has and not all videos
    have. Numbers enter as log(1 + n), -1 where there is none.
    """

    items: Mapping[str, int]
    """Part, n-gram or file attribute -> column."""

    @classmethod
    def of(cls, keys: Sequence[ReleasedKey], subjects: Sequence[str]) -> NameFeatures:
        subjects_of, count = defaultdict(set), defaultdict(int)
        for key, subject in zip(keys, subjects, strict=True):
            for item in _items(key):
                subjects_of[item].add(subject)
                count[item] += 1
        share = {item: number / len(keys) for item, number in count.items()}
        common = [item for item, of in subjects_of.items() if len(of) > 1 and share[item] < 1]
        kept = sorted(common, key=lambda item: (abs(share[item] - 0.5), item))[:MOST_ITEMS]
        return cls({item: place for place, item in enumerate(kept)})

    def __call__(self, keys: Sequence[ReleasedKey]) -> np.ndarray:  # -> [V, F] float32
        present = np.zeros((len(keys), len(self.items)), dtype=np.float32)
        for row, key in enumerate(keys):
            present[row, [self.items[item] for item in _items(key) if item in self.items]] = 1
        numbers = np.array([_numbers(key) for key in keys], dtype=np.float32)
        return np.concatenate([present, numbers], axis=1)


def _items(key: ReleasedKey) -> set[str]:
    parts = parts_of(key.name)
    found = {f"part {place}: {part}" for place, part in enumerate(parts[:NUM_PLACES], start=1)}
    found |= {f"part -{place}: {part}" for place, part in enumerate(parts[::-1][:NUM_PLACES], start=1)}
    name = f"^{key.name.lower()}$"
    found |= {name[i : i + n] for n in range(1, LONGEST_GRAM + 1) for i in range(len(name) - n + 1)}
    return found | {f"file: {attribute}" for attribute in key.attributes}


def _numbers(key: ReleasedKey) -> list[float]:
    numbers = [np.log1p(float(part[:15])) for part in parts_of(key.name) if part.isdecimal()]
    absent = [-1.0] * NUM_PLACES
    of_name = [*(numbers + absent)[:NUM_PLACES], *(numbers[::-1] + absent)[:NUM_PLACES]]
    return [*of_name, len(key.name), len(parts_of(key.name)), key.num_clips, key.place]


@dataclass(frozen=True)
class Grouping:
    """A part of the name that is the same in videos of one subject."""

    description: str
    group: Callable[[str], str]
    """Name -> group."""
    precision: float
    """Share of one subject among pairs of training videos with one group name."""
    recall: float
    """Share of one group name among pairs of training videos of one subject."""


def best_grouping(
    train: tuple[Sequence[str], Sequence[str]], validation: tuple[Sequence[str], Sequence[str]]
) -> Grouping | None:
    """The part of the names that shows which videos are of one subject, by F1 over pairs of training videos.

    Args:
        train: Names and subjects of training videos.
        validation: Likewise; a part that does not group them too is luck.

    Returns:
        None where no part groups both by `LEAST_PRECISION` and `LEAST_RECALL`.
    """
    found, best = None, 0.0
    for description, group in _groupings():
        scores = [pair_scores([group(name) for name in names], subjects) for names, subjects in (train, validation)]
        if all(precision >= LEAST_PRECISION and recall >= LEAST_RECALL for precision, recall in scores):
            merit = np.mean([2 * precision * recall / (precision + recall) for precision, recall in scores])
            if merit > best + 1e-9:
                found, best = Grouping(description, group, *scores[0]), float(merit)
    return found


def pair_scores(groups: Sequence[str], subjects: Sequence[str]) -> tuple[float, float]:
    """Precision and recall of "the same group" as a sign of "the same subject", over pairs; 0 without such a pair."""

    def pairs(names: Sequence) -> float:
        counts = np.unique(np.asarray(names), return_counts=True)[1].astype(np.float64)
        return float((counts * (counts - 1)).sum())

    of_group, of_subject = pairs(groups), pairs(subjects)
    both = pairs([f"{group}\n{subject}" for group, subject in zip(groups, subjects, strict=True)])
    return both / of_group if of_group else 0.0, both / of_subject if of_subject else 0.0


def _groupings() -> list[tuple[str, Callable[[str], str]]]:
    """Candidates; a name without the part is a group of its own."""

    def slice_of(start: int | None, stop: int | None) -> Callable[[str], str]:
        return lambda name: "\n".join(parts_of(name)[start:stop]) or name

    def from_end(place: int) -> Callable[[str], str]:
        return lambda name: parts_of(name)[-place] if place <= len(parts_of(name)) else name

    found = [(f"part {place + 1} of the name", slice_of(place, place + 1)) for place in range(NUM_PLACES)]
    found += [(f"part {place} from the end of the name", from_end(place)) for place in range(1, NUM_PLACES + 1)]
    found += [(f"the first {count} parts of the name", slice_of(None, count)) for count in range(2, NUM_PLACES + 1)]
    found += [
        (f"the name without its last {count} parts", slice_of(None, -count)) for count in range(1, NUM_PLACES + 1)
    ]
    for length in range(1, LONGEST_PREFIX + 1):
        found.append((f"the first {length} characters of the name", lambda name, length=length: name[:length]))
    return found


@dataclass(frozen=True)
class Names:
    """The names of a release as attackers use them."""

    data: AttackData
    """A row a video in sort order of the videos, its features the numbers of the name."""
    grouping: Grouping | None
    keys: Mapping[str, ReleasedKey]

    @classmethod
    def of(cls, keys: Mapping[str, ReleasedKey], released: AttackData) -> Names:
        videos = {split: set_rows(rows, "video") for split, rows in released.splits.items()}
        shown = {split: [keys[video] for video in rows.videos.tolist()] for split, rows in videos.items()}
        numbers = NameFeatures.of(shown["train"], videos["train"].clusters.tolist())
        data = {s: dataclasses.replace(rows, features=numbers(shown[s])) for s, rows in videos.items()}
        named = {s: ([key.name for key in shown[s]], videos[s].clusters.tolist()) for s in ("train", "validation")}
        return cls(AttackData(**data), best_grouping(named["train"], named["validation"]), keys)

    def groups(self, videos: np.ndarray) -> np.ndarray:  # [N] -> [N]
        """The group of each row's video; the video itself without a grouping."""
        if self.grouping is None:
            return videos
        group_of = {video: self.grouping.group(self.keys[video].name) for video in np.unique(videos).tolist()}
        return np.array([group_of[video] for video in videos.tolist()])

    def record(self) -> dict[str, object]:
        """What names reveal of who is who, for the evidence; precision and recall over pairs of test videos."""
        if self.grouping is None:
            return {"grouping": None}
        test = self.data.test
        precision, recall = pair_scores(self.groups(test.videos).tolist(), test.clusters.tolist())
        return {"grouping": self.grouping.description, "precision": precision, "recall": recall}


def names_alone(names: Names, clips: AttackData, campaign: Campaign) -> Attack:
    """Attackers that are trained on names and see no feature, on clips."""
    return _of_clips(_run(names.data, campaign), clips, lambda videos: videos)


def names_attack(names: Names, alone: Attack, clips: AttackData, clip: Attack, campaign: Campaign) -> Attack:
    """Every attack that uses names, on clips, its attackers named 'way/attacker'.

    Args:
        names: Of the release.
        alone: What `names_alone` gives.
        clips: Released features, or raw ones under the released names.
        clip: Attackers of the same clips without names, whose scores are pooled over groups.
        campaign: Its families are replaced by `FAMILIES`.
    """
    means = {split: set_rows(rows, "video").features for split, rows in clips.splits.items()}  # in sort order of videos
    beside = {split: [rows.features, means[split]] for split, rows in names.data.splits.items()}
    found = {"alone": alone}
    if names.grouping is None:
        campaign.progress.update(len(FAMILIES) * len(campaign.seeds))
    else:
        sets = {s: dataclasses.replace(rows, videos=names.groups(rows.videos)) for s, rows in clips.splits.items()}
        data = AttackData(**{split: set_rows(rows, "video") for split, rows in sets.items()})
        found["features of a group"] = _of_clips(_run(data, campaign), clips, names.groups)
        found["scores of a group"] = _pooled(clip, clips, names)
        for split, rows in names.data.splits.items():
            of_video = np.unique(names.groups(rows.videos), return_inverse=True)[1]
            beside[split].append(data.splits[split].features[of_video])
    together = {s: np.concatenate(parts, axis=1) for s, parts in beside.items()}
    data = AttackData(**{s: dataclasses.replace(r, features=together[s]) for s, r in names.data.splits.items()})
    found["beside features"] = _of_clips(_run(data, campaign), clips, lambda videos: videos)
    return joined(found)


def num_names_fits(campaign: Campaign, *, with_raw: bool) -> int:
    """How often `names_alone` and `names_attack` move the campaign's progress."""
    return (1 + 2 * (1 + with_raw)) * len(FAMILIES) * len(campaign.seeds)


def _run(data: AttackData, campaign: Campaign) -> Attack:
    campaign = dataclasses.replace(campaign, attackers=FAMILIES)
    return campaign.run_on([data] * len(campaign.seeds), {"own": Exposure(data.validation, data.test)})["own"]


def _pooled(clip: Attack, clips: AttackData, names: Names) -> Attack:
    """Scores of clip attackers, pooled over the clips of a group; the best on validation subjects are kept."""
    tuned = dataclasses.replace(clip.tuned, videos=names.groups(clip.tuned.videos))
    sets = set_attack(dataclasses.replace(clip, videos=names.groups(clip.videos), tuned=tuned), "video", "mean")
    attack = _of_clips(sets, clips, names.groups)
    merit = np.nan_to_num(metrics.mean_known(attack.validation.mean(axis=0)), nan=-1.0)  # [M]
    kept = np.sort(np.argsort(-merit, kind="stable")[:MOST_POOLED])
    return dataclasses.replace(
        attack,
        attackers=tuple(attack.attackers[m] for m in kept),
        scores=attack.scores[:, kept],
        validation=attack.validation[:, kept],
        tuned=dataclasses.replace(attack.tuned, scores=attack.tuned.scores[:, kept]),
    )


def _of_clips(attack: Attack, clips: AttackData, set_of: Callable[[np.ndarray], np.ndarray]) -> Attack:
    """An attack on sets, in sort order of their names, as one on the clips: each has its set's score.

    Args:
        set_of: Videos of clips -> the names of their sets.
    """
    test, validation = clips.test, clips.validation
    of_test, of_validation = (np.unique(set_of(rows.videos), return_inverse=True)[1] for rows in (test, validation))
    tuned = Scored(validation.labels, validation.clusters, validation.videos, attack.tuned.scores[:, :, of_validation])
    precision = [[metrics.average_precisions(tuned.labels, one) for one in of_seed] for of_seed in tuned.scores]
    return dataclasses.replace(
        attack,
        labels=test.labels,
        clusters=test.clusters,
        videos=test.videos,
        scores=attack.scores[:, :, of_test],
        validation=np.array(precision),
        tuned=tuned,
    )
