"""What released names reveal, kept and under secret keys: `python benchmarks/released_names.py --data data/demo`.

No feature is read but for the number of a video's clips. Attackers of the audit's threat model "names" are trained on
the names of training subjects, chosen on validation subjects and tested on test subjects. Sets of few subjects have
their subjects dealt again.

grouping    the part of the name that is one in all videos of a subject, and its precision and recall over pairs of
            test videos
AP          of each private attribute, by the strongest attackers; the attributes at 100 % are counted
p           share of exchanges of test subjects' labels that reach the mean AP

Sets whose names say who or what is in a video: HMDB51, NTU RGB+D, Casia-B, Toyota Smarthome, in the layouts of the
synthetic world (bash run_demo.sh --full and bash run_protocols.sh make it).
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import dataclasses
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from splavu import metrics
from splavu.attacks.campaign import Campaign
from splavu.audit.attributes.names import FAMILIES, Names, names_alone
from splavu.audit.evaluator import AttackScore, Evaluator
from splavu.audit.inputs import AuditInputs, ReleasedKey, read_inputs
from splavu.data.key_map import keyed_hash
from splavu.data.labels import VISPR_ATTRIBUTES
from splavu.data.private_labels import read_private_table
from splavu.reports.markdown import markdown_table
from splavu.runtime import cli
from splavu.runtime.progress import progress_bar

SETS = ("hmdb", "ntu", "casia_b", "tsh")
FOLDERS = {"hmdb": "hmdb51"}


def secret(keys: Mapping[str, ReleasedKey]) -> dict[str, ReleasedKey]:
    """The same keys as `anonymize --keys secret` releases them: renamed by a keyed hash, in the order of the hashes."""
    key = secrets.token_bytes(32)
    names = {video: keyed_hash(one.name, key) for video, one in keys.items()}
    place = {name: number / max(1, len(names) - 1) for number, name in enumerate(sorted(names.values()))}
    return {
        video: dataclasses.replace(keys[video], name=name, place=place[name], attributes=())
        for video, name in names.items()
    }


def judged(inputs: AuditInputs, keys: Mapping[str, ReleasedKey]) -> list[str]:
    """Cells of one line: grouping, precision and recall; mean AP, chance and p; attributes known fully."""
    names = Names.of(keys, inputs.released)
    with progress_bar(desc="names", unit="fit") as progress:
        campaign = Campaign(FAMILIES, (0,), 20_000, "row", "cpu", progress)
        attack = names_alone(names, inputs.released, campaign)
    prior = metrics.prevalences(inputs.released.train.labels)
    score = AttackScore.of(attack, Evaluator(inputs.questions, prior, num_resamples=300, num_swaps=1000, margin=0.05))
    found, known = names.record(), ~np.isnan(score.precision)
    pairs = "-" if found["grouping"] is None else f"{100 * found['precision']:.0f}, {100 * found['recall']:.0f}"
    low, high = metrics.percentile_interval(metrics.mean_known(score.drawn))
    mean, chance = (100 * float(metrics.mean_known(values)) for values in (score.precision, score.chance))
    return [
        str(found["grouping"] or "none"),
        pairs,
        f"{mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]",
        f"{chance:.1f}",
        f"{score.mean_p:.3f}",
        f"{int(np.sum(score.precision[known] > 0.9995))} of {int(known.sum())}",
    ]


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the synthetic world, with features/")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    lines = []
    for name in SETS:
        stores = sorted((args.data / "features").glob(f"features_{name}_*_demo.h5"))
        labels = args.data / FOLDERS.get(name, name) / "private_labels.csv"
        table = read_private_table(labels, attributes=",".join(VISPR_ATTRIBUTES))
        if "val" not in (table.splits or ()):
            table = dataclasses.replace(table, splits=None)
        inputs = read_inputs(stores, table)
        for kind, keys in (("kept", inputs.keys), ("secret", secret(inputs.keys))):
            lines.append([name, kind, *judged(inputs, keys)])
    header = ["set", "keys", "names group by", "precision, recall", "mean AP [95 %]", "chance", "p", "AP of 100 %"]
    print(markdown_table(header, lines))
    return 0


if __name__ == "__main__":
    cli.run(main)
