"""Files that are whole and signed, and hold what no agent has: NaN, other shapes, bombs."""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from agents.errors import BundleError
from hub.bundle import Bundle

LISTED = ("policy.safetensors", "normalizer.safetensors", "optimizer.safetensors")


# --- Weights ------------------------------------------------------------------------------------


WEIGHTS: list[tuple[str, Callable[[dict[str, Any]], Any], str]] = [
    ("policy.safetensors", lambda a: a["log_std"].fill(np.nan), "NaN or infinity"),
    ("policy.safetensors", lambda a: a["log_std"].fill(-np.inf), "NaN or infinity"),
    ("policy.safetensors", lambda a: a.update(log_std=np.zeros(3, np.float32)), "the shape [3]"),
    ("policy.safetensors", lambda a: a.update(log_std=np.zeros(2)), "of type float64"),
    ("policy.safetensors", lambda a: a.pop("log_std"), "lacks 'log_std'"),
    ("policy.safetensors", lambda a: a.update(extra=np.zeros(1)), "has 'extra'"),
    ("policy.safetensors", lambda a: a.clear(), "lacks"),
]


@pytest.mark.parametrize(("name", "change", "reason"), WEIGHTS, ids=[w[2] for w in WEIGHTS])
def test_weights_that_are_none(
    name: str, change: Any, reason: str, published: Any, attack: Any
) -> None:
    folder = published()
    attack.reweighted(folder, name, change)
    attack.assert_refused(folder, reason)


NORMAL = "normalizer.safetensors"
STATISTICS: list[tuple[Callable[[dict[str, Any]], Any], str]] = [
    (lambda a: a["obs.mean"].fill(np.nan), "NaN or infinity"),
    (lambda a: a["obs.var"].fill(-1.0), "negative variance"),
    (lambda a: a["obs.count"].fill(0.0), "no samples"),
    (lambda a: a.update({"obs.mean": np.zeros(4)}), "float64 of shape [3]"),
    (lambda a: a.update({"obs.mean": np.zeros(3, np.float32)}), "is float32"),
    (lambda a: a.update({"obs.count": np.ones(1)}), "float64 of shape []"),
    (lambda a: a.pop("ret.var"), "lacks 'ret.var'"),
    (lambda a: a.update({"obs.extra": np.zeros(1)}), "has 'obs.extra'"),
]


@pytest.mark.parametrize(("change", "reason"), STATISTICS, ids=[s[1] for s in STATISTICS])
def test_statistics_that_are_none(change: Any, reason: str, published: Any, attack: Any) -> None:
    folder = published()
    attack.reweighted(folder, NORMAL, change)
    with pytest.raises(BundleError) as caught:
        Bundle.open(folder).normalizer  # noqa: B018 - reading it is the act
    assert reason in str(caught.value)


# --- Too much -----------------------------------------------------------------------------------

HUGE = 2**40
BOMBS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "wide": lambda d: d["policy_kwargs"].update(net_arch=[HUGE]),
    "deep": lambda d: d["policy_kwargs"].update(net_arch=[1] * 4096),
    "wide and deep": lambda d: d["policy_kwargs"].update(net_arch={"pi": [2**16] * 64, "vf": []}),
    "observation": lambda d: d["observation_space"].update(shape=[HUGE]),
    "observation within limits": lambda d: d["observation_space"].update(shape=[2**22]),
    "choices": lambda d: d.update(
        observation_space={"type": "Discrete", "n": 2**24, "start": 0, "dtype": "int64"}
    ),
    "actions": lambda d: d["action_space"].update(shape=[2**22], low=-1, high=1),
    "image": lambda d: d["observation_space"].update(shape=[4, 1024, 1024], low=0, high=1),
    "rollout": lambda d: d["arguments"].update(n_steps=HUGE),
    "environments": lambda d: d.update(n_envs=2**16) or d["arguments"].update(n_steps=2**20),
    "seed": lambda d: d["arguments"].update(seed=2**62),
    "negative seed": lambda d: d["arguments"].update(seed=-1),
    "window": lambda d: d["policy_kwargs"].update(log_std_init=1e308, net_arch=[2**30]),
}
SAC_BOMBS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "critics": lambda d: d["policy_kwargs"].update(n_critics=10**9),
    "replay": lambda d: d["arguments"].update(buffer_size=HUGE),
    "extractor": lambda d: d["policy_kwargs"].update(
        features_extractor_class="nature_cnn", features_extractor_kwargs={"features_dim": HUGE}
    ),
    "wide": lambda d: d["policy_kwargs"].update(net_arch={"pi": [8], "qf": [HUGE]}),
}


@pytest.mark.parametrize(
    ("kind", "bomb"),
    [*(("npg", name) for name in BOMBS), *(("sac", name) for name in SAC_BOMBS)],
)
def test_bombs_do_not_go_off(kind: str, bomb: str, published: Any, attack: Any) -> None:
    folder = published(kind)
    attack.edit(folder, (BOMBS if kind == "npg" else SAC_BOMBS)[bomb])
    before = resource.getrusage(resource.RUSAGE_SELF)
    with pytest.raises(BundleError):
        Bundle.open(folder).load_model()
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert after.ru_maxrss - before.ru_maxrss < 400_000  # KiB
    assert after.ru_utime - before.ru_utime < 10.0


def test_arguments_that_do_not_go_together(published: Any, attack: Any) -> None:
    folder = published()
    original = (folder / "agent.json").read_bytes()
    discrete = {"type": "Discrete", "n": 2, "start": 0, "dtype": "int64"}
    changes: list[Callable[[dict[str, Any]], Any]] = [
        lambda d: d["algorithm"].update(name="trpo", library="sb3-contrib"),
        lambda d: d["algorithm"].update(name="dqn", library="stable-baselines3"),
        lambda d: d.update(policy="CnnPolicy"),
        lambda d: d.update(action_space=discrete),
        lambda d: d.update(action_space=discrete) or d["arguments"].update(use_sde=True),
        lambda d: d["arguments"].update(use_sde=True),
        lambda d: d["arguments"].update(target_kl=-1.0),
        lambda d: d["arguments"].update(critic="magic"),
        lambda d: d["policy_kwargs"].update(use_sde=True),
        lambda d: d["policy_kwargs"].update(optimizer_kwargs={"lr": 1.0}),
        lambda d: d["policy_kwargs"].update(optimizer_kwargs={"momentum": 1.0}),
        lambda d: d["policy_kwargs"].update(features_extractor_class="combined"),
        lambda d: d["counters"].update(n_calls=1),
        lambda d: d["counters"].update(num_timesteps="many"),
        lambda d: d["counters"].update(num_timesteps=-1),
    ]
    for change in changes:
        attack.edit(folder, change)
        with pytest.raises(BundleError):
            Bundle.open(folder).load_model()
        (folder / "agent.json").write_bytes(original)
    attack.assert_unharmed(folder)
