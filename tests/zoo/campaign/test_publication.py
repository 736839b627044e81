"""The agent of the median seed: chosen by the numbers, published once, never another one's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from agents.errors import ConfigError
from hub.bundle import Bundle
from hub.publishing import Publication, Wishes
from hub.runtime import OnnxPolicy
from zoo.benchmark import main
from zoo.campaign import publication
from zoo.campaign.publication import MAX_VIDEO_BYTES, median_result
from zoo.campaign.results import Result
from zoo.campaign.rows import gather, number

CARTPOLE = "CartPole-v1"
MakeResults = Callable[..., list[Result]]


@pytest.mark.parametrize(
    ("means", "seed"),
    [
        ([5.0], 100_000),
        ([5.0, 1.0, 3.0], 102_000),
        ([5.0, 1.0, 3.0, 4.0], 102_000),  # the lower of 3 and 4
        ([2.0, 2.0, 2.0], 101_000),
        ([9.0, 1.0, 1.0, 1.0, 1.0], 103_000),  # never the luckiest
    ],
)
def test_median(make_results: MakeResults, means: Sequence[float], seed: int) -> None:
    (row,) = gather(make_results("npg", CARTPOLE, means))
    assert median_result(row).cell.seed == seed


def test_a_failed_row_has_no_median(make_results: MakeResults) -> None:
    (row,) = gather(make_results("npg", CARTPOLE, [], errors=["it diverged"]))
    with pytest.raises(ConfigError, match="no seed has finished"):
        median_result(row)


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of agents that have hardly learnt anything."""
    folder = tmp_path_factory.mktemp("campaign")
    run = ["run", "--algos", "npg", "--envs", CARTPOLE, "--seeds", "3", "-n", "2048"]
    assert main([*run, "--eval-freq", "2048", "--jobs", "1", *_places(folder)]) == 0
    return folder


def _places(folder: Path) -> list[str]:
    return ["-o", str(folder / "results"), "-f", str(folder / "logs")]


def _publish(folder: Path, target: Path, *more: str) -> int:
    return main(["publish", "--to", str(target), *_places(folder), *more])


def _recorded(folder: Path) -> dict[int, list[float]]:
    files = (folder / "results/npg" / CARTPOLE).glob("*.json")
    return {int(file.stem): json.loads(file.read_text())["evaluation"]["returns"] for file in files}


def test_publish(
    campaign: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert _publish(campaign, tmp_path / "pretrained") == 0
    bundle = Bundle.open(tmp_path / "pretrained" / "npg-CartPole-v1")
    report = json.loads(bundle.read("evaluation.json"))
    recorded = _recorded(campaign)
    means = {seed: float(np.mean(returns)) for seed, returns in recorded.items()}
    assert np.mean(report["returns"]) == np.median(list(means.values()))
    assert report["returns"] == recorded[report["training_seed"]]
    card = (bundle.path / "README.md").read_text()
    for seed in recorded:
        assert f"| {seed}" in card
    assert f"{report['training_seed']} (this agent)" in card
    action = OnnxPolicy(bundle.path / "policy.onnx")(np.zeros(4, dtype=np.float32))
    assert action in (0, 1)

    index = (tmp_path / "pretrained" / "README.md").read_text()
    mean, std = np.mean(report["returns"]), np.std(report["returns"])
    row = f"| [npg-CartPole-v1](npg-CartPole-v1) | {number(mean)} ± {number(std, mean)} | 2,048 |"
    assert row in index

    # It is found by name, and what is there already is not touched again.
    monkeypatch.setattr("hub.locate.PUBLISHED", tmp_path / "pretrained")
    written = (bundle.path / "agent.json").stat().st_mtime_ns
    assert _publish(campaign, tmp_path / "pretrained") == 0
    assert (bundle.path / "agent.json").stat().st_mtime_ns == written
    assert "kept" in capsys.readouterr().err


def test_publish_without_the_runs(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An agent is not made up where its run is gone, and one that is there needs no run."""
    shutil.copytree(campaign / "results", tmp_path / "results")
    target = tmp_path / "pretrained"
    assert _publish(tmp_path, target) == 1
    assert "python -m zoo.benchmark run --algos npg --envs CartPole-v1" in capsys.readouterr().err
    assert not target.exists()
    assert _publish(campaign, target) == 0
    assert _publish(tmp_path, target) == 0


def test_publish_another_agent(
    campaign: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that was trained again after its result was recorded is not what the tables show."""
    shutil.copytree(campaign / "results", tmp_path / "results")
    shutil.copytree(campaign / "logs", tmp_path / "logs")
    for file in (tmp_path / "results/npg" / CARTPOLE).glob("*.json"):
        content = json.loads(file.read_text())
        evaluation = content["evaluation"]
        evaluation["returns"] = [value + 1.0 for value in evaluation["returns"]]
        file.write_text(json.dumps(content))
    assert _publish(tmp_path, tmp_path / "pretrained") == 1
    assert "does not hold the agent of the recorded result" in capsys.readouterr().err


@pytest.mark.parametrize(("size", "kept"), [(MAX_VIDEO_BYTES, True), (MAX_VIDEO_BYTES + 1, False)])
def test_large_videos_are_left_out(
    campaign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, *, kept: bool
) -> None:
    original = publication.prepare_publication

    def with_video(bundle: Path, wishes: Wishes, **kwargs: object) -> Publication:
        copy = tmp_path / "bundle"
        shutil.copytree(bundle, copy, dirs_exist_ok=True)
        if wishes.video:
            Bundle.open(copy).with_files({"replay.mp4": b"x" * size})
        else:
            shutil.rmtree(copy)
            shutil.copytree(bundle, copy)
        return original(copy, Wishes(), **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(publication, "prepare_publication", with_video)
    assert _publish(campaign, tmp_path / "pretrained", "--video") == 0
    bundle = Bundle.open(tmp_path / "pretrained" / "npg-CartPole-v1")
    assert ("replay.mp4" in bundle.files) is kept


def test_a_video_is_added_to_an_agent_that_is_there(
    campaign: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, filmed = publication.prepare_publication, []

    def with_video(bundle: Path, wishes: Wishes, **kwargs: object) -> Publication:
        assert (wishes.video, wishes.preview) == (True, True)
        copy = tmp_path / "bundle"
        shutil.copytree(bundle, copy)
        Bundle.open(copy).with_files({"replay.mp4": b"film"})
        filmed.append(bundle)
        return original(copy, Wishes(), **kwargs)  # type: ignore[arg-type]

    assert _publish(campaign, tmp_path / "pretrained") == 0
    monkeypatch.setattr(publication, "prepare_publication", with_video)
    for _ in range(2):
        assert _publish(campaign, tmp_path / "pretrained", "--video") == 0
    bundle = Bundle.open(tmp_path / "pretrained" / "npg-CartPole-v1")
    assert bundle.read("replay.mp4") == b"film"
    assert len(filmed) == 1
