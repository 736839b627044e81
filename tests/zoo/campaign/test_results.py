"""Results on disk, and when one counts as made with other settings."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from agents.errors import RunFolderError
from zoo.campaign.cells import Cell, Places, grid
from zoo.campaign.results import (
    Result,
    differences,
    failure,
    load_result,
    load_results,
    save_result,
)
from zoo.config import resolve_config

CONFIG = resolve_config("npg", "Walker2d-v4", seed=7, device="cpu")
RESULT = Result(
    config=dataclasses.asdict(CONFIG),
    attempts=["0" * 40, None],
    versions={"python": "3.11"},
    machine={"system": "Linux"},
    n_timesteps=1_000_448,
    seconds=12.5,
    returns=(1.0, 2.0, 6.0),
    lengths=(10, 20, 60),
    curve=((50_000, (0.1, 0.3)), (100_000, (1 / 3, 2e-17))),
)


def test_mean_and_spread_over_episodes() -> None:
    assert RESULT.mean_return == 3.0
    assert RESULT.std_return == pytest.approx((14 / 3) ** 0.5, rel=1e-15)


def test_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "npg" / "Walker2d-v4" / "7.json"
    save_result(path, RESULT)
    assert load_result(path) == RESULT
    assert '\n  "returns": [1.0, 2.0, 6.0],\n' in path.read_text()
    failed = failure(CONFIG, [None], "no memory")
    save_result(path, failed)
    assert load_result(path) == failed
    assert '"status": "failed"' in path.read_text()


def test_results_come_in_the_order_of_their_seeds(tmp_path: Path) -> None:
    for seed in (200_000, 7, 100_000):
        config = RESULT.config | {"seed": seed}
        save_result(
            Places(tmp_path, tmp_path).result(Cell("npg", "Walker2d-v4", seed)),
            dataclasses.replace(RESULT, config=config),
        )
    assert [r.cell.seed for r in load_results(Places(tmp_path, tmp_path))] == [7, 100_000, 200_000]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[:200],
        lambda text: text.replace('"format": 1', '"format": 2'),
        lambda text: text.replace('"returns": [1.0, 2.0, 6.0]', '"returns": []'),
        lambda text: text.replace('"seed": 7', '"seed": 8'),
        lambda text: "[]",
    ],
)
def test_damaged_result(tmp_path: Path, damage) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "7.json"
    save_result(path, RESULT)
    path.write_text(damage(path.read_text()))
    with pytest.raises(RunFolderError, match=r"is not a result of zoo\.benchmark"):
        load_result(path)


def test_differences() -> None:
    recorded = RESULT.config
    assert differences(recorded, CONFIG) == []
    elsewhere = dataclasses.replace(CONFIG, source="from elsewhere")
    assert differences(recorded, elsewhere) == []
    wanted = dataclasses.replace(CONFIG, n_timesteps=5, agent=CONFIG.agent | {"target_kl": 0.5})
    assert differences(recorded, wanted) == ["n_timesteps: 1000000 → 5", "target_kl: 0.02 → 0.5"]


def test_a_setting_that_is_new_counts_as_its_default() -> None:
    """A result does not become outdated because an algorithm learns to do something more."""
    agent = {key: value for key, value in CONFIG.agent.items() if key != "cg_rtol"}
    recorded = {key: value for key, value in RESULT.config.items() if key != "n_threads"}
    assert differences(recorded | {"agent": agent}, CONFIG) == []
    wanted = dataclasses.replace(CONFIG, agent=CONFIG.agent | {"cg_rtol": 0.5})
    assert differences(recorded | {"agent": agent}, wanted) == ["cg_rtol: 1e-06 → 0.5"]


def test_grid_begins_with_one_seed_of_everything() -> None:
    cells = grid(["npg", "trpo"], ["Hopper-v4"], [1, 2])
    assert [str(cell) for cell in cells] == [
        "npg Hopper-v4 seed 1",
        "trpo Hopper-v4 seed 1",
        "npg Hopper-v4 seed 2",
        "trpo Hopper-v4 seed 2",
    ]


def test_places() -> None:
    places, cell = Places(Path("r"), Path("l")), Cell("npg", "my_package:A/B.c-v0", 3)
    assert places.result(cell) == Path("r/npg/A-B.c-v0/3.json")
    assert places.run(cell).path == Path("l/npg/A-B.c-v0_3")
    assert places.log(cell) == Path("l/npg/A-B.c-v0_3.log")
    assert places.lock(cell) == Path("l/npg/A-B.c-v0_3.lock")
