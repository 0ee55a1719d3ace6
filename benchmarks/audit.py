"""What an audit costs: each family of attackers beside scikit-learn on the same rows, and a whole audit.

`python benchmarks/audit.py --released STORE ... --raw STORE ... --labels CSV [--aam CKPT] [--attributes LIST]`. One
thread; processor seconds, for a shared machine's clock says little. The plain version fits scikit-learn's classifier of
the same kind again for each attribute and for each setting that ours chooses from, on the same inputs, and keeps the
best by validation average precision. What `--whole` adds is `splavu audit --seeds 1 --workers 1 --ignore-names`.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import contextlib
import io
import itertools
import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.svm import LinearSVC

from splavu.attackers import ATTACKERS, SCALINGS
from splavu.attacks.rows import AttackData
from splavu.audit.inputs import read_inputs
from splavu.data.private_labels import read_private_table
from splavu.metrics import average_precision, average_precisions
from splavu.reports.markdown import markdown_table
from splavu.runtime import cli

PENALTIES = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)


def candidates(name: str, num_rows: int) -> Iterator[tuple[str | None, Any]]:
    """Scaling, None for none, and scikit-learn's classifier, for all that the family chooses from."""
    if name == "trees":
        yield None, HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=15, l2_regularization=1.0)
    for scaling, penalty in itertools.product(SCALINGS, PENALTIES if name in ("logistic", "svm") else ()):
        cost = 1 / (penalty * num_rows)
        yield scaling, LogisticRegression(C=cost) if name == "logistic" else LinearSVC(C=cost, dual=False)
    for scaling, count in itertools.product(SCALINGS, (5, 20, 80, 320) if name == "knn" else ()):
        yield scaling, KNeighborsClassifier(count, weights="distance", algorithm="brute")


def plain(name: str, data: AttackData) -> np.ndarray:  # -> [A] average precision on test subjects
    """The best of `candidates` for each attribute, trained one by one; trees are cut where validation peaks."""
    best, found = np.full(data.train.labels.shape[1], -1.0), np.full(data.train.labels.shape[1], np.nan)
    for scaling, model in candidates(name, len(data.train)):
        scale = SCALINGS[scaling](data.train.features) if scaling else torch.from_numpy
        train, held_out, test = (scale(rows.features).numpy() for rows in data.splits.values())
        for a, target in enumerate(data.train.labels.T):
            known = ~np.isnan(target)
            model.fit(train[known], target[known] > 0)
            if name == "trees":
                scores = list(zip(*(model.staged_decision_function(x) for x in (held_out, test)), strict=True))[4::5]
            elif name == "knn":
                scores = [tuple(model.predict_proba(x)[:, 1] for x in (held_out, test))]
            else:
                scores = [tuple(model.decision_function(x) for x in (held_out, test))]
            for validation, tested in scores:
                precision = average_precision(data.validation.labels[:, a], np.ravel(validation))
                if precision > best[a]:
                    best[a] = precision
                    found[a] = average_precision(data.test.labels[:, a], np.ravel(tested))
    return found


def ours(name: str, data: AttackData) -> np.ndarray:  # -> [A]
    attacker = ATTACKERS[name].build(seed=0, device="cpu")
    attacker.fit(data.train.features, data.train.labels, (data.validation.features, data.validation.labels))
    attacker.scores(data.validation.features)
    return average_precisions(data.test.labels, attacker.scores(data.test.features))


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Processor seconds of this process, and the result."""
    started = time.process_time()
    result = function(*arguments)
    return time.process_time() - started, result


def main() -> int:
    parser = cli.ArgumentParser(description=__doc__, prog="benchmarks/audit.py")
    parser.add_argument("--released", nargs="+", required=True)
    parser.add_argument("--raw", nargs="+", required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--attributes")
    parser.add_argument("--aam", type=Path)
    parser.add_argument("--families", default="logistic,svm,knn,trees,kernel,mlp,mlp_large")
    parser.add_argument("--whole", action="store_true", help="a whole audit, too")
    args = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(f"load {os.getloadavg()[0]:.1f}")
    table = read_private_table(args.labels, attributes=args.attributes)
    inputs = read_inputs(args.released, table, raw=args.raw, read_names=False)
    rows = []
    for kind, data in (("raw", inputs.raw), ("released", inputs.released)):
        for name in [name for name in args.families.split(",") if name]:
            seconds, precision = timed(ours, name, data)
            line = [kind, name, f"{seconds:.2f}", f"{100 * np.nanmean(precision):.1f}", "", "", ""]
            if next(candidates(name, 1), None) is not None:
                of_plain, precision = timed(plain, name, data)
                mean = f"{100 * np.nanmean(precision):.1f}"
                line[4:] = [f"{of_plain:.2f}", mean, f"{of_plain / seconds:.1f}"]
            rows.append(line)
            print(*line, flush=True)
    print(markdown_table(["rows", "family", "ours, s", "cMAP", "scikit-learn, s", "cMAP", "ratio"], rows))
    if args.whole:
        from splavu.__main__ import main as splavu

        words = ["audit", "--anyway", "--ignore-names", "--seeds", "1", "--workers", "1", "--labels", str(args.labels)]
        words += ["--released", *args.released, "--raw", *args.raw]
        words += ["--aam", str(args.aam)] if args.aam else []
        words += ["--attributes", args.attributes] if args.attributes else []
        with contextlib.redirect_stdout(io.StringIO()):
            seconds, _ = timed(splavu, words)
        print(f"whole audit: {seconds:.0f} s of processor time")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
