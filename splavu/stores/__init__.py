"""Feature stores: key -> float32 array, read from HDF5 files and folders of .npy, written so that a kill loses nothing.

Nobody else opens one. What a reader would get wrong: a finished store is never changed in place. `StoreWriter` keeps
each item in a journal folder, `<path>.partial/`, and puts the whole file under its name in one move at the end; so a
store that exists is complete, can be read without locks, and a run that was killed goes on where it stopped.

Letters: K clips of one video, T time steps of a long video, N crops, D feature width.
"""

from splavu.stores.folder import CHECKSUMS_FILE, NPY_ERRORS, FeatureFolder, FolderWriter, write_npy
from splavu.stores.formats import open_features
from splavu.stores.hdf5 import HDF5_ERRORS, FeatureStore
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
