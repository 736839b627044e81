"""PPO-KL: the rule for β, the gradient it follows, and the divergence it measures."""

from __future__ import annotations

import copy
import itertools
import math
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.policies import ActorCriticPolicy
from torch import nn

from agents import PPOKL
from agents.errors import ConfigError
from agents.flat_adam import FlatAdam
from agents.functional import flatten
from agents.gaussian_mlp import find_gaussian_mlp
from agents.kl_penalty import (
    AutogradLearner,
    Coefficients,
    HandLearner,
    Learner,
    PenalizedBatch,
    adapted_kl_coef,
    make_learner,
)
from agents.surrogate import Surrogate

N = 40
OBSERVATIONS = spaces.Box(-1.0, 1.0, (4,), np.float32)
ACTIONS: dict[str, gym.Space] = {
    "box": spaces.Box(-1.0, 1.0, (3,), np.float32),
    "discrete": spaces.Discrete(4),
    "multi-discrete": spaces.MultiDiscrete([2, 3]),
    "multi-binary": spaces.MultiBinary(3),
}
SURROGATE_ALONE = Coefficients(kl=0.0, entropy=0.0, value=0.0)
ENDLESS = 1e9  # no gradient is as long as that


def make_policy(kind: str = "box", **kwargs: Any) -> ActorCriticPolicy:
    """Return a policy with random biases and deviations, where SB3 starts from constants."""
    policy = ActorCriticPolicy(OBSERVATIONS, ACTIONS[kind], lambda _: 3e-3, **kwargs)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return policy


def make_batch(policy: ActorCriticPolicy, n: int = N) -> PenalizedBatch:
    observations = torch.randn(n, 4)
    with torch.no_grad():
        distribution = policy.get_distribution(observations)
        actions = distribution.get_actions()
        log_prob = distribution.log_prob(actions)
    return PenalizedBatch(observations, actions, log_prob, torch.randn(n), torch.randn(n))


def by_hand(policy: ActorCriticPolicy, batch: PenalizedBatch) -> HandLearner:
    networks = find_gaussian_mlp(policy)
    assert networks is not None
    return HandLearner(networks, batch)


def weights(policy: ActorCriticPolicy) -> torch.Tensor:
    return flatten(parameter.detach() for parameter in policy.parameters())


def minibatches(n_epochs: int, size: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    epochs = [torch.randperm(N, generator=generator) for _ in range(n_epochs)]
    return [index for order in epochs for index in torch.split(order, size)]


# --- β ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        (0.0, 1.5),
        (0.0199, 1.5),
        (0.0201, 3.0),
        (0.03, 3.0),
        (0.0449, 3.0),
        (0.0451, 6.0),
        (math.inf, 6.0),
        (math.nan, 3.0),
    ],
)
def test_the_rule_for_beta(measured: float, expected: float) -> None:
    # Around the target 0.03: below 0.02 it is halved, above 0.045 doubled.
    assert adapted_kl_coef(3.0, measured, 0.03) == expected


def test_beta_stays_within_its_range() -> None:
    small, large = 1.0, 1.0
    for _ in range(50):
        small, large = adapted_kl_coef(small, 0.0, 0.01), adapted_kl_coef(large, 1.0, 0.01)
    assert (small, large) == (1e-4, 1e4)
    assert adapted_kl_coef(small, 1.0, 0.01) == 2e-4


class Keep(BaseCallback):
    """Keeps β before each update and what the update before it logged."""

    def __init__(self) -> None:
        super().__init__()
        self.betas: list[float] = []
        self.logged: list[dict[str, float]] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        self.betas.append(self.model.kl_coef)  # type: ignore[attr-defined]
        self.logged.append(dict(self.logger.name_to_value))


def learn(n_updates: int, callback: BaseCallback | None = None, **kwargs: Any) -> PPOKL:
    settings: dict[str, Any] = {"n_steps": 64, "batch_size": 32, "n_epochs": 4, "seed": 1}
    agent = PPOKL("MlpPolicy", make_vec_env("Pendulum-v1", 2), **settings | kwargs)
    return agent.learn(n_updates * 128, callback=callback, log_interval=10**6)


