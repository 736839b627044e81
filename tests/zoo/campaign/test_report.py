"""Tables and pictures, from results whose statistics are known."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from agents.errors import ConfigError, NaturalZooError
from zoo.benchmark import main
from zoo.campaign import statistics
from zoo.campaign.cells import Cell, Places
from zoo.campaign.pictures import draw_learning_curves
from zoo.campaign.published import reference
from zoo.campaign.random_policy import random_return
from zoo.campaign.report import Report, insert_blocks
from zoo.campaign.reproduction import compare, repeat
from zoo.campaign.results import save_result
from zoo.campaign.rows import gather, number, score_matrices
from zoo.campaign.tables import detail_tables, overview_table

pytestmark = pytest.mark.usefixtures("few_resamples")

WALKER, REACHER = "Walker2d-v4", "Reacher-v4"


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "N_RESAMPLES", 50)


def test_overview(make_results) -> None:  # type: ignore[no-untyped-def]
    results = [
        *make_results("npg", WALKER, [3000.0, 4000.0, 5000.0]),
        *make_results("npg", REACHER, [-4.0, -5.0]),
        *make_results("trpo", WALKER, [1000.0], errors=["no memory"]),
    ]
    assert overview_table(gather(results)).splitlines() == [
        "| task | NPG | published | TRPO | published |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| Reacher-v4 | **-4.50 ± 0.71** (2 seeds) | -4.50 (Tianshou) "
        "| – | -4.82 (OpenAI Baselines) |",
        "| Walker2d-v4 | **4000 ± 1000** | 2503 (Tianshou) "
        "| 1000 † (1 seed) | 4502 (sb3-contrib) |",
        "",
        "† Mean over the seeds that finished. Failed: trpo Walker2d-v4 seed 101000: no memory",
    ]


def test_details(make_results) -> None:  # type: ignore[no-untyped-def]
    rows = gather(make_results("npg", WALKER, [3000.0, 3000.0, 3000.0], errors=["diverged"]))
    table = detail_tables(rows)
    assert "### NPG" in table
    assert (
        "| Walker2d-v4 | 1,000,000 | 3 (1 failed) | **3000 ± 0** † | 3000 [3000, 3000] "
        "| 2503 ± 963 | Walker2d-v3, Tianshou | 4055 (OmniSafe) | 2.0 |"
    ) in table
    assert table.endswith("\n\nSeeds 100000, 101000, 102000; commits aaaaaaaaaaaa.")


def test_a_relative_is_named_beside_its_number(make_results) -> None:  # type: ignore[no-untyped-def]
    rows = gather(make_results("a3c", WALKER, [3000.0]))
    assert "| 1219 (A2C, Tianshou's curves) |" in overview_table(rows)
    assert "| A2C, Walker2d-v3, Tianshou's curves |" in detail_tables(rows)


def test_all_seeds_failed(make_results) -> None:  # type: ignore[no-untyped-def]
    rows = gather(make_results("npg", WALKER, [], errors=["diverged"]))
    assert "| Walker2d-v4 | failed |" in overview_table(rows)
    assert "| Walker2d-v4 | – | 0 (1 failed) | failed | – |" in detail_tables(rows)
    assert score_matrices(rows).env_ids == []


def test_normalised_scores(make_results) -> None:  # type: ignore[no-untyped-def]
    zero, one = random_return(WALKER), reference(WALKER).value
    results = [
        *make_results("npg", WALKER, [zero, one, (zero + one) / 2]),
        *make_results("npg", REACHER, [random_return(REACHER)] * 2),
        *make_results("trpo", WALKER, [one, one]),
        *make_results("trpo", REACHER, [reference(REACHER).value] * 2),
        *make_results("npg", "CartPole-v1", [500.0]),  # no scale: left out
        *make_results("npg", "Ant-v4", [500.0]),  # TRPO has none: left out
    ]
    scores = score_matrices(gather(results))
    assert scores.env_ids == [REACHER, WALKER]
    np.testing.assert_allclose(scores.matrices["npg"], [[0, 0], [0, 1]], atol=1e-12)
    np.testing.assert_allclose(scores.matrices["trpo"], [[1, 1], [1, 1]], atol=1e-12)


def test_runs_of_different_lengths_have_no_mean(make_results) -> None:  # type: ignore[no-untyped-def]
    results = [
        make_results("npg", WALKER, [1.0])[0],
        make_results("npg", WALKER, [1.0, 2.0], n_timesteps=500)[1],
    ]
    with pytest.raises(ConfigError, match="different lengths \\(500, 1000000 steps\\)"):
        gather(results)


@pytest.mark.parametrize(
    ("value", "like", "text"),
    [(99.994, None, "99.99"), (100.6, None, "101"), (-4.5, None, "-4.50"), (3.3, 4000.0, "3")],
)
def test_numbers(value: float, like: float | None, text: str) -> None:
    assert number(value, like) == text


def test_report_command(make_results, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    places = Places(tmp_path / "results", tmp_path)
    for algo in ("npg", "trpo"):
        for result in make_results(algo, WALKER, [3000.0, 4000.0]):
            save_result(places.result(result.cell), result)
    document = tmp_path / "page.md"
    before = "brings `<!-- overview: begin -->` (to `<!-- overview: end -->`) up to date"
    document.write_text(f"{before}\n<!-- overview: begin -->\nold\n<!-- overview: end -->\nafter\n")
    command = ["report", "-o", str(places.results), "--insert", str(document)]
    assert main(command) == 0
    assert "| Walker2d-v4 | **3500 ± 707** | 2503 (Tianshou) |" in capsys.readouterr().out
    text = document.read_text()
    assert text.startswith(f"{before}\n<!-- overview: begin -->\n\n| task | NPG |")
    assert text.endswith("|\n\n<!-- overview: end -->\nafter\n")
    assert "old" not in text
    files = {path.name for path in (places.results / "report").iterdir()}
    assert files == {"results.md", "learning_curves.png", "performance_profiles.png"}
    for name in files - {"results.md"}:
        picture = (places.results / "report" / name).read_bytes()
        assert picture.startswith(b"\x89PNG")
        assert len(picture) > 10_000


def test_report_on_a_part(make_results, tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    places = Places(tmp_path / "results", tmp_path)
    for algo, env_id in (("npg", WALKER), ("npg", "CartPole-v1"), ("a3c", "CartPole-v1")):
        for result in make_results(algo, env_id, [300.0, 400.0]):
            save_result(places.result(result.cell), result)
    command = ["report", "-o", str(places.results)]
    assert main([*command, "--envs", "CartPole-v1"]) == 0
    table = "| task | A3C | NPG |\n| --- | ---: | ---: |\n| CartPole-v1 | 350 ± 71 | 350 ± 71 |"
    assert table in capsys.readouterr().out
    assert main([*command, "--algos", "npg", "--envs", "mujoco"]) == 0
    assert "| task | NPG | published |" in capsys.readouterr().out
    assert main([*command, "--algos", "trpo"]) == 1
    message = "Unknown algorithm with results 'trpo'. Known: a3c, npg."
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("scale", "factor"), [("linear", 2), ("log", 3)])
def test_short_runs_are_not_a_corner_of_the_picture(make_results, scale: str, factor: int) -> None:  # type: ignore[no-untyped-def]
    results = make_results("npg", WALKER, [1.0, 2.0])
    longer = [
        dataclasses.replace(
            result,
            config={**result.config, "algo": "trpo"},
            curve=tuple((factor * step, returns) for step, returns in result.curve),
        )
        for result in results
    ]
    figure = draw_learning_curves(gather([*results, *longer]))
    assert figure is not None
    assert figure.axes[0].get_xscale() == scale


def test_report_on_nothing(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    assert main(["report", "-o", str(tmp_path)]) == 1
    assert "There is no result to report on" in capsys.readouterr().err


def test_blocks(make_results, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    document = tmp_path / "page.md"
    document.write_text("<!-- details: begin -->\n<!-- details: end -->")
    report = Report(make_results("npg", WALKER, [3000.0, 4000.0]))
    assert insert_blocks(document, report) == ["details"]
    text = document.read_text()
    assert insert_blocks(document, report) == ["details"]  # the same again
    assert document.read_text() == text
    assert "- 2 runs of 1000000 steps, seeds 100000, 101000, 2 deterministic episodes" in text
    assert "- mujoco 3.14.0\n" in text
    assert "- code: aaaaaaaaaaaa\n" in text
    assert "[Tianshou](https://github.com/thu-ml/tianshou" in text
    document.write_text("no block")
    with pytest.raises(ConfigError, match="has no block to fill in"):
        insert_blocks(document, report)


# --- Reproduction -------------------------------------------------------------------------------


def test_equal_runs_are_said_to_be_equal(make_results) -> None:  # type: ignore[no-untyped-def]
    results = make_results("npg", WALKER, [3000.0, 4000.0])
    assert compare(results, results).lines() == [
        "seed 100000: recorded 3000.00, repeated 3000.00, equal bit for bit",
        "seed 101000: recorded 4000.00, repeated 4000.00, equal bit for bit",
        "npg Walker2d-v4: recorded 3500 ± 707, repeated 3500 ± 707; 2 of 2 runs equal bit for bit",
    ]


def test_means_within_two_standard_errors_agree(make_results) -> None:  # type: ignore[no-untyped-def]
    recorded = make_results("npg", WALKER, [0.0, 2.0])  # standard deviation √2
    near = make_results("npg", WALKER, [2.5, 4.5])  # 2.5 apart, standard error √((2 + 2) / 2) = √2
    comparison = compare(recorded, near)
    assert comparison.n_equal == 0
    assert comparison.standard_errors == pytest.approx(2.5 / 2**0.5)
    far = make_results("npg", WALKER, [3.0, 5.0])
    with pytest.raises(NaturalZooError, match=r"Not reproduced: .* 2\.1 standard errors apart"):
        compare(recorded, far)


def test_one_seed_cannot_contradict(make_results) -> None:  # type: ignore[no-untyped-def]
    recorded, repeated = (make_results("npg", WALKER, [mean]) for mean in (1.0, 1e6))
    assert compare(recorded, repeated).standard_errors is None


def test_a_run_is_repeated_with_its_own_settings(make_results) -> None:  # type: ignore[no-untyped-def]
    (result,) = make_results("npg", WALKER, [1.0])
    agent = result.config["agent"] | {"target_kl": 0.077}
    changed = dataclasses.replace(result, config=result.config | {"agent": agent})
    task = repeat(changed)
    assert task.cell == Cell("npg", WALKER, 100_000)
    assert task.config.agent["target_kl"] == 0.077
    assert dataclasses.asdict(task.config) == changed.config
