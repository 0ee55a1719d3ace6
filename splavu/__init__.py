"""SPLAVU: train, apply and audit anonymizers on the features of a frozen video encoder."""

import importlib

from splavu._version import __version__

TYPE_CHECKING = False  # as in typing, which need not be imported for it
if TYPE_CHECKING:
    from splavu.api import (
        Anonymizer,
        AnonymizerNetwork,
        AuditOptions,
        Evidence,
        FeatureReader,
        FitData,
        SecretKeys,
        StoreWriter,
        UserError,
        anonymize_store,
        anonymize_table,
        apply_to_array,
        audit_arrays,
        average_precision,
        examine,
        fit,
        load_anonymizer,
        open_features,
        read_inputs,
        read_key_map,
        read_private_table,
    )

__all__ = [
    "Anonymizer",
    "AnonymizerNetwork",
    "AuditOptions",
    "Evidence",
    "FeatureReader",
    "FitData",
    "SecretKeys",
    "StoreWriter",
    "UserError",
    "__version__",
    "anonymize_store",
    "anonymize_table",
    "apply_to_array",
    "audit_arrays",
    "average_precision",
    "examine",
    "fit",
    "load_anonymizer",
    "open_features",
    "read_inputs",
    "read_key_map",
    "read_private_table",
]


def __getattr__(name: str) -> object:
    """A name of `splavu.api`, imported when it is first asked for: `import splavu` alone stays light."""
    if name in __all__:
        return getattr(importlib.import_module("splavu.api"), name)
    raise AttributeError(f"module 'splavu' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
