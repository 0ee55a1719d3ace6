"""A store read once from beginning to end, with each feature checked: what a release is made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from splavu.stores.reader import FeatureReader

Header = tuple[str, tuple[int, ...]]
"""Key and shape."""


class Scan:
    """All features of a store.

    Args:
        store: An open store of the expected width.
        order: All of its keys, in the order to read them in; None takes them sorted.

    Attributes:
        headers: Key and shape of each.

    Raises:
        UserError: A key doesn't hold floats, is empty, or has another width.
    """

    def __init__(self, store: FeatureReader, *, order: Sequence[str] | None = None) -> None:
        self.store = store
        keys = store.keys() if order is None else order
        self.headers = [(key, store.check_header(key, *store.header(key))) for key in keys]

    def features(self, start: int = 0) -> Iterator[np.ndarray]:
        """The arrays of `headers[start:]`, as stored.

        Raises:
            UserError: One can't be read, holds values that are not finite, or isn't what was written.
        """
        for key, _ in self.headers[start:]:
            yield self.store.verified(key, checksums=True)
