"""Made-up videos in VP-HMDB51's layout: features a sum of action, five private attributes and noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from conftest import WIDTH

from splavu.stores import StoreWriter

ACTIONS = ("clap", "run", "wave")


def write_world(root: Path) -> None:
    """20 films to learn from and 10 to test on, three actions each, below `root`'s data/ and features/."""
    rng = np.random.default_rng(0)
    actions, attributes = rng.normal(size=(len(ACTIONS), WIDTH)), rng.normal(size=(5, WIDTH))
    labels: list[str] = ["filename,label"]
    for split, films in (("train", range(20)), ("test", range(20, 30))):
        classes = ["filename,label"]
        stores = [root / f"features/features_vp_hmdb_{split}_demo{tail}.h5" for tail in ("", "_fb10")]
        with (
            StoreWriter(stores[0], attributes={"encoder": "made up"}) as clips,
            StoreWriter(stores[1], attributes={"encoder": "made up"}) as static,
        ):
            for film in films:
                for action, name in enumerate(ACTIONS):
                    path = f"{name}/film{film}_{name}_f_cm_np1_fr_med_0.avi"
                    bits = rng.integers(0, 2, 5)
                    appearance = bits @ attributes
                    clips.add(path, actions[action] + appearance + rng.normal(size=(3, WIDTH)) * 0.3)
                    static.add(path, appearance + rng.normal(size=(10, WIDTH)) * 0.3)
                    labels.append(f'{path},"[{" ".join(f"{bit}." for bit in bits)}]"')
                    classes.append(f"{path.split('/')[1]},{action}")
        (root / "data/hmdb51").mkdir(parents=True, exist_ok=True)
        (root / f"data/hmdb51/hmdb51_{split}_labels.csv").write_text("\n".join(classes) + "\n")
    (root / "data/vp").mkdir()
    (root / "data/vp/vphmdb51_labels_num.csv").write_text("\n".join(labels) + "\n")
