"""Whatever is done to a bundle's bytes: our error or an agent that acts, and nothing else."""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from agents.errors import BundleError
from hub.bundle import Bundle

Files = dict[str, bytes]
KINDS = ("npg", "sac", "dict")

fast = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
long = settings(max_examples=4000, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def bundles(_published: Callable[[str], Path]) -> dict[str, Files]:
    return {
        kind: {path.name: path.read_bytes() for path in _published(kind).iterdir()}
        for kind in KINDS
    }


def acts_or_is_refused(files: Files) -> bool:
    """Return whether the bundle was accepted; then its agent has acted, too."""
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            (Path(folder) / name).write_bytes(content)
        try:
            bundle = Bundle.open(folder)
            normalizer = bundle.normalizer
            model = bundle.load_model(device="cpu")
            bundle.load_policy(device="cpu")
        except BundleError as error:
            assert "\n" not in str(error)  # noqa: PT017 - both ways on are right
            return False
    space = model.observation_space
    observation: Any = zeros(space)
    if normalizer is not None:
        observation = normalizer(observation)
    action, _ = model.predict(observation, deterministic=True)
    assert np.isfinite(action).all()
    return True


def zeros(space: Any) -> Any:
    if hasattr(space, "spaces"):
        return {key: zeros(part) for key, part in space.spaces.items()}
    return np.zeros((1, *space.shape), space.dtype)


def signed(files: Files) -> Files:
    """Return the files with digests that are right, as an attacker would make them."""
    document = json.loads(files["agent.json"])
    for name in document["files"]:
        sha256 = hashlib.sha256(files[name]).hexdigest()
        document["files"][name] = {"size": len(files[name]), "sha256": sha256}
    return files | {"agent.json": json.dumps(document).encode()}


# --- Bytes --------------------------------------------------------------------------------------


@st.composite
def mutations(draw: Any, content: bytes) -> bytes:
    """Overwrite, insert, delete, repeat and cut, mostly near the beginning, where structure is."""
    mutated = bytearray(content)
    for _ in range(draw(st.integers(1, 5))):
        end = draw(st.sampled_from([8, 64, 2000, len(mutated)]))
        where = draw(st.integers(0, max(min(end, len(mutated)) - 1, 0)))
        action = draw(st.sampled_from(["set", "insert", "delete", "repeat", "cut", "digit"]))
        if action == "set":
            mutated[where : where + 1] = draw(st.binary(min_size=1, max_size=4))
        elif action == "insert":
            mutated[where:where] = draw(st.binary(min_size=1, max_size=16))
        elif action == "delete":
            del mutated[where : where + draw(st.integers(1, 64))]
        elif action == "repeat":
            mutated[where:where] = mutated[where : where + draw(st.integers(1, 64))]
        elif action == "cut":
            del mutated[where:]
        else:
            mutated[where : where + 1] = draw(st.sampled_from([b"0", b"9", b"-", b"e", b"1e9"]))
    return bytes(mutated)


def fuzz_bytes(data: st.DataObject, bundles: dict[str, Files]) -> None:
    files = dict(bundles[data.draw(st.sampled_from(KINDS))])
    name = data.draw(st.sampled_from([n for n in sorted(files) if n != "evaluation.json"]))
    files[name] = data.draw(mutations(files[name]))
    if name != "agent.json" and data.draw(st.booleans()):
        files = signed(files)
    event(f"accepted: {acts_or_is_refused(files)}")


@fast
@given(data=st.data())
def test_mutated_bytes(data: st.DataObject, bundles: dict[str, Files]) -> None:
    fuzz_bytes(data, bundles)


@pytest.mark.slow
@long
@given(data=st.data())
def test_mutated_bytes_for_long(data: st.DataObject, bundles: dict[str, Files]) -> None:
    fuzz_bytes(data, bundles)


# --- Structure ----------------------------------------------------------------------------------

ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 3, 64, 2**31, 2**53, 2**63, 10**30, 0.5, -0.0, 1e308, 1e-308),
    *("", "inf", "-inf", "nan", "npg", "sac", "trpo", "ppo", "dqn", "a2c", "tqc", "td3", "relu"),
    *("MlpPolicy", "CnnPolicy", "MultiInputPolicy", "natural-zoo", "stable-baselines3"),
    *("sb3-contrib", "adam", "sgd", "rmsprop_tf_like", "nature_cnn", "combined", "../x", "a" * 99),
    *("Box", "Discrete", "MultiDiscrete", "MultiBinary", "Dict", "float64", "uint8", "int64"),
    *([], {}, [0], [1, 1], [[]], {"pi": [4], "vf": []}, {"pi": [4], "qf": [4]}),
    {"schedule": "linear", "start": 1.0, "end": 0.0},
    {"noise": "normal", "mean": [0.0], "sigma": [1.0]},
]
KEYS = [
    *("net_arch", "activation_fn", "n_critics", "use_sde", "log_std_init", "optimizer_class"),
    *("optimizer_kwargs", "features_extractor_class", "share_features_extractor", "n_steps"),
    *("seed", "train_freq", "action_noise", "buffer_size", "target_entropy", "ent_coef", "start"),
    *("squash_output", "full_std", "normalize_images", "ortho_init", "gamma", "n", "nvec", "x"),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*path, key))


def at(document: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def fuzz_structure(data: st.DataObject, bundles: dict[str, Files]) -> None:
    files = bundles[data.draw(st.sampled_from(KINDS))]
    document = json.loads(files["agent.json"])
    for _ in range(data.draw(st.integers(1, 3))):
        if not isinstance(document, dict):
            break
        every = [path for path in places(document) if path and path[0] != "files"]
        path = data.draw(st.sampled_from(every or [()]))
        if not path:
            break
        parent, key = at(document, path[:-1]), path[-1]
        action = data.draw(st.sampled_from(["odd", "any", "other", "delete", "add"]))
        if action == "odd":
            parent[key] = copy.deepcopy(data.draw(st.sampled_from(ODD)))
        elif action == "any":
            parent[key] = data.draw(
                st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
            )
        elif action == "other":
            parent[key] = copy.deepcopy(at(document, data.draw(st.sampled_from(every))))
        elif action == "delete":
            del parent[key]
        elif isinstance(parent[key], dict):
            name = data.draw(st.sampled_from(KEYS))
            parent[key][name] = copy.deepcopy(data.draw(st.sampled_from(ODD)))
    accepted = acts_or_is_refused(files | {"agent.json": json.dumps(document).encode()})
    event(f"accepted: {accepted}")


@fast
@given(data=st.data())
def test_mutated_structure(data: st.DataObject, bundles: dict[str, Files]) -> None:
    fuzz_structure(data, bundles)


@pytest.mark.slow
@long
@given(data=st.data())
def test_mutated_structure_for_long(data: st.DataObject, bundles: dict[str, Files]) -> None:
    fuzz_structure(data, bundles)


def test_both_ends_are_reached(bundles: dict[str, Files]) -> None:
    """The fuzzing above can accept and can refuse."""
    files = bundles["npg"]
    assert acts_or_is_refused(files)
    assert acts_or_is_refused(signed(files))
    document = json.loads(files["agent.json"])
    document["arguments"]["gamma"] = 0.5
    assert acts_or_is_refused(files | {"agent.json": json.dumps(document).encode()})
    document["arguments"]["gamma"] = "0.5"
    assert not acts_or_is_refused(files | {"agent.json": json.dumps(document).encode()})
