"""What every agent is promised: out of a bundle it acts and learns as if nothing had happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.registry import algorithm_names
from hub.bundle import Bundle
from hub.bundle_format.counters import counters_to_json
from hub.bundle_format.model_state import policy_state, training_state

OURS = [("natural-zoo", algo) for algo in algorithm_names()]
THEIRS = [
    *(("stable-baselines3", algo) for algo in ("a2c", "dqn", "ppo", "sac", "td3")),
    *(("sb3-contrib", algo) for algo in ("tqc", "trpo")),
]
# Its experience is not in a bundle.
NOT_REPEATABLE = ("off_pac",)
VEC_NORMALIZE = {"clip_obs": 4.0, "gamma": 0.9}
NO_DISCRETE = ("sac", "td3", "tqc")

CASES: list[tuple[str, str, dict[str, Any]]] = [
    *((library, algo, {"normalize": VEC_NORMALIZE}) for library, algo in OURS + THEIRS),
    *(
        (library, algo, {"action": "discrete"})
        for library, algo in OURS + THEIRS
        if algo not in NO_DISCRETE
    ),
    ("natural-zoo", "npg", {"normalize": "rollout"}),
    ("natural-zoo", "a3c", {"policy": "MlpLstmPolicy", "policy_kwargs": {"net_arch": [8]}}),
    ("natural-zoo", "npg", {"action": "multi_discrete", "normalize": {"norm_obs": False}}),
    ("natural-zoo", "trpo", {"action": "multi_binary", "normalize": {"norm_reward": False}}),
    *(
        (library, algo, {"observation": "image"})
        for library, algo in [
            *(("natural-zoo", "npg"), ("stable-baselines3", "ppo")),
            *(("stable-baselines3", "dqn"), ("stable-baselines3", "sac")),
        ]
    ),
    *(
        (library, algo, {"observation": observation, "normalize": {"norm_obs_keys": ["vec"]}})
        for library, algo, observation in [
            *(("natural-zoo", "trpo", "dict_last"), ("stable-baselines3", "a2c", "dict")),
            *(("stable-baselines3", "dqn", "dict"), ("sb3-contrib", "tqc", "dict")),
        ]
    ),
    *(
        (library, algo, {"use_sde": True, "normalize": {}})
        for library, algo in [
            *(("natural-zoo", "npg"), ("natural-zoo", "ppo")),
            *(("stable-baselines3", "a2c"), ("stable-baselines3", "sac"), ("sb3-contrib", "tqc")),
        ]
    ),
    (
        "natural-zoo",
        "npg",
        {
            "policy_kwargs": {
                "net_arch": {"pi": [9], "vf": [7, 5]},
                "share_features_extractor": False,
                "optimizer_kwargs": {"betas": (0.8, 0.99)},
            }
        },
    ),
]


def identity(case: tuple[str, str, dict[str, Any]]) -> str:
    library, algo, settings = case
    return f"{library}:{algo}-" + "-".join(f"{key}={value}" for key, value in settings.items())


@pytest.mark.parametrize("case", CASES, ids=identity)
def test_acts_and_learns_as_the_agent_that_was_saved(
    case: Any, studio: Any, tmp_path: Path
) -> None:
    library, algo, settings = case
    model = studio.make(library, algo, **settings)
    written = training_state(model)
    bundle = studio.save(tmp_path / "agent", model, algo)
    assert bundle.manifest.library == library
    shown = {key: settings[key] for key in ("observation", "action") if key in settings}
    if algo == "dqn":
        shown["action"] = "discrete"

    loaded = Bundle.open(tmp_path / "agent").load_model(
        studio.venv(**shown, normalize=settings.get("normalize")), device="cpu"
    )

    assert type(loaded) is type(model)
    assert loaded.observation_space == model.observation_space
    assert loaded.action_space == model.action_space
    assert studio.actions(loaded) == studio.actions(model)
    if not settings.get("use_sde"):  # whose noise is drawn anew for each rollout
        assert studio.actions(loaded, deterministic=False) == studio.actions(
            model, deterministic=False
        )
    assert_same(policy_state(loaded), policy_state(model))
    assert_same(training_state(loaded), written)
    assert counters_to_json(loaded) == counters_to_json(model)
    if algo in NOT_REPEATABLE:
        return

    studio.go_on(model, studio.venv(**shown, normalize=settings.get("normalize")))
    studio.go_on(loaded)
    assert_same(policy_state(loaded), policy_state(model))
    assert_same(training_state(loaded), training_state(model))
    assert counters_to_json(loaded) == counters_to_json(model)


def assert_same(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype
        np.testing.assert_array_equal(ours[name], array, err_msg=name)


def test_two_agents_are_told_apart(studio: Any, tmp_path: Path) -> None:
    """The comparison above can fail."""
    one, other = studio.make(seed=1), studio.make(seed=2)
    studio.save(tmp_path / "one", one)
    loaded = Bundle.open(tmp_path / "one").load_model()
    assert studio.actions(loaded) != studio.actions(other)
    with pytest.raises(AssertionError):
        assert_same(policy_state(loaded), policy_state(other))


def test_without_the_optimiser_training_begins_afresh(studio: Any, tmp_path: Path) -> None:
    """Going on exactly, as above, is the file's doing."""
    model = studio.make()
    bundle = studio.save(tmp_path / "agent", model, optimizer=False)
    assert bundle.files == ("policy.safetensors",)
    loaded = bundle.load_model(studio.venv(), device="cpu")
    assert studio.actions(loaded) == studio.actions(model)
    studio.go_on(model, studio.venv())
    studio.go_on(loaded)
    with pytest.raises(AssertionError):
        assert_same(policy_state(loaded), policy_state(model))
