"""Values of a figure's points for who points at them: names in its SVG, which browsers show, and its axes as data.

A script in the page (hover.js) finds the nearest point of a named series and computes its values from the axes.
"""

import json
import re
from html import escape
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

SERIES, VALUES = "series ", "values"  # ids that matplotlib writes, replaced in the SVG


def named_series(artist: Artist, name: str) -> None:
    """Name a line or its points."""
    artist.set_gid(SERIES + name)


def with_values(axis: Axes) -> None:
    """Let the values of points in a panel be shown beside their series' name."""
    axis.set_gid(VALUES)


def annotate(svg: str, figure: Figure) -> str:
    """Put the names of series, and the axes of panels with values, into the SVG of a figure that was just saved."""
    svg = re.sub(rf'<g id="{SERIES}([^"]*)">', r'<g class="series"><title>\1</title>', svg)
    axes = iter([axis for axis in figure.axes if axis.get_gid() == VALUES])
    return re.sub(rf'<g id="{VALUES}">', lambda _: f'<g data-axes="{escape(json.dumps(_axes(next(axes))))}">', svg)


def _axes(axis: Axes) -> list[dict[str, Any]]:
    """-> x and y: name, limits, where these are in the SVG, in points, and whether the scale is logarithmic."""
    width, height = 72 * axis.figure.get_size_inches()  # type: ignore[union-attr]
    box = axis.get_position()
    places = (box.x0 * width, box.x1 * width), ((1 - box.y0) * height, (1 - box.y1) * height)
    return [
        {
            "name": side.get_label_text(),
            "ends": [float(end) for end in side.get_view_interval()],
            "at": [float(place) for place in at],
            "log": side.get_scale() == "log",
        }
        for side, at in zip((axis.xaxis, axis.yaxis), places, strict=True)
    ]
