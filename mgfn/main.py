"""Train and test: frame-level AUC of a test list from training videos of which only "normal" or "abnormal" is known.

    python mgfn/main.py --rgb-list LIST --test-rgb-list LIST --gt GT --features FOLDER

The last line gives the figure of the epoch that validation videos chose. The line before it gives the best test
epoch's, which is what the literature reports and is too high, since the test set chose it.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import dataclasses
from collections.abc import Sequence

from mgfn.command_line import parse
from mgfn.errors import InputError
from mgfn.frame_scores import HEADLINES, table
from mgfn.runs import start
from mgfn.test import test
from mgfn.train import Run, TrainingOptions, train
from splavu.errors import as_user_errors
from splavu.runtime import cli
from splavu.runtime.distributed import refuse_several_processes


@as_user_errors(InputError)
def main(argv: Sequence[str] | None = None) -> None:
    options = parse(argv, description=__doc__.splitlines()[0], kind=TrainingOptions)
    options.required("rgb_list", "test_rgb_list", "gt", "features")
    start(options)
    refuse_several_processes("mgfn/main.py")
    chosen, trainer = train(options)
    run = Run(options)
    rows = test(trainer.evaluated, trainer.test_set, options)
    result = {
        "aam": options.aam,
        "aam_serving": options.aam_serving if options.aam else None,
        "chosen": {"epoch": chosen["epoch"], **({"auc": chosen["score"]} if trainer.score else {})},
        "best_test_epoch": trainer.best_test,
        **dataclasses.asdict(rows["overall"]),
    }
    run.write_json("results.json", {"ad": result})
    print(table(rows))
    print(f"\nrun: {run.path}")
    name, label = HEADLINES[options.datasetname]
    if (best := trainer.best_test) is not None:
        print(
            f"best test epoch, as the literature reports it (chosen on the test set): "
            f"{label} {100 * best[name]:.1f} %, epoch {best['epoch']}"
        )
    how = "chosen on validation videos" if trainer.score else "the last one, nothing chosen"
    figure = getattr(rows["overall"], name)
    print(f"{label} {100 * figure:.1f} % (epoch {chosen['epoch']}, {how})")


if __name__ == "__main__":
    cli.run(main)
