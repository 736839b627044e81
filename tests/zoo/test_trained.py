import numpy as np
import pytest

from agents.errors import ConfigError, RunFolderError
from zoo.config import resolve_config
from zoo.evaluation import policy_actor
from zoo.runs import create_run_folder
from zoo.trained import load_trained
from zoo.training import train

ENV = "Pendulum-v1"
OBSERVATIONS = np.random.default_rng(0).normal(size=(64, 3)).astype(np.float32)


def make_run(folder, algo="npg", **settings):
    overrides = {"n_steps": 32, "n_envs": 2, "normalize": True, **settings}
    config = resolve_config(
        *(algo, ENV),
        untuned=True,
        overrides=overrides,
        n_timesteps=256,
        seed=1,
        eval_freq=128,
        n_eval_episodes=1,
        save_freq=128,
    )
    run = create_run_folder(folder, algo, ENV)
    run.config.write_text(config.to_yaml())
    with train(config, run, progress=False) as model:
        return run, model


def torch_actor(agent):
    return policy_actor(agent.policy, agent.normalizer, deterministic=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"))


def test_acts_as_the_trained_model(made):
    run, model = made
    agent = load_trained(str(run.path))
    raw = 10 * OBSERVATIONS
    expected, _ = model.predict(model.env.normalize_obs(raw), deterministic=True)
    np.testing.assert_array_equal(torch_actor(agent)(raw), expected)
    np.testing.assert_allclose(agent.actor()(raw), expected, atol=2e-6)  # float64
    np.testing.assert_allclose([agent.single_actor()(o) for o in raw], expected, atol=2e-6)
    assert (agent.algo, agent.env_id, agent.env_kwargs) == ("npg", ENV, {})
    assert (agent.n_timesteps, agent.training_seed, agent.n_threads) == (256, 1, 1)
    sampled = agent.actor(deterministic=False)
    assert not np.array_equal(sampled(raw), sampled(raw))


def test_actions_do_not_depend_on_the_batch(made):
    """Matrix products of several rows round differently in torch, and here they must not."""
    agent = load_trained(str(made[0].path))
    expected = [agent.single_actor()(row) for row in OBSERVATIONS]
    for n in (1, 3, 10, 64):
        np.testing.assert_array_equal(agent.actor()(OBSERVATIONS[:n]), expected[:n])


@pytest.mark.parametrize(
    "settings",
    [
        {"policy_kwargs": None},
        {"use_sde": True, "policy_kwargs": None},
        {"normalize": {"norm_obs": False}},
        {"normalize": {"clip_obs": 0.1}},
        {"policy_kwargs": {"net_arch": {"pi": [8], "vf": [4]}, "activation_fn": "relu"}},
    ],
)
def test_settings_of_the_policy(tmp_path, settings):
    run, model = make_run(tmp_path, **settings)
    expected, _ = model.predict(model.env.normalize_obs(OBSERVATIONS), deterministic=True)
    agent = load_trained(str(run.path))
    np.testing.assert_array_equal(torch_actor(agent)(OBSERVATIONS), expected)
    np.testing.assert_allclose(agent.actor()(OBSERVATIONS), expected, atol=2e-6)


def test_each_agent_of_a_run(made):
    run, _ = made
    assert load_trained(str(run.path), "128").n_timesteps == 128
    assert load_trained(str(run.path), "last").n_timesteps == 128
    assert load_trained(str(run.path), "best").n_timesteps in (128, 256)
    one, two = (load_trained(str(run.path), which) for which in ("128", "final"))
    assert one.normalizer is not None
    assert not np.array_equal(one.normalizer(OBSERVATIONS), two.normalizer(OBSERVATIONS))


@pytest.mark.parametrize("which", ["129", "newest", "", "-1", "../128"])
def test_agents_that_it_does_not_have(made, which):
    with pytest.raises(ConfigError, match="has final, best, 128"):
        load_trained(str(made[0].path), which)


def test_run_that_has_not_come_far(tmp_path):
    run, _ = make_run(tmp_path)
    run.final_model.unlink()
    with pytest.raises(RunFolderError, match=r"has no Pendulum-v1.zip: .* It has best, 128"):
        load_trained(str(run.path))
    run.checkpoint(128).unlink()
    with pytest.raises(RunFolderError, match="has no checkpoint"):
        load_trained(str(run.path), "last")


def test_files_that_do_not_belong_together(tmp_path):
    plain, _ = make_run(tmp_path / "plain", normalize=False)
    wide, _ = make_run(tmp_path / "wide", policy_kwargs={"net_arch": [5]})
    run, _ = make_run(tmp_path / "run")
    run.final_model.write_bytes(plain.final_model.read_bytes())
    with pytest.raises(RunFolderError, match="lacks a normaliser"):
        load_trained(str(run.path))
    run.final_model.write_bytes(wide.final_model.read_bytes())
    with pytest.raises(RunFolderError, match=r"do not fit the run's config.yml"):
        load_trained(str(run.path))
    run.final_model.write_bytes(b"")
    with pytest.raises(RunFolderError, match="is corrupted"):
        load_trained(str(run.path))


def test_no_run(tmp_path):
    with pytest.raises(RunFolderError, match="is not a run folder"):
        load_trained(str(tmp_path))
