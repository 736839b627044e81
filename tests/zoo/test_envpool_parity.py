import json

import numpy as np
import pytest

pytest.importorskip("envpool")

from hub.gym_env import make_gym_env
from zoo import envpool_parity
from zoo.envpool_parity import PARITY_FILE, TOLERANCE, Parity, main, measure, measured_ids

RECORD = json.loads(PARITY_FILE.read_text())


@pytest.mark.parametrize(
    ("env_id", "n_steps"),
    [
        ("InvertedPendulum-v4", 50),
        ("InvertedDoublePendulum-v4", 50),
        ("InvertedDoublePendulum-v5", 50),
        ("Reacher-v5", 60),
        ("Hopper-v4", 60),
        ("Ant-v4", 30),
    ],
)
def test_envpool_steps_as_gymnasium_does(env_id, n_steps):
    parity = measure(env_id, n_envs=2, n_steps=n_steps)
    assert parity.n_steps == 2 * n_steps
    assert parity.flags_equal
    assert parity.max_obs_diff < 1e-6
    assert parity.max_reward_diff < 1e-6
    assert parity.reason is None


def test_pushers_object_and_goal_are_recovered():
    parity = measure("Pusher-v5", n_envs=2, n_steps=110)
    assert parity.n_episodes == 2
    assert parity.max_obs_diff < 1e-9


def test_contact_forces_of_the_humanoids_are_not_left_at_zero():
    """Without ``post_constraint`` they differ by all of their scale, and the reward by percents."""
    parity = measure("HumanoidStandup-v4", n_envs=1, n_steps=5)
    assert parity.max_obs_diff < 1e-3
    assert parity.max_reward_diff < 1e-4


def test_a_different_task_does_not_pass(monkeypatch):
    def make_heavier(env_id):
        env = make_gym_env(env_id)
        env.unwrapped.model.body_mass[:] *= 1.01
        return env

    monkeypatch.setattr(envpool_parity, "make_gym_env", make_heavier)
    parity = measure("Hopper-v4", n_envs=1, n_steps=10)
    assert parity.share_apart == 1.0
    assert parity.reason.startswith("100.0% of the steps by more than 1e-04")
    monkeypatch.setattr(
        envpool_parity,
        "make_gym_env",
        lambda env_id: make_gym_env(env_id, {"max_episode_steps": 5}),
    )
    parity = measure("Hopper-v4", n_envs=1, n_steps=10)
    assert parity.reason == "episodes end at different steps or in different ways"
    assert parity.n_steps == 5


def test_verdict_follows_the_tolerance():
    good = Parity(0.1, 0.1, 0.01, True, 1, 10, "every step")
    assert good.reason is None
    assert good.as_json()["ok"] is True
    far = Parity(2e-1, 4e-1, 0.01, True, 1, 10, "every step")
    assert far.reason == "observations by 2e-01 and rewards by 4e-01 of their scale (at most 1e-01)"
    assert far.as_json()["ok"] is False
    often = Parity(2e-2, 4e-4, 0.02, True, 1, 10, "every step")
    assert often.reason == "2.0% of the steps by more than 1e-04 of the scale (at most 1%)"
    assert Parity(0.0, 0.0, 0.0, False, 1, 10, "every step").reason is not None


def test_record_is_complete_and_consistent():
    assert len(measured_ids()) == 21
    assert list(RECORD["tasks"]) == measured_ids()
    assert list(RECORD["not_compared"]) == ["Pusher-v4"]
    assert RECORD["tolerance"] == TOLERANCE
    assert sorted(RECORD["versions"]) == ["envpool", "gymnasium", "mujoco"]
    for task in RECORD["tasks"].values():
        near = max(task["max_obs_diff"], task["max_reward_diff"]) <= RECORD["max_difference"]
        rarely = task["share_apart"] <= RECORD["max_share_apart"]
        assert task["ok"] == (near and rarely and task["flags_equal"])
        assert (task["reason"] is None) == task["ok"]
        assert task["n_steps"] == 4000
        assert task["n_episodes"] >= 4
    assert RECORD["tasks"]["Walker2d-v4"]["ok"]


def test_write_keeps_what_was_measured(monkeypatch, tmp_path, capsys):
    def measure_nothing(env_id):
        return Parity(0.0, 0.0, 0.0, env_id != "Ant-v4", 4, 4000, "every step")

    monkeypatch.setattr(envpool_parity, "measure", measure_nothing)
    monkeypatch.setattr(envpool_parity, "PARITY_FILE", tmp_path / "parity.json")
    assert main([]) == 0
    assert not (tmp_path / "parity.json").exists()
    assert main(["--write"]) == 0
    written = json.loads((tmp_path / "parity.json").read_text())
    assert written.keys() == RECORD.keys()
    assert [env_id for env_id, task in written["tasks"].items() if not task["ok"]] == ["Ant-v4"]
    assert capsys.readouterr().out.endswith("wrote parity.json\n")


@pytest.mark.slow
@pytest.mark.parametrize("env_id", measured_ids())
def test_record_is_still_true(env_id):
    parity, record = measure(env_id), RECORD["tasks"][env_id]
    assert (parity.reason is None) == record["ok"]
    assert parity.flags_equal == record["flags_equal"]
    assert parity.n_steps == record["n_steps"]
    # contacts amplify rounding, which differs between processors: an order of magnitude is kept
    assert np.log10(parity.max_obs_diff + 1e-12) <= np.log10(record["max_obs_diff"] + 1e-12) + 1.5
