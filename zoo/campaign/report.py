"""The report of a campaign: Markdown, pictures, and blocks of other documents kept up to date."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from agents.errors import ConfigError
from hub.atomic import write_text
from zoo.campaign.pictures import draw_learning_curves, draw_profiles
from zoo.campaign.results import Result
from zoo.campaign.rows import Row, Scores, gather, score_matrices
from zoo.campaign.tables import (
    aggregate_table,
    detail_tables,
    overview_table,
    protocols,
    provenance,
)
from zoo.figures import save

__all__ = ["BLOCKS", "Report", "insert_blocks"]

CURVES, PROFILES, TABLES = "learning_curves.png", "performance_profiles.png", "results.md"
#: Parts of a report that documents may hold, between ``<!-- NAME: begin -->`` and ``…: end -->``.
BLOCKS = ("overview", "tables", "details")


class Report:
    """What is told about the results of a campaign.

    :param results: at least one.
    :raises ConfigError: there is none, or they cannot be compared.
    """

    def __init__(self, results: Sequence[Result]) -> None:
        self._rows: list[Row] = gather(results)
        self._scores: Scores = score_matrices(self._rows)
        self.overview = overview_table(self._rows)
        self.tables = detail_tables(self._rows)
        self.details = "\n\n".join(
            [
                self.tables,
                "### All tasks together",
                "0 is the return of uniformly random actions, 1 the highest published on-policy "
                "mean (any algorithm, several seeds, stated protocol).",
                aggregate_table(self._scores),
                "### Protocols of the published numbers",
                protocols(self._rows) or "No published number is known for these tasks.",
                "### Where the numbers come from",
                provenance(self._rows),
            ]
        )
        self.document = (
            f"# Results\n\nMean ± standard deviation over seeds of the final agent's mean return; "
            f"bold is at or above the best published.\n\n{self.overview}\n\n{self.details}\n"
        )

    def write(self, folder: Path) -> list[Path]:
        """Write the tables and pictures into ``folder`` and return the files.

        :raises MissingDependency: matplotlib or rliable is not installed.
        """
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / TABLES]
        write_text(files[0], self.document)
        curves = draw_learning_curves(self._rows)
        profiles = draw_profiles(self._scores)
        for name, figure in ((CURVES, curves), (PROFILES, profiles)):
            if figure is not None:
                save(figure, folder / name)
                files.append(folder / name)
        return files


def insert_blocks(path: Path, report: Report) -> list[str]:
    """Replace the blocks of a Markdown document by the report's parts; return their names.

    A block is what stands between two markers, each on a line of its own.

    :raises ConfigError: the document has no block.
    """
    text = path.read_text(encoding="utf-8")
    found = []
    for name in BLOCKS:
        content: str = getattr(report, name)
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        # Alone on their lines: prose may name the markers without becoming a block.
        pattern = re.compile(f"^{begin}$.*?^{end}$", re.DOTALL | re.MULTILINE)
        text, n_replaced = pattern.subn(_constant(f"{begin}\n\n{content}\n\n{end}"), text)
        found += [name] * bool(n_replaced)
    if not found:
        raise ConfigError(
            f"'{path}' has no block to fill in; put the lines <!-- overview: begin --> and "
            "<!-- overview: end --> where the table is to stand (or details)."
        )
    write_text(path, text)
    return found


def _constant(text: str) -> Callable[[re.Match[str]], str]:
    return lambda match: text
