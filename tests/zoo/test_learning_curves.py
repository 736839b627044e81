"""Reading run folders and the statistics over seeds, against values computed by hand."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pytest

from agents.errors import ConfigError, RunFolderError
from zoo.learning_curves import (
    Curve,
    aggregate,
    bootstrap_band,
    common_grid,
    evaluation_curve,
    rolling_mean,
    training_curve,
)
from zoo.run_history import Run, find_runs, read_episodes, read_run

HEADER = '#{"t_start": 100.0, "env_id": "Hopper-v4"}\nr,l,t\n'


def make_run(root: Path, monitor: str | None, name: str = "Hopper-v4_1", algo: str = "npg") -> Path:
    folder = root / algo / name
    (folder / "Hopper-v4").mkdir(parents=True)
    config = f"algo: {algo}\nenv_id: Hopper-v4\nseed: 7\n"
    (folder / "Hopper-v4" / "config.yml").write_text(config)
    if monitor is not None:
        (folder / "0.monitor.csv").write_bytes(monitor.encode())
    return folder


def save_evaluations(folder: Path, timesteps: list[int], results: list[list[float]]) -> None:
    np.savez(folder / "evaluations.npz", timesteps=timesteps, results=results, ep_lengths=results)


# ---------------------------------------------------------------- finding runs


def test_a_parent_folder_a_glob_and_a_run_name_the_same_run_once(tmp_path):
    folder = make_run(tmp_path, HEADER)
    runs = find_runs([str(tmp_path), str(folder), str(tmp_path / "n*" / "*")])
    assert runs == [Run(folder, "npg", "Hopper-v4", 7)]


def test_runs_come_in_natural_order(tmp_path):
    for k in (10, 2, 1):
        make_run(tmp_path, HEADER, f"Hopper-v4_{k}")
    names = [run.folder.name for run in find_runs([str(tmp_path)])]
    assert names == ["Hopper-v4_1", "Hopper-v4_2", "Hopper-v4_10"]


def test_rl_zoo_config_with_python_tags_is_not_executed(tmp_path):
    folder = make_run(tmp_path, HEADER, "Walker2d-v4_12", algo="ppo")
    config = "!!python/object/apply:collections.OrderedDict\n- - - policy\n    - MlpPolicy\n"
    (folder / "Hopper-v4" / "config.yml").write_text(config)
    assert read_run(folder) == Run(folder, "ppo", "Walker2d-v4", None)


def test_a_folder_without_config_is_named_by_its_path(tmp_path):
    folder = tmp_path / "trpo" / "Ant-v5_3"
    folder.mkdir(parents=True)
    assert read_run(folder) == Run(folder, "trpo", "Ant-v5")


def test_a_misspelt_folder_gets_a_suggestion(tmp_path):
    make_run(tmp_path, HEADER)
    with pytest.raises(ConfigError, match=r"Did you mean '.*npg'"):
        find_runs([str(tmp_path / "ngp")])


def test_a_file_is_not_a_run(tmp_path):
    folder = make_run(tmp_path, HEADER)
    with pytest.raises(ConfigError, match=re.escape(f"Give the run folder: '{folder}'")):
        find_runs([str(folder / "0.monitor.csv")])


def test_a_folder_without_runs_is_an_error(tmp_path):
    (tmp_path / "pretrained" / "npg-Hopper-v4").mkdir(parents=True)
    (tmp_path / "pretrained" / "npg-Hopper-v4" / "config.yml").write_text("algo: npg\n")
    with pytest.raises(RunFolderError, match="No run in or below"):
        find_runs([str(tmp_path / "pretrained")])


# ---------------------------------------------------------------- monitor files


def test_episodes_stand_at_cumulative_steps(tmp_path):
    folder = make_run(tmp_path, HEADER + "1.0,10,60.0\r\n3.0,30,90.0\r\n8.0,5,120.0\r\n")
    run = read_run(folder)
    curve = training_curve(run, "steps", window=2)
    np.testing.assert_array_equal(curve.x, [10, 40, 45])
    np.testing.assert_array_equal(curve.y, [1.0, 2.0, 5.5])
    np.testing.assert_array_equal(training_curve(run, "time", 2).x, [1.0, 1.5, 2.0])
    np.testing.assert_array_equal(training_curve(run, "episodes", 2).x, [1, 2, 3])


def test_recorded_timesteps_count_what_unfinished_episodes_took(tmp_path):
    header = HEADER.replace("r,l,t", "r,l,t,timesteps")
    folder = make_run(tmp_path, header + "1,10,1,16\n2,20,2,48\n3,5,3,160\n")
    assert read_episodes(folder).steps.tolist() == [16.0, 48.0, 160.0]
    assert read_episodes(folder).lengths.tolist() == [10.0, 20.0, 5.0]


@pytest.mark.parametrize("tail", ["12.3,1", "12.3,100,99.", "\0\0\0", "#{", "9"])
def test_a_half_written_last_line_is_left_out(tmp_path, caplog, tail):
    episodes = read_episodes(make_run(tmp_path, HEADER + "1.0,10,60.0\n" + tail))
    np.testing.assert_array_equal(episodes.returns, [1.0])
    assert caplog.records == []


@pytest.mark.parametrize("line", ["12.3,1400.0,10,99.0", "12.3,1", "nan,10,70.0", "1.0,x,70.0"])
def test_an_unreadable_line_elsewhere_is_left_out_with_a_warning(tmp_path, caplog, line):
    with caplog.at_level(logging.WARNING):
        episodes = read_episodes(make_run(tmp_path, f"{HEADER}1.0,10,60.0\n{line}\n2.0,10,80.0\n"))
    np.testing.assert_array_equal(episodes.returns, [1.0, 2.0])
    assert "left out 1 unreadable line" in caplog.text


@pytest.mark.parametrize("between", ["", '#{"t_start": 900.0}\nr,l,t\n'])
def test_the_clock_of_a_resumed_session_goes_on(tmp_path, between):
    text = f"{HEADER}1.0,10,60.0\n2.0,10,120.0\n{between}3.0,10,30.0\n4.0,10,90.0\n"
    episodes = read_episodes(make_run(tmp_path, text))
    np.testing.assert_array_equal(episodes.minutes, [1.0, 2.0, 2.5, 3.5])


def test_files_of_several_environments_are_merged_by_time(tmp_path):
    folder = make_run(tmp_path, HEADER + "1.0,10,60.0\n3.0,10,180.0\n")
    later = '#{"t_start": 160.0}\nr,l,t,is_success\n2.0,20,60.0,True\n'
    (folder / "1.monitor.csv").write_text(later)
    episodes = read_episodes(folder)
    np.testing.assert_array_equal(episodes.returns, [1.0, 2.0, 3.0])
    np.testing.assert_array_equal(episodes.minutes, [1.0, 2.0, 3.0])


@pytest.mark.parametrize("monitor", [None, "", HEADER, HEADER + "1.0,10,60.0"])
def test_no_finished_episode_is_an_error(tmp_path, monitor):
    with pytest.raises(RunFolderError, match=r"No finished episode yet in '.*Hopper-v4_1'"):
        read_episodes(make_run(tmp_path, monitor))


def test_another_format_is_an_error(tmp_path):
    with pytest.raises(RunFolderError, match="its header is 'reward,length'"):
        read_episodes(make_run(tmp_path, "reward,length\n1.0,10\n"))


# ---------------------------------------------------------------- evaluations


def test_evaluation_means_and_their_time(tmp_path):
    folder = make_run(tmp_path, HEADER + "0.0,100,60.0\n0.0,100,180.0\n")
    save_evaluations(folder, [50, 150, 300], [[1.0, 3.0], [4.0, 4.0], [0.0, 10.0]])
    run = read_run(folder)
    curve = evaluation_curve(run, "steps")
    np.testing.assert_array_equal(curve.x, [50, 150, 300])
    np.testing.assert_array_equal(curve.y, [2.0, 4.0, 5.0])
    # Half of the first minute; half of the next two; after the end at 200 steps in 3 minutes.
    np.testing.assert_allclose(evaluation_curve(run, "time").x, [0.5, 2.0, 4.5])
    np.testing.assert_allclose(evaluation_curve(run, "episodes").x, [0.5, 1.5, 3.0])


def test_a_repeated_evaluation_counts_as_the_later_one(tmp_path):
    folder = make_run(tmp_path, None)
    save_evaluations(folder, [10, 20, 10], [[1.0], [2.0], [9.0]])
    curve = evaluation_curve(read_run(folder), "steps")
    np.testing.assert_array_equal(curve.x, [10, 20])
    np.testing.assert_array_equal(curve.y, [9.0, 2.0])


def test_missing_evaluations_are_an_error(tmp_path):
    with pytest.raises(RunFolderError, match=r"No evaluation yet in .* -y train"):
        evaluation_curve(read_run(make_run(tmp_path, HEADER)), "steps")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"\x80\x04 a pickle"])
def test_damaged_evaluations_are_an_error(tmp_path, content):
    folder = make_run(tmp_path, HEADER)
    (folder / "evaluations.npz").write_bytes(content)
    with pytest.raises(RunFolderError, match=r"evaluations\.npz' cannot be read"):
        evaluation_curve(read_run(folder), "steps")


def test_training_return_of_a_run_with_evaluations_alone_names_the_flag(tmp_path):
    folder = make_run(tmp_path, None)
    save_evaluations(folder, [10], [[1.0]])
    with pytest.raises(RunFolderError, match="-y eval -x steps"):
        training_curve(read_run(folder), "steps", 100)


# ---------------------------------------------------------------- statistics


@pytest.mark.parametrize(
    ("window", "expected"),
    [(1, [1, 3, 8, 0]), (2, [1, 2, 5.5, 4]), (3, [1, 2, 4, 11 / 3]), (100, [1, 2, 4, 3])],
)
def test_rolling_mean(window, expected):
    np.testing.assert_allclose(rolling_mean(np.array([1.0, 3.0, 8.0, 0.0]), window), expected)


def test_curves_are_interpolated_where_all_have_data():
    straight = Curve(np.array([0.0, 10.0]), np.array([0.0, 100.0]))
    bent = Curve(np.array([2.0, 4.0, 8.0]), np.array([0.0, 20.0, 20.0]))
    data = aggregate([straight, bent])
    assert (data.x[0], data.x[-1], data.n_runs) == (2.0, 8.0, 2)
    # At 2: (20 + 0) / 2; at 8: (80 + 20) / 2.
    np.testing.assert_allclose(data.mean[[0, -1]], [10.0, 50.0])
    # At 5: (50 + 20) / 2, exact because both curves are straight there.
    np.testing.assert_allclose(np.interp(5.0, data.x, data.mean), 35.0)


def test_curves_at_the_same_points_keep_them():
    axis = np.array([1.0, 10.0, 100.0])
    np.testing.assert_array_equal(common_grid([axis, axis.copy()]), axis)
    np.testing.assert_array_equal(common_grid([axis, axis.copy()], n_points=2), [1.0, 100.0])


def test_touching_curves_share_one_point():
    np.testing.assert_array_equal(common_grid([np.array([1.0, 5.0]), np.array([5.0, 9.0])]), [5.0])


def test_curves_apart_are_an_error():
    early = Curve(np.array([0.0, 1.0]), np.zeros(2))
    late = Curve(np.array([2.0, 3.0]), np.zeros(2))
    with pytest.raises(RunFolderError, match="2 runs of npg on Ant-v5 share no stretch"):
        aggregate([early, late], "npg on Ant-v5")


def test_one_run_is_the_plain_curve():
    curve = Curve(np.array([1.0, 2.0, 7.0]), np.array([5.0, 6.0, 4.0]))
    data = aggregate([curve])
    for values in (data.mean, data.low, data.high):
        np.testing.assert_array_equal(values, curve.y)
    assert data.n_runs == 1


def test_the_band_contains_the_mean_and_lies_within_the_seeds():
    values = np.random.default_rng(3).normal(size=(5, 50))
    low, high = bootstrap_band(values)
    assert (low < values.mean(axis=0)).all()
    assert (values.mean(axis=0) < high).all()
    assert (values.min(axis=0) <= low).all()
    assert (high <= values.max(axis=0)).all()


def test_the_band_of_two_seeds_is_their_range():
    # Both draws fall on the same seed with probability 1/4 on either side, more than 2.5 %.
    low, high = bootstrap_band(np.array([[0.0, 5.0], [1.0, 5.0]]))
    np.testing.assert_array_equal(low, [0.0, 5.0])
    np.testing.assert_array_equal(high, [1.0, 5.0])


def test_the_band_approaches_the_normal_one():
    values = np.random.default_rng(0).normal(size=(400, 1))
    low, high = bootstrap_band(values, n_resamples=20_000)
    half_width = 1.96 * values.std() / 20.0
    np.testing.assert_allclose((high - low) / 2.0, half_width, rtol=0.03)


def test_the_band_is_repeatable():
    values = np.random.default_rng(3).normal(size=(5, 50))
    np.testing.assert_array_equal(bootstrap_band(values), bootstrap_band(values))
    assert (bootstrap_band(values)[0] != bootstrap_band(values, seed=1)[0]).any()
