"""Raw features go in, released ones come out: each feature anonymized on its own, or each video as one sequence.

A store of clips is always released feature by feature. A folder of long videos may be released video by video, which is
what detectors were co-trained with; a feature then depends on its own video, never on another.
"""

from splavu.anonymizers.loading import load_anonymizer, weights_hash
from splavu.release.anonymize import Unit, anonymize_store, anonymize_table

__all__ = ["Unit", "anonymize_store", "anonymize_table", "load_anonymizer", "weights_hash"]
