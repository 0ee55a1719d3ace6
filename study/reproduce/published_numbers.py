"""The paper's tables as data: which rows they have, what each row is, and the numbers that are known.

A row says what is done (`method`, `encoder`, `adapter`), so that the grid of `reproduce` and the printed numbers come
from one place. A number that is not here is printed as 'not given': the sources at hand don't say it.

Source of all numbers: Fioresi, Dave, Shah, "Privacy Beyond Pixels", ICLR 2026, arXiv 2511.08666, per cent.

Note: the rows of the ablations without numbers are this study's reading of what the paper varies; Table 2 is taken to
be the one on bias. Neither is confirmed by a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

Method = Literal["raw", "adapter", "pixels"]


@dataclass(frozen=True)
class PublishedRow:
    """One line of a published table."""

    name: str
    method: Method = "adapter"
    """raw features; an adapter trained for this row; or features of obfuscated videos, which have to be extracted."""
    encoder: str = "videoMAE"
    adapter: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of the adapter's training that differ from the default."""
    dataset: str | None = None
    """What is judged, where rows are data sets."""
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Column -> the published number."""


@dataclass(frozen=True)
class PublishedTable:
    """One published table."""

    title: str
    columns: tuple[str, ...]
    """Keys of `reproduction.COLUMNS`."""
    rows: tuple[PublishedRow, ...]
    note: str = ""


ABLATION = ("cmap", "cmap_released", "hmdb51", "thumos14", "ucf_crime")
"""Of an adapter: the paper's attacker, ours beside it, and utility."""
MAIN = ("cmap", "cmap_released", "k400", "ucf101", "thumos14", "ucf_crime")
VIDEOMAE = {"cmap": 49.92, "k400": 74.23, "ucf101": 96.11, "thumos14": 60.50, "ucf_crime": 85.08}
GAP = ("female", "male", "overall", "gap")


def _main(
    encoder: str, title: str, raw: tuple[float, ...], ours: tuple[float, ...]
) -> tuple[PublishedRow, PublishedRow]:
    names = ("cmap", "k400", "ucf101", "thumos14", "ucf_crime")
    return (
        PublishedRow(f"{title}, raw", "raw", encoder, numbers=dict(zip(names, raw, strict=True))),
        PublishedRow(f"{title}, SPLAVU", "adapter", encoder, numbers=dict(zip(names, ours, strict=True))),
    )


def _pixels(title: str, *numbers: float) -> PublishedRow:
    names = ("cmap", "ucf101", "thumos14", "ucf_crime")
    return PublishedRow(f"I3D, {title}", "pixels", "i3d", numbers=dict(zip(names, numbers, strict=True)))


