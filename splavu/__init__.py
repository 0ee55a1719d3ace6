"""SPLAVU: train, apply and audit anonymizers on the features of a frozen video encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from splavu.pretrained import Anonymizer

__version__ = "0.1.0"
__all__ = ["Anonymizer", "__version__"]


def __getattr__(name: str) -> object:
    """`splavu.Anonymizer`, imported when it is first asked for: `import splavu` alone stays light."""
    if name == "Anonymizer":
        from splavu.pretrained import Anonymizer

        return Anonymizer
    raise AttributeError(f"module 'splavu' has no attribute '{name}'")
