import numpy as np
import pytest
from refusals import refused

from mgfn.errors import InputError
from mgfn.frame_scores import ScoredVideo, figures, repeated, report, stretch_sources, table, video_auc


def rank_auc(scores, truth):
    """Share of (positive, negative) pairs in the right order, ties counting a half."""
    positive, negative = scores[truth == 1], scores[truth == 0]
    gap = positive[:, None] - negative[None]
    return (gap > 0).mean() + (gap == 0).mean() / 2


def videos():
    rng = np.random.default_rng(0)

    def video(name, classes, truth):
        truth = np.array(truth, dtype=np.int8)
        return ScoredVideo(name, classes, bool(classes), rng.integers(0, 5, len(truth)) / 5, truth)

    return [
        video("a", ("Fighting",), [0, 1, 1, 0, 0]),
        video("b", ("Fighting", "Riot"), [1, 1, 0, 0, 0, 0]),
        video("c", (), [0] * 7),
        video("d", ("Abuse",), [0, 0, 0]),
    ]


def test_rows_are_the_stated_groups():
    made = videos()
    rows = report(made)
    assert list(rows) == ["overall", "abnormal videos", "Abuse", "Fighting", "Riot"]
    groups = {"overall": "abcd", "abnormal videos": "abd", "Fighting": "abc", "Riot": "bc"}
    for name, members in groups.items():
        group = [video for video in made if video.name in members]
        scores, truth = (np.concatenate([getattr(video, what) for video in group]) for what in ("scores", "truth"))
        assert rows[name].roc_auc == pytest.approx(rank_auc(scores, truth))
        assert rows[name].num_frames == len(truth)
        assert rows[name].num_abnormal_frames == truth.sum()
    assert rows["overall"].num_videos == 3
    assert rows["Riot"].num_videos == 1


def test_a_class_without_an_abnormal_frame_has_no_figure():
    row = report(videos())["Abuse"]
    assert (row.roc_auc, row.pr_auc, row.average_precision) == (None, None, None)
    line = next(line for line in table(report(videos())).splitlines() if line.startswith("Abuse"))
    assert line.split()[-3:] == ["-", "-", "-"]


def test_only_normal_or_only_abnormal_frames_are_refused():
    normal, abnormal = videos()[2], ScoredVideo("x", ("Riot",), True, np.zeros(3), np.ones(3, np.int8))
    with refused("ground truth", InputError):
        report([normal])
    with refused("ground truth", InputError):
        report([abnormal])


def test_pr_auc_and_average_precision_by_hand():
    # Two blocks of equal scores: 1 of 2 positive above, 1 of 2 below.
    found = figures(np.array([0.9, 0.9, 0.1, 0.1]), np.array([1, 0, 1, 0]), num_videos=1)
    # Curve: recall 0 (precision 1, by convention), 1/2 (1/2), 1 (1/2).
    assert found.average_precision == pytest.approx(0.5)
    assert found.pr_auc == pytest.approx(0.5 * (1 + 0.5) / 2 + 0.5 * 0.5)
    assert found.roc_auc == pytest.approx(0.5)


@pytest.mark.parametrize(("count", "length"), [(5, 5), (5, 12), (12, 5), (7, 3), (1, 4)])
def test_stretching_is_the_stated_rule(count, length):
    ratio, expected = length / count, [None] * length
    for value in range(count):
        for place in range(int(value * ratio + 0.5), int((value + 1) * ratio + 0.5)):
            expected[place] = value
    assert stretch_sources(count, length).tolist() == expected


def test_a_snippets_score_counts_for_each_of_its_frames():
    assert repeated(np.array([1, 2]), 3).tolist() == [1, 1, 1, 2, 2, 2]


def test_video_auc_is_the_rank_statistic():
    rng = np.random.default_rng(1)
    scores, truth = rng.random(30), rng.integers(0, 2, 30)
    assert video_auc(scores, truth) == pytest.approx(rank_auc(scores, truth))
