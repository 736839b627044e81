"""``python -m zoo.plot`` on synthetic run folders, in this process."""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from agents.errors import MissingDependency
from zoo.figures import COLOURS, PlotSettings, format_number
from zoo.plot import draw, main
from zoo.run_history import find_runs

pytest.importorskip("matplotlib", reason="needs the extra natural-zoo[plot]")


def make_run(
    logs: Path, algo: str, env_id: str, k: int, n_episodes: int = 50, seed: int | None = None
) -> Path:
    folder = logs / algo / f"{env_id}_{k}"
    (folder / env_id).mkdir(parents=True)
    config = f"algo: {algo}\nenv_id: {env_id}\nseed: {k if seed is None else seed}\n"
    (folder / env_id / "config.yml").write_text(config)
    rows = [f"{k * 10 + i}.0,1000,{60.0 * (i + 1)}\n" for i in range(n_episodes)]
    text = f'#{{"t_start": 5.0, "env_id": "{env_id}"}}\nr,l,t\n' + "".join(rows)
    (folder / "0.monitor.csv").write_text(text)
    steps = np.arange(1, 6) * 10_000
    results = np.full((5, 4), float(k)) + np.arange(5)[:, None]
    np.savez(folder / "evaluations.npz", timesteps=steps, results=results, ep_lengths=results)
    return folder


@pytest.fixture
def logs(tmp_path):
    root = tmp_path / "logs"
    for algo in ("npg", "trpo"):
        for env_id in ("Hopper-v4", "Walker2d-v4"):
            for k in (1, 2, 3):
                make_run(root, algo, env_id, k)
    return root


def figure_of(logs: Path, **settings):
    return draw(find_runs([str(logs)]), PlotSettings(**settings))


def legend_of(figure) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def png_size(path: Path) -> tuple[int, int]:
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert content[-8:-4] == b"IEND"
    width, height = struct.unpack(">II", content[16:24])
    return width, height


# ---------------------------------------------------------------- the command


def test_the_command_writes_a_picture_and_ends_with_its_path(logs, tmp_path, capsys):
    output = tmp_path / "new folder" / "curves.png"
    assert main([str(logs), "-o", str(output), "--title", "Two tasks"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{output}\n"
    assert captured.err == ""
    width, height = png_size(output)
    assert 800 < width < 3000
    assert 400 < height < 2000
    assert [path.name for path in output.parent.iterdir()] == ["curves.png"]


def test_the_default_picture_lies_in_the_current_folder(logs, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["logs/npg/Hopper-v4_1"]) == 0
    assert capsys.readouterr().out == "learning_curves.png\n"
    png_size(tmp_path / "learning_curves.png")


@pytest.mark.parametrize(
    ("suffix", "start"), [(".svg", b"<?xml"), (".pdf", b"%PDF"), (".PNG", b"\x89PNG")]
)
def test_the_suffix_chooses_the_format(logs, tmp_path, suffix, start):
    output = tmp_path / f"curves{suffix}"
    assert main([str(logs / "npg"), "-o", str(output), "-y", "eval", "-x", "time"]) == 0
    assert output.read_bytes().startswith(start)


def test_pyplot_and_its_display_are_not_touched(logs, tmp_path):
    sys.modules.pop("matplotlib.pyplot", None)
    assert main([str(logs), "-o", str(tmp_path / "curves.png")]) == 0
    assert "matplotlib.pyplot" not in sys.modules


# ---------------------------------------------------------------- the picture


def test_one_panel_per_environment_with_labels_and_a_shared_legend(logs):
    figure = figure_of(logs, title="Two tasks")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Hopper-v4", "Walker2d-v4"]
    assert [axes.get_xlabel() for axes in figure.axes] == ["environment steps"] * 2
    labels = [axes.get_ylabel() for axes in figure.axes]
    assert labels == ["training return\n(mean of 100 episodes)", ""]
    assert legend_of(figure) == ["npg (3 seeds)", "trpo (3 seeds)"]
    assert figure.legends[0].get_title().get_text() == "mean over seeds with 95% confidence band"
    assert figure.get_suptitle() == "Two tasks"
    for axes in figure.axes:
        assert [line.get_color() for line in axes.lines] == list(COLOURS[:2])
        assert len(axes.collections) == 2  # the bands


def test_the_line_is_the_mean_over_seeds(logs):
    line = figure_of(logs, y="eval").axes[0].lines[0]
    np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 6) * 10_000)
    np.testing.assert_allclose(line.get_ydata(), [2, 3, 4, 5, 6])


def test_the_window_is_respected(logs):
    figure = figure_of(logs / "npg" / "Hopper-v4_1", window=1, x="episodes")
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), np.arange(10, 60))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("episodes", "training return")


@pytest.mark.parametrize(
    ("x", "label", "end"),
    [("steps", "environment steps", 50_000), ("time", "wall-clock time (minutes)", 50)],
)
def test_the_horizontal_axis(logs, x, label, end):
    axes = figure_of(logs, x=x).axes[0]
    assert axes.get_xlabel() == label
    assert axes.lines[0].get_xdata()[-1] == end
    assert axes.get_xlim()[0] == 0


