"""Test a network: frame-level figures of a test list, overall and by class; on demand a plot a video.

    python mgfn/test.py --pretrained-ckpt CHECKPOINT --test-rgb-list LIST --gt GT --features FOLDER

Scores of snippets are repeated for their frames; figures are of frames, over all test videos together.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mgfn import runs
from mgfn.checkpoints import read_network
from mgfn.command_line import parse
from mgfn.data.sets import TestSet, anonymizer_of, open_test_set
from mgfn.frame_scores import HEADLINES, Figures, report, table
from mgfn.model import MGFN
from mgfn.option import Options
from mgfn.runs import pick_device, start, write_json, write_whole
from mgfn.scoring import score_all


def test(model: MGFN, test_set: TestSet, options: Options) -> dict[str, Figures]:
    """Test, write scores and figures to the folder `output/model_name`, and draw what is asked for."""
    run = Path(options.output) / options.model_name
    snippet_scores = score_all(model, test_set)
    scored = test_set.truth.scored(snippet_scores)
    rows = report(scored)
    named = {entry.name: scores for entry, scores in zip(test_set.videos.entries, snippet_scores, strict=True)}
    write_whole(run / "snippet_scores.npz", lambda file: np.savez(file, **named))
    write_json(run / "test.json", {name: dataclasses.asdict(row) for name, row in rows.items()})
    if options.plots:
        from mgfn.plots import draw_all

        folder = draw_all(scored, run / "plots", options.frames_per_snippet, videos=options.videos)
        print(f"plots: {folder}")
    return rows


test.__test__ = False


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv, description=__doc__.splitlines()[0])
    start(options)
    options.required("pretrained_ckpt")
    device = pick_device(options.device)
    model = read_network(options.pretrained_ckpt, mag_ratio=options.mag_ratio).to(device)
    test_set = open_test_set(
        options, feature_size=model.architecture.feature_size, anonymize=anonymizer_of(options, device)
    )
    rows = test(model, test_set, options)
    print(table(rows))
    name, label = HEADLINES[options.datasetname]
    print(f"{label} {100 * getattr(rows['overall'], name):.1f} % ({Path(options.pretrained_ckpt).name})")


if __name__ == "__main__":
    runs.run(main)
