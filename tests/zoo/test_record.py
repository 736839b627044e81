from __future__ import annotations

import gc
import json
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from hub import rendering
from zoo import record

iio = pytest.importorskip("imageio.v2", reason="needs natural-zoo[record]")


@pytest.fixture(autouse=True)
def headless(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MUJOCO_GL", "PYOPENGL_PLATFORM", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.fixture
def graphics() -> None:
    try:
        rendering.rendering_backend()
    except rendering.MissingDependency as error:
        pytest.skip(str(error))


def frames_of(path: Path) -> tuple[list[np.ndarray], float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # imageio leaves ffmpeg's pipes open
        with iio.get_reader(path) as reader:
            about = reader.get_meta_data()
            frames = [np.array(frame) for frame in reader]
        del reader
        gc.collect()
    return frames, about["fps"] if "fps" in about else 1000 / about["duration"]


def first_episode(run: Path) -> tuple[float, int]:
    evaluation = json.loads((run / "evaluation.json").read_text())
    return evaluation["returns"][0], evaluation["lengths"][0]


@pytest.mark.render
@pytest.mark.usefixtures("graphics")
def test_an_mp4_shows_the_first_episode_of_the_final_evaluation(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "new" / "replay.mp4"
    assert record.main([str(trained_run), "-o", str(path), "-P"]) == 0
    episode_return, length = first_episode(trained_run)
    out = capsys.readouterr().out
    assert out == f"{path}: 1 episode, return {episode_return:.1f}, {length} steps\n"
    frames, fps = frames_of(path)
    assert len(frames) == length + 1  # the reset and every step
    assert fps == 25
    assert {frame.shape for frame in frames} == {(480, 480, 3)}
    for frame in frames:  # cart, pole and rail before a black sky
        assert 0.02 < (frame.max(axis=2) > 60).mean() < 0.5
    changes = [np.abs(b.astype(int) - a).max() for a, b in pairwise(frames)]
    assert np.median(changes) > 20  # it moves
    assert [p.name for p in path.parent.iterdir()] == ["replay.mp4"]


@pytest.mark.render
@pytest.mark.usefixtures("graphics")
def test_a_gif_keeps_the_speed_of_the_simulation_with_fewer_frames(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "replay.gif"
    options = ["--fps", "10", "--size", "64x48", "--max-steps", "10", "--episodes", "2", "-P"]
    assert record.main([str(trained_run), "-o", str(path), *options]) == 0
    line = capsys.readouterr().out
    assert line.endswith("2 episodes, return 10.0 ± 0.0, 20 steps (cut by --max-steps)\n")
    frames, fps = frames_of(path)
    assert len(frames) == 9  # 22 drawn at 25 a second are 0.88 s: those at 0, 0.1, … 0.8
    assert fps == pytest.approx(10)
    assert {frame.shape[:2] for frame in frames} == {(48, 64)}


@pytest.mark.render
@pytest.mark.usefixtures("graphics")
def test_a_preview_is_small_and_short(
    trained_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "PREVIEW_SECONDS", 1)
    path = tmp_path / "small.mp4"
    assert record.main([str(trained_run), "-o", str(path), "--preview", "--max-steps", "5"]) == 0
    assert len(frames_of(path)[0]) == 5  # of six that are 0.2 s at 25 a second
    assert record.main([str(trained_run), "-o", str(path), "--preview", "-P"]) == 0
    frames, fps = frames_of(path)
    length = min(first_episode(trained_run)[1], 25)
    assert len(frames) == 1 + length * 20 // 25
    assert fps == 20
    assert {frame.shape for frame in frames} == {(240, 240, 3)}


@pytest.mark.render
@pytest.mark.usefixtures("graphics")
def test_a_failed_recording_leaves_the_old_file(
    trained_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def full_disk(*_args: object, **_kwargs: object) -> None:
        raise OSError(28, "No space left on device")

    path = tmp_path / "replay.mp4"
    path.write_text("the old video")
    monkeypatch.setattr(record, "play_episode", full_disk)
    assert record.main([str(trained_run), "-o", str(path), "-P"]) == 1
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert f"Cannot write {path}: No space left on device." in error[0]
    assert path.read_text() == "the old video"
    assert [p.name for p in tmp_path.iterdir()] == ["replay.mp4"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "replay.avi"], "Cannot record to 'replay.avi'. Allowed: .mp4, .gif. Type: -o rep"),
        (["-o", "/proc/none/replay.mp4"], "Cannot write /proc/none/replay.mp4: "),
        (["-o", "{tmp}/folder.mp4"], "folder.mp4: it is a folder. "),
        (["-o", "{tmp}/a.mp4", "--fps", "0"], "--fps 0 must be at least 1"),
        (["-o", "{tmp}/a.mp4", "--max-steps", "-1"], "--max-steps -1 must be at least 1"),
        (["-o", "{tmp}/a.mp4", "--size", "big"], "--size big must be WIDTHxHEIGHT"),
        (["-o", "{tmp}/a.mp4", "--size", "33x32"], "two even numbers"),
        (["-o", "{tmp}/a.mp4", "--episodes", "0"], "episodes=0 must be in 1"),
        (["-o", "{tmp}/a.gif", "--preview"], "Type: -o {tmp}/a.mp4"),
        (["-o", "{tmp}/a.mp4"], "Unknown agent 'nowhere'."),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    (tmp_path / "folder.mp4").mkdir()
    argv = [option.replace("{tmp}", str(tmp_path)) for option in options]
    assert record.main(["nowhere", *argv]) == 1
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert message.replace("{tmp}", str(tmp_path)) in error[0]
    assert [p.name for p in tmp_path.iterdir()] == ["folder.mp4"]


@pytest.mark.render
@pytest.mark.usefixtures("graphics")
def test_a_rate_that_the_environment_cannot_give_is_refused(
    trained_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert record.main([str(trained_run), "-o", str(tmp_path / "a.mp4"), "--fps", "26"]) == 1
    assert "--fps 26 is too fast" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_imageio_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(record.sys.modules, "imageio_ffmpeg", None)
    assert record.main(["nowhere", "-o", str(tmp_path / "a.mp4")]) == 1
    assert "pip install 'natural-zoo[record]'" in capsys.readouterr().err


def test_without_graphics_libraries_the_packages_are_named(
    trained_run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(rendering, "_is_loadable", lambda _: False)
    monkeypatch.setattr(rendering.sys, "platform", "linux")
    assert record.main([str(trained_run), "-o", str(tmp_path / "a.mp4")]) == 1
    error = capsys.readouterr().err.splitlines()
    assert len(error) == 1
    assert "apt-get install libegl1 libgl1" in error[0]
    assert not list(tmp_path.iterdir())
