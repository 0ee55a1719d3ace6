"""The report's figures. Matplotlib is used through its objects: no global state, no display, imported when needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splavu.reports.plotting import ALONE, BATCH, CHANCE, RAW, canvas, saved
from splavu.runtime import extras

if TYPE_CHECKING:
    from splavu.reports.run_sections import Configuration


def _whiskers(found: Mapping[str, Any]) -> tuple[float, float, float]:
    """Average precision in per cent, and how far its interval reaches below and above; 0 where that is undefined."""
    ends = [found["ap"] if end is None else end for end in found["interval"]]
    return 100 * found["ap"], max(0.0, 100 * (found["ap"] - ends[0])), max(0.0, 100 * (ends[1] - found["ap"]))


def plane(configurations: Sequence[Configuration], path: Path) -> Path:
    """Utility over attack success, a panel a view: up and to the left is better."""
    views = sorted({view for c in configurations for view in c.privacy if c.top1 is not None}) or ["temporal"]
    figure, axes = canvas(5.2 * len(views), 4.2, len(views), sharey=True)
    for axis, view in zip(axes, views, strict=True):
        shown = [(c, c.top1) for c in configurations if view in c.privacy and c.top1 is not None]
        for place, (configuration, top1) in enumerate(shown):
            found = configuration.privacy[view]
            x, below, above = _whiskers(found)
            axis.errorbar(
                x, 100 * top1, xerr=[[below], [above]], fmt="os^Dv"[place % 5],
                markersize=9, color=configuration.colour, capsize=3, label=configuration.label,
            )  # fmt: skip
        if shown:
            axis.axvline(100 * shown[0][0].privacy[view]["chance"], color=CHANCE, linestyle="--", label="chance")
        axis.set_title(f"{view} clips")
        axis.set_xlabel("cMAP of the strongest attackers, % (less leaks less)")
        axis.legend(fontsize=7.5, frameon=False, loc="best")
    lowest = min((c.top1 for c in configurations if c.top1 is not None), default=0.0)
    axes[0].set_ylim(max(0.0, 100 * lowest - 20), 102)  # a wide scale: a video more or less shouldn't look like a drop
    axes[0].set_ylabel("action top-1 on unseen subjects, %")
    return saved(figure, path)


def leakage(result: Mapping[str, Any], path: Path) -> Path:
    """Raw against anonymized average precision by attribute, chance as a tick, a panel a view."""
    views = result["views"]
    figure, axes = canvas(7.2 * len(views), 4.2, len(views), sharey=True)
    for axis, (view, judged) in zip(axes, views.items(), strict=True):
        entries = [*judged["attributes"].items(), ("mean", judged["mean"])]
        for which, colour, shift in (("raw", RAW, -0.2), ("anonymized", ALONE, 0.2)):
            bars = [(place, entry[which]) for place, (_, entry) in enumerate(entries) if which in entry]
            bars = [(place, found) for place, found in bars if found["ap"] is not None]
            if bars:
                heights, *spans = zip(*(_whiskers(found) for _, found in bars), strict=True)
                axis.bar(
                    [place + shift for place, _ in bars], heights, 0.38, color=colour, label=which, yerr=spans,
                    error_kw={"elinewidth": 1, "capsize": 2, "ecolor": "#333333"},
                )  # fmt: skip
        for place, (_, entry) in enumerate(entries):
            if entry["chance"] is not None:
                label = "chance" if place == 0 else None
                axis.hlines(
                    100 * entry["chance"], place - 0.45, place + 0.45, color="#222222", linewidth=1.8, label=label
                )
        axis.set_xticks(range(len(entries)), [name.replace("_", "\n", 1) for name, _ in entries], fontsize=8)
        axis.set_ylim(0, 119)  # room for the legend above the bars
        axis.set_yticks(range(0, 101, 20))
        axis.set_title(f"{view} clips")
        axis.legend(fontsize=8.5, frameon=False, loc="upper right", ncols=3)
    axes[0].set_ylabel("average precision of the strongest attacker, %")
    return saved(figure, path)


def curves(histories: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> Path:
    """Every loss term by epoch, a panel a term, a line a run."""
    terms = sorted({name for history in histories.values() for record in history for name in record if "loss/" in name})
    terms = [name for name in terms if name.startswith("loss/")]
    figure, axes = canvas(2.8 * len(terms), 3.0, len(terms))
    colours = (RAW, ALONE, BATCH, CHANCE)
    for axis, term in zip(axes, terms, strict=True):
        for place, (name, history) in enumerate(histories.items()):
            points = [(record["step"] + 1, record[term]) for record in history if term in record]
            axis.plot(*zip(*points, strict=True), color=colours[place % 4], label=name) if points else None
        axis.set_title(term.removeprefix("loss/"))
        axis.set_xlabel("epoch")
    fullest = max(axes, key=lambda axis: len(axis.lines))
    fullest.legend(fontsize=8, frameon=False)
    return saved(figure, path)


def frames_of_world(data: Path, path: Path, *, num_videos: int = 4, num_frames: int = 8) -> Path | None:
    """Evenly spaced frames of a few videos, a video a row, with its action."""
    av = extras.require("av", extra="video", why="frames of the videos are read with it")
    actions = sorted(folder for folder in (data / "hmdb51/videos").glob("*") if folder.is_dir())
    chosen = actions[:: max(1, len(actions) // num_videos)][:num_videos]
    videos = [
        sorted(folder.glob("*.avi"))[place * 3 % max(1, len(list(folder.glob("*.avi"))))]
        for place, folder in enumerate(chosen)
    ]
    if not videos:
        return None
    figure, _ = canvas(1.75 * num_frames, 1.42 * len(videos))
    figure.clf()
    axes = figure.subplots(len(videos), num_frames, squeeze=False)
    for row, video in zip(axes, videos, strict=True):
        with av.open(str(video)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        for place, axis in enumerate(row):
            axis.imshow(frames[round(place * (len(frames) - 1) / (num_frames - 1))])
            axis.set_xticks([])
            axis.set_yticks([])
        row[0].set_ylabel(video.parent.name.replace("_", " "), fontsize=9)
    return saved(figure, path)
