"""Agents for every space, and what they do in SB3, torch, ONNX Runtime and numpy."""

from __future__ import annotations

import copy
import ctypes
import itertools
import math
import shutil
import subprocess
import types
import unittest.mock
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from gymnasium import spaces
from onnx.reference import ReferenceEvaluator
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs

from hub.normalizer import Normalizer
from hub.onnx_export import build_policy_onnx, onnx_bytes

Observation = Any  # one array, or arrays by key

IMAGE = spaces.Box(0, 255, (2, 36, 36), np.uint8)
OBSERVATIONS: dict[str, spaces.Space[Any]] = {
    "vector": spaces.Box(-np.inf, np.inf, (5,), np.float64),
    "matrix": spaces.Box(-1.0, np.inf, (2, 3), np.float32),
    "discrete": spaces.Discrete(6),
    "multi-discrete": spaces.MultiDiscrete([3, 1, 4]),
    "multi-binary": spaces.MultiBinary(7),
    "multi-binary-matrix": spaces.MultiBinary([2, 3]),
    "bytes": spaces.Box(0, 255, (9,), np.uint8),
    "image": IMAGE,
    "dict": spaces.Dict(
        {
            "camera": IMAGE,
            "flags": spaces.MultiBinary(3),
            "gear": spaces.Discrete(4),
            "grid": spaces.Box(-1.0, 1.0, (2, 2), np.float32),
            "obs": spaces.Box(-np.inf, np.inf, (3,), np.float64),
        }
    ),
}
ACTIONS: dict[str, spaces.Space[Any]] = {
    "box": spaces.Box(-0.4, 0.4, (2,), np.float32),
    "asymmetric": spaces.Box(
        np.array([[-1.3, 0.1, -6.0], [-0.2, -5.0, -1.0]], dtype=np.float32),
        np.array([[0.7, 0.3, 1e-3], [0.2, 7.0, 0.9]], dtype=np.float32),
    ),
    "half-open": spaces.Box(
        np.array([-0.5, -np.inf], dtype=np.float32), np.array([np.inf, 0.25], dtype=np.float32)
    ),
    "unbounded": spaces.Box(-np.inf, np.inf, (3,), np.float32),
    "discrete": spaces.Discrete(5),
    "multi-discrete": spaces.MultiDiscrete([2, 4, 3]),
    "multi-binary": spaces.MultiBinary(4),
}


class World(gym.Env[Any, Any]):
    """A state that the actions move, shown in any space."""

    def __init__(self, observation: str, action: str) -> None:
        self.observation_space = OBSERVATIONS[observation]
        self.action_space = ACTIONS[action]
        rng = np.random.default_rng(len(observation) + 100 * len(action))
        self._turn = np.linalg.qr(rng.normal(size=(8, 8)))[0]
        self._push = rng.normal(size=(8, spaces.flatdim(self.action_space)))
        self._view = rng.normal(size=(spaces.flatdim(self.observation_space), 8))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.action_space.seed(seed)
        self._state = self.np_random.normal(size=8)
        self._n_steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        push = self._push @ np.asarray(spaces.flatten(self.action_space, action), dtype=float)
        noise = 0.3 * self.np_random.normal(size=8)
        self._state = self._turn @ self._state * 0.9 + np.tanh(push) + noise
        self._n_steps += 1
        return self._observe(), float(self._state[0]), False, self._n_steps == 100, {}

    def _observe(self) -> Any:
        return _show(self.observation_space, self._view @ self._state)


def _show(space: spaces.Space[Any], values: np.ndarray[Any, Any]) -> Any:
    """Return an element of ``space`` made of real numbers."""
    if isinstance(space, spaces.Dict):
        sizes = [spaces.flatdim(part) for part in space.spaces.values()]
        pieces = np.split(values, np.cumsum(sizes)[:-1])
        return {
            key: _show(part, piece)
            for (key, part), piece in zip(space.spaces.items(), pieces, strict=True)
        }
    if isinstance(space, spaces.Discrete):
        return np.int64(np.argmax(values))
    if isinstance(space, spaces.MultiDiscrete):
        groups = np.split(values, np.cumsum(space.nvec)[:-1])
        return np.array([np.argmax(group) for group in groups])
    if isinstance(space, spaces.MultiBinary):
        return (values > 0).astype(np.int8).reshape(space.shape)
    if space.dtype == np.uint8:
        return np.clip(128 + 40 * values, 0, 255).astype(np.uint8).reshape(space.shape)
    return np.clip(values.reshape(space.shape), space.low, space.high).astype(space.dtype)


def scaled(normalizer: Normalizer, values: np.ndarray[Any, Any], name: str) -> Any:
    """Return ``values`` normalised in float64, those of other keys as they are."""
    if f"{name}.mean" not in normalizer.arrays:
        return values
    mean, variance = normalizer.arrays[f"{name}.mean"], normalizer.arrays[f"{name}.var"]
    centred = (values - mean) / np.sqrt(variance + normalizer.epsilon)
    return np.clip(centred, -normalizer.clip_obs, normalizer.clip_obs)


