import multiprocessing

import numpy as np
import pytest
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize, unwrap_vec_wrapper

from agents.errors import ConfigError
from agents.rollout_normalize import RolloutNormalize
from zoo.config import resolve_config
from zoo.runs import create_run_folder
from zoo.training import find_resumption, prepare, train


@pytest.fixture
def run(tmp_path):
    return create_run_folder(tmp_path, "npg", "CartPole-v1")


def make_config(algo="npg", env_id="CartPole-v1", normalize=True, **settings):
    return resolve_config(
        *(algo, env_id),
        untuned=True,
        overrides={"n_steps": 32, "n_envs": 2, "normalize": normalize},
        **{"n_timesteps": 256, "seed": 1, "eval_freq": None, "save_freq": 128} | settings,
    )


def test_environments_are_wrapped_once(run):
    with prepare(make_config(), run) as training:
        assert isinstance(training.model.env, RolloutNormalize)
        assert isinstance(training.model.env.venv, VecMonitor)
        assert unwrap_vec_wrapper(training.model.env, VecNormalize) is training.model.env
    with prepare(make_config(normalize=False), run) as training:
        assert isinstance(training.model.env, VecMonitor)


def test_settings_reach_the_model(run):
    with prepare(make_config(), run) as training:
        assert training.model.seed == 1
        assert training.model.n_steps == 32
        assert training.model.n_envs == 2
        assert training.model.device.type == "cpu"
        assert training.model.env.gamma == training.model.gamma


def test_everything_is_closed(run):
    with prepare(make_config(vec_env="subproc"), run) as training:
        assert len(multiprocessing.active_children()) == 2
        writer = unwrap_vec_wrapper(training.model.env, VecMonitor).results_writer.file_handler
        assert not writer.closed
    assert multiprocessing.active_children() == []
    assert writer.closed
    assert all(output.file.closed for output in training.model.logger.output_formats)


@pytest.mark.parametrize("backend", ["dummy", "subproc"])
def test_everything_is_closed_after_an_error(run, backend):
    config = make_config("npg", "FrozenLake-v1", vec_env=backend)
    with pytest.raises(ConfigError, match="cannot be normalised"), prepare(config, run):
        pass
    assert multiprocessing.active_children() == []


def test_nothing_to_resume(run):
    assert find_resumption(run) is None


def test_furthest_agent_is_resumed(run):
    with train(make_config(), run, progress=False) as model:
        final = model.num_timesteps
    assert final == 256
    found = find_resumption(run)
    assert found.path == run.final_model
    assert found.state.num_timesteps == 256
    run.checkpoint(300).write_bytes(run.checkpoint(128).read_bytes())
    assert find_resumption(run).path == run.checkpoint(300)
    run.checkpoint(300).unlink()
    run.final_model.unlink()
    assert find_resumption(run).path == run.checkpoint(128)


def test_finished_training_still_has_its_normaliser(run):
    """What is left after a kill in the final evaluation: that evaluation, with these statistics."""
    with train(make_config(), run, progress=False) as model:
        mean, count = model.env.obs_rms.mean.copy(), model.env.obs_rms.count
        weights = {k: v.clone() for k, v in model.policy.state_dict().items()}
    resumption = find_resumption(run)
    run.vec_normalize.unlink()
    with train(make_config(), run, resumption=resumption, progress=False) as model:
        np.testing.assert_array_equal(model.env.obs_rms.mean, mean)
        assert model.env.obs_rms.count == count
        assert all(weights[k].equal(v) for k, v in model.policy.state_dict().items())
        assert model.num_timesteps == 256
    assert run.vec_normalize.is_file()


def test_two_runs_side_by_side_do_not_touch_each_other(tmp_path, tools):
    """A run inside a run, in the same process: only random streams are shared, per segment."""
    runs = [create_run_folder(tmp_path, "npg", "CartPole-v1") for _ in range(2)]
    for run in runs:
        with train(make_config(), run, progress=False):
            np.random.seed(5)
    tools.assert_same_tree(*(tools.agent_contents(run.final_model) for run in runs))
