"""Constructor arguments as data: everything SB3 takes that is data, nothing that is code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sb3_contrib import TQC
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer, RolloutBuffer
from stable_baselines3.common.envs import BitFlippingEnv
from stable_baselines3.common.noise import (
    NormalActionNoise,
    OrnsteinUhlenbeckActionNoise,
    VectorizedActionNoise,
)
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.her import GoalSelectionStrategy, HerReplayBuffer
from torch import nn

from agents.errors import BundleError
from agents.npg import NPG
from agents.registry import algorithm_class, algorithm_names
from hub.bundle import Bundle, save_bundle
from hub.bundle_format.agent_arguments import (
    arguments_from_json,
    arguments_to_json,
    policy_kwargs_from_json,
    policy_kwargs_to_json,
)
from hub.schedules import Constant, Exponential, Linear

# --- Schedules ----------------------------------------------------------------------------------

SCHEDULES = [
    (3e-4, 3e-4),
    (Constant(0.1), {"schedule": "constant", "value": 0.1}),
    (Linear(1e-3, 1e-5), {"schedule": "linear", "start": 1e-3, "end": 1e-5}),
    (Exponential(0.1, 0.01), {"schedule": "exponential", "start": 0.1, "end": 0.01}),
    (
        LinearSchedule(0.5, 0.1, 0.25),
        {"schedule": "linear_until", "start": 0.5, "end": 0.1, "end_fraction": 0.25},
    ),
]


@pytest.mark.parametrize("index", range(len(SCHEDULES)))
@pytest.mark.parametrize("name", ["learning_rate", "clip_range"])
def test_schedules_go_by_name(studio: Any, tmp_path: Path, index: int, name: str) -> None:
    schedule, written = SCHEDULES[index]
    model = studio.make("natural-zoo", "ppo", n_timesteps=0, **{name: schedule})
    bundle = studio.save(tmp_path / "agent", model, "ppo")
    assert bundle.manifest.arguments[name] == written
    loaded = bundle.load_model()
    function = {"learning_rate": "lr_schedule", "clip_range": "clip_range"}[name]
    for progress in (1.0, 0.9, 0.5, 0.1, 0.0):
        assert getattr(loaded, function)(progress) == getattr(model, function)(progress)


@pytest.mark.parametrize("schedule", [lambda p: p, np.sqrt, float, Linear(0.1).__call__])
def test_functions_are_refused_with_advice(studio: Any, tmp_path: Path, schedule: Any) -> None:
    model = studio.make(n_timesteps=0, learning_rate=1e-3)
    model.learning_rate = schedule
    with pytest.raises(BundleError) as caught:
        studio.save(tmp_path / "agent", model)
    assert str(caught.value).startswith("learning_rate is ")
    assert "`learning_rate: {schedule: linear, start: 3e-4, end: 0.0}`" in str(caught.value)
    assert not (tmp_path / "agent").exists()


@pytest.mark.parametrize(
    "value",
    [
        {"schedule": "lambda"},
        {"schedule": "linear"},
        {"schedule": "linear", "start": "1"},
        {"schedule": "linear", "start": 1, "end": 0, "code": 1},
        {"schedule": "linear_until", "start": 1.0, "end": 0.0, "end_fraction": 0.0},
        {"schedule": ["linear"]},
        {"noise": "normal", "mean": [0], "sigma": [1]},
        "lin_3e-4",
        [3e-4],
        True,
        None,
    ],
    ids=str,
)
def test_other_schedules_are_refused(value: Any) -> None:
    with pytest.raises(BundleError, match="learning_rate"):
        arguments_from_json(NPG, {"learning_rate": value})


# --- Action noise and replay buffers ------------------------------------------------------------


def noises() -> list[Any]:
    normal = NormalActionNoise(np.zeros(2), np.array([0.1, 0.2]))
    return [
        None,
        normal,
        OrnsteinUhlenbeckActionNoise(np.ones(2), np.full(2, 0.3), theta=0.2, dt=0.1),
        OrnsteinUhlenbeckActionNoise(np.ones(2), np.ones(2), initial_noise=np.array([4.0, 5.0])),
        VectorizedActionNoise(normal, 3),
    ]


@pytest.mark.parametrize("index", range(5))
def test_action_noise_goes_by_name(studio: Any, tmp_path: Path, index: int) -> None:
    noise = noises()[index]
    model = studio.make("stable-baselines3", "td3", n_timesteps=0, action_noise=noise)
    loaded = studio.save(tmp_path / "agent", model, "td3").load_model().action_noise
    expected = getattr(noise, "base_noise", noise)
    assert type(loaded) is type(expected)
    if noise is not None:
        for each in (loaded, expected):
            np.random.seed(0)
            each.reset()
            each.drawn = [each() for _ in range(4)]
        np.testing.assert_array_equal(loaded.drawn, expected.drawn)


def test_other_noise_is_refused() -> None:
    model = TD3("MlpPolicy", "Pendulum-v1", buffer_size=10, device="cpu")
    model.action_noise = NormalActionNoise(np.zeros(1), np.ones(1), dtype=np.float64)
    with pytest.raises(BundleError, match="NormalActionNoise and Ornstein"):
        arguments_to_json(model)
    for value in (
        {"noise": "custom"},
        {"noise": "normal", "mean": [0.0]},
        {"noise": "normal", "mean": [0.0], "sigma": "inf"},
        {"noise": "normal", "mean": [0.0], "sigma": [1.0], "dtype": "object"},
        {"noise": "ornstein_uhlenbeck", "mean": [0.0], "sigma": [1.0]},
        [1.0],
    ):
        with pytest.raises(BundleError, match="action_noise"):
            arguments_from_json(TD3, {"action_noise": value})


def test_hindsight_replay_needs_its_environment(tmp_path: Path) -> None:
    env = BitFlippingEnv(n_bits=4, continuous=True)
    model = SAC(
        "MultiInputPolicy",
        env,
        replay_buffer_class=HerReplayBuffer,
        replay_buffer_kwargs={
            "n_sampled_goal": 2,
            "goal_selection_strategy": GoalSelectionStrategy.FINAL,
        },
        learning_starts=20,
        buffer_size=100,
        policy_kwargs={"net_arch": [8]},
        device="cpu",
    ).learn(40)
    bundle = save_bundle(tmp_path / "agent", model, algo="sac", env_id="BitFlipping-v0")
    assert bundle.manifest.arguments["replay_buffer_class"] == "her"
    loaded = bundle.load_model(BitFlippingEnv(n_bits=4, continuous=True), learning_starts=60)
    assert type(loaded.replay_buffer) is HerReplayBuffer
    assert loaded.replay_buffer.n_sampled_goal == 2
    assert loaded.replay_buffer.goal_selection_strategy is GoalSelectionStrategy.FINAL
    loaded.learn(40, reset_num_timesteps=False)
    with pytest.raises(BundleError, match=r"load_model\(env\), or load_policy\(\)"):
        bundle.load_model()
    assert bundle.load_policy().state_dict().keys() == model.policy.state_dict().keys()


def test_replay_buffers_that_sb3_chooses_need_no_words(studio: Any, tmp_path: Path) -> None:
    kwargs: dict[str, Any] = {"n_steps": 3, "replay_buffer_kwargs": {}}
    for settings, chosen in (({}, ReplayBuffer), ({"observation": "dict"}, DictReplayBuffer)):
        model = studio.make("stable-baselines3", "dqn", n_timesteps=0, **settings)
        assert model.replay_buffer_class is chosen
        assert "replay_buffer_class" not in arguments_to_json(model)
    model = studio.make("stable-baselines3", "dqn", n_timesteps=0, **kwargs)
    arguments = arguments_to_json(model)
    assert arguments["n_steps"] == 3
    assert not {"replay_buffer_class", "replay_buffer_kwargs"} & arguments.keys()
    loaded = studio.save(tmp_path / "agent", model, "dqn").load_model()
    assert type(loaded.replay_buffer) is type(model.replay_buffer)
    assert loaded.replay_buffer_kwargs == {"n_steps": 3, "gamma": 0.99}


def test_settings_of_the_replay_buffer(studio: Any, tmp_path: Path) -> None:
    settings = {"handle_timeout_termination": False}
    model = studio.make(
        "stable-baselines3",
        "dqn",
        n_timesteps=0,
        optimize_memory_usage=True,
        replay_buffer_kwargs=settings,
    )
    loaded = studio.save(tmp_path / "agent", model, "dqn").load_model()
    assert loaded.replay_buffer.handle_timeout_termination is False
    assert loaded.replay_buffer.optimize_memory_usage is True


class OwnReplay(ReplayBuffer):
    pass


class OwnRollouts(RolloutBuffer):
    pass


def test_buffers_of_ones_own_are_refused(studio: Any) -> None:
    model = studio.make("stable-baselines3", "dqn", n_timesteps=0, replay_buffer_class=OwnReplay)
    with pytest.raises(BundleError, match="OwnReplay"):
        arguments_to_json(model)
    model = studio.make(n_timesteps=0, rollout_buffer_class=OwnRollouts)
    with pytest.raises(BundleError, match="OwnRollouts"):
        arguments_to_json(model)
    for value in ({"path": "x"}, {"n_sampled_goal": 0}, {"goal_selection_strategy": "os"}, [1]):
        with pytest.raises(BundleError, match="replay_buffer_kwargs"):
            arguments_from_json(DQN, {"replay_buffer_kwargs": value})
    with pytest.raises(BundleError, match="Known: her"):
        arguments_from_json(DQN, {"replay_buffer_class": "OwnReplay"})
    with pytest.raises(BundleError, match="replay_buffer_class"):
        arguments_from_json(NPG, {"replay_buffer_class": "her"})


# --- Names and types ----------------------------------------------------------------------------

REFUSED: list[tuple[Any, dict[str, Any], str]] = [
    (NPG, {"gama": 0.9}, "Did you mean 'gamma'"),
    (NPG, {"env": "CartPole-v1"}, "Unknown argument 'env'"),
    (NPG, {"device": "cuda"}, "Unknown argument 'device'"),
    (NPG, {"tensorboard_log": "logs"}, "Unknown argument 'tensorboard_log'"),
    (NPG, {"verbose": 2}, "Unknown argument 'verbose'"),
    (NPG, {"_init_setup_model": False}, "Unknown argument"),
    (NPG, {"policy_kwargs": {}}, "Unknown argument"),
    (NPG, {"rollout_buffer_class": "RolloutBuffer"}, "Unknown argument"),
    (NPG, {"n_steps": 64.0}, "must be of type int"),
    (NPG, {"n_steps": True}, "must be of type int"),
    (NPG, {"n_steps": "64"}, "must be of type int"),
    (NPG, {"gamma": "high"}, "must be of type float"),
    (NPG, {"gamma": None}, "must be of type float"),
    (NPG, {"use_sde": 1}, "must be of type bool"),
    (NPG, {"normalize_advantage": "yes"}, "must be of type bool"),
    (PPO, {"target_kl": {"a": 1}}, "must be of type NoneType or float"),
    (SAC, {"train_freq": [1]}, "must be of type"),
    (SAC, {"train_freq": [1.5, "step"]}, "must be of type"),
    (SAC, {"train_freq": ["step", 1]}, "must be of type"),
    (SAC, {"action_noise": "normal"}, "must be of type"),
    (A2C, {"supported_action_spaces": []}, "Unknown argument"),
]


@pytest.mark.parametrize(("algorithm", "given", "reason"), REFUSED, ids=str)
def test_wrong_arguments_are_refused(algorithm: Any, given: Any, reason: str) -> None:
    with pytest.raises(BundleError) as caught:
        arguments_from_json(algorithm, given)
    assert reason in str(caught.value)


def test_values_become_what_the_constructor_takes() -> None:
    given = {"train_freq": [4, "episode"], "gamma": 1, "ent_coef": "auto_0.1", "seed": None}
    built = arguments_from_json(SAC, given)
    assert built == given | {"train_freq": (4, "episode")}
    assert type(built["gamma"]) is float
    assert arguments_from_json(PPO, {"max_grad_norm": "inf"}) == {"max_grad_norm": float("inf")}


@pytest.mark.parametrize("name", algorithm_names())
def test_every_argument_of_ours_can_be_written(name: str, studio: Any) -> None:
    """An argument that an algorithm does not keep would be lost; this names it."""
    model = studio.make("natural-zoo", name, n_timesteps=0, action="discrete")
    arguments = arguments_to_json(model)
    assert {"n_steps", "gamma", "seed", "learning_rate"} <= arguments.keys()
    arguments_from_json(algorithm_class(name), arguments)


class Forgetful(NPG):
    def __init__(self, *args: Any, temper: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)


def test_an_argument_that_is_not_kept_is_named() -> None:
    model = Forgetful("MlpPolicy", "CartPole-v1", n_steps=8)
    with pytest.raises(BundleError, match="does not keep its argument 'temper'"):
        arguments_to_json(model)


# --- Policies -----------------------------------------------------------------------------------


def test_classes_of_a_policy_go_by_name() -> None:
    kwargs = {
        "net_arch": {"pi": [64, 32], "vf": []},
        "activation_fn": nn.SiLU,
        "optimizer_class": torch.optim.AdamW,
        "optimizer_kwargs": {"betas": (0.8, 0.9), "weight_decay": 0.1},
        "log_std_init": -2,
        "ortho_init": False,
        "features_extractor_kwargs": {},
    }
    written = policy_kwargs_to_json(ActorCriticPolicy, kwargs)
    assert written["activation_fn"] == "silu"
    assert written["optimizer_class"] == "adamw"
    assert policy_kwargs_from_json(ActorCriticPolicy, written) == kwargs


class OwnActivation(nn.ReLU):
    pass


POLICY_REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"net_arch": [64, "64"]}, "must be of type"),
    ({"net_arch": {"pi": 64}}, "must be of type"),
    ({"net_arch": "code"}, "must be of type"),
    ({"activation_fn": "sigmoid"}, "Known: elu"),
    ({"activation_fn": "ReLU"}, "Did you mean 'relu'"),
    ({"activation_fn": ["relu"]}, "Known: elu"),
    ({"optimizer_class": "lion"}, "Known: adam"),
    ({"features_extractor_class": "NatureCNN"}, "Known: combined"),
    ({"observation_space": {}}, "Unknown argument"),
    ({"lr_schedule": 1.0}, "Unknown argument"),
    ({"netarch": [1]}, "Did you mean 'net_arch'"),
]


@pytest.mark.parametrize(("given", "reason"), POLICY_REFUSED, ids=str)
def test_wrong_policy_kwargs_are_refused(given: Any, reason: str) -> None:
    with pytest.raises(BundleError) as caught:
        policy_kwargs_from_json(ActorCriticPolicy, given)
    assert reason in str(caught.value)


def test_classes_without_a_name_are_refused() -> None:
    for kwargs in (
        {"activation_fn": OwnActivation},
        {"activation_fn": lambda: nn.ReLU()},
        {"optimizer_class": torch.optim.Adagrad},
        {"features_extractor_class": OwnActivation},
    ):
        with pytest.raises(BundleError, match=r"policy_kwargs\."):
            policy_kwargs_to_json(ActorCriticPolicy, kwargs)


class OwnPolicy(ActorCriticPolicy):
    pass


def test_policies_of_ones_own_are_refused(tmp_path: Path) -> None:
    model = NPG(OwnPolicy, "CartPole-v1", n_steps=8)
    with pytest.raises(BundleError, match="npg knows MlpPolicy, CnnPolicy, MultiInputPolicy"):
        save_bundle(tmp_path / "agent", model, algo="npg", env_id="CartPole-v1")


def test_a_policy_that_was_changed_is_refused(tmp_path: Path) -> None:
    model = NPG("MlpPolicy", "CartPole-v1", n_steps=8)
    model.policy.mlp_extractor.policy_net[1] = nn.LeakyReLU(0.3)
    with pytest.raises(BundleError, match="changed after it was made"):
        save_bundle(tmp_path / "agent", model, algo="npg", env_id="CartPole-v1")
    assert not (tmp_path / "agent").exists()


def test_the_class_and_its_name_belong_together(tmp_path: Path) -> None:
    model = NPG("MlpPolicy", "CartPole-v1", n_steps=8)
    for algo in ("trpo", "NPG", "unknown"):
        with pytest.raises(BundleError, match=f"cannot be saved as '{algo}'"):
            save_bundle(tmp_path / "agent", model, algo=algo, env_id="CartPole-v1")
    with pytest.raises(BundleError, match="Forgetful cannot be saved as 'npg'"):
        save_bundle(
            tmp_path / "agent",
            Forgetful("MlpPolicy", "CartPole-v1", n_steps=8),
            algo="npg",
            env_id="CartPole-v1",
        )


def test_numpy_numbers_of_tqc(studio: Any, tmp_path: Path) -> None:
    model = studio.make("sb3-contrib", "tqc", n_timesteps=0)
    assert isinstance(model, TQC)
    assert isinstance(model.target_entropy, np.float32)
    loaded = studio.save(tmp_path / "agent", model, "tqc").load_model()
    assert loaded.target_entropy == model.target_entropy == -2.0
    assert Bundle.open(tmp_path / "agent").manifest.arguments["target_entropy"] == -2.0


def test_a2c_without_rmsprop_keeps_adam(studio: Any, tmp_path: Path) -> None:
    for flag, expected in ((True, torch.optim.RMSprop), (False, torch.optim.Adam)):
        model = studio.make("stable-baselines3", "a2c", n_timesteps=0, use_rms_prop=flag)
        loaded = studio.save(tmp_path / "agent", model, "a2c").load_model()
        assert type(loaded.policy.optimizer) is expected
