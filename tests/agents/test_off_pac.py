"""Off-PAC: on-policy it is A2C, linear it is the paper's algorithm, and its data are its own."""

from __future__ import annotations

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

from agents import A2C, OffPAC
from agents.errors import ConfigError, UnknownName
from agents.functional import GTDState, flatten, gtd_step
from agents.off_policy_loss import OffPolicySettings, off_policy_loss
from agents.trajectory_buffer import TrajectoryBatch

SGD = {"optimizer_class": torch.optim.SGD}


class Walk(gym.Env[np.ndarray, Any]):
    """A noisy walk with real ends, a time limit and every kind of action."""

    observation_space = spaces.Box(-10.0, 10.0, (2,), np.float32)

    def __init__(self, kind: str = "discrete") -> None:
        self.action_space = {
            "discrete": spaces.Discrete(3),
            "box": spaces.Box(-1.0, 1.0, (2,), np.float32),
        }[kind]

    def reset(
        self, *, seed: int | None = None, options: Any = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.n_steps = 0
        self.state = self.np_random.normal(size=2).astype(np.float32)
        return self.state, {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self.n_steps += 1
        push = float(np.mean(action)) - (
            1.0 if isinstance(self.action_space, spaces.Discrete) else 0.0
        )
        self.state = (self.state + push + self.np_random.normal(size=2) * 0.3).astype(np.float32)
        reward = -float(np.square(self.state).mean())
        return self.state, reward, abs(self.state[0]) > 2.5, self.n_steps >= 11, {}


def make(kind: str = "discrete", n_envs: int = 3, **kwargs: Any) -> OffPAC:
    env = make_vec_env(lambda: Walk(kind), n_envs=n_envs)
    settings = {"n_steps": 32, "buffer_size": 32 * n_envs, "batch_size": 32 * n_envs, "seed": 0}
    return OffPAC("MlpPolicy", env, **settings | kwargs)


def weights(agent: Any) -> torch.Tensor:
    return flatten(parameter.detach() for parameter in agent.policy.parameters())


def settings_of(agent: OffPAC, **kwargs: Any) -> OffPolicySettings:
    values = {
        "gamma": agent.gamma,
        "gae_lambda": agent.gae_lambda,
        "max_ratio": agent.max_ratio,
        "emphasis": agent.emphasis,
        "normalize_advantage": False,
        "gradient_correction": True,
    }
    return OffPolicySettings(**values | kwargs)


class Batches(BaseCallback):
    """Keeps the batches that an agent learns from."""

    def __init__(self, agent: OffPAC) -> None:
        super().__init__()
        self.batches: list[TrajectoryBatch] = []
        update = agent._update

        def keep_and_update(batch: TrajectoryBatch) -> dict[str, float]:
            self.batches.append(batch)
            return update(batch)

        agent._update = keep_and_update  # type: ignore[method-assign]

    def _on_step(self) -> bool:
        return True


def batch_of(agent: OffPAC) -> TrajectoryBatch:
    """Return a batch of one rollout of ``agent``, which is not updated."""
    agent.train = lambda: None  # type: ignore[method-assign]
    agent.learn(agent.n_steps * agent.n_envs)
    return next(agent.trajectories.batches(agent.n_steps, agent.n_envs))


@pytest.mark.parametrize("kind", ["discrete", "box"])
def test_with_the_target_policy_acting_an_update_is_a2c_s(kind: str) -> None:
    """Same transitions, same step for actor and critic: ρ = 1 and w = 0, time limits included."""
    common: dict[str, Any] = {"gamma": 0.9, "gae_lambda": 0.8, "learning_rate": 0.1}
    a2c = A2C(
        "MlpPolicy",
        make_vec_env(lambda: Walk(kind), n_envs=3),
        n_steps=32,
        vf_coef=0.5,
        ent_coef=0.01,
        max_grad_norm=math.inf,
        use_rms_prop=False,
        seed=0,
        policy_kwargs=SGD,
        **common,
    )
    agent = make(
        kind,
        behavior="target",
        gradient_steps=1,
        critic_learning_rate=0.1,
        normalize_advantage=False,
        ent_coef=0.01,
        max_grad_norm=math.inf,
        policy_kwargs=SGD,
        **common,
    )
    start = weights(agent)
    assert torch.equal(weights(a2c), start)
    kept = Batches(agent)
    for each in (a2c, agent):
        torch.manual_seed(1)  # the secondary weights have drawn from it
        each.learn(96)
    (batch,) = kept.batches
    assert batch.terminated.any()
    assert batch.truncated[:-1].any()
    change = weights(agent) - start
    assert float(change.norm()) > 0.01
    torch.testing.assert_close(change, weights(a2c) - start, rtol=1e-3, atol=1e-5)


def test_ratios_are_one_on_policy_and_are_not_otherwise() -> None:
    for behavior, low, high in (("target", 1 - 1e-5, 1 + 1e-5), ("mixture", 0.0, 1 / 0.9)):
        agent = make(behavior=behavior)
        with torch.no_grad():
            agent.policy.action_net.bias[0] += 2.0
        batch = batch_of(agent)
        metrics = off_policy_loss(agent.policy, agent.secondary, batch, settings_of(agent)).metrics
        on_policy = behavior == "target"
        assert low < metrics["ratio_mean"] < high
        assert metrics["ratio_max"] <= high + 1e-5
        assert (metrics["effective_sample_size"] > 1 - 1e-6) == on_policy
        assert (metrics["behavior_kl"] < 1e-6) == on_policy
        assert metrics["clipped_ratios"] == 0.0


def test_a_bound_cuts_the_ratios() -> None:
    agent = make(behavior="uniform")
    with torch.no_grad():
        agent.policy.action_net.bias[0] += 2.0
    batch = batch_of(agent)
    free = off_policy_loss(agent.policy, agent.secondary, batch, settings_of(agent)).metrics
    assert free["ratio_max"] > 1.5
    bounded = off_policy_loss(
        agent.policy, agent.secondary, batch, settings_of(agent, max_ratio=1.5)
    ).metrics
    assert bounded["clipped_ratios"] == pytest.approx(0.33, abs=0.12)
    assert bounded["ratio_mean"] < free["ratio_mean"]
    assert bounded["ratio_max"] == free["ratio_max"]  # before the bound: what it hides is shown


@pytest.mark.parametrize("gae_lambda", [0.0, 0.7])
def test_a_critic_without_hidden_layers_learns_by_the_paper_s_steps(gae_lambda: float) -> None:
    """The network's gradients are sums of :func:`gtd_step`, with w ≠ 0 and ends of all kinds."""
    linear = {"net_arch": {"pi": [8], "vf": []}}
    agent = make(gamma=0.9, gae_lambda=gae_lambda, policy_kwargs=linear, behavior="uniform")
    with torch.no_grad():
        agent.secondary.head.weight.copy_(torch.tensor([[0.3, -0.2]]))
        agent.secondary.head.bias.fill_(0.1)
    batch = batch_of(agent)
    assert batch.terminated.any()
    assert batch.truncated[:-1].any()
    loss = off_policy_loss(agent.policy, agent.secondary, batch, settings_of(agent))
    heads = (agent.policy.value_net, agent.secondary.head)
    found = [
        torch.cat([-g.flatten() for g in torch.autograd.grad(loss_of, list(head.parameters()))])
        for loss_of, head in zip((loss.critic_loss, loss.secondary_loss), heads, strict=True)
    ]
    v, w = (torch.cat([p.detach().flatten() for p in head.parameters()]).double() for head in heads)

    n_steps, n_sequences = batch.rewards.shape
    with torch.no_grad():
        distribution = agent.policy.get_distribution(batch.observations)
        target = distribution.log_prob(batch.actions.flatten()).reshape(n_steps, n_sequences)
    ratios = (target - batch.behavior_log_probs).exp()
    ones = torch.ones(n_steps, n_sequences, 1)
    x = torch.cat([batch.observations.reshape(n_steps, n_sequences, 2), ones], dim=2).double()
    following = torch.cat([x[1:], x[:1]])
    following[batch.truncated] = torch.cat(
        [batch.bootstrap_observations, torch.ones(len(batch.bootstrap_observations), 1)], dim=1
    ).double()
    expected = torch.zeros(2, 3).double()
    for i in range(n_sequences):
        trace = torch.zeros(3).double()
        for step in range(n_steps):
            after = gtd_step(
                GTDState(v, w, trace),
                x[step, i],
                float(batch.rewards[step, i]),
                following[step, i],
                float(ratios[step, i]),
                gamma=0.9,
                gae_lambda=gae_lambda,
                step_size=1.0,
                secondary_step_size=1.0,
                terminated=bool(batch.terminated[step, i]),
                truncated=bool(batch.truncated[step, i]),
            )
            trace = after.trace
            expected += torch.stack([after.weights - v, after.secondary_weights - w])
    expected /= n_steps * n_sequences
    for gradient, summed in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient.double(), summed, rtol=1e-4, atol=1e-5)


def test_without_correction_the_critic_learns_by_td() -> None:
    agent = make(behavior="uniform")
    with torch.no_grad():
        agent.secondary.head.weight.fill_(0.5)
    batch = batch_of(agent)
    gradients = []
    for corrected in (True, False):
        loss = off_policy_loss(
            agent.policy, agent.secondary, batch, settings_of(agent, gradient_correction=corrected)
        )
        (gradient,) = torch.autograd.grad(loss.critic_loss, [agent.policy.value_net.bias])
        gradients.append(float(gradient))
    assert abs(gradients[0] - gradients[1]) > 1e-3
    assert make(critic="td").learn(96)._n_updates == 4


def test_stored_probabilities_are_the_behaviour_s() -> None:
    agent = make(behavior="mixture", behavior_kwargs={"epsilon": 0.4})
    batch = batch_of(agent)
    with torch.no_grad():
        distribution = agent.policy.get_distribution(batch.observations)
        target = distribution.log_prob(batch.actions.flatten().long()).exp()
    expected = 0.6 * target + 0.4 / 3
    torch.testing.assert_close(batch.behavior_log_probs.exp().flatten(), expected)


def test_older_rollouts_are_used_again_until_the_environment_is_reset_by_others() -> None:
    agent = make(buffer_size=32 * 3 * 4)
    agent.learn(96 * 3)
    assert agent.trajectories.n_transitions == 96 * 3
    agent.learn(96 * 3, reset_num_timesteps=False)  # goes on in the same episodes
    assert agent.trajectories.n_transitions == 96 * 4
    agent.learn(96)
    assert agent.trajectories.n_transitions == 96


def test_normalised_advantages_have_unit_spread_under_the_target_policy() -> None:
    agent = make(behavior="uniform")
    batch = batch_of(agent)
    losses = [
        off_policy_loss(
            agent.policy, agent.secondary, batch, settings_of(agent, normalize_advantage=scaled)
        ).policy_loss
        for scaled in (False, True)
    ]
    parameters = [agent.policy.action_net.weight]
    plain, scaled = (torch.autograd.grad(loss, parameters)[0] for loss in losses)
    assert float(scaled.norm()) != pytest.approx(float(plain.norm()), rel=0.1)

    flat = batch._replace(rewards=torch.zeros_like(batch.rewards))
    with torch.no_grad():
        agent.policy.value_net.weight.zero_()
        agent.policy.value_net.bias.zero_()
    loss = off_policy_loss(
        agent.policy, agent.secondary, flat, settings_of(agent, normalize_advantage=True)
    )
    assert float(loss.policy_loss.detach()) == 0.0  # equal advantages are not blown up


def test_an_update_that_is_not_finite_is_skipped() -> None:
    agent = make(gradient_steps=3)
    batch_of(agent)
    agent.trajectories._rewards[:] = np.inf
    before = weights(agent)
    del agent.train  # type: ignore[attr-defined]
    agent.train()
    assert torch.equal(weights(agent), before)
    assert agent.n_skipped_updates == 3
    assert agent.logger.name_to_value["train/skipped_updates"] == 3


def test_each_part_has_a_learning_rate_of_its_own() -> None:
    parts = {
        "learning_rate": lambda a: flatten(p.detach() for p in a.policy.action_net.parameters()),
        "critic_learning_rate": lambda a: flatten(
            p.detach() for p in a.policy.value_net.parameters()
        ),
        "secondary_learning_rate": lambda a: flatten(p.detach() for p in a.secondary.parameters()),
    }
    for moving in parts:
        rates = {name: 1e-2 if name == moving else 0.0 for name in parts}
        agent = make(**rates)
        before = {name: read(agent) for name, read in parts.items()}
        agent.learn(96 * 2)
        changed = {n for n, read in parts.items() if not torch.equal(read(agent), before[n])}
        assert changed == {moving}
    agent = make(critic_learning_rate=lambda progress: 0.5 * progress)
    agent.learn(96)
    assert agent.policy.optimizer.param_groups[1]["lr"] == 0.0
    assert agent.logger.name_to_value["train/critic_learning_rate"] == 0.0


def test_the_secondary_weights_are_saved(tmp_path: Path) -> None:
    agent = make().learn(96 * 2)
    assert float(agent.secondary.head.weight.detach().norm()) > 0.0
    agent.save(tmp_path / "agent")
    loaded = OffPAC.load(tmp_path / "agent")
    assert torch.equal(loaded.secondary.head.weight, agent.secondary.head.weight)
    assert loaded.trajectories.n_transitions == 0
    state, other = agent.secondary_optimizer.state_dict(), loaded.secondary_optimizer.state_dict()
    assert state["state"].keys() == other["state"].keys() != set()


def test_emphasis_changes_the_actor_alone() -> None:
    agent = make(behavior="uniform")
    batch = batch_of(agent)
    losses = [
        off_policy_loss(agent.policy, agent.secondary, batch, settings_of(agent, emphasis=emphasis))
        for emphasis in (0.0, 1.0)
    ]
    policy_losses = [float(loss.policy_loss.detach()) for loss in losses]
    assert policy_losses[0] != pytest.approx(policy_losses[1], rel=0.05)
    assert torch.equal(losses[0].critic_loss, losses[1].critic_loss)


class OwnValues(ActorCriticPolicy):
    """Values states in a way of its own."""

    def predict_values(self, obs: Any) -> torch.Tensor:
        return super().predict_values(obs) + 1.0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"gradient_steps": 0}, r"gradient_steps=0 must be at least 1\."),
        ({"emphasis": 1.5}, r"emphasis=1\.5 must be between 0 and 1\."),
        ({"buffer_size": 95}, r"does not hold the n_steps·n_envs = 96 .* pass at least 96\."),
        ({"sequence_length": 97}, "sequence_length=97 must be between 1 and batch_size=96"),
        ({"max_ratio": 0.0}, r"max_ratio=0\.0 must be positive, or None"),
        ({"n_steps": 1, "n_envs": 1}, r"n_steps·n_envs = 1·1 is less than 2"),
    ],
)
def test_what_cannot_work_is_refused(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**kwargs)


def test_wrong_names_and_policies_are_refused() -> None:
    with pytest.raises(UnknownName, match=r"Unknown critic 'gdt'\. Did you mean 'gtd'"):
        make(critic="gdt")
    with pytest.raises(UnknownName, match="Unknown behavior 'uniformly'"):
        make(behavior="uniformly")
    with pytest.raises(ConfigError, match="OwnValues values states in a way of its own"):
        OffPAC(OwnValues, "CartPole-v1", seed=0)
