"""Workers one by one in this process: whose turn it is, is for the test to say."""

from __future__ import annotations

import dataclasses
import multiprocessing
from typing import Any

import numpy as np
import pytest
import torch
from stable_baselines3.common.vec_env import DummyVecEnv

from agents.a3c import A3C
from agents.a3c.control import Control
from agents.a3c.crew import assignments, worker_seed
from agents.a3c.shared_normalizer import SharedStatistics, merge_moments
from agents.a3c.shared_optimizer import SharedOptimizer
from agents.a3c.worker import Shared, Worker
from agents.errors import ConfigError
from agents.functional import flatten
from agents.rollout_normalize import RolloutNormalize

CONTEXT = multiprocessing.get_context("spawn")


def shared_by(agent: A3C, *, normalizer: Any = None) -> Shared:
    parameters = list(agent.policy.parameters())
    control = Control(CONTEXT, agent.n_workers)
    control.learning_rate = float(agent.learning_rate)
    return Shared(
        SharedOptimizer(
            CONTEXT,
            parameters,
            agent.rmsprop.square_avgs(parameters),
            agent.n_workers,
            alpha=agent.rms_prop_alpha,
            eps=agent.rms_prop_eps,
        ),
        control,
        None if normalizer is None else SharedStatistics(CONTEXT, normalizer),
    )


def crew(agent: A3C, shared: Shared, normalizer: Any = None) -> list[Worker]:
    return [Worker(assignment, shared) for assignment in assignments(agent, agent.env, normalizer)]


@pytest.fixture
def agent(guess: Any) -> A3C:
    return A3C("MlpPolicy", guess(), n_workers=3, n_steps=8, seed=1, worker_env=guess)


def parameters_of(shared: Shared, agent: A3C) -> torch.Tensor:
    copies = [torch.empty_like(parameter) for parameter in agent.policy.parameters()]
    shared.optimizer.pull(copies)
    return flatten(copies)


def test_a_slow_worker_pushes_a_stale_gradient(agent: A3C, monkeypatch: pytest.MonkeyPatch) -> None:
    """While worker 0 collects its segment, workers 1 and 2 make five updates."""
    shared = shared_by(agent)
    slow, *others = crew(agent, shared)
    collect = slow._learner.collect

    def overtaken(*args: Any) -> bool:
        for worker in (*others, *others, others[0]):
            worker.run_segment()
        return collect(*args)

    monkeypatch.setattr(slow._learner, "collect", overtaken)
    report = slow.run_segment()
    assert report is not None
    assert report.update.staleness == 5
    assert shared.optimizer.n_updates == 6
    report = others[1].run_segment()
    assert report is not None
    assert report.update.staleness == 0


