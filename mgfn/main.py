"""Train and test: frame-level AUC of a test list from training videos of which only "normal" or "abnormal" is known.

    python mgfn/main.py --rgb-list LIST --test-rgb-list LIST --gt GT --features FOLDER

The last line gives the figure of the epoch that validation videos chose. The line before it gives the best test
epoch's, which is what the literature reports and is too high, since the test set chose it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from mgfn.errors import leave
from mgfn.frame_scores import HEADLINES, table
from mgfn.option import parse
from mgfn.runs import Run, start
from mgfn.test import test
from mgfn.train import run_training


def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv, description=__doc__.splitlines()[0])
    options.required("rgb_list", "test_rgb_list", "gt", "features")
    start(options)
    trained, test_set = run_training(options)
    run = Run(options)
    rows = test(trained.model, test_set, run, options)
    result = {
        "aam": options.aam,
        "aam_serving": options.aam_serving if options.aam else None,
        "chosen": trained.chosen,
        "best_test_epoch": trained.best_test,
        **dataclasses.asdict(rows["overall"]),
    }
    run.write_json("results.json", {"ad": result})
    print(table(rows))
    print(f"\nrun: {run.path}")
    name, label = HEADLINES[options.datasetname]
    if trained.best_test is not None:
        best = trained.best_test
        print(
            f"best test epoch, as the literature reports it (chosen on the test set): "
            f"{label} {100 * best[name]:.1f} %, epoch {best['epoch']}"
        )
    how = "chosen on validation videos" if "auc" in trained.chosen else "the last one, nothing chosen"
    figure = getattr(rows["overall"], name)
    print(f"{label} {100 * figure:.1f} % (epoch {trained.chosen['epoch']}, {how})")


if __name__ == "__main__":
    leave(main)
