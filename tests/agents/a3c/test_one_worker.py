"""A3C with one worker, and what is refused before anything is built."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stable_baselines3
import torch
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.logger import configure
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.utils import LinearSchedule

from agents.a3c import A3C
from agents.errors import ConfigError, UnknownName
from agents.functional import flatten


def weights(agent: Any) -> torch.Tensor:
    return flatten(parameter.detach() for parameter in agent.policy.parameters())


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_one_worker_is_a2c_with_its_optimiser(env_id: str) -> None:
    """SB3's A2C, its statistics beginning at one, and ours begun there, too."""
    common: dict[str, Any] = {"n_steps": 8, "ent_coef": 0.02, "seed": 5, "learning_rate": 3e-3}
    ours = A3C("MlpPolicy", make_vec_env(env_id, n_envs=2), **common)
    for square_avg in ours.rmsprop.square_avgs(ours.policy.parameters()):
        square_avg.fill_(1.0)
    start = weights(ours)
    ours.learn(160)
    theirs = stable_baselines3.A2C(
        "MlpPolicy",
        make_vec_env(env_id, n_envs=2),
        policy_kwargs={
            "optimizer_class": RMSpropTFLike,
            "optimizer_kwargs": {"alpha": 0.99, "eps": 1e-5, "weight_decay": 0.0},
        },
        **common,
    )
    assert torch.equal(start, weights(theirs))
    theirs.learn(160)
    assert (weights(ours) - start).abs().max() > 1e-4
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-4, atol=1e-6)


def test_it_repeats_itself() -> None:
    def trained(seed: int) -> torch.Tensor:
        return weights(A3C("MlpPolicy", "Pendulum-v1", seed=seed).learn(300))

    assert torch.equal(trained(3), trained(3))
    assert not torch.equal(trained(3), trained(4))


def test_training_goes_on_from_a_file_as_if_it_had_not_been_interrupted(tmp_path: Path) -> None:
    def resumed(agent: A3C) -> torch.Tensor:
        agent.set_random_seed(9)
        agent._last_obs = None
        return weights(agent.learn(80, reset_num_timesteps=False))

    agent = A3C("MlpPolicy", "CartPole-v1", seed=1).learn(100)
    agent.save(tmp_path / "agent")
    loaded = A3C.load(tmp_path / "agent", env=make_vec_env("CartPole-v1"))
    assert loaded.rmsprop.state_dict()["param_groups"][0]["eps"] == agent.rms_prop_eps
    assert torch.equal(resumed(loaded), resumed(agent))
    assert loaded.num_timesteps == 180


def test_a_gradient_that_is_not_finite_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    agent = A3C("MlpPolicy", "CartPole-v1", seed=1)
    collect = agent.collect_rollouts

    def spoiled(*args: Any, **kwargs: Any) -> bool:
        goes_on = collect(*args, **kwargs)
        if agent.num_timesteps == 10:
            agent.rollout_buffer.returns[0] = np.nan
        return goes_on

    monkeypatch.setattr(agent, "collect_rollouts", spoiled)
    agent.learn(5)
    before = weights(agent)
    agent.learn(5, reset_num_timesteps=False)
    assert torch.equal(weights(agent), before)
    assert (agent.n_skipped_updates, agent._n_updates) == (1, 2)
    agent.learn(5, reset_num_timesteps=False)
    assert not torch.equal(weights(agent), before)
    assert torch.isfinite(weights(agent)).all()


def test_the_log_says_what_is_promised(tmp_path: Path) -> None:
    agent = A3C("MlpPolicy", "Pendulum-v1", learning_rate=LinearSchedule(1e-3, 0.0, 1.0), seed=1)
    logger = configure(str(tmp_path), ["csv"])
    agent.set_logger(logger)
    agent.learn(1500)
    logger.close()
    with (tmp_path / "progress.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["time/total_timesteps"]) for row in rows] == [500, 1000, 1500]
    last = {key.removeprefix("train/"): row for key, row in rows[-1].items()}
    promised = {"policy_loss", "value_loss", "entropy_loss", "gradient_norm", "explained_variance"}
    promised |= {"staleness", "staleness_max", "n_workers", "crashed_workers", "skipped_updates"}
    assert promised | {"n_updates", "learning_rate", "std"} <= last.keys()
    assert float(last["learning_rate"]) == pytest.approx(1e-3 * (1 - 1495 / 1500))
    assert (last["staleness"], last["n_workers"], last["crashed_workers"]) == ("0.0", "1", "0")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"n_workers": 0}, "n_workers=0 must be at least 1"),
        ({"on_worker_crash": "ignore"}, "Known: continue, raise"),
        ({"max_grad_norm": 0.0}, "max_grad_norm=0.0 must be positive"),
        ({"rms_prop_eps": 0.0}, "rms_prop_eps=0.0 must be positive"),
        ({"rms_prop_alpha": 1.0}, "rms_prop_alpha=1.0 must be in"),
        ({"ent_coef": -0.1}, "ent_coef=-0.1 must be finite and not negative"),
        ({"vf_coef": float("inf")}, "vf_coef=inf must be finite"),
        ({"policy_kwargs": {"optimizer_class": torch.optim.Adam}}, "leave optimizer_class out"),
        ({"exploration_temperatures": [1.0, 2.0]}, "pass n_workers=2 or more"),
        ({"exploration_temperatures": [], "n_workers": 2}, "must be positive numbers"),
        ({"exploration_temperatures": [1.0, 0.0], "n_workers": 2}, "must be positive numbers"),
    ],
)
def test_what_cannot_work_is_refused(kwargs: dict[str, Any], message: str) -> None:
    expected = UnknownName if "on_worker_crash" in kwargs else ConfigError
    with pytest.raises(expected, match=message):
        A3C("MlpPolicy", "CartPole-v1", **kwargs)
