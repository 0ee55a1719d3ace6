"""Target assignment against its definition in loops."""

import pytest
import torch

from tridet.targets import assign, pyramid_points

STRIDES, LENGTHS = (1, 2, 4), (40, 20, 10)
RANGES = ((0, 4), (3, 8), (8, 10000))
NUM_CLASSES = 5


def by_definition(time, nearest, farthest, stride, segments, labels, radius):
    """The classes of a point and its distances, or None."""
    candidates = []
    for (start, end), label in zip(segments, labels, strict=True):
        first, last = start, end
        if radius is not None:
            centre = (start + end) / 2
            first, last = max(start, centre - radius * stride), min(end, centre + radius * stride)
        if first < time < last and nearest <= max(time - start, end - time) <= farthest:
            candidates.append((end - start, start, end, label))
    if not candidates:
        return None
    shortest = min(candidates, key=lambda each: each[0])  # the first of equals
    classes = {each[3] for each in candidates if each[0] <= shortest[0] + 1e-3}
    return classes, ((time - shortest[1]) / stride, (shortest[2] - time) / stride)


def drawn(seed):
    """Segments on a grid of quarters, so that floats are exact, with twins and near-twins."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.randint(-4, 150, (12,), generator=generator) / 4
    length = torch.randint(1, 90, (12,), generator=generator) / 4
    segments = torch.stack([start, start + length], dim=1)
    segments[1] = segments[0]
    segments[3] = segments[2] + torch.tensor([0.0, 2**-11])
    segments[5] = segments[4] + torch.tensor([0.25, 0.25])
    return segments, torch.randint(0, NUM_CLASSES, (12,), generator=generator)


@pytest.mark.parametrize("radius", [None, 1.5])
def test_every_point_of_a_batch(radius):
    points = pyramid_points(LENGTHS, STRIDES, RANGES)
    videos = [drawn(0), drawn(1), (torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64)), drawn(2)]
    lengths = [40, 23, 40, 31]
    segments, labels = zip(*videos, strict=True)
    targets = assign(points, segments, labels, num_classes=NUM_CLASSES, radius=radius, lengths=lengths)

    expected, num_points = [], 0
    for number, (segment, label) in enumerate(videos):
        for index, point in enumerate(points.tolist()):
            found = by_definition(*point, segment.tolist(), label.tolist(), radius)
            if found is not None and point[0] < lengths[number]:
                num_points += 1
                expected += [(number, index, each, *found[1]) for each in sorted(found[0])]
    rows = zip(targets.video, targets.point, targets.label, *targets.distances.T, strict=True)
    assert [tuple(value.item() for value in row) for row in rows] == expected
    assert targets.num_points == num_points
    assert len(expected) > num_points > 30  # some points have two classes


def test_nothing_to_find():
    points = pyramid_points(LENGTHS, STRIDES, RANGES)
    nothing = torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64)
    targets = assign(points, [nothing[0]] * 2, [nothing[1]] * 2, num_classes=NUM_CLASSES)
    assert targets.num_points == len(targets.video) == 0
    assert targets.distances.shape == (0, 2)


def test_bounds_of_reach_are_included_and_those_of_centre_sampling_are_not():
    points = pyramid_points((20,), (1,), ((3, 4),))
    segment, label = torch.tensor([[6.0, 10.0]]), torch.tensor([0])

    def positive(**options):
        return assign(points, [segment], [label], num_classes=1, **options).point.tolist()

    assert positive(radius=None) == [7, 9]  # reach 3 each; 8 reaches 2, 6 and 10 lie on the ends
    assert positive(radius=1.0) == []
    assert positive(radius=1.25) == [7, 9]
