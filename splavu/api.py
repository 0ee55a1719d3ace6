"""What `import splavu` offers: `splavu.NAME` for each name of `splavu.__all__`.

    import splavu
    anonymizer = splavu.Anonymizer.from_pretrained("saved_models/RUN/model_temp.pth")
    released = anonymizer.transform(features)                       # [N, D] -> [N, D]
    splavu.anonymize_store("raw.h5", "released.h5", anonymizer.network)

    anonymizer = splavu.Anonymizer(method="eraser", rank=32)         # a closed form, as scikit-learn takes it
    released = anonymizer.fit(features, actions, static=static).transform(others)
    evidence = splavu.audit_arrays(others, released, {"tall": tall}, subjects)
    print(evidence.headline.sentence)

    network = splavu.fit("pca", splavu.FitData(features), keep=64)   # the network alone

    table = splavu.read_private_table("labels.csv")
    inputs = splavu.read_inputs(["released.h5"], table, raw=["raw.h5"])
    evidence = splavu.examine(inputs, splavu.AuditOptions())        # an audit

Note: `import splavu` imports none of it; the first name that is used does, with torch and scikit-learn.
"""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import ArrayLike

from splavu.anonymizers.apply import apply_to_array as apply_to_array
from splavu.anonymizers.base import Anonymizer as AnonymizerNetwork
from splavu.anonymizers.closed_form.fit_data import FitData as FitData
from splavu.anonymizers.closed_form.methods import METHODS
from splavu.anonymizers.loading import load_anonymizer as load_anonymizer
from splavu.audit.evidence import Evidence as Evidence
from splavu.audit.inputs import array_inputs
from splavu.audit.inputs import read_inputs as read_inputs
from splavu.audit.run import AuditOptions as AuditOptions
from splavu.audit.run import examine as examine
from splavu.data.key_map import read_key_map as read_key_map
from splavu.data.private_labels import read_private_table as read_private_table
from splavu.errors import UserError as UserError
from splavu.errors import nearest
from splavu.metrics import average_precision as average_precision
from splavu.release.anonymize import SecretKeys as SecretKeys
from splavu.release.anonymize import anonymize_store as anonymize_store
from splavu.release.anonymize import anonymize_table as anonymize_table
from splavu.release.pretrained import Anonymizer as Anonymizer
from splavu.stores import FeatureReader as FeatureReader
from splavu.stores import StoreWriter as StoreWriter
from splavu.stores import open_features as open_features


def fit(method: str, data: FitData, *, seed: int | None = None, **options: Any) -> AnonymizerNetwork:
    """Fit an anonymizer in closed form, as `splavu fit METHOD` does.

    Args:
        method: Name of a closed form: 'eraser', 'leace', 'pca', 'quantizer', ...
        data: Features of training subjects, and what the method reads beside them.
        seed: Of draws; of noise a secret key, drawn at random if it is None.
        options: The method's own, as `splavu fit --help` lists them.

    Raises:
        UserError: The method or an option is unknown, missing or out of range, or the data lacks something.
    """
    if method not in METHODS:
        raise UserError("method", f"'{method}' is not a closed form", nearest(method, METHODS))
    form = METHODS[method]
    return form.fitted(data, form.read(options), seed=seed)


def audit_arrays(
    raw: ArrayLike | None,
    released: ArrayLike,
    labels: Any,
    subjects: ArrayLike,
    *,
    videos: ArrayLike | None = None,
    splits: ArrayLike | None = None,
    anonymizer: Anonymizer | AnonymizerNetwork | None = None,
    options: AuditOptions | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    workers: int = 1,
) -> Evidence:  # [N, D], [N, D], columns of [N], [N]
    """Audit released features as `splavu audit` does, in arrays of a row a clip; `.headline.sentence` is the result.

    Args:
        raw: Features; None leaves out the leakage removed.
        released: What was made of them, row by row.
        labels: Private attributes: column -> [N] (a dictionary, a DataFrame), or [N] or [N, A]; NaN for unknown. The
            clips of a video have the same.
        subjects: Who is in each row: attackers are trained on some, tuned on others, and tested on the others.
        videos: The video of each row; None takes each row for a video of its own.
        splits: 'train', 'val' or 'test' of each row, so that subjects whom the anonymizer was fitted to aren't tested
            on; None deals subjects.
        anonymizer: What `released` was made with: attackers then use it too.
        options: How thorough; None is the command's default. `AuditOptions.quickly()` is a first look.
        seed: Of the dealing of subjects.
        device: Where attackers compute.
        workers: Processes that train attackers, on a CPU.

    Raises:
        UserError: An array has other rows than `released`, a value isn't finite, labels change within a video, or the
            subjects are too few.
    """
    inputs = array_inputs(raw, released, labels, subjects, videos=videos, splits=splits, seed=seed)
    network = anonymizer.network_ if isinstance(anonymizer, Anonymizer) else anonymizer
    return examine(inputs, options or AuditOptions(), anonymizer=network, device=device, workers=workers)
