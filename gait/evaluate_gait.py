"""Can a person be recognised by their walk, from raw and from anonymized features?

Nothing is trained. Casia-B's normal walks 1 to 4 are the gallery of known people, all other walks are probes; a probe
ranks the gallery of other views than its own by cosine similarity. Printed and kept in results.json: rank-1 (is the
most similar one the same person?) and mean average precision, by walk (nm normal, bg with a bag, cl in a coat), by view
and as the mean over all probes, with 95% intervals clustered by subject, beside chance. Three comparisons: raw probes
with a raw gallery, anonymized with anonymized, and anonymized probes with a raw gallery, which is what an attacker with
old features would try.

A video's feature is the mean over its clips, each anonymized on its own. The same command with the same inputs prints
the stored result again.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import MinLen, Predicate

from gait.recognition import recognise
from gait.report import report_section
from splavu.anonymizers import Anonymizer
from splavu.anonymizers.apply import array_map
from splavu.anonymizers.loading import weights_hash
from splavu.attacks.release_protocol import finite
from splavu.errors import UserError
from splavu.runtime import cli, environment, params, run_folder
from splavu.runtime.progress import progress_bar
from splavu.runtime.schema import Count, Draws, unique
from splavu.stores import FeatureStore
from study import config
from study.datasets.catalog import casia_names
from study.datasets.loading import dataset_spec
from study.models import JudgedFeatures, feature_dim, load_adapter


@dataclass(frozen=True, kw_only=True)
class GaitParams(JudgedFeatures):
    """Parameters of a gait evaluation; see gait/params_gait.py."""

    splits: Annotated[tuple[str, ...], MinLen(1), Predicate(unique)] = ("train", "test")
    """Whose walkers take part; nothing is trained, so both halves of Casia-B may."""
    batch_size: Count = 1024
    """Clips anonymized at once; each as if it came alone."""
    num_resamples: Draws = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        for split in self.splits:
            dataset_spec("casia_b").check_split(split, name="splits")
        if self.anon and self.saved_fa_model is None:
            raise UserError("saved_fa_model", "is None, but anon = True", "name the checkpoint, or set anon = False")


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser(__doc__, default_params=Path(__file__).with_name("params_gait.py"))
    parser.add_argument("--force", action="store_true", help="evaluate again although this result is stored")
    args = parser.parse_args(argv)
    cli.start(args)
    p = params.load(args.params, GaitParams, args.set)
    device = environment.pick_device(args.device)
    anonymizer = load_adapter(p)
    if anonymizer is not None and anonymizer.attends_over == "batch":
        raise UserError(
            p.saved_fa_model,
            "was trained with batch_as_sequence: its output for a feature depends on its batch",
            "name one that was trained with batch_as_sequence = False",
        )
    clips = read_clips(p)
    said = casia_names(config.roots(p.data_root)[0] / dataset_spec("casia_b").folder, list(clips))

    run = run_folder.RunFolder(config.RUNS, p.run_id)
    inputs = {"anonymizer": anonymizer and weights_hash(anonymizer), "data": digest(clips)}

    def evaluate() -> dict[str, Any]:
        started = time.perf_counter()
        features = video_features(clips, anonymizer, p.batch_size, device)
        found = recognise(list(clips), features, num_resamples=p.num_resamples, said=said)
        return {**found, "num_resamples": p.num_resamples, "seconds": round(time.perf_counter() - started, 1)}

    result, stored = run.cached_result(p, inputs, evaluate, key="gait", table=report_section, force=args.force)
    if stored:
        print(f"stored result of {run.path} (--force evaluates again)\n")
    print(report_section(result))
    return 0


def read_clips(p: GaitParams) -> dict[str, np.ndarray]:  # video -> [K, D]
    """The raw features of every video of the splits.

    Raises:
        UserError: A store is missing or damaged, has another width, or holds names that are none of Casia-B's.
    """
    spec = dataset_spec("casia_b")
    data, features = config.roots(p.data_root)
    clips: dict[str, np.ndarray] = {}
    for split in p.splits:
        store = FeatureStore(spec.store_path(features, split, p.ft_arch), feature_dim=feature_dim(p))
        keys = spec.keys(data, split, store.keys())
        store.verify(keys)
        clips |= {key: np.atleast_2d(store[key]) for key in progress_bar(keys, desc=store.path.name, unit="video")}
    return clips


def video_features(
    clips: Mapping[str, np.ndarray], anonymizer: Anonymizer | None, batch_size: int, device: torch.device
) -> dict[str, np.ndarray]:  # -> name -> [V, D]
    """One feature per video: the mean over its clips, raw and (with an anonymizer) as released one at a time."""
    rows = np.concatenate(list(clips.values()))  # [sum K, D]
    counts = np.array([len(of_video) for of_video in clips.values()])
    served = {"raw": rows}
    if anonymizer is not None:
        served["anonymized"] = finite(array_map(anonymizer, batch_size=batch_size, device=device))(rows)
    starts = np.cumsum(counts) - counts
    sums = {name: np.add.reduceat(found, starts, axis=0, dtype=np.float64) for name, found in served.items()}
    return {name: total / counts[:, None] for name, total in sums.items()}


def digest(clips: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of everything the evaluation reads."""
    found = hashlib.sha256()
    for key, features in clips.items():
        found.update(f"{key}/{features.shape}\n".encode())
        found.update(features.tobytes())
    return found.hexdigest()


if __name__ == "__main__":
    cli.run(main)
