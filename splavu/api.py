"""What `import splavu` offers: `splavu.NAME` for each name of `__all__`.

    import splavu
    anonymizer = splavu.Anonymizer.from_pretrained("saved_models/RUN/model_temp.pth")
    released = anonymizer.transform(features)                            # [N, D] -> [N, D]
    splavu.anonymize_store("raw.h5", "released.h5", anonymizer.network)

Note: `import splavu` imports none of it; the first name that is used does, with torch and scikit-learn.
"""

from splavu.anonymizers.apply import apply_to_array
from splavu.anonymizers.loading import load_anonymizer
from splavu.errors import UserError
from splavu.metrics import average_precision
from splavu.release.anonymize import anonymize_store, anonymize_table
from splavu.release.pretrained import Anonymizer
from splavu.stores import FeatureReader, StoreWriter, open_features

__all__ = [
    "Anonymizer",
    "FeatureReader",
    "StoreWriter",
    "UserError",
    "anonymize_store",
    "anonymize_table",
    "apply_to_array",
    "average_precision",
    "load_anonymizer",
    "open_features",
]