TABLES: Mapping[str, PublishedTable] = MappingProxyType(
    {
        "table1": PublishedTable(
            "Privacy and utility, raw features against SPLAVU",
            MAIN,
            (
                *_main("i3d", "I3D", (63.64, 62.67, 90.30, 25.29, 77.68), (41.07, 62.11, 90.14, 24.92, 75.69)),
                *_main("videoMAE", "VideoMAE-B", (70.47, 74.86, 96.80, 60.82, 85.79), tuple(VIDEOMAE.values())),
                *_main("vjepa", "V-JEPA-H", (72.44, 77.03, 97.67, 66.66, 85.79), (51.42, 76.62, 97.54, 66.30, 84.81)),
                _pixels("downsample-2x", 55.64, 81.78, 16.94, 76.09),
                _pixels("downsample-4x", 52.84, 66.21, 15.72, 68.12),
                _pixels("blurring", 58.68, 83.90, 17.65, 75.69),
                _pixels("blackening", 56.36, 68.62, 15.72, 73.91),
                _pixels("VITA", 54.72, 75.83, 16.10, 73.74),
                _pixels("SPAct", 55.60, 75.77, 16.20, 73.93),
                _pixels("TeD-SPAD", 52.30, 76.64, 17.27, 74.81),
            ),
            "Pixel baselines take features of obfuscated videos (docs/pixel_baselines.md); they aren't run here.",
        ),
        "table2": PublishedTable(
            "Accuracy for women and for men",
            GAP,
            (
                PublishedRow("NTU-Bias-F, raw", "raw", dataset="ntu_bias_f",
                    numbers={"female": 46.78, "male": 56.20, "overall": 51.49, "gap": 9.42}),
                PublishedRow("NTU-Bias-F, SPLAVU", dataset="ntu_bias_f",
                    numbers={"female": 49.91, "male": 55.35, "overall": 52.63, "gap": 5.44}),
                PublishedRow("NTU-Bias-M, raw", "raw", dataset="ntu_bias_m", numbers={"gap": 5.00}),
                PublishedRow("NTU-Bias-M, SPLAVU", dataset="ntu_bias_m", numbers={"gap": 4.03}),
                PublishedRow("Toyota Smarthome, raw", "raw", dataset="tsh",
                    numbers={"female": 65.15, "male": 70.90, "overall": 67.02, "gap": 5.75}),
                PublishedRow("Toyota Smarthome, SPLAVU", dataset="tsh",
                    numbers={"female": 66.51, "male": 69.99, "overall": 67.64, "gap": 3.48}),
            ),
            "That the paper's Table 2 is this one is assumed. Which encoder the numbers are of is not given.",
        ),
        "table3": PublishedTable(
            "What the adapter is trained on",
            ABLATION,
            tuple(PublishedRow(name, adapter={"ar_dataset": name}) for name in ("k400", "hmdb51", "ucf101")),
            "The paper varies the training set; which sets is not given, these are the ones with static clips.",
        ),
        "table4": PublishedTable(
            "Which tasks the adapter is trained with",
            ABLATION,
            tuple(
                PublishedRow(
                    " + ".join(name for name, used in zip(("AR", "TAD", "AD"), tasks, strict=True) if used), adapter={
                    f"ft_{name}_loss_weight": used for name, used in zip(("ar", "tad", "ad"), tasks, strict=True)})
                for tasks in ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 1, 1))
            ),
        ),
        "table5": PublishedTable(
            "Which losses the adapter is trained with",
            ABLATION,
            (
                PublishedRow("all", numbers={name: VIDEOMAE[name] for name in ("cmap", "thumos14", "ucf_crime")}),
                PublishedRow("no L_T", adapter={f"ft_{name}_loss_weight": 0 for name in ("ar", "tad", "ad")},
                    numbers={"cmap": 45.12, "hmdb51": 4.71}),
                PublishedRow("no L_B", adapter={"fb_loss_weight": 0}, numbers={"cmap": 70.44}),
                PublishedRow("no L_LC", adapter={"fa_loss_weight": 0}, numbers={"cmap": 51.70, "thumos14": 3.81}),
            ),
            "The numbers of 'all' are Table 1's, of VideoMAE-B.",
        ),
        "table8": PublishedTable(
            "Architecture of the adapter",
            ABLATION,
            (
                *(PublishedRow(f"transformer, {n} blocks", adapter={"num_layers_fa": n}) for n in (1, 3, 5)),
                PublishedRow("mlp", adapter={"fa_arch": "mlp"}),
            ),
            "The paper compares both kinds; which depths is not given. 3 is its default.",
        ),
        "table9": PublishedTable(
            "Weight of latent consistency",
            ABLATION,
            tuple(
                PublishedRow(f"w_LC = {weight}", adapter={"fa_loss_weight": weight}) for weight in (0, 1, 10, 100, 1000)
            ),
        ),
        "table10": PublishedTable(
            "Heads of attention",
            ABLATION,
            tuple(PublishedRow(f"{heads} heads", adapter={"num_heads": heads}) for heads in (4, 8, 16)),
        ),
        "figure3": PublishedTable(
            "Privacy and utility on PA-HMDB51",
            ("pa_cmap", "pa_top1", "hypervolume"),
            (
                PublishedRow("raw", "raw", numbers={"pa_cmap": 69.9, "pa_top1": 80.19}),
                PublishedRow("SPLAVU", numbers={"pa_cmap": 62.6, "pa_top1": 84.47, "hypervolume": 68.33}),
                PublishedRow("SPLAVU, w_B = 0.1", adapter={"fb_loss_weight": 0.1}),
                PublishedRow("SPLAVU, w_B = 10", adapter={"fb_loss_weight": 10}),
            ),
            "Which points the paper's curve has is not given. Its normalised hypervolume, 0.6833, is of the whole "
            "curve; ours is of one point, the area that it dominates.",
        ),
        "gait": PublishedTable(
            "Recognising people by their walk, Casia-B",
            ("rank1",),
            (
                PublishedRow("raw", "raw", numbers={"rank1": 69.73}),
                PublishedRow("SPLAVU", numbers={"rank1": 53.45}),
                PublishedRow("SPLAVU without L_LC", adapter={"fa_loss_weight": 0}, numbers={"rank1": 26.67}),
            ),
            "Where in the paper this stands is not known.",
        ),
    }
)  # fmt: skip