def by_key(observations: Observation, function: Any) -> Observation:
    if isinstance(observations, dict):
        return {key: function(f"obs.{key}", values) for key, values in observations.items()}
    return function("obs", observations)


def statistics(space: spaces.Space[Any], keys: tuple[str, ...] = ("obs",)) -> Normalizer:
    """Return statistics for a Box, or for some keys of a Dict."""
    rng = np.random.default_rng(5)
    parts = {"obs": space}
    if isinstance(space, spaces.Dict):
        parts = {f"obs.{key}": space.spaces[key] for key in keys}
    arrays = {"ret.var": np.array(1.0)}
    for name, part in parts.items():
        centre, spread = (128.0, 40.0) if part.dtype == np.uint8 else (0.0, 1.0)
        arrays[f"{name}.mean"] = centre + spread * rng.normal(size=part.shape)
        arrays[f"{name}.var"] = spread**2 * rng.uniform(0.1, 4.0, size=part.shape)
    return Normalizer(arrays, clip_obs=2.5)


def sample(space: spaces.Space[Any], n: int, seed: int = 0) -> Observation:
    """Return ``n`` observations that are spread over ``space``."""
    rng = np.random.default_rng(seed)
    shown = [_show(space, rng.normal(size=spaces.flatdim(space)) * 1.5) for _ in range(n)]
    if isinstance(space, spaces.Dict):
        return {key: np.stack([one[key] for one in shown]) for key in space.spaces}
    return np.stack(shown)


def enlarge(policy: BasePolicy, factor: float = 3.0) -> BasePolicy:
    """Make the actions of a new policy large enough to reach their bounds."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.parameters():
            scale = factor / parameter.shape[-1] ** 0.5 if parameter.ndim > 1 else 0.1
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    return policy


def onnx_function(model: onnx.ModelProto, output: str = "actions") -> Any:
    """Return what ONNX Runtime computes, as a function of observations."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        onnx_bytes(model), options, providers=["CPUExecutionProvider"]
    )
    return lambda observations: session.run([output], feed(model, observations))[0]


def numpy_function(model: onnx.ModelProto, output: str = "actions") -> Any:
    """Return what the graph gives when numpy computes each operator."""
    evaluator = ReferenceEvaluator(model)
    return lambda observations: evaluator.run([output], feed(model, observations))[0]


def run_onnx(model: onnx.ModelProto, observations: Observation, output: str = "actions") -> Any:
    return onnx_function(model, output)(observations)


def run_numpy(model: onnx.ModelProto, observations: Observation, output: str = "actions") -> Any:
    return numpy_function(model, output)(observations)


def feed(model: onnx.ModelProto, observations: Observation) -> dict[str, Any]:
    arrays = observations if isinstance(observations, dict) else {"obs": observations}
    types_ = {
        info.name: onnx.helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
        for info in model.graph.input
    }
    assert types_.keys() == arrays.keys()
    return {name: np.asarray(arrays[name]).astype(kind) for name, kind in types_.items()}


def run_sb3(policy: BasePolicy, normalizer: Normalizer | None, observations: Observation) -> Any:
    """Return what SB3 does in float32."""
    seen = normalizer(observations) if normalizer else observations
    return policy.predict(seen, deterministic=True)[0]


def run_torch(policy: BasePolicy, normalizer: Normalizer | None, observations: Observation) -> Any:
    """Return what SB3's own code does when everything is float64, rounded at the end."""
    with in_float64(policy, normalizer) as act:
        return act(observations)


def on_grid(actions: Any, space: spaces.Box) -> Any:
    """Round to a millionth of a bound below 1, or of 1; then clip; then round to float32."""
    bounds = np.minimum(1.0, np.maximum(np.abs(space.low), np.abs(space.high))).ravel()
    steps = [2.0 ** (math.ceil(math.log2(bound)) - 20) for bound in bounds.tolist()]
    step = np.reshape(steps, space.shape)
    return np.clip(np.rint(actions / step) * step, space.low, space.high).astype(np.float32)


@contextmanager
def in_float64(policy: BasePolicy, normalizer: Normalizer | None) -> Iterator[Any]:
    """Turn a policy into float64, which changes no weight, and give its actions as a function."""
    space = copy.deepcopy(policy.action_space)
    if isinstance(space, spaces.Box):
        space.low, space.high = space.low.astype(np.float64), space.high.astype(np.float64)
        if not policy.squash_output:  # clipped later
            space.low, space.high = (
                np.full_like(space.low, -np.inf),
                np.full_like(space.low, np.inf),
            )

    def act(observations: Observation) -> Any:
        if normalizer:
            observations = by_key(
                observations, lambda name, values: scaled(normalizer, values, name)
            )
        actions = policy.predict(observations, deterministic=True)[0]
        return on_grid(actions, true_space) if isinstance(true_space, spaces.Box) else actions

    true_space = policy.action_space
    preprocessing = "stable_baselines3.common.policies.preprocess_obs"
    with (
        unittest.mock.patch(preprocessing, _preprocess_double),
        unittest.mock.patch.object(policy, "action_space", space),
    ):
        policy.double()
        yield act
    policy.float()


