"""What `import splavu` offers: `splavu.NAME` for each name of `splavu.__all__`.

    import splavu
    anonymizer = splavu.Anonymizer.from_pretrained("saved_models/RUN/model_temp.pth")
    released = anonymizer.transform(features)                       # [N, D] -> [N, D]
    splavu.anonymize_store("raw.h5", "released.h5", anonymizer.network)

    network = splavu.fit("pca", splavu.FitData(features), keep=64)  # a closed form, in seconds
    anonymizer = splavu.Anonymizer(network)

    table = splavu.read_private_table("labels.csv")
    inputs = splavu.read_inputs(["released.h5"], table, raw=["raw.h5"])
    evidence = splavu.examine(inputs, splavu.AuditOptions())        # an audit

Note: `import splavu` imports none of it; the first name that is used does, with torch and scikit-learn.
"""

from __future__ import annotations

from typing import Any

from splavu.anonymizers.apply import apply_to_array as apply_to_array
from splavu.anonymizers.base import Anonymizer as AnonymizerNetwork
from splavu.anonymizers.closed_form.fit_data import FitData as FitData
from splavu.anonymizers.closed_form.methods import METHODS
from splavu.anonymizers.loading import load_anonymizer as load_anonymizer
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
