"""The cells of a campaign's grid and where their files are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.runs import RunFolder, folder_name

__all__ = ["Cell", "Places", "grid"]


@dataclass(frozen=True, order=True)
class Cell:
    """One training run of the grid."""

    algo: str
    env_id: str
    seed: int

    def __str__(self) -> str:
        return f"{self.algo} {self.env_id} seed {self.seed}"


def grid(algos: Iterable[str], env_ids: Sequence[str], seeds: Iterable[int]) -> list[Cell]:
    """Return every combination, all algorithms and tasks of the first seed first.

    A campaign that is cut short has then about as many seeds of everything.
    """
    algos = list(algos)
    return [Cell(algo, env_id, seed) for seed in seeds for env_id in env_ids for algo in algos]


@dataclass(frozen=True)
class Places:
    """Folders of a campaign.

    :param results: one small JSON file per run, ``ALGO/ENV/SEED.json``, worth committing.
    :param logs: run folders in RL Zoo's layout, ``ALGO/ENV_SEED``, with agents and logs.
    """

    results: Path
    logs: Path

    def result(self, cell: Cell) -> Path:
        """Return the file of a cell's result."""
        return self.results / cell.algo / folder_name(cell.env_id) / f"{cell.seed}.json"

    def run(self, cell: Cell) -> RunFolder:
        """Return the run folder of a cell, which need not exist."""
        name = f"{folder_name(cell.env_id)}_{cell.seed}"
        return RunFolder(self.logs / cell.algo / name, cell.env_id)

    def log(self, cell: Cell) -> Path:
        """Return the file that a cell's process writes to, all attempts one after the other."""
        return self._beside_run(cell, ".log")

    def lock(self, cell: Cell) -> Path:
        """Return the file whose lock the campaign holds that takes care of a cell."""
        return self._beside_run(cell, ".lock")

    def result_files(self) -> Iterator[Path]:
        """Yield every result in the order of the names; seeds count as numbers."""
        yield from sorted(
            self.results.glob("*/*/*.json"),
            key=lambda path: (path.parent.parent.name, path.parent.name, len(path.stem), path.stem),
        )

    def _beside_run(self, cell: Cell, suffix: str) -> Path:
        path = self.run(cell).path
        return path.with_name(path.name + suffix)
