"""SPLAVU: train, apply and audit anonymizers on the features of a frozen video encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from splavu._version import __version__

if TYPE_CHECKING:
    from splavu.release.pretrained import Anonymizer

__all__ = ["Anonymizer", "__version__"]


def __getattr__(name: str) -> object:
    """`splavu.Anonymizer`, imported when it is first asked for: `import splavu` alone stays light."""
    if name == "Anonymizer":
        from splavu.release.pretrained import Anonymizer

        return Anonymizer
    raise AttributeError(f"module 'splavu' has no attribute '{name}'")
