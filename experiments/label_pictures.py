"""Pictures of segments: a walk on a grid, a path through a maze, or numbers over time."""

import io
import threading
from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from prefs.feedback import Segments
from prefs.mdps import TabularMDP
from prefs.mdps.environment import Problem

_MOST_CURVES = 8
_CELL_COLOURS = {"goal": "#9fd39f", "hazard": "#f0a8a0"}


def grid_view(mdp: TabularMDP, columns: int) -> dict[str, Any]:
    """What provenance may keep as `view` so that a grid world is drawn as a grid.

    Cells are marked by the sign of what they pay beyond the most common reward: goals and hazards.

    Raises:
      ValueError: columns that do not divide the number of states.
    """
    if columns < 1 or mdp.num_states % columns:
        raise ValueError(f"{mdp.num_states} states are no grid of {columns} columns.")
    reward = np.asarray(mdp.reward, np.float64).mean(-1).round(6)
    values, counts = np.unique(reward, return_counts=True)
    usual = values[np.argmax(counts)]
    return {
        "kind": "grid",
        "columns": columns,
        "rows": mdp.num_states // columns,
        "goal": np.flatnonzero(reward > usual).tolist(),
        "hazard": np.flatnonzero(reward < usual).tolist(),
    }


def maze_view(problem: Problem) -> dict[str, Any]:
    """What provenance may keep as `view` so that a point maze is drawn as a maze."""
    walls = np.asarray(problem.params.walls)
    return {
        "kind": "maze",
        "walls": ["".join("#" if wall else "." for wall in row) for row in walls],
        "goals": np.asarray(problem.params.goals, np.float64).tolist(),
    }


class Pictures:
    """PNG images of segments, drawn when first asked for; safe to use from several threads."""

    def __init__(self, segments: Segments, view: Any = None):
        """Draw `segments` as `view` says, or as curves where it does not fit them."""
        self._length = segments.mask.shape[0]
        parts = {name: np.asarray(values) for name, values in vars(segments).items()}
        draw = _drawing(parts, view)
        lock = threading.Lock()  # matplotlib is not safe to use from two threads at once

        @lru_cache(maxsize=64)
        def png(number: int) -> bytes:
            with lock:
                figure = Figure(figsize=(5, 5), layout="constrained")
                steps = parts["mask"][number]
                seen = parts["observations"][number][steps]
                path = np.concatenate([seen, parts["next_observations"][number][steps][-1:]])
                draw(figure, path, parts["actions"][number][steps])
                buffer = io.BytesIO()
                figure.savefig(buffer, format="png", dpi=100)
            return buffer.getvalue()

        self._png = png

    def __len__(self) -> int:
        return self._length

    def png(self, number: int) -> bytes:
        """Picture of one segment, 500 x 500 pixels."""
        return self._png(number)


def _drawing(parts: dict[str, np.ndarray], view: Any):
    """The function (figure, path [T+1, ...], actions [T, ...]) that draws what `view` says."""
    seen = parts["observations"]
    kind = view.get("kind") if isinstance(view, dict) else None
    try:
        if kind == "grid" and seen.ndim == 2 and seen.dtype.kind in "iu":
            rows, columns = int(view["rows"]), int(view["columns"])
            shown = seen[parts["mask"]]
            if 0 <= shown.min() and shown.max() < rows * columns:
                cells = {name: [int(c) for c in view.get(name, ())] for name in _CELL_COLOURS}
                return lambda figure, path, _: _grid(figure, path, rows, columns, cells)
        if kind == "maze" and seen.ndim == 3 and seen.shape[-1] == 2:
            walls = np.array([[letter == "#" for letter in row] for row in view["walls"]])
            goals = np.asarray(view.get("goals", ()), float).reshape(-1, 2)
            return lambda figure, path, _: _maze(figure, path, walls, goals)
    except (KeyError, TypeError, ValueError):
        pass  # a view that is not understood: the numbers can always be shown
    return _curves


def _grid(
    figure: Figure, path: np.ndarray, rows: int, columns: int, cells: dict[str, list[int]]
) -> None:
    axes = figure.subplots()
    for name, colour in _CELL_COLOURS.items():
        for cell in cells[name]:
            row, column = divmod(cell, columns)
            axes.fill_between([column - 0.5, column + 0.5], row - 0.5, row + 0.5, color=colour)
            axes.text(column - 0.45, row - 0.42, name, size=7, va="top")
    axes.set_xticks(np.arange(columns + 1) - 0.5, [])
    axes.set_yticks(np.arange(rows + 1) - 0.5, [])
    axes.grid(color="#999999", linewidth=0.6)
    axes.tick_params(length=0)
    points = np.stack(divmod(path, columns), -1).astype(float)[:, ::-1]
    visits: dict[int, list[str]] = {}
    for time, cell in enumerate(path.tolist()):
        visits.setdefault(cell, []).append(str(time))
    _path(axes, points)
    for cell, times in visits.items():
        row, column = divmod(cell, columns)
        text = " ".join(times if len(times) < 6 else [*times[:4], "...", times[-1]])
        axes.text(column, row + 0.38, text, size=8, ha="center", va="center")
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5), aspect="equal")


def _maze(figure: Figure, path: np.ndarray, walls: np.ndarray, goals: np.ndarray) -> None:
    axes = figure.subplots()
    rows, columns = walls.shape
    axes.imshow(walls, cmap="Greys", vmax=2, extent=(0, columns, rows, 0))
    axes.scatter(goals[:, 1], goals[:, 0], s=220, marker="*", color="#2e8b57", zorder=2)
    positions = (path + 1) / 2 * np.array([rows, columns])  # observations are scaled to [-1, 1]
    _path(axes, positions[:, ::-1])
    axes.set(xlim=(0, columns), ylim=(rows, 0), aspect="equal", xticks=[], yticks=[])


def _path(axes: Axes, points: np.ndarray) -> None:
    """A line from a ring to a filled square, dark at first and light in the end."""
    lines = LineCollection(
        list(np.stack([points[:-1], points[1:]], 1)), cmap="viridis", linewidth=3, alpha=0.9
    )
    lines.set_array(np.arange(len(points) - 1))
    axes.add_collection(lines)
    axes.plot(*points[0], "o", markersize=14, fillstyle="none", color="#440154", markeredgewidth=2)
    axes.plot(*points[-1], "s", markersize=9, color="#d97706")
    axes.set_title("start: ring    end: square", size=9)


def _curves(figure: Figure, path: np.ndarray, actions: np.ndarray) -> None:
    for axes, values, name in zip(
        figure.subplots(2, 1), (path, actions), ("observation", "action"), strict=True
    ):
        curves = values.reshape(len(values), -1)
        for number in range(min(curves.shape[1], _MOST_CURVES)):
            axes.plot(curves[:, number], ".-", label=str(number), drawstyle="steps-post")
        if curves.shape[1] > _MOST_CURVES:
            name = f"{name} (first {_MOST_CURVES} of {curves.shape[1]})"
        axes.set(ylabel=name, xlabel="step")
        if curves.shape[1] > 1:
            axes.legend(fontsize=7, ncols=4)
