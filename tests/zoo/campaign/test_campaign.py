"""A campaign from end to end: resumed, failing, shared, and killed with its children."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from hub.seeding import purpose_seeds
from zoo.benchmark import main
from zoo.campaign.cells import Cell, Places
from zoo.campaign.results import load_result
from zoo.jobs import Job
from zoo.locks import FileLock

PENDULUM = "InvertedPendulum-v4"
FIRST = purpose_seeds("benchmark", 1)[0]
_OF_TIME = ("seconds", "attempts")


def run(folder: Path, *more: str, algos: tuple[str, ...] = ("npg",)) -> list[str]:
    return [
        *("run", "--algos", *algos, "--envs", PENDULUM, "--seeds", "1", "--jobs", "1"),
        *("-n", "6144", "--eval-freq", "2048", "--eval-episodes", "2", "--save-freq", "2048"),
        *("-o", str(folder / "results"), "-f", str(folder / "logs"), *more),
    ]


def places(folder: Path) -> Places:
    return Places(folder / "results", folder / "logs")


def without_times(path: Path) -> dict[str, object]:
    content = json.loads(path.read_text())
    return {key: value for key, value in content.items() if key not in _OF_TIME}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    assert main(run(folder)) == 0
    return folder


def test_result_is_that_of_the_run(finished: Path) -> None:
    result = load_result(places(finished).result(Cell("npg", PENDULUM, FIRST)))
    run_folder = places(finished).run(Cell("npg", PENDULUM, FIRST))
    report = json.loads(run_folder.final_evaluation.read_text())
    assert list(result.returns) == report["returns"]
    assert list(result.lengths) == report["lengths"]
    assert result.n_timesteps == report["num_timesteps"] == 6144
    assert [timesteps for timesteps, _ in result.curve] == [2048, 4096, 6144]
    assert all(len(returns) == 2 for _, returns in result.curve)
    assert result.config["n_threads"] == result.config["env_threads"] == 1
    assert 0 < result.seconds < 60
    assert len(result.attempts) == 1
    text = places(finished).result(result.cell).read_text()
    assert str(finished) not in text
    assert len(text) < 6000


def test_killed_with_its_children_and_resumed(finished: Path, tmp_path: Path) -> None:
    """SIGKILL half way: the training dies with the campaign, and resumed it ends the same."""
    log = tmp_path / "campaign.log"
    cell = Cell("npg", PENDULUM, FIRST)
    campaign = Job(main, [run(tmp_path)], log)
    checkpoint = places(tmp_path).run(cell).checkpoint(2048)
    deadline = time.monotonic() + 60
    while not checkpoint.exists() and time.monotonic() < deadline:
        assert campaign.exit_code is None, log.read_text()
        time.sleep(0.005)
    assert FileLock(places(tmp_path).run(cell).path).acquire() is False  # being trained
    campaign.kill()
    assert not places(tmp_path).result(cell).exists()
    assert main(run(tmp_path)) == 0  # waits for the training to die
    assert without_times(places(tmp_path).result(cell)) == without_times(
        places(finished).result(cell)
    )
    assert len(load_result(places(tmp_path).result(cell)).attempts) == 2
    assert "resuming after 2048 steps" in places(tmp_path).log(cell).read_text()


def test_what_is_done_is_not_done_again(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = places(finished).result(Cell("npg", PENDULUM, FIRST))
    before = path.stat().st_mtime_ns
    assert main(run(finished)) == 0
    assert path.stat().st_mtime_ns == before
    out, err = capsys.readouterr()
    assert out == f"1 of 1 runs finished: {finished / 'results'}\n"
    assert err == "1 run, 1 of them done already\n"


def test_a_finished_run_without_result_is_only_read(finished: Path) -> None:
    """The campaign was killed between the end of the training and the result."""
    path = places(finished).result(Cell("npg", PENDULUM, FIRST))
    content = path.read_text()
    path.unlink()
    assert main(run(finished)) == 0
    assert path.read_text() == content


def test_a_run_of_another_campaign_is_left_to_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cell = Cell("npg", PENDULUM, FIRST)
    path = places(tmp_path).lock(cell)
    path.parent.mkdir(parents=True)
    path.touch()
    lock = FileLock(path)
    assert lock.acquire()
    assert main(run(tmp_path)) == 0
    out, err = capsys.readouterr()
    assert out == f"0 of 1 runs finished: {tmp_path / 'results'}\n"
    assert f"{cell} is being trained by another process" in err
    assert not places(tmp_path).run(cell).path.exists()
    lock.release()


def preset(folder: Path, learning_rate: str) -> list[str]:
    """Write a preset whose first update ends in numbers that are none, or a good one."""
    (folder / "presets").mkdir(exist_ok=True)
    (folder / "presets" / "ppo.yml").write_text(
        f"CartPole-v1: {{n_envs: 2, n_steps: 64, batch_size: 64, learning_rate: {learning_rate}}}\n"
    )
    return ["--envs", "CartPole-v1", "--presets", str(folder / "presets"), "-n", "256"]


def test_failing_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cell = Cell("ppo", "CartPole-v1", FIRST)
    command = run(tmp_path, *preset(tmp_path, "1e30"), "--retries", "1", algos=("ppo",))
    assert main(command) == 1
    err = capsys.readouterr().err
    assert f"FAILED: {cell}, it is tried again later: The parameters are no longer finite" in err
    assert f"FAILED: {cell}, giving it up: The parameters are no longer finite" in err
    assert "    | error: The parameters are no longer finite" in err
    assert err.splitlines()[-1].startswith(f"error: 1 of 1 runs failed, the first {cell}: The par")
    result = load_result(places(tmp_path).result(cell))
    assert result.error is not None
    assert result.error.startswith("The parameters are no longer finite")
    assert len(result.attempts) == 2

    assert main(["status", "-o", str(tmp_path / "results"), "-f", str(tmp_path / "logs")]) == 0
    out = capsys.readouterr().out
    assert f"failed: {cell}: The parameters are no longer finite" in out
    assert out.splitlines()[-1] == "1 runs: 1 failed"

    # Other settings do not replace a result, not even that of a failed run, unless asked for.
    better = run(tmp_path, *preset(tmp_path, "3e-4"), algos=("ppo",))
    assert main(better) == 1
    err = capsys.readouterr().err
    assert "were trained with other settings" in err
    assert "learning_rate: 1e+30 → 0.0003" in err
    assert main([*better, "--redo-outdated"]) == 0
    result = load_result(places(tmp_path).result(cell))
    assert result.error is None
    assert len(result.attempts) == 1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--algos", "ngp"], "Did you mean 'npg'?"),
        (["--envs", "Walker2d-v44"], "Walker2d-v4"),
        (["--seeds", "0"], "0 seeds: give a number in 1 … 100."),
        (["--jobs", "0"], "--jobs 0 is below 1"),
        (["--retries", "-1"], "--retries -1 is negative"),
        (["--presets", "/nowhere"], "/nowhere/npg.yml' cannot be read"),
    ],
)
def test_wrong_arguments(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert main(run(tmp_path, *more)) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_status_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "-o", str(tmp_path), "-f", str(tmp_path)]) == 1
    assert "start some with" in capsys.readouterr().err


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rum"]) == 1
    assert "Unknown command 'rum'. Did you mean 'run'?" in capsys.readouterr().err
    assert main([]) == 2
