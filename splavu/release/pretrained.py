"""Anonymizers of arrays: `splavu.Anonymizer`, fitted here or trained before, and folders that hold one with its card.

    import splavu
    anonymizer = splavu.Anonymizer(method="eraser", rank=32).fit(features, actions, static=static)
    anonymizer = splavu.Anonymizer.from_pretrained("saved_models/RUN/model_temp.pth")
    released = anonymizer.transform(features)        # [N, D] -> [N, D] float32, each row as if it came alone
    anonymizer.save_pretrained("my-anonymizer", audit="audit/evidence.json")

Note: fit to training subjects, and transform others. An anonymizer that was trained before stays as it is: its `fit`
is there because scikit-learn calls it in a Pipeline.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_array

from splavu import anonymizers
from splavu._version import __version__
from splavu.anonymizers import build_anonymizer
from splavu.anonymizers.closed_form.fit_data import FitData
from splavu.anonymizers.closed_form.methods import METHODS
from splavu.anonymizers.fitted_to import FittedTo
from splavu.anonymizers.loading import load_anonymizer, weights_hash
from splavu.anonymizers.pipeline import Part, build_pipeline, parse, trained_part
from splavu.errors import UserError
from splavu.release.anonymize import refuse_mixing
from splavu.release.model_card import Audit, model_card, read_audit
from splavu.release.serving import serve_rows
from splavu.runtime import extras
from splavu.runtime.checkpoints import load_into, understood
from splavu.runtime.environment import pick_device
from splavu.runtime.files import write_bytes

if TYPE_CHECKING:  # since scikit-learn 1.6
    from sklearn.utils import Tags

CONFIG_FILE, WEIGHTS_FILE, CARD_FILE = "config.json", "model.safetensors", "README.md"
MAP_FILE = "fitted_features.safetensors"
"""Where the features lie that it was fitted to (`fitted_to.FeatureMap`); not which clips they were."""
FORMAT_VERSION = 1
CHUNK_ROWS = 4096
"""Rows of `transform` handed over at once."""

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


class Anonymizer(TransformerMixin, BaseEstimator):
    """An anonymizer as scikit-learn takes transformers: arrays in, arrays out.

    Args:
        network: One that is trained already; what `from_pretrained` loads.
        device: Where it computes: 'auto', 'cpu', 'cuda', ...
        method: In place of `network`, what `fit` fits: a closed form by name ('eraser', 'leace', 'pca', 'quantizer',
            ...), or a chain such as 'eraser(rank=32)+quantizer(bits=12)'.
        seed: Of the method's draws. Keys of noise are secrets, and are drawn at random.
        options: Of a single method, as `splavu fit --help` lists them: `rank=32`, `bits=12`. They are parameters like
            the others for `get_params`, `set_params`, `clone` and searches, and are checked when it is fitted.
    """

    def __init__(
        self,
        network: anonymizers.Anonymizer | None = None,
        device: str = "cpu",
        *,
        method: str | None = None,
        seed: int = 0,
        **options: Any,
    ) -> None:
        self.network = network
        self.device = device
        self.method = method
        self.seed = seed
        self._options = options

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's arguments, the method's options among them."""
        return super().get_params(deep) | self._options

    def set_params(self, **params: Any) -> Anonymizer:
        """Change arguments; a name that is none of the constructor's is an option of the method."""
        own = self._get_param_names()
        super().set_params(**{name: value for name, value in params.items() if name in own})
        self._options = self._options | {name: value for name, value in params.items() if name not in own}
        return self

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
        refuse_mixing(self.network_)
        folder = Path(folder)
        found: Audit | None = None if audit is None else read_audit(audit, weights=self.sha256)
        config = {
            "format_version": FORMAT_VERSION,
            "architecture": self.architecture,
            "weights_sha256": self.sha256,
            "splavu_version": __version__,
        }
        state = {key: value.detach().cpu().contiguous().clone() for key, value in self.network_.state_dict().items()}
        folder.mkdir(parents=True, exist_ok=True)
        card = model_card(name or folder.resolve().name, self.architecture, self.sha256, found)
        for file, content in (
            (WEIGHTS_FILE, save(state, metadata={"format": "pt"})),
            (CARD_FILE, card.encode()),
            (CONFIG_FILE, (json.dumps(config, indent=2) + "\n").encode()),
        ):
            write_bytes(folder / file, content)
        if (fitted_to := self.network_.fitted_to) is not None and fitted_to.map is not None:
            write_bytes(folder / MAP_FILE, save(fitted_to.map.tensors, metadata={"format": "pt"}))
        return folder

    @property
    def network_(self) -> anonymizers.Anonymizer:
        """The network: as it was fitted, or as it was given.

        Raises:
            NotFittedError: Neither.
        """
        made = self.network if self.method is None else getattr(self, "_made", None)
        if made is None:
            raise NotFittedError(f"this {type(self).__name__} is not fitted yet: call fit(X, ...) before")
        return made

    @property
    def architecture(self) -> dict[str, Any]:
        """What it is: name and constructor's arguments, `feature_dim` among them."""
        return self.network_.architecture

    @property
    def sha256(self) -> str:
        """Of its weights, as released stores record it (`anonymizer_sha256`)."""
        return weights_hash(self.network_)

    @property
    def n_features_in_(self) -> int:
        """D."""
        return self.architecture["feature_dim"]

    def fit(
        self,
        X: Any = None,
        y: Any = None,
        *,
        static: Any = None,
        subjects: Any = None,
        videos: Any = None,
        private: Any = None,
    ) -> Anonymizer:  # [N, D], [N], [N, D], [N], [N], [N] or [N, A]
        """Fit the method to clips of training subjects, a row each. A given network stays as it is.

        Args:
            X: Features.
            y: The action of each row, names or numbers.
            static: Static feature of each row's video, of the same encoder; a mean over its static clips.
            subjects: Who is in each row, so that codes stand for enough people; '' for unknown.
            videos: The video of each row; counts where subjects aren't given.
            private: Private attributes, 0 and 1, NaN for unknown.

        Raises:
            UserError: The method or an option is unknown, missing or out of range; an array has other rows than X, or
                is missing and the method is fitted to it; the data isn't enough.
            ValueError: X isn't [N, D], or holds values that are not finite.
        """
        if self.method is None:
            if self.network is None:
                raise UserError("method", "is missing, and no network is given", "name a closed form, such as 'eraser'")
            return self
        if self.network is not None:
            raise UserError("method", "is given, and a network too", "give one of the two")
        parts = self._parts()
        features = check_array(X, dtype="float32", order="C", ensure_min_samples=2)
        columns = {"y": y, "static": static, "subjects": subjects, "videos": videos, "private": private}
        read = {name: _column(name, value, len(features)) for name, value in columns.items()}
        if (still := read["static"]) is not None and still.shape != features.shape:
            raise UserError("static", f"has shape {still.shape}, X {features.shape}", "give a static feature a row")
        data = FitData(
            features,
            None if still is None else still.astype(np.float32),
            read["y"],
            None if read["private"] is None else read["private"].reshape(len(features), -1).astype(np.float32),
            read["videos"],
            subjects=None if read["subjects"] is None else read["subjects"].astype(str),
        )
        for part in parts:
            for need in METHODS[part.name].needs:
                if getattr(data, need) is None:
                    name = "y" if need == "classes" else need
                    raise UserError(name, f"is missing, and {part.name} is fitted to it", f"fit(X, {name}=...)")
        made = build_pipeline(parts, data, seed=self.seed).eval()
        made.fitted_to = data.fitted_to
        self._made = made
        return self

    def _parts(self) -> tuple[Part, ...]:
        """The method as a chain, its options checked."""
        try:
            parts = parse(str(self.method))
        except UserError as error:
            raise UserError("method", error.problem, error.remedy) from None
        if trained := trained_part(parts):
            raise UserError("method", f"'{trained}' is trained by gradient", "name closed forms; splavu fit lists them")
        if self._options and len(parts) > 1:
            name = next(iter(self._options))
            raise UserError(name, f"'{self.method}' has several parts", "write options into it, as 'eraser(rank=32)'")
        parts = tuple(replace(part, options={**part.options, **self._options}) for part in parts)
        for part in parts:
            METHODS[part.name].read(part.options)
        return parts

    def transform(self, X: Any) -> np.ndarray:  # [N, D] -> [N, D] float32
        """Each row anonymized as if it came alone, on the features' own scale: no bit depends on the other rows.

        Raises:
            ValueError: X isn't [N, D], or holds values that are not finite.
        """
        features = check_array(X, dtype="float32", order="C")
        if features.shape[1] != self.n_features_in_:
            raise ValueError(  # in scikit-learn's words
                f"X has {features.shape[1]} features, but {type(self).__name__} is expecting {self.n_features_in_} "
                "features as input, those of the encoder it was fitted for"
            )
        device = pick_device(self.device)
        network = self.network_.to(device).eval()
        chunks = (features[start : start + CHUNK_ROWS] for start in range(0, len(features), CHUNK_ROWS))
        return np.concatenate(list(serve_rows(chunks, network, device=device)))

    def get_feature_names_out(self, input_features: object = None) -> np.ndarray:
        """`anonymized0`, `anonymized1`, ...: an anonymized dimension isn't the input's dimension of that number."""
        return np.array([f"anonymized{index}" for index in range(self.n_features_in_)], dtype=object)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        assert tags.transformer_tags is not None, "it is a transformer"
        tags.transformer_tags.preserves_dtype = ["float32"]
        return tags

    def __sklearn_is_fitted__(self) -> bool:
        return self.network is not None if self.method is None else hasattr(self, "_made")


def _column(name: str, value: Any, count: int) -> np.ndarray | None:  # -> [N] or [N, ...]
    """An array beside X, checked to have its rows; y, subjects and videos as [N]."""
    if value is None:
        return None
    column = np.asarray(value)
    if name in ("y", "subjects", "videos") and column.ndim == 2 and column.shape[1] == 1:
        column = column[:, 0]
    most = 2 if name in ("static", "private") else 1
    if not 1 <= column.ndim <= most or len(column) != count:
        expected = f"[{count}]" if most == 1 else f"[{count}, ...]"
        raise UserError(name, f"has shape {column.shape}, expected {expected}: X has {count} rows", "give one a row")
    if name in ("static", "private") and not (np.issubdtype(column.dtype, np.number) or column.dtype == bool):
        raise UserError(name, f"holds {column.dtype}, expected numbers", "give an array of numbers")
    if name == "static" and not np.isfinite(column).all():
        raise UserError(name, "holds values that are not finite", "extract them again")
    return column


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
