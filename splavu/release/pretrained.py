"""Trained anonymizers to hand on: `splavu.Anonymizer`, and folders that hold one with its model card.

    import splavu
    anonymizer = splavu.Anonymizer.from_pretrained("saved_models/RUN/model_temp.pth")
    released = anonymizer.transform(features)        # [N, D] -> [N, D] float32, each row as if it came alone
    anonymizer.save_pretrained("my-anonymizer", audit="audit/evidence.json")

Note: `fit` trains nothing. It is there because scikit-learn calls it in a Pipeline; the anonymizer was trained before,
on features of other subjects.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_array

from splavu import anonymizers
from splavu._version import __version__
from splavu.anonymizers import build_anonymizer
from splavu.anonymizers.fitted_to import FittedTo
from splavu.anonymizers.loading import load_anonymizer, weights_hash
from splavu.errors import UserError
from splavu.release.anonymize import refuse_mixing
from splavu.release.model_card import Audit, model_card, read_audit
from splavu.release.serving import serve_rows
from splavu.runtime import extras
from splavu.runtime.checkpoints import load_into, understood
from splavu.runtime.environment import pick_device
from splavu.runtime.files import write_bytes

CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "README.md"
MAP_FILE = "fitted_features.safetensors"
"""Where the features lie that it was fitted to (`fitted_to.FeatureMap`); not which clips they were."""
FORMAT_VERSION = 1
CHUNK_ROWS = 4096
"""Rows of `transform` handed over at once."""

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


class Anonymizer(TransformerMixin, BaseEstimator):
    """A trained anonymizer as scikit-learn takes transformers: arrays in, arrays out.

    Args:
        network: What `from_pretrained` loads.
        device: Where it computes: 'auto', 'cpu', 'cuda', ...
    """

    def __init__(self, network: anonymizers.Anonymizer, device: str = "cpu") -> None:
        self.network = network
        self.device = device

    @classmethod
    def from_pretrained(
        cls,
        path_or_hub: str | os.PathLike[str],
        *,
        revision: str | None = None,
        device: str = "cpu",
        num_heads: int = 8,
    ) -> Anonymizer:
        """The anonymizer of a folder of `save_pretrained`, a training checkpoint, or a repository of the hub.

        Args:
            path_or_hub: Folder, file, or `owner/name`.
            revision: Of the hub's repository.
            device: Where to compute.
            num_heads: For published checkpoints, which don't say.

        Raises:
            UserError: There is no such thing; its weights aren't those its config names; it attends over the batch, so
                that a feature has no anonymized value of its own.
        """
        network = load_pretrained(path_or_hub, revision=revision, num_heads=num_heads)
        refuse_mixing(network)
        return cls(network, device=device)

    def save_pretrained(
        self, folder: str | os.PathLike[str], *, audit: str | os.PathLike[str] | None = None, name: str | None = None
    ) -> Path:
        """Write `folder` with weights (safetensors), config and model card; files that are there are replaced.

        Args:
            folder: Made as needed.
            audit: `evidence.json` of an audit of this anonymizer; without one the card says 'not audited'.
            name: Title of the card; the folder's name by default.

        Raises:
            UserError: safetensors is missing; the evidence can't be read or is of another anonymizer.
        """
        save, _ = _safetensors(folder)
        refuse_mixing(self.network)
        folder = Path(folder)
        found: Audit | None = None if audit is None else read_audit(audit, weights=self.sha256)
        config = {
            "format_version": FORMAT_VERSION,
            "architecture": self.architecture,
            "weights_sha256": self.sha256,
            "splavu_version": __version__,
        }
        state = {key: value.detach().cpu().contiguous().clone() for key, value in self.network.state_dict().items()}
        folder.mkdir(parents=True, exist_ok=True)
        card = model_card(name or folder.resolve().name, self.architecture, self.sha256, found)
        for file, content in (
            (WEIGHTS_FILE, save(state, metadata={"format": "pt"})),
            (CARD_FILE, card.encode()),
            (CONFIG_FILE, (json.dumps(config, indent=2) + "\n").encode()),
        ):
            write_bytes(folder / file, content)
        if (fitted_to := self.network.fitted_to) is not None and fitted_to.map is not None:
            write_bytes(folder / MAP_FILE, save(fitted_to.map.tensors, metadata={"format": "pt"}))
        return folder

    @property
    def architecture(self) -> dict[str, Any]:
        """What it is: name and constructor's arguments, `feature_dim` among them."""
        return self.network.architecture

    @property
    def sha256(self) -> str:
        """Of its weights, as released stores record it (`anonymizer_sha256`)."""
        return weights_hash(self.network)

    @property
    def n_features_in_(self) -> int:
        """D."""
        return self.architecture["feature_dim"]

    def fit(self, X: object = None, y: object = None) -> Anonymizer:
        """Nothing: it is trained already."""
        return self

    def transform(self, X: Any) -> np.ndarray:  # [N, D] -> [N, D] float32
        """Each row anonymized as if it came alone, on the features' own scale: no bit depends on the other rows.

        Raises:
            ValueError: X isn't [N, D], or holds values that are not finite.
        """
        features = check_array(X, dtype="float32", order="C")
        if features.shape[1] != self.n_features_in_:
            raise ValueError(
                f"X has {features.shape[1]} features, but this anonymizer takes the {self.n_features_in_} of the "
                "encoder it was trained for"
            )
        device = pick_device(self.device)
        network = self.network.to(device).eval()
        chunks = (features[start : start + CHUNK_ROWS] for start in range(0, len(features), CHUNK_ROWS))
        return np.concatenate(list(serve_rows(chunks, network, device=device)))

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:
        """`anonymized0`, `anonymized1`, ...: an anonymized dimension isn't the input's dimension of that number."""
        return np.array([f"anonymized{index}" for index in range(self.n_features_in_)], dtype=object)

    def __sklearn_is_fitted__(self) -> bool:
        return True