def _preprocess_double(obs: Any, space: spaces.Space[Any], normalize_images: bool = True) -> Any:
    if isinstance(space, spaces.Dict):
        return {
            key: _preprocess_double(obs[key], part, normalize_images)
            for key, part in space.spaces.items()
        }
    if isinstance(space, spaces.Box):
        is_image = normalize_images and is_image_space(space)
        return obs.double() / 255.0 if is_image else obs.double()
    return preprocess_obs(obs, space).double()


def assert_parity(
    policy: BasePolicy, normalizer: Normalizer | None, observations: Observation
) -> np.ndarray[Any, Any]:
    """Compare SB3 with the float32 file, and all that compute in float64 with each other.

    :return: the actions of the float64 file.
    """
    single = build_policy_onnx(policy, normalizer)
    double = build_policy_onnx(policy, normalizer, dtype="float64")
    expected = run_sb3(policy, normalizer, observations)
    actions = run_onnx(single, observations)
    exact = run_onnx(double, observations)
    space = policy.action_space
    kind = np.float32 if isinstance(space, spaces.Box) else space.dtype
    assert actions.dtype == exact.dtype == kind
    assert actions.shape == exact.shape == expected.shape
    if isinstance(space, spaces.Box):
        np.testing.assert_allclose(actions, expected, atol=1e-5, rtol=1e-5)
        np.testing.assert_allclose(exact, expected, atol=1e-5, rtol=1e-5)
    else:
        np.testing.assert_array_equal(actions, expected)
        np.testing.assert_array_equal(exact, expected)
    np.testing.assert_array_equal(exact, run_torch(policy, normalizer, observations))
    np.testing.assert_array_equal(exact, run_numpy(double, observations))
    return exact


COMPILER = shutil.which("gcc") or shutil.which("cc")
STRICT = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"]
_TYPES = {"float": np.float32, "int64_t": np.int64, "int8_t": np.int8}

_PROGRAM = """
#include "policy.h"
void act_all(const double *obs, {kind} *actions, long n)
{{
    long k;
    for (k = 0; k < n; k++)
        {prefix}_act(obs + k * {upper}_N_OBS, actions + k * {upper}_N_ACTIONS);
}}
"""


@pytest.fixture
def compile_c(tmp_path: Path) -> Callable[..., Callable[[Any], Any]]:
    """Return the compiled header as a function of a batch of observations."""
    if COMPILER is None:
        pytest.skip("there is no C compiler (gcc, cc)")
    numbers = itertools.count()

    def compile_c(header: str, prefix: str, *flags: str) -> Callable[[Any], Any]:
        folder = tmp_path / str(next(numbers))
        folder.mkdir()
        (folder / "policy.h").write_text(header)
        kind = header.split(f"{prefix}_act(const double *obs, ")[1].split()[0]
        program = _PROGRAM.format(kind=kind, prefix=prefix, upper=prefix.upper())
        (folder / "policy.c").write_text(program)
        command = [str(COMPILER), *STRICT, *flags, "-shared", "-fPIC", "policy.c", "-o", "p.so"]
        done = subprocess.run([*command, "-lm"], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        library = ctypes.CDLL(str(folder / "p.so"))
        n_actions = int(header.split(f"{prefix.upper()}_N_ACTIONS ")[1].split()[0])

        def act(observations: Any) -> Any:
            flat = np.ascontiguousarray(observations, dtype=np.float64)
            actions = np.empty((len(flat), n_actions), dtype=_TYPES[kind])
            library.act_all(
                flat.ctypes.data_as(ctypes.c_void_p),
                actions.ctypes.data_as(ctypes.c_void_p),
                ctypes.c_long(len(flat)),
            )
            return actions

        return act

    return compile_c


@pytest.fixture(scope="session")
def agents() -> Any:
    """Give the helpers above to tests: pytest's import mode keeps modules apart."""
    return types.SimpleNamespace(
        ACTIONS=ACTIONS,
        OBSERVATIONS=OBSERVATIONS,
        World=World,
        assert_parity=assert_parity,
        by_key=by_key,
        enlarge=enlarge,
        in_float64=in_float64,
        numpy_function=numpy_function,
        on_grid=on_grid,
        onnx_function=onnx_function,
        run_numpy=run_numpy,
        run_onnx=run_onnx,
        run_sb3=run_sb3,
        run_torch=run_torch,
        sample=sample,
        statistics=statistics,
    )