def test_training_follows_the_rule() -> None:
    keep = Keep()
    agent = learn(9, keep, target_kl=0.004, kl_coef=0.5, learning_rate=2e-3)
    betas = [*keep.betas, agent.kl_coef]
    logged = [*keep.logged[1:], agent.logger.name_to_value]
    assert betas[0] == 0.5
    for (before, after), update in zip(itertools.pairwise(betas), logged, strict=True):
        assert update["train/kl_coef"] == before
        assert update["train/target_kl"] == 0.004
        kl = update["train/mean_kl"]
        factor = 0.5 if kl < 0.004 / 1.5 else 2.0 if kl > 0.004 * 1.5 else 1.0
        assert after == factor * before
    assert len({after / before for before, after in itertools.pairwise(betas)}) > 1


def test_a_scheduled_target() -> None:
    agent = learn(4, target_kl=lambda remaining: 0.001 + remaining)
    assert agent.logger.name_to_value["train/target_kl"] == pytest.approx(0.001)  # at the end


def test_a_fixed_beta_stays() -> None:
    agent = learn(3, target_kl=None, kl_coef=0.25)
    assert agent.kl_coef == 0.25
    assert agent.logger.name_to_value["train/kl_coef"] == 0.25
    assert "train/target_kl" not in agent.logger.name_to_value


def test_a_larger_beta_holds_the_policy_back() -> None:
    kls = [
        learn(1, target_kl=None, kl_coef=beta, n_epochs=20, learning_rate=3e-3).logger
        for beta in (0.0, 3.0, 100.0)
    ]
    free, held, stuck = (logger.name_to_value["train/mean_kl"] for logger in kls)
    assert free > 2.0 * held > 4.0 * stuck > 0.0


@pytest.mark.parametrize("start", [1e-3, 1e3])
def test_adaptation_comes_near_its_target_from_far_away(start: float) -> None:
    keep = Keep()
    agent = PPOKL(
        "MlpPolicy",
        make_vec_env(lambda: Still(ACTIONS["box"]), 2),
        n_steps=128,
        learning_rate=1e-3,
        target_kl=0.01,
        kl_coef=start,
        seed=1,
    )
    agent.learn(30 * 256, callback=keep, log_interval=10**6)
    kls = np.array([update["train/mean_kl"] for update in keep.logged[1:]])
    assert not 0.01 / 5.0 < kls[:3].mean() < 0.01 * 5.0
    assert 0.01 / 2.0 < np.median(kls[-15:]) < 0.01 * 2.0


def test_beta_is_saved_with_the_agent(tmp_path: Path) -> None:
    agent = learn(3, target_kl=1.0)
    assert agent.kl_coef == 1.0 / 8.0
    agent.save(tmp_path / "agent")
    loaded = PPOKL.load(tmp_path / "agent", env=agent.get_env())
    assert loaded.kl_coef == 1.0 / 8.0
    loaded.learn(128, reset_num_timesteps=False)
    assert loaded.kl_coef == 1.0 / 16.0


# --- The gradient -------------------------------------------------------------------------------


