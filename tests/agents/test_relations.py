"""NPG, TRPO, and what relates them: same direction, different choice of length."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env

from agents import NPG, TRPO
from agents.errors import ConfigError
from agents.functional import flatten
from agents.natural_gradient import NaturalGradientAlgorithm, NaturalStep, PolicyUpdate
from agents.surrogate import Surrogate

LENIENT = {"line_search_accept_ratio": 0.0}


class Reach(gym.Env[np.ndarray, np.ndarray]):
    """Rewards an action close to the observation; repeatable from its seed."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def _observe(self) -> np.ndarray:
        self.state = self.np_random.uniform(-1.0, 1.0, 2).astype(np.float32)
        return self.state

    def reset(
        self, *, seed: int | None = None, options: Any = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.n_steps = 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        reward = -float(np.square(action - self.state).sum())
        self.n_steps += 1
        return self._observe(), reward, self.n_steps % 7 == 0, self.n_steps >= 25, {}


def make(
    algorithm: type[NaturalGradientAlgorithm], env: str = "reach", **kwargs: Any
) -> NaturalGradientAlgorithm:
    vec_env = make_vec_env(Reach if env == "reach" else env, n_envs=2)
    settings = {"n_steps": 64, "batch_size": 64, "seed": 3, "n_critic_updates": 2} | kwargs
    agent = algorithm("MlpPolicy", vec_env, **settings)
    agent.history = []  # type: ignore[attr-defined]
    choose = agent._choose_parameters

    def choose_and_keep(surrogate: Surrogate, step: NaturalStep) -> PolicyUpdate:
        update = choose(surrogate, step)
        agent.history.append((step, update))  # type: ignore[attr-defined]
        return update

    agent._choose_parameters = choose_and_keep  # type: ignore[method-assign]
    return agent


def history(agent: NaturalGradientAlgorithm) -> list[tuple[NaturalStep, PolicyUpdate]]:
    return agent.history  # type: ignore[attr-defined,no-any-return]


def everything(agent: NaturalGradientAlgorithm) -> torch.Tensor:
    return flatten(p.detach() for p in agent.policy.parameters())


def actor(agent: NaturalGradientAlgorithm) -> torch.Tensor:
    net = agent.policy.mlp_extractor.policy_net
    parts = [agent.policy.log_std, *net.parameters(), *agent.policy.action_net.parameters()]
    return flatten(p.detach() for p in parts)


@pytest.mark.parametrize("critic", ["adam", "gauss_newton"])
@pytest.mark.parametrize("use_sde", [False, True])
def test_trpo_taking_its_first_candidate_is_npg(
    critic: str, use_sde: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"critic": critic, "use_sde": use_sde, "target_kl": 0.005}
    npg = make(NPG, **settings).learn(5 * 128)
    # The measured KL of the full step may exceed δ a little; call it nothing so that it passes.
    evaluate = Surrogate.evaluate
    monkeypatch.setattr(Surrogate, "evaluate", lambda s, c: (abs(evaluate(s, c)[0]) + 1.0, 0.0))
    trpo = make(TRPO, **settings, **LENIENT).learn(5 * 128)
    assert [update.n_backtracks for _, update in history(trpo)] == [0] * 5
    assert torch.equal(everything(npg), everything(trpo))
    assert torch.equal(history(npg)[-1][0].start, history(trpo)[-1][0].start)


def test_trpo_taking_its_first_candidate_is_npg_without_help() -> None:
    # The first update's full step, whenever the search accepts it by itself.
    npg, trpo = make(NPG).learn(128), make(TRPO).learn(128)
    (_, taken), (_, chosen) = history(npg)[0], history(trpo)[0]
    if chosen.n_backtracks == 0:
        assert torch.equal(taken.point, chosen.point)
    else:
        assert taken.mean_kl > 0.01 >= chosen.mean_kl
    assert torch.equal(history(npg)[0][0].direction, history(trpo)[0][0].direction)


@pytest.mark.parametrize("env", ["reach", "CartPole-v1"])
@pytest.mark.parametrize("target_kl", [1e-4, 0.01, 0.1])
def test_trpo_keeps_the_bound(env: str, target_kl: float) -> None:
    trpo = make(TRPO, env, target_kl=target_kl).learn(6 * 128)
    kls = [update.mean_kl for _, update in history(trpo)]
    assert len(kls) == 6
    assert all(0.0 <= kl <= target_kl for kl in kls)
    assert max(kls) > 0.3 * target_kl
    assert all(update.gain > 0.0 for _, update in history(trpo) if update.accepted)


def test_trpo_really_measures_old_against_new(monkeypatch: pytest.MonkeyPatch) -> None:
    trpo = make(TRPO)
    measured: list[float] = []
    update_policy = trpo._update_policy

    def check(surrogate: Surrogate) -> None:
        observations = torch.as_tensor(trpo.rollout_buffer.observations)
        with torch.no_grad():
            old = trpo.policy.get_distribution(observations).distribution
        update_policy(surrogate)
        with torch.no_grad():
            new = trpo.policy.get_distribution(observations).distribution
            kl = torch.distributions.kl_divergence(old, new).sum(dim=1).mean()
        measured.append(float(kl))

    monkeypatch.setattr(trpo, "_update_policy", check)
    trpo.learn(3 * 128)
    assert measured == pytest.approx([update.mean_kl for _, update in history(trpo)], rel=1e-5)


def test_a_search_that_fails_leaves_the_policy_bit_for_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    evaluate = Surrogate.evaluate
    candidates: list[torch.Tensor] = []

    def worse(surrogate: Surrogate, candidate: torch.Tensor) -> tuple[float, float]:
        evaluate(surrogate, candidate)  # writes the candidate, as the real one does
        candidates.append(candidate)
        return -1.0, 0.0

    monkeypatch.setattr(Surrogate, "evaluate", worse)
    trpo = make(TRPO, line_search_max_backtracks=4)
    before = actor(trpo)
    trpo.learn(2 * 128)
    assert torch.equal(actor(trpo), before)
    assert len(candidates) == 2 * 5
    assert not any(torch.equal(candidate, before) for candidate in candidates)
    for _, update in history(trpo):
        assert not update.accepted
        assert update.point.equal(before)
        assert (update.step_size, update.gain, update.mean_kl, update.predicted_gain) == (0,) * 4


def test_a_bar_close_to_the_prediction_rejects_most_steps() -> None:
    trpo = make(TRPO, line_search_accept_ratio=0.999999, line_search_max_backtracks=0)
    trpo.learn(6 * 128)
    for step, update in history(trpo):
        if update.accepted:
            full_gain = float(step.gradient @ (step.trust_region_scale * step.direction))
            assert update.gain >= 0.999999 * full_gain
        else:
            assert torch.equal(update.point, step.start)
    assert not all(update.accepted for _, update in history(trpo))


@pytest.mark.parametrize("shrink", [0.5, 0.8])
def test_trpo_shrinks_as_told(shrink: float, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([(-1.0, 0.0), (-1.0, 0.0), (9.0, 0.0)])
    monkeypatch.setattr(Surrogate, "evaluate", lambda *_: next(answers))
    trpo = make(TRPO, line_search_shrink=shrink)
    trpo.learn(128)
    ((step, update),) = history(trpo)
    expected = step.start + shrink**2 * step.trust_region_scale * step.direction
    torch.testing.assert_close(update.point, expected, rtol=1e-6, atol=1e-7)
    assert update.step_size == pytest.approx(shrink**2 * step.trust_region_scale)


@pytest.mark.parametrize("step_size", [0.01, 0.1])
def test_npg_with_constant_step_size_is_kakades(step_size: float) -> None:
    npg = make(NPG, step_size=step_size)
    before = actor(npg)
    npg.learn(128)
    ((step, update),) = history(npg)
    assert torch.equal(step.start, before)
    assert torch.equal(actor(npg), before + step_size * step.direction)
    assert update.step_size == step_size


def test_npg_step_size_follows_its_schedule() -> None:
    npg = make(NPG, step_size=lambda progress: 0.1 * progress).learn(4 * 128)
    assert [update.step_size for _, update in history(npg)] == pytest.approx(
        [0.1 * 3 / 4, 0.05, 0.025, 0]
    )


def test_npg_refuses_a_schedule_of_negative_step_sizes() -> None:
    with pytest.raises(ConfigError, match=r"schedule of step_size gave -0\.1"):
        make(NPG, step_size=lambda _: -0.1).learn(128)


def test_trpo_steps_within_its_limit_are_kakades_and_within_the_region_are_its_own() -> None:
    """Whichever of the two is shorter is the first candidate, bit for bit."""
    kakade = make(NPG, step_size=1e-3).learn(4 * 128)
    short = make(TRPO, max_step_size=1e-3).learn(4 * 128)
    assert all(update.n_backtracks == 0 for _, update in history(short))
    assert torch.equal(actor(short), actor(kakade))
    free, long = make(TRPO).learn(4 * 128), make(TRPO, max_step_size=1e3).learn(4 * 128)
    assert torch.equal(actor(long), actor(free))


def test_the_limit_of_trpo_steps_follows_its_schedule() -> None:
    trpo = make(TRPO, max_step_size=lambda progress: 0.01 * progress).learn(4 * 128)
    assert [update.step_size for _, update in history(trpo)] == pytest.approx(
        [0.01 * 3 / 4, 0.005, 0.0025, 0]
    )
    with pytest.raises(ConfigError, match=r"schedule of max_step_size gave -0\.1"):
        make(TRPO, max_step_size=lambda _: -0.1).learn(128)


def test_trpo_steps_within_its_limit_keep_the_bound() -> None:
    trpo = make(TRPO, max_step_size=0.5, target_kl=0.001).learn(6 * 128)
    updates = history(trpo)
    assert any(step.trust_region_scale < 0.5 for step, _ in updates)
    assert all(update.mean_kl <= 0.001 for _, update in updates)


def test_npg_steps_have_the_length_of_the_quadratic_model() -> None:
    npg = make(NPG, target_kl=0.002)
    npg.learn(4 * 128)
    for step, update in history(npg):
        assert update.step_size == pytest.approx((2 * 0.002 / step.curvature) ** 0.5)
        assert torch.equal(update.point, step.start + update.step_size * step.direction)
        # The damping is part of the model's curvature, so the KL stays a little below δ.
        assert 0.2 * 0.002 < update.mean_kl < 1.5 * 0.002


@pytest.mark.parametrize(
    ("algorithm", "kwargs"), [(NPG, {}), (NPG, {"step_size": 0.1}), (TRPO, {})]
)
def test_predicted_gain_is_gradient_times_step(
    algorithm: type[NaturalGradientAlgorithm], kwargs: dict[str, Any]
) -> None:
    # A large bound makes TRPO shorten its step: the prediction is of the step that was taken.
    agent = make(algorithm, target_kl=0.3, **kwargs).learn(5 * 128)
    for step, update in history(agent):
        expected = float(step.gradient @ (update.point - step.start))
        assert update.predicted_gain == pytest.approx(expected, rel=1e-3, abs=1e-8)
    if algorithm is TRPO:
        assert any(update.n_backtracks > 0 and update.accepted for _, update in history(agent))


def test_the_direction_solves_the_damped_system() -> None:
    npg = make(NPG, cg_max_iters=100, cg_rtol=1e-6)
    residuals: list[float] = []
    choose = npg._choose_parameters

    def check(surrogate: Surrogate, step: NaturalStep) -> PolicyUpdate:
        product = surrogate.fisher_vector_product(npg.cg_damping)
        residual = product(step.direction) - step.gradient
        residuals.append(float(residual.norm() / step.gradient.norm()))
        assert step.curvature == pytest.approx(float(step.direction @ step.gradient), rel=1e-3)
        return choose(surrogate, step)

    npg._choose_parameters = check  # type: ignore[method-assign]
    npg.learn(3 * 128)
    assert len(residuals) == 3
    assert max(residuals) < 1e-4


def test_npg_skips_a_step_whose_surrogate_is_not_finite() -> None:
    npg = make(NPG, step_size=1e30)
    before = actor(npg)
    npg.learn(128)
    assert torch.equal(actor(npg), before)
    assert npg.n_skipped_updates == 1


@pytest.mark.parametrize(
    ("algorithm", "name", "value"),
    [
        (NPG, "step_size", 0.0),
        (NPG, "step_size", -0.1),
        (NPG, "step_size", float("nan")),
        (NPG, "step_size", float("inf")),
        (TRPO, "max_step_size", 0.0),
        (TRPO, "max_step_size", float("nan")),
        (TRPO, "max_step_size", float("inf")),
        (TRPO, "line_search_max_backtracks", -1),
        (TRPO, "line_search_shrink", 0.0),
        (TRPO, "line_search_shrink", 1.0),
        (TRPO, "line_search_accept_ratio", -0.1),
        (TRPO, "line_search_accept_ratio", 1.0),
    ],
)
def test_a_parameter_out_of_range_is_refused(
    algorithm: type[NaturalGradientAlgorithm], name: str, value: float
) -> None:
    with pytest.raises(ConfigError, match=name):
        make(algorithm, **{name: value})