def test_a_push_is_the_gradient_at_the_parameters_that_were_pulled(
    agent: A3C, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others have moved the shared parameters since; the gradient knows nothing of it."""
    shared = shared_by(agent)
    slow, other, _ = crew(agent, shared)
    other.run_segment()
    pulled = parameters_of(shared, agent)
    pushed: list[torch.Tensor] = []
    push = shared.optimizer.push

    def overtaken(gradient: torch.Tensor, **kwargs: Any) -> int:
        if kwargs["worker"] == slow.index:
            monkeypatch.setattr(shared.optimizer, "push", push)
            other.run_segment()
            pushed.append(gradient)
        return push(gradient, **kwargs)

    monkeypatch.setattr(shared.optimizer, "push", overtaken)
    slow.run_segment()
    assert not torch.equal(parameters_of(shared, agent), pulled)
    local = slow._agent.policy
    assert torch.equal(flatten(p.detach() for p in local.parameters()), pulled)
    batch = next(iter(slow._agent.rollout_buffer.get(batch_size=None)))
    values, log_prob, entropy = local.evaluate_actions(
        batch.observations, batch.actions.long().flatten()
    )
    loss = -(batch.advantages * log_prob).mean() - agent.ent_coef * entropy.mean()
    loss = loss + agent.vf_coef * (batch.returns - values.flatten()).square().mean()
    expected = flatten(torch.autograd.grad(loss, list(local.parameters())))
    expected *= min(1.0, agent.max_grad_norm / float(expected.norm()))
    torch.testing.assert_close(pushed[0], expected, rtol=1e-4, atol=1e-6)


def test_reports_are_what_callbacks_are_to_see(agent: A3C) -> None:
    worker = crew(agent, shared_by(agent))[1]
    reports = [worker.run_segment() for _ in range(3)]
    dones = np.concatenate([report.dones for report in reports if report])
    rewards = np.concatenate([report.rewards for report in reports if report])
    assert rewards.shape == (24, 1)
    assert dones.flatten().tolist() == [step == 19 for step in range(24)]
    infos = [report.infos for report in reports if report]
    assert [list(info) for info in infos] == [[], [], [(3, 0)]]
    episode = infos[2][3, 0]
    assert episode["TimeLimit.truncated"]
    assert episode["episode"]["l"] == 20
    assert episode["episode"]["r"] == rewards[:20].sum()
    assert all(report.worker == 1 for report in reports if report)


def test_a_worker_that_is_told_to_stop_pushes_no_half_segment(agent: A3C) -> None:
    shared = shared_by(agent)
    worker = crew(agent, shared)[0]
    before = parameters_of(shared, agent)
    shared.control.stop()
    assert worker.run_segment() is None
    assert shared.optimizer.n_updates == 0
    assert torch.equal(parameters_of(shared, agent), before)


def test_a_gradient_that_is_not_finite_is_not_pushed(
    agent: A3C, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = shared_by(agent)
    worker = crew(agent, shared)[0]
    before = parameters_of(shared, agent)
    gradient = worker._learner.gradient

    def spoiled() -> Any:
        segment, variance = gradient()
        return dataclasses.replace(segment, norm=float("nan")), variance

    monkeypatch.setattr(worker._learner, "gradient", spoiled)
    report = worker.run_segment()
    assert report is not None
    assert report.update.skipped
    assert shared.optimizer.n_updates == 0
    assert torch.equal(parameters_of(shared, agent), before)


def test_each_worker_explores_on_its_own(agent: A3C) -> None:
    workers = crew(agent, shared_by(agent))
    seen, acted = [], []
    for worker in workers:
        worker.run_segment()
        seen.append(worker._agent.rollout_buffer.observations.flatten().tolist())
        acted.append(worker._agent.rollout_buffer.actions.flatten().tolist())
    assert len({tuple(observations) for observations in seen}) == 3
    assert len({tuple(actions) for actions in acted}) == 3


def test_seeds_of_workers_and_calls_differ() -> None:
    seeds = {worker_seed(7, n, w) for n in (0, 1000, 2000) for w in range(8)}
    assert len(seeds) == 24
    assert worker_seed(7, 0, 0) == 7  # worker 0 of a new run does what a single worker would
    assert worker_seed(None, 1000, 3) is None
    assert all(seed is not None and 0 <= seed < 2**31 for seed in seeds)


def test_temperatures_are_dealt_out_and_corrected(guess: Any) -> None:
    agent = A3C(
        "MlpPolicy",
        guess(),
        n_workers=3,
        n_steps=8,
        seed=1,
        worker_env=guess,
        exploration_temperatures=[1.0, 4.0],
    )
    shared = shared_by(agent)
    with torch.no_grad():
        agent.policy.action_net.bias.copy_(torch.tensor([3.0, 0.0, 0.0, 0.0]))
    shared = shared_by(agent)
    plain, hot, second_plain = crew(agent, shared)
    assert [w._temperature for w in (plain, hot, second_plain)] == [1.0, 4.0, 1.0]
    before = parameters_of(shared, agent)
    hot.run_segment()
    local = hot._agent.policy
    assert torch.equal(flatten(p.detach() for p in local.parameters()), before)
    batch = next(iter(hot._agent.rollout_buffer.get(batch_size=None)))
    actions = batch.actions.long().flatten()
    with torch.no_grad():
        logits = local.get_distribution(batch.observations).distribution.logits
    behaviour = torch.log_softmax(logits / 4.0, dim=1)[torch.arange(8), actions]
    torch.testing.assert_close(batch.old_log_prob, behaviour, rtol=1e-4, atol=1e-5)


def test_an_environment_of_another_kind_is_refused(agent: A3C, script: Any) -> None:
    assignment = assignments(agent, agent.env, None)[0]
    wrong = dataclasses.replace(assignment, make_env=lambda: DummyVecEnv([script]))
    with pytest.raises(ConfigError, match=r"has the observation space Box.*the algorithm's has"):
        Worker(wrong, shared_by(agent))


# --- Normalisation --------------------------------------------------------------------------------


def test_statistics_are_shared(script: Any) -> None:
    """What two workers saw ends in the learner's statistics, and scales what they see next."""

    def make() -> Any:
        return script([1.0, 3.0], {9: "terminated"})

    venv = RolloutNormalize(DummyVecEnv([make]), n_steps=5, gamma=0.9)
    agent = A3C("MlpPolicy", venv, n_workers=2, n_steps=5, seed=1, worker_env=make)
    shared = shared_by(agent, normalizer=venv)
    workers = crew(agent, shared, venv)
    first = [worker.run_segment() for worker in workers]
    raw = np.array([[0.1 * n, 1.0 - 0.2 * n] for n in range(1, 6)], np.float32)
    for report in first:
        assert report is not None
        assert report.moments is not None
        assert report.moments.obs is not None
        np.testing.assert_allclose(report.moments.obs[0], raw.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(report.moments.obs[1], raw.var(axis=0), rtol=1e-5)
        merge_moments(venv, report.moments)
    np.testing.assert_allclose(venv.obs_rms.mean, raw.mean(axis=0), rtol=1e-3)
    assert venv.obs_rms.count == pytest.approx(10.0, abs=1e-3)
    discounted = [1.0, 3.9, 4.51, 7.059, 7.3531]
    assert venv.ret_rms.var == pytest.approx(np.var(discounted), rel=1e-3)
    assert shared.statistics is not None
    shared.statistics.publish(venv)
    workers[0].run_segment()
    buffer = workers[0]._agent.rollout_buffer
    seen = buffer.observations.reshape(5, 2)[0]
    # The observation that the segment begins with was scaled before the statistics were there.
    np.testing.assert_allclose(seen, raw[4], rtol=1e-6)
    seen = buffer.observations.reshape(5, 2)[1]
    following = np.array([0.6, -0.2])
    expected = (following - venv.obs_rms.mean) / np.sqrt(venv.obs_rms.var + 1e-8)
    np.testing.assert_allclose(seen, expected, rtol=1e-3)
    reward = buffer.rewards.flatten()[0]
    assert reward == pytest.approx(3.0 / np.sqrt(venv.ret_rms.var), rel=1e-4)


def test_a_reader_waits_for_a_writer_to_finish() -> None:
    """Odd versions are not read: the copy is whole, or taken again."""
    from gymnasium import spaces
    from stable_baselines3.common.vec_env import VecNormalize

    class Flat(VecNormalize):
        def __init__(self) -> None:  # only what is shared
            self.observation_space = spaces.Box(-1.0, 1.0, (2,))
            self.norm_obs = True

    from types import SimpleNamespace

    from stable_baselines3.common.running_mean_std import RunningMeanStd

    flat = Flat()
    flat.obs_rms, flat.ret_rms = RunningMeanStd(shape=(2,)), RunningMeanStd(shape=())
    statistics = SharedStatistics(CONTEXT, flat)
    target: Any = SimpleNamespace(
        norm_obs=True,
        obs_rms=RunningMeanStd(shape=(2,)),
        ret_rms=RunningMeanStd(shape=()),
        take_over=lambda: None,
    )
    flat.obs_rms.mean = np.array([3.0, 4.0])
    statistics._version[0] += 1  # a writer at work
    statistics._values[0] = 99.0
    copies = []

    class Copied(np.ndarray[Any, Any]):
        def copy(self, *args: Any) -> Any:
            copies.append(np.array(self))
            statistics._version[0] += len(copies) == 1  # it finishes after the first look
            statistics._values[0] = 3.0
            return np.array(self)

    statistics._values = statistics._values.view(Copied)
    statistics.pull(target)
    assert copies[0][0] == 99.0
    assert len(copies) == 2
    assert target.obs_rms.mean[0] == 3.0