def gradient_of_first_step(
    policy: ActorCriticPolicy,
    learner: Learner,
    coefficients: Coefficients,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[int, torch.Tensor]:
    """Return what the learner's first step on the whole batch goes against, by parameter."""
    if isinstance(learner, HandLearner):
        taken: list[torch.Tensor] = []
        monkeypatch.setattr(FlatAdam, "step", lambda _, gradient: taken.append(gradient.clone()))
        assert learner.step(torch.arange(N), coefficients, ENDLESS) is not None
        networks = find_gaussian_mlp(policy)
        assert networks is not None
        sizes = [parameter.numel() for parameter in networks.parameters]
        parts = torch.split(taken[0], sizes)
        return {id(p): part for p, part in zip(networks.parameters, parts, strict=True)}
    monkeypatch.setattr(policy.optimizer, "step", lambda: None)
    assert learner.step(torch.arange(N), coefficients, ENDLESS) is not None
    return {id(p): p.grad.flatten() for p in policy.parameters() if p.grad is not None}


CASES = [(by_hand, "box"), *((AutogradLearner, kind) for kind in ACTIONS)]


@pytest.mark.parametrize("beta", [0.0, 7.0])
@pytest.mark.parametrize(("learner", "kind"), CASES)
def test_the_first_step_goes_along_the_plain_surrogate_gradient(
    learner: Any, kind: str, beta: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with β > 0: at θ_old the divergence is at its minimum."""
    policy = make_policy(kind)
    batch = make_batch(policy)
    surrogate = Surrogate(policy, batch.observations, batch.actions, batch.advantages)
    coefficients = SURROGATE_ALONE._replace(kl=beta)
    gradient = gradient_of_first_step(policy, learner(policy, batch), coefficients, monkeypatch)
    along = flatten(gradient[id(parameter)] for parameter in surrogate.parameters)
    torch.testing.assert_close(-along, surrogate.gradient(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", list(ACTIONS))
def test_no_penalty_and_one_epoch_is_one_surrogate_gradient_step(kind: str) -> None:
    """The relation of algorithms.md through ``train``, with plain gradient descent as optimiser."""
    env = make_vec_env(lambda: Still(ACTIONS[kind]), 2)
    agent = PPOKL(
        "MlpPolicy",
        env,
        n_steps=20,
        batch_size=40,
        n_epochs=1,
        target_kl=None,
        kl_coef=0.0,
        vf_coef=0.0,
        max_grad_norm=ENDLESS,
        learning_rate=0.25,
        policy_kwargs={"optimizer_class": torch.optim.SGD},
        seed=2,
    )
    expected: list[torch.Tensor] = []
    train = agent.train

    def compare() -> None:
        batch = next(iter(agent.rollout_buffer.get(batch_size=None)))
        surrogate = Surrogate(
            agent.policy, batch.observations, agent._actions(batch), agent._advantages(batch)
        )
        expected.append(surrogate.point() + 0.25 * surrogate.gradient())
        train()
        expected.append(surrogate.point())

    agent.train = compare  # type: ignore[method-assign]
    agent.learn(40)
    torch.testing.assert_close(expected[1], expected[0], rtol=1e-5, atol=1e-6)


class Still(gym.Env[Any, Any]):
    """Pays for what is done, in random states; all returns are finite and differ."""

    observation_space = OBSERVATIONS

    def __init__(self, action_space: gym.Space) -> None:
        self.action_space = action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return self.np_random.uniform(-1.0, 1.0, 4).astype(np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs = self.np_random.uniform(-1.0, 1.0, 4).astype(np.float32)
        return obs, float(np.sum(action)), bool(self.np_random.random() < 0.2), False, {}


NETWORKS: list[dict[str, Any]] = [
    {},
    {"net_arch": [6], "activation_fn": nn.ReLU},
    {"net_arch": {"pi": [5, 4], "vf": []}, "log_std_init": -1.0},
]


@pytest.mark.parametrize("network", NETWORKS, ids=str)
@pytest.mark.parametrize(
    "coefficients",
    [Coefficients(0.0, 0.0, 0.0), Coefficients(5.0, 0.0, 0.5), Coefficients(0.5, 0.1, 0.2)],
)
@pytest.mark.parametrize("max_grad_norm", [0.05, ENDLESS])
def test_both_learners_take_the_same_steps(
    network: dict[str, Any], coefficients: Coefficients, max_grad_norm: float
) -> None:
    policy = make_policy(**network)
    twin, start = copy.deepcopy(policy), weights(policy)
    batch = make_batch(policy)
    mine, other = by_hand(policy, batch), AutogradLearner(twin, batch)
    for index in minibatches(n_epochs=3, size=16):
        losses = mine.step(index, coefficients, max_grad_norm)
        expected = other.step(index, coefficients, max_grad_norm)
        assert losses is not None
        assert expected is not None
        assert tuple(losses) == pytest.approx(tuple(expected), rel=1e-3, abs=1e-5)
    assert mine.finish() == pytest.approx(other.finish(), rel=1e-3)
    torch.testing.assert_close(weights(policy), weights(twin), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(weights(policy), start, rtol=0.0, atol=1e-2)


def test_the_common_gaussian_mlp_is_differentiated_by_hand_and_nothing_else() -> None:
    for kind, hand in (("box", True), ("discrete", False)):
        policy = make_policy(kind)
        assert isinstance(make_learner(policy, make_batch(policy)), HandLearner) is hand
    for optimizer in (torch.optim.SGD, torch.optim.AdamW):
        policy = make_policy(optimizer_class=optimizer)
        assert isinstance(make_learner(policy, make_batch(policy)), AutogradLearner)


class OwnEvaluation(ActorCriticPolicy):
    """Evaluates actions without leaving the distributions where SB3 does."""

    def evaluate_actions(self, obs: Any, actions: torch.Tensor) -> Any:
        result = super().evaluate_actions(obs, actions)
        self.action_dist.distribution = None
        return result


def test_a_policy_that_evaluates_actions_its_own_way() -> None:
    policy = make_policy()
    own = OwnEvaluation(OBSERVATIONS, ACTIONS["box"], lambda _: 3e-3)
    own.load_state_dict(policy.state_dict())
    batch = make_batch(policy)
    coefficients = Coefficients(2.0, 0.1, 0.5)
    learners = [make_learner(own, batch), AutogradLearner(policy, batch)]
    assert isinstance(learners[0], AutogradLearner)
    for index in minibatches(n_epochs=2, size=20):
        first, second = (each.step(index, coefficients, 1.0) for each in learners)
        assert first is not None
        assert second is not None
        assert tuple(first) == pytest.approx(tuple(second), rel=1e-5, abs=1e-6)
    torch.testing.assert_close(weights(own), weights(policy), rtol=1e-5, atol=1e-5)


# --- The divergence -----------------------------------------------------------------------------


@pytest.mark.parametrize(("learner", "kind"), CASES)
def test_it_measures_old_against_new(learner: Any, kind: str) -> None:
    policy = make_policy(kind)
    old, batch = copy.deepcopy(policy), make_batch(policy)
    taking = learner(policy, batch)
    for index in minibatches(n_epochs=20, size=N):
        taking.step(index, SURROGATE_ALONE, ENDLESS)
    measured = taking.finish()
    with torch.no_grad():
        before = old.get_distribution(batch.observations).distribution
        after = policy.get_distribution(batch.observations).distribution
    assert measured == pytest.approx(exact_kl(before, after), rel=1e-4)
    assert measured != pytest.approx(exact_kl(after, before), rel=1e-3)


def exact_kl(old: Any, new: Any) -> float:
    if isinstance(old, list):
        return sum(exact_kl(a, b) for a, b in zip(old, new, strict=True))
    divergence = torch.distributions.kl_divergence(old, new)
    return float(divergence.reshape(len(divergence), -1).sum(dim=1).mean())


def test_the_divergence_of_a_minibatch_is_of_its_own_states() -> None:
    for make in (by_hand, AutogradLearner):
        policy = make_policy()
        old, batch = copy.deepcopy(policy), make_batch(policy)
        learner = make(policy, batch)
        for _ in range(5):
            learner.step(torch.arange(N), SURROGATE_ALONE, ENDLESS)
        learner.finish()  # writes what the steps by hand have made into the policy
        index = torch.tensor([3, 7, 11])
        with torch.no_grad():
            before = old.get_distribution(batch.observations[index]).distribution
            after = policy.get_distribution(batch.observations[index]).distribution
        losses = learner.step(index, SURROGATE_ALONE, ENDLESS)
        assert losses is not None
        assert losses.mean_kl == pytest.approx(exact_kl(before, after), rel=1e-4)


# --- Guards -------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [by_hand, AutogradLearner])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_not_followed(make: Any, value: float) -> None:
    policy = make_policy()
    batch = make_batch(policy)
    batch.advantages[5] = value
    before = weights(policy)
    learner = make(policy, batch)
    assert learner.step(torch.arange(N), Coefficients(1.0, 0.0, 0.5), 0.5) is None
    assert learner.finish() == pytest.approx(0.0, abs=1e-6)
    assert torch.equal(weights(policy), before)
    # The samples without it are as good as ever.
    assert learner.step(torch.arange(6, N), Coefficients(1.0, 0.0, 0.5), 0.5) is not None


def test_skipped_steps_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HandLearner, "step", lambda *_: None)
    agent = learn(1)
    assert agent.n_skipped_steps == 16
    assert agent.logger.name_to_value["train/skipped_steps"] == 16
    assert math.isnan(agent.logger.name_to_value["train/loss"])


@pytest.mark.parametrize(("stop_kl", "n_epochs"), [(None, 8), (1e-6, 1), (1e9, 8)])
def test_epochs_are_left_out_only_on_request(stop_kl: float | None, n_epochs: int) -> None:
    agent = learn(1, n_epochs=8, stop_kl=stop_kl, learning_rate=1e-2)
    assert agent._n_updates == n_epochs


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target_kl", 0.0),
        ("target_kl", math.nan),
        ("kl_coef", -1.0),
        ("kl_coef", 0.0),
        ("kl_coef", math.inf),
        ("batch_size", 0),
        ("n_epochs", 0),
        ("vf_coef", -0.1),
        ("ent_coef", math.nan),
        ("max_grad_norm", 0.0),
        ("stop_kl", 0.0),
    ],
)
def test_a_parameter_out_of_range_is_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"^{name}={value} must be "):
        learn(0, **{name: value})


def test_a_fixed_beta_may_be_zero() -> None:
    assert learn(0, target_kl=None, kl_coef=0.0).kl_coef == 0.0
