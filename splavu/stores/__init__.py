"""Feature stores: key -> float32 array, read from HDF5 files and folders of .npy, written so that no work is lost.

No other package opens a store.

Note: a finished store is never changed in place. Writers keep their items in a journal folder, `<path>.partial/`, and
give the complete store its name in one move at the end. So a store that exists is complete and can be read without
locks, and an interrupted run continues where it stopped.

Letters: K clips of one video, T time steps of a long video, N crops, D feature width.
"""

from splavu.stores.folder import CHECKSUMS_FILE, FeatureFolder, FolderWriter, write_npy
from splavu.stores.formats import open_features
from splavu.stores.hdf5 import FeatureStore
from splavu.stores.hdf5_contents import HDF5_ERRORS
from splavu.stores.npy_files import NPY_ERRORS
from splavu.stores.provenance import ATTRIBUTES_FILE, CHECKSUM_ATTRIBUTE, INFORMATIVE_ATTRIBUTES, Attributes, checksum
from splavu.stores.reader import FeatureReader
from splavu.stores.writer import StoreWriter

__all__ = [
    "ATTRIBUTES_FILE",
    "CHECKSUMS_FILE",
    "CHECKSUM_ATTRIBUTE",
    "HDF5_ERRORS",
    "INFORMATIVE_ATTRIBUTES",
    "NPY_ERRORS",
    "Attributes",
    "FeatureFolder",
    "FeatureReader",
    "FeatureStore",
    "FolderWriter",
    "StoreWriter",
    "checksum",
    "open_features",
    "write_npy",
]
