"""Released vectors that one owner alone has."""

import numpy as np
import pytest

from splavu.anonymizers.fitted_to import row_hashes
from splavu.metrics.vector_owners import VectorOwners, vector_owners


def slow(vectors, owners):
    owners_of = {}
    for vector, owner in zip(vectors, owners, strict=True):
        owners_of.setdefault(vector.tobytes(), set()).add(owner)
    alone = {vector for vector, found in owners_of.items() if len(found) == 1}
    clips = sum(vector.tobytes() in alone for vector in vectors)
    return VectorOwners(len(owners_of), len(alone), len(vectors), clips)


@pytest.mark.parametrize("seed", range(5))
def test_counts_are_those_of_a_loop(seed):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(40, 6)).astype(np.float32)[rng.integers(0, 40, 120)]
    owners = np.array([f"s{number}" for number in rng.integers(0, 9, 120)])
    expected = slow(vectors, owners)
    assert vector_owners(vectors, owners) == vector_owners(row_hashes(vectors), owners) == expected
    assert 0 < expected.of_one < expected.vectors
    assert expected.share == expected.of_one / expected.vectors


def test_all_alone_and_none():
    vectors = np.eye(4, dtype=np.float32)
    assert vector_owners(vectors, np.arange(4)).share == 1
    shared = vector_owners(np.repeat(vectors, 2, axis=0), np.tile([0, 1], 4))
    assert (shared.share, shared.clip_share) == (0, 0)
    with pytest.raises(ValueError, match=r"\b0\b"):
        vector_owners(vectors[:0], [])