def load_pretrained(
    path_or_hub: str | os.PathLike[str], *, revision: str | None = None, num_heads: int = 8
) -> anonymizers.Anonymizer:
    """The network that `Anonymizer.from_pretrained` wraps; one that attends over the batch too.

    Raises:
        UserError: See there.
    """
    path = Path(path_or_hub)
    if path.is_dir():
        return _read_folder(path)
    if not path.exists() and path.suffix not in (".pth", ".pt") and _HUB_NAME.fullmatch(str(path_or_hub)):
        return _read_folder(_from_hub(str(path_or_hub), revision))
    return load_anonymizer(path, num_heads=num_heads)


def _read_folder(folder: Path) -> anonymizers.Anonymizer:
    if not (folder / CONFIG_FILE).is_file():
        checkpoints = sorted(folder.glob("*.pth"))
        remedy = f"give the checkpoint itself, {checkpoints[0]}" if checkpoints else "give one of save_pretrained"
        raise UserError(folder, f"holds no {CONFIG_FILE}", remedy)
    _, load = _safetensors(folder)
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        architecture = dict(config["architecture"])
        version, recorded = config["format_version"], config["weights_sha256"]
        arch, width = architecture.pop("arch"), architecture.pop("feature_dim")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(folder / CONFIG_FILE, f"is no config of an anonymizer ({error!r})", "get it again") from error
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise UserError(folder / CONFIG_FILE, f"has format {version}, newer than this package's", "update splavu")
    try:
        state = load((folder / WEIGHTS_FILE).read_bytes())
    except Exception as error:  # safetensors raises its own kind, which has no name in common with others
        raise UserError(folder / WEIGHTS_FILE, f"can't be read ({error})", "get it again") from error
    with understood(folder / CONFIG_FILE):
        network = build_anonymizer(arch, width, **architecture)
    load_into(network, state, folder / WEIGHTS_FILE)
    if weights_hash(network) != recorded:
        raise UserError(folder / WEIGHTS_FILE, f"holds other weights than {CONFIG_FILE} names", "get both again")
    if (folder / MAP_FILE).is_file():
        try:
            network.fitted_to = FittedTo.of_map(load((folder / MAP_FILE).read_bytes()))
        except Exception as error:
            raise UserError(folder / MAP_FILE, f"can't be read ({error!r})", "get it again, or remove it") from error
    return network


def _from_hub(name: str, revision: str | None) -> Path:
    extras.require("huggingface_hub", extra="hub", why="what is no file here comes from the hub", culprit=name)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

    disable_progress_bars()
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=[CONFIG_FILE, WEIGHTS_FILE, MAP_FILE]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(
            name,
            f"is no file or folder here, and can't be had from the hub ({reason})",
            "check the name, or the network",
        ) from error
    finally:
        enable_progress_bars()


def _safetensors(culprit: object) -> tuple[Any, Any]:
    safetensors = extras.require("safetensors.torch", extra="hub", why="weights are kept in it", culprit=culprit)
    return safetensors.save, safetensors.load
