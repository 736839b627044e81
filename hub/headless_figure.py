"""An empty matplotlib figure that needs no display, and leaves no global state behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agents.errors import MissingDependency

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["new_figure"]


def new_figure(**kwargs: Any) -> Figure:
    """Return a white figure with a canvas of its own: no window, no pyplot.

    :param kwargs: of ``matplotlib.figure.Figure``, such as ``figsize``.
    :raises MissingDependency: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependency(
            f"Pictures need matplotlib ({error}). Type: pip install 'natural-zoo[plot]'"
        ) from error
    figure = Figure(layout="constrained", facecolor="white", **kwargs)
    FigureCanvasAgg(figure)
    return figure
