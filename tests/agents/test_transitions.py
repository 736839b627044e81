"""Data that were there before: lists, columns, Minari; with probabilities or cloned ones."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecNormalize

from agents import OffPAC
from agents.behavior_cloning import clone_behavior
from agents.errors import ConfigError, MissingDependency, UnknownName
from agents.functional import flatten
from agents.transitions import Transition, Transitions, read_transitions


class Repeat(gym.Env[Any, Any]):
    """Rewards repeating the observation; ends after 10 steps, in turn really and by time."""

    def __init__(self, box: bool = False) -> None:
        self.box = box
        space = spaces.Box(-1.0, 1.0, (1,), np.float32) if box else spaces.Discrete(3)
        self.observation_space = self.action_space = space
        self.n_episodes = 0

    def _observe(self) -> Any:
        if self.box:
            self.state = self.np_random.uniform(-1, 1, 1).astype(np.float32)
        else:
            self.state = self.np_random.integers(3)
        return self.state

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.n_steps = 0
        self.n_episodes += 1
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        distance = float(np.abs(action - self.state).sum())
        reward = 1.0 - distance if self.box else float(distance == 0)
        self.n_steps += 1
        end, really = self.n_steps >= 10, self.n_episodes % 2 == 0
        return self._observe(), reward, end and really, end and not really, {}


PROBABILITIES = np.array([[0.5, 0.3, 0.2], [0.6, 0.2, 0.2], [0.4, 0.4, 0.2]])
"""Of the behaviour in each state: it does not do what is rewarded."""


def collect(n: int, *, known: bool = True, box: bool = False) -> list[Transition]:
    """Return what a policy unlike any of ours did."""
    env, rng, transitions = Repeat(box), np.random.default_rng(0), []
    obs, _ = env.reset(seed=0)
    for _ in range(n):
        if box:
            action = rng.normal(0.0, 0.7, 1).astype(np.float32)
            log_prob = float(-0.5 * (action[0] / 0.7) ** 2 - np.log(0.7 * np.sqrt(2 * np.pi)))
        else:
            action = rng.choice(3, p=PROBABILITIES[obs])
            log_prob = float(np.log(PROBABILITIES[obs][action]))
        next_obs, reward, terminated, truncated, _ = env.step(
            np.clip(action, -1, 1) if box else action
        )
        transitions.append(
            Transition(
                obs, action, reward, next_obs, terminated, truncated, log_prob if known else None
            )
        )
        obs = env.reset()[0] if terminated or truncated else next_obs
    return transitions


def make(dataset: Any, *, box: bool = False, **kwargs: Any) -> OffPAC:
    settings = {"n_steps": 50, "batch_size": 200, "gradient_steps": 2, "seed": 0, "gamma": 0.0}
    rates = {"learning_rate": 1e-2, "critic_learning_rate": 1e-2}
    env = make_vec_env(lambda: Repeat(box), n_envs=4)
    return OffPAC("MlpPolicy", env, dataset=dataset, **settings | rates | kwargs)


def mean_return(agent: OffPAC, *, box: bool = False) -> float:
    env = make_vec_env(lambda: Repeat(box), n_envs=2)
    mean, _ = evaluate_policy(agent, env, n_eval_episodes=20)
    return float(mean)


class Steps(BaseCallback):
    """Counts steps and rollouts."""

    def __init__(self) -> None:
        super().__init__()
        self.n_rollouts = 0

    def _on_rollout_end(self) -> None:
        self.n_rollouts += 1

    def _on_step(self) -> bool:
        return True


@pytest.mark.parametrize("known", [True, False], ids=["known", "cloned"])
def test_a_list_of_transitions_is_enough_to_learn_from(known: bool) -> None:
    agent = make(collect(2_000, known=known))
    before = mean_return(agent)
    steps = Steps()
    agent.learn(10_000, callback=steps)
    assert before < 7.0
    assert mean_return(agent) == 10.0
    assert (steps.n_calls, steps.n_rollouts) == (2_500, 50)
    assert agent._n_updates == 100
    assert agent.env is not None
    assert agent.env.get_attr("n_episodes") == [1] * 4  # reset once, and nobody ever acted


def test_box_actions_are_learnt_from_densities() -> None:
    agent = make(collect(2_000, box=True), box=True, ent_coef=0.01)
    before = mean_return(agent, box=True)
    agent.learn(16_000)
    after = mean_return(agent, box=True)
    assert before < 6.0
    assert after > 8.0


def test_cloned_probabilities_are_close_to_the_true_ones() -> None:
    transitions = read_transitions(collect(4_000))
    torch.manual_seed(0)
    space = spaces.Discrete(3)
    policy = ActorCriticPolicy(space, space, lambda _: 1e-3)
    start = flatten(p.detach() for p in policy.parameters())
    log_probs = clone_behavior(policy, transitions, seed=0)
    assert transitions.log_probs is not None
    assert np.abs(np.exp(log_probs) - np.exp(transitions.log_probs)).max() < 0.06
    assert torch.equal(flatten(p.detach() for p in policy.parameters()), start)
    state = torch.get_rng_state()
    np.testing.assert_array_equal(clone_behavior(policy, transitions, seed=0), log_probs)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_same_data_and_seed_give_the_same_parameters(tmp_path: Path) -> None:
    data = collect(300, known=False)
    agents = [make(data).learn(2_000) for _ in range(2)]
    first, second = (flatten(p.detach() for p in agent.policy.parameters()) for agent in agents)
    assert torch.equal(first, second)
    agents[0].save(tmp_path / "agent")
    loaded = OffPAC.load(tmp_path / "agent", env=agents[0].get_env())
    assert loaded.dataset is None  # the data are not in the file: it goes on by acting
    loaded.learn(400, reset_num_timesteps=False)
    assert loaded.num_timesteps == 2_400
    goes_on = OffPAC.load(tmp_path / "agent", env=agents[0].get_env(), dataset=data)
    assert goes_on.trajectories.n_transitions == 300


class Episode:
    """An episode as Minari has it."""

    def __init__(self, transitions: list[Transition], with_log_probs: bool) -> None:
        last = transitions[-1].next_observation
        self.observations = np.array([*(t.observation for t in transitions), last])
        self.actions = np.array([t.action for t in transitions])
        self.rewards = np.array([t.reward for t in transitions])
        self.terminations = np.array([t.terminated for t in transitions])
        self.truncations = np.array([t.truncated for t in transitions])
        log_probs = np.array([np.nan, *(t.log_prob for t in transitions)])
        self.infos = {"log_prob": log_probs} if with_log_probs else {}


class Episodes:
    """What is used of a Minari data set."""

    def __init__(self, transitions: list[Transition], with_log_probs: bool = True) -> None:
        ends = [i + 1 for i, t in enumerate(transitions) if t.terminated or t.truncated]
        parts = [transitions[a:b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]
        self.episodes = [Episode(part, with_log_probs) for part in parts]

    def iterate_episodes(self) -> list[Episode]:
        return self.episodes


def test_episodes_are_the_same_columns_as_their_transitions() -> None:
    data = collect(40)
    listed, episodic = read_transitions(data), read_transitions(Episodes(data))
    for name in vars(listed):
        np.testing.assert_array_equal(getattr(episodic, name), getattr(listed, name))
    assert read_transitions(Episodes(data, with_log_probs=False)).log_probs is None
    assert read_transitions(listed) is listed
    assert len(listed) == 40
    # Real ends and time limits in turn, and the end of the data is one of them.
    assert np.flatnonzero(listed.terminated).tolist() == [19, 39]
    assert np.flatnonzero(listed.cut_off()).tolist() == [9, 29]


def test_shuffled_data_are_cut_everywhere() -> None:
    data = collect(50)
    shuffled = read_transitions([data[i] for i in np.random.default_rng(0).permutation(50)])
    cut_off = shuffled.cut_off()
    assert cut_off.sum() > 25  # three states only: some follow each other by chance
    assert not (cut_off & shuffled.terminated).any()


def test_minari_s_data_sets_are_read_by_id(monkeypatch: Any, tmp_path: Path) -> None:
    minari = pytest.importorskip("minari")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    episodes = Episodes(collect(400), with_log_probs=False).episodes
    space = spaces.Discrete(3)
    buffers = [
        minari.data_collector.EpisodeBuffer(
            id=i,
            observations=list(e.observations),
            actions=list(e.actions),
            rewards=list(e.rewards),
            terminations=list(e.terminations),
            truncations=list(e.truncations),
        )
        for i, e in enumerate(episodes)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would like to know an author and a link
        minari.create_dataset_from_buffers(
            "repeat/random-v0", buffers, observation_space=space, action_space=space
        )
    found = read_transitions("repeat/random-v0")
    expected = read_transitions(Episodes(collect(400), with_log_probs=False))
    for name in ("observations", "actions", "rewards", "next_observations", "terminated"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    agent = make("repeat/random-v0").learn(8_000)
    assert mean_return(agent) > 9.0
    with pytest.raises(UnknownName, match="Did you mean 'repeat/random-v0'"):
        read_transitions("repeat/randon-v0")


def test_without_minari_an_id_says_what_to_install(monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "minari", None)
    with pytest.raises(MissingDependency, match=r"pip install 'natural-zoo\[minari\]'"):
        read_transitions("repeat/random-v0")


def replaced(**changes: Any) -> list[Transition]:
    return [t._replace(**changes) if i == 3 else t for i, t in enumerate(collect(10))]


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        ([], "the list is empty"),
        ([1, 2], "a list is neither Transitions, nor a list of Transition"),
        (collect(1), "has 1 transitions; at least 2"),
        (replaced(log_prob=None), "1 of 10 transitions have no log_prob; give all"),
        (replaced(log_prob=-np.inf), "log-probabilities that are not finite"),
        (replaced(reward=np.nan), "rewards that are not finite"),
        (collect(10, box=True), r"observations have the shape \(10, 1\) for 10 transitions"),
    ],
)
def test_data_that_cannot_be_learnt_from_are_refused(dataset: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(dataset)


def test_a_normalised_environment_does_not_fit_raw_data() -> None:
    env = VecNormalize(make_vec_env(lambda: Repeat(box=True), n_envs=1))
    with pytest.raises(ConfigError, match=r"normalised and the data set is not; .*normalize=false"):
        OffPAC("MlpPolicy", env, dataset=collect(10, box=True))


def test_squashed_actions_are_scaled_and_mappings_are_checked() -> None:
    space = spaces.Box(-2.0, 2.0, (1,), np.float32)
    policy = ActorCriticPolicy(space, space, lambda _: 0.1, use_sde=True, squash_output=True)
    data = read_transitions(collect(5, box=True))
    np.testing.assert_allclose(data.for_policy(policy).actions, data.actions / 2, atol=1e-6)
    named = spaces.Dict({"a": space})
    with pytest.raises(ConfigError, match="not mappings with the keys a"):
        data.check(named, space)
    mapping = Transitions(
        {"a": data.observations},
        data.actions,
        data.rewards,
        {"a": data.next_observations},
        data.terminated,
        data.truncated,
    )
    mapping.check(named, space)
    np.testing.assert_array_equal(mapping.cut_off(), data.cut_off())
