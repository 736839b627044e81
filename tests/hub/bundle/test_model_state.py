"""Arrays that do not fit an agent are refused by name, and nothing is written."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from agents.errors import BundleError
from hub.bundle_format.allocation_limit import AllocationLimit
from hub.bundle_format.model_state import (
    load_policy_state,
    load_training_state,
    policy_state,
    training_state,
)
from hub.bundle_format.named_classes import OPTIMIZERS

Arrays = dict[str, Any]


@pytest.fixture(scope="module")
def npg(studio: Any) -> Any:
    return studio.make()


@pytest.fixture(scope="module")
def sac(studio: Any) -> Any:
    return studio.make("stable-baselines3", "sac")


def test_names_of_the_policy(npg: Any) -> None:
    assert list(policy_state(npg)) == [
        "log_std",
        *(
            f"mlp_extractor.{net}.{layer}.{part}"
            for net in ("policy_net", "value_net")
            for layer in (0, 2)
            for part in ("weight", "bias")
        ),
        *("action_net.weight", "action_net.bias", "value_net.weight", "value_net.bias"),
    ]


def test_shared_tensors_are_written_once(studio: Any) -> None:
    shared = studio.make(observation="image", n_timesteps=0)
    assert len(shared.policy.state_dict()) == 33
    assert len(policy_state(shared)) == 17
    assert "features_extractor.cnn.0.weight" in policy_state(shared)
    kwargs = {"share_features_extractor": False, "net_arch": [8]}
    apart = studio.make(observation="image", n_timesteps=0, policy_kwargs=kwargs)
    assert {"features_extractor", "vf_features_extractor"} <= {
        name.partition(".")[0] for name in policy_state(apart)
    }


def test_names_of_the_training_state(sac: Any) -> None:
    arrays = training_state(sac)
    assert arrays["actor.optimizer/lr"].tolist() == [3e-4]
    for name in ("log_ent_coef", "ent_coef_optimizer/0/exp_avg", "critic.optimizer/0/step"):
        assert name in arrays
    n_actor = len(list(sac.actor.parameters()))
    own = [name for name in arrays if name.startswith("actor.optimizer/")]
    assert len(own) == 1 + 3 * n_actor


def test_whole_numbers_of_an_optimiser_stay_whole(studio: Any) -> None:
    kwargs = {"optimizer_class": OPTIMIZERS["rmsprop_tf_like"]}
    model = studio.make("stable-baselines3", "a2c", policy_kwargs=kwargs)
    arrays = training_state(model)
    assert arrays["policy.optimizer/0/step"].dtype == np.int64
    load_training_state(model, arrays)
    step = next(iter(model.policy.optimizer.state.values()))["step"]
    assert type(step) is int
    for wrong in (np.array(-1), np.array([1]), np.array(1.0)):
        with pytest.raises(BundleError, match="must be a whole number"):
            load_training_state(model, arrays | {"policy.optimizer/0/step": wrong})


def changed(name: str, change: Callable[[Any], Any]) -> Callable[[Arrays], Arrays]:
    return lambda arrays: arrays | {name: change(arrays[name])}


def without(name: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {key: value for key, value in arrays.items() if key != name}


POLICY_DAMAGE: list[tuple[Callable[[Arrays], Arrays], str]] = [
    (without("log_std"), "lacks 'log_std'"),
    (lambda arrays: {}, "lacks 'log_std'"),
    (lambda arrays: arrays | {"extra": np.ones(1)}, "has 'extra'"),
    (changed("action_net.bias", lambda a: a[:1]), "has the shape [1]"),
    (changed("action_net.weight", lambda a: a.T), "has the shape [8, 2]"),
    (changed("action_net.bias", lambda a: a.reshape(1, -1)), "has the shape [1, 2]"),
    (changed("action_net.bias", lambda a: a.astype(np.float64)), "is of type float64"),
    (changed("action_net.bias", lambda a: a.astype(np.int32)), "is of type int32"),
]


@pytest.mark.parametrize(("damage", "reason"), POLICY_DAMAGE, ids=[r for _, r in POLICY_DAMAGE])
def test_wrong_weights(npg: Any, damage: Any, reason: str) -> None:
    before = policy_state(npg)
    with pytest.raises(BundleError) as caught:
        load_policy_state(npg, damage(before))
    assert reason in str(caught.value)
    for name, array in policy_state(npg).items():
        np.testing.assert_array_equal(array, before[name])


ACTOR = "actor.optimizer"
TRAINING_DAMAGE: list[tuple[Callable[[Arrays], Arrays], str]] = [
    (without("log_ent_coef"), "lacks 'log_ent_coef'"),
    (changed("log_ent_coef", lambda a: np.float32(1.0) + a[0]), "has the shape []"),
    (lambda arrays: arrays | {"log_std": np.ones(1)}, "has 'log_std'"),
    (lambda arrays: arrays | {"policy.optimizer/lr": np.ones(1)}, "has 'policy.optimizer/lr'"),
    (without(f"{ACTOR}/lr"), "needs 'actor.optimizer/lr'"),
    (changed(f"{ACTOR}/lr", lambda a: np.ones(2)), "needs 'actor.optimizer/lr'"),
    (changed(f"{ACTOR}/lr", lambda a: a.astype(np.float32)), "needs 'actor.optimizer/lr'"),
    (changed(f"{ACTOR}/lr", lambda a: -a), "negative learning rate"),
    (without(f"{ACTOR}/3/exp_avg"), "lacks 'actor.optimizer/3/exp_avg'"),
    (without(f"{ACTOR}/3/step"), "lacks 'actor.optimizer/3/step'"),
    (changed(f"{ACTOR}/0/exp_avg", lambda a: a[:1]), "has the shape"),
    (changed(f"{ACTOR}/0/exp_avg", lambda a: a.astype(np.float64)), "is of type float64"),
    (changed(f"{ACTOR}/0/exp_avg_sq", lambda a: a - 1), "is negative"),
    (changed(f"{ACTOR}/0/step", lambda a: -a), "is negative"),
    (changed(f"{ACTOR}/0/step", lambda a: a.reshape(1)), "has the shape [1]"),
    (lambda arrays: arrays | {f"{ACTOR}/0/momentum": np.ones(1)}, "is no state of Adam"),
    (lambda arrays: arrays | {f"{ACTOR}/99/step": np.ones(1)}, "belongs to no parameter"),
    (lambda arrays: arrays | {f"{ACTOR}/-1/step": np.ones(1)}, "belongs to no parameter"),
    (lambda arrays: arrays | {f"{ACTOR}/00/step": np.ones(1)}, "belongs to no parameter"),
    (lambda arrays: arrays | {f"{ACTOR}/": np.ones(1)}, "belongs to no parameter"),
    (lambda arrays: arrays | {f"{ACTOR}/0/../step": np.ones(1)}, "is no state of Adam"),
]


@pytest.mark.parametrize(("damage", "reason"), TRAINING_DAMAGE, ids=[r for _, r in TRAINING_DAMAGE])
def test_wrong_training_state(sac: Any, damage: Any, reason: str) -> None:
    with pytest.raises(BundleError) as caught:
        load_training_state(sac, damage(training_state(sac)))
    assert reason in str(caught.value)


def test_what_is_no_tensor_cannot_be_written(studio: Any) -> None:
    model = studio.make()
    optimizer = model.policy.optimizer
    optimizer.state[next(iter(optimizer.state))]["note"] = "text"
    with pytest.raises(BundleError, match="is a str, not a tensor"):
        training_state(model)
    model.policy.bfloat16()
    with pytest.raises(BundleError, match=r"bfloat16.*model\.policy\.float\(\)"):
        policy_state(model)


def test_no_memory_is_taken_beyond_the_weights() -> None:
    calls: list[Callable[[], Any]] = [
        lambda: torch.empty(2**40),
        lambda: torch.empty((2**20, 2**20)),
        lambda: torch.zeros(size=(2**30, 2**10)),
        lambda: torch.ones(np.int64(2**40)),
        lambda: torch.full((2**40,), 1.0),
        lambda: torch.nn.Linear(2**20, 2**20),
        lambda: torch.nn.Conv2d(2**20, 2**20, 8),
        lambda: [torch.empty(2**21) for _ in range(4)],
        lambda: [torch.empty(1) for _ in range(3000)],
    ]
    for call in calls:
        with pytest.raises(BundleError, match="more weights than"), AllocationLimit([]):
            call()
    with AllocationLimit([64 * 64, 64]):
        layers = [torch.nn.Linear(64, 64) for _ in range(10)]
    assert layers[0].weight.shape == (64, 64)
    with AllocationLimit([3 * 2**22]):
        torch.empty(3 * 2**22)
