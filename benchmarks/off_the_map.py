"""False alarms and misses of "these features lie off the map": `python benchmarks/off_the_map.py --data data/demo`.

The map is of the training clips of the demo's actions. Rows: unseen people of the same set, every other store of the
same encoder, and the test clips as another encoder of the same width might give them: rotated, permuted, rescaled.
`--gym ../shared/real/gym_i3d.npz` adds real I3D features: half of the videos, and of the classes, against the others.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from splavu.anonymizers.fitted_to import MOST_FAR, FittedTo
from splavu.release.fitted_rows import Comparison
from splavu.reports.markdown import markdown_table
from splavu.runtime import cli
from splavu.stores import open_features


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/demo"), help="data root, its stores in features/")
    parser.add_argument("--gym", type=Path, help="gym_i3d.npz")
    args = parser.parse_args(argv)
    rows = []
    features = args.data / "features"
    fitted, videos = rows_of(features / "features_hmdb_train_demo.h5")
    fitted_to = FittedTo.of(fitted, videos)
    stores = [*sorted(features.glob("*_demo.h5")), *sorted(path for path in features.glob("*_demo") if path.is_dir())]
    for path in stores:
        if path.name != "features_hmdb_train_demo.h5":
            rows.append(line(path.stem, fitted_to, rows_of(path)[0]))
    test, _ = rows_of(features / "features_hmdb_test_demo.h5")
    rows += [line(f"hmdb_test, {name}", fitted_to, moved) for name, moved in as_other_encoders(test)]
    if args.gym is not None:
        gym = np.load(args.gym)
        features, video, label = gym["features"].astype(np.float32), gym["video"], gym["label"]
        for name, groups in (("videos", video), ("classes", label)):
            seen = half(groups)
            fitted_to = FittedTo.of(features[seen], np.unique(video[seen], return_inverse=True)[1])
            rows.append(line(f"gym, other {name}", fitted_to, features[~seen]))
            rows += [line(f"gym, other {name}, {how}", fitted_to, m) for how, m in as_other_encoders(features[~seen])]
    print(markdown_table(("features", "clips", "distance (fitted: 1)", "off the map, %", "warned of"), rows))
    print(f"warned of from {100 * MOST_FAR:.0f} % on")
    return 0


def line(name: str, fitted_to: FittedTo, rows: NDArray[np.float32]) -> list[str]:
    """What `anonymize` would find."""
    found = Comparison(fitted_to)
    found.add(rows, np.ones(len(rows), np.int64))
    shown = (f"{found.median:.2f}", f"{100 * found.far.mean():.0f}", "yes" if found.is_off_the_map else "")
    return [name, str(len(rows)), *shown]


def rows_of(path: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """All rows of a store, and the number of each row's video."""
    store = open_features(path)
    rows = [store[key].reshape(-1, store.feature_dim) for key in store]
    return np.concatenate(rows), np.repeat(np.arange(len(rows)), [len(one) for one in rows])


def as_other_encoders(rows: NDArray[np.float32]) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The same clips in other coordinates."""
    rng, width = np.random.default_rng(1), rows.shape[1]
    yield "rotated", rows @ np.linalg.qr(rng.normal(size=(width, width)))[0].astype(np.float32)
    yield "permuted", rows[:, rng.permutation(width)]
    yield "times 1.3", rows * np.float32(1.3)


def half(groups: NDArray) -> NDArray[np.bool_]:  # [N] -> [N]
    """Whether each row's group is in the half that is fitted to."""
    names, number = np.unique(groups, return_inverse=True)
    return np.random.default_rng(0).permutation(len(names))[number] < len(names) / 2


if __name__ == "__main__":
    cli.run(main)