def test_by_run_draws_each_run(logs):
    figure = figure_of(logs / "npg", by="run")
    assert [len(axes.lines) for axes in figure.axes] == [3, 3]
    assert legend_of(figure)[0] == "npg/Hopper-v4_1"
    assert len(legend_of(figure)) == 6


def test_by_run_keeps_runs_of_the_same_name_apart(tmp_path):
    for root in ("a", "b"):
        make_run(tmp_path / root, "npg", "Hopper-v4", 1)
    labels = legend_of(figure_of(tmp_path, by="run"))
    assert labels == [str(tmp_path / root / "npg" / "Hopper-v4_1") for root in ("a", "b")]


def test_by_env_draws_one_panel_per_algorithm(logs):
    figure = figure_of(logs, by="env")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["npg", "trpo"]
    assert legend_of(figure) == ["Hopper-v4 (3 seeds)", "Walker2d-v4 (3 seeds)"]


def test_the_legend_counts_seeds(tmp_path):
    make_run(tmp_path, "npg", "Hopper-v4", 1)
    figure = figure_of(tmp_path)
    assert legend_of(figure) == ["npg (1 seed)"]
    assert figure.axes[0].collections[:] == []  # no band of one run
    make_run(tmp_path, "npg", "Walker2d-v4", 1)
    make_run(tmp_path, "npg", "Walker2d-v4", 2)
    assert legend_of(figure_of(tmp_path)) == ["npg (1–2 seeds)"]
    make_run(tmp_path, "npg", "Walker2d-v4", 3, seed=2)
    assert legend_of(figure_of(tmp_path)) == ["npg (1–3 runs)"]


def test_a_run_that_died_early_cuts_its_group_with_a_note(tmp_path, capsys):
    make_run(tmp_path, "npg", "Hopper-v4", 1)
    make_run(tmp_path, "npg", "Hopper-v4", 2, n_episodes=20)
    figure = figure_of(tmp_path)
    assert figure.axes[0].lines[0].get_xdata()[-1] == 20_000
    assert "npg on Hopper-v4 is cut at 20k of 50k steps" in capsys.readouterr().err


def test_a_run_without_data_is_left_out_with_a_note(logs, capsys):
    (logs / "npg" / "Hopper-v4_3" / "0.monitor.csv").write_text("")
    assert legend_of(figure_of(logs)) == ["npg (2–3 seeds)", "trpo (3 seeds)"]
    assert "left out: No finished episode yet in" in capsys.readouterr().err


def test_many_long_labels_stay_inside_the_picture(tmp_path):
    for k in range(1, 13):
        make_run(tmp_path, "reinforce", "HumanoidStandup-v5", k, n_episodes=5)
    figure = figure_of(tmp_path, by="run")
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    styles = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(styles) == 12


@pytest.mark.parametrize(
    ("value", "largest", "text"),
    [
        (0, 1e6, "0"),
        (200_000, 1e6, "0.2M"),
        (3e6, 3e6, "3M"),
        (50_000, 1e5, "50k"),
        (7_500, 1e4, "7.5k"),
        (4_000, 5e3, "4000"),
        (-0.5, 2, "-0.5"),
    ],
)
def test_numbers_share_the_unit_of_their_axis(value, largest, text):
    assert format_number(value, largest=largest) == text


# ---------------------------------------------------------------- errors


def error_of(capsys, *argv: str) -> str:
    assert main(list(argv)) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def test_no_data_yet(tmp_path, capsys):
    folder = make_run(tmp_path, "npg", "Hopper-v4", 1, n_episodes=0)
    assert f"No finished episode yet in '{folder}'" in error_of(capsys, str(folder))
    make_run(tmp_path, "npg", "Hopper-v4", 2, n_episodes=0)
    assert "None of the 2 runs has data. The first: No finished" in error_of(capsys, str(tmp_path))


def test_a_folder_that_does_not_exist(logs, capsys):
    message = error_of(capsys, str(logs / "npg" / "Hoper-v4_1"))
    assert f"Did you mean '{logs / 'npg' / 'Hopper-v4_1'}'?" in message


@pytest.mark.parametrize(("name", "advice"), [("a.jpg", "-o a.png"), ("curves", "-o curves.png")])
def test_an_unknown_picture_format(logs, capsys, name, advice):
    message = error_of(capsys, str(logs), "-o", name)
    assert message.endswith(f"Allowed: .png, .svg, .pdf. Type: {advice}\n")


def test_a_window_of_nothing(logs, capsys):
    assert "--window 0 is not at least 1" in error_of(capsys, str(logs), "--window", "0")


def test_an_unknown_flag(logs, capsys):
    assert "Did you mean '--window'?" in error_of(capsys, str(logs), "--windw=3")


def test_a_failed_write_leaves_the_old_picture(logs, tmp_path, capsys, monkeypatch):
    from matplotlib.figure import Figure

    def fail(self, target, **_):
        Path(target).write_bytes(b"half a picture")
        raise OSError("No space left on device")

    monkeypatch.setattr(Figure, "savefig", fail)
    output = tmp_path / "curves.png"
    output.write_bytes(b"old")
    assert "No space left" in error_of(capsys, str(logs), "-o", str(output))
    assert output.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "logs"]


def test_missing_matplotlib_names_the_extra(logs, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependency, match=r"pip install 'natural-zoo\[plot\]'"):
        figure_of(logs)
