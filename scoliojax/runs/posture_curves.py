"""Curves of a posture over the walk, and its numbers for a page."""

import io

import numpy as np
from matplotlib.figure import Figure

from scoliojax.runs.posture import Posture
from scoliojax.scores.figures import new_figure, stamp

GROUPS = (  # measures with a panel in common, and the panel's label
    (("shoulder line", "pelvis line", "trunk lean"), "degrees"),
    (("lateral shift",), "% of height"),
    (("arm swing left", "arm swing right"), "% of height"),
    (("cadence",), "steps a minute"),
    (("step symmetry",), "% of stride"),
)
COLOURS = ("#0072b2", "#cc3311", "#333333")
STYLES = ("-", "--", ":")
HANDS = {"arm swing left": "left wrist above shoulder", "arm swing right": "right wrist above shoulder"}  # their curves


def draw_curves(found: Posture) -> Figure:
    """A panel for each group of measures over the walk: what each frame shows, and medians; gaps where nothing is seen."""
    walk = found.walk
    position = walk.frames if walk.times is None else walk.times
    measures = {measure.name: measure for measure in found.measures}
    groups = [(names, unit) for names, unit in GROUPS if any(np.isfinite(measures[name].curve).any() for name in names)]
    figure, panels = new_figure(9.4, 1.0 + 1.75 * len(groups), len(groups), sharex=True, squeeze=False)
    for axes, (names, unit) in zip(panels[:, 0], groups, strict=True):
        for name, colour, style in zip(names, COLOURS, STYLES, strict=False):
            axes.plot(position, measures[name].curve, style, color=colour, linewidth=1.3, label=HANDS.get(name, name))
            if name not in HANDS and np.isfinite(measures[name].median):
                axes.axhline(measures[name].median, color=colour, linewidth=0.7, alpha=0.6)
        low, high = axes.get_ylim()
        if high - low < 2:  # no tremble of a tenth as high as the panel
            middle = (low + high) / 2
            axes.set_ylim(middle - 1, middle + 1)
        axes.set_ylabel(unit, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.legend(frameon=False, fontsize=8, ncols=len(names), loc="lower left", bbox_to_anchor=(0.0, 1.0), borderaxespad=0.1)
    panels[-1, 0].set_xlabel("frame" if walk.times is None else "time (s)", fontsize=9)
    return stamp(figure, bool(walk.source.get("synthetic")), "thin lines: medians")


def curves_png(found: Posture) -> bytes:
    """The curves as the content of a PNG file, which does not grow with the length of the walk."""
    content = io.BytesIO()
    draw_curves(found).savefig(content, format="png", dpi=150, metadata={"Software": None})
    return content.getvalue()


def number(value: float | None, sign: bool = False) -> str:
    """A number of a page, with the digit after the point that two cameras can agree on, and with its sign if it has one."""
    if value is None:
        return "unknown"
    return f"{value + 0.0:{'+' if sign else ''}.1f}".replace("-0.0", "0.0").replace("+0.0", "0.0")
