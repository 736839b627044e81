"""How long an agent takes to act on one observation, in one run on one core.

The subject is a PPO agent of SB3 on Walker2d-v4 (64-64 tanh, ``VecNormalize``) and its ONNX files:
the same actions by every route. Subjects take turns in rounds, so that what else the machine does
hits all alike; percentiles are over all single calls.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from benchmarks.measure import save
from hub.gym_env import make_gym_env
from hub.onnx_export import build_policy_onnx, onnx_bytes
from hub.runtime import OnnxPolicy
from hub.vec_normalize import normalizer_of

ENV_ID = "Walker2d-v4"
_N_OBSERVATIONS = 256

Subject = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]


def percentiles(
    subjects: Mapping[str, Subject], observations: np.ndarray[Any, Any], rounds: int, n_calls: int
) -> dict[str, dict[str, float]]:
    """Return the microseconds of a call at the 50th and 99th percentile, by subject.

    :param subjects: functions of one observation.
    :param observations: shape ``(n, ...)``, given in turn.
    :param rounds: how often each subject gets its turn.
    :param n_calls: calls in a turn; a tenth more come first and are not counted.
    """
    nanoseconds: dict[str, list[int]] = {name: [] for name in subjects}
    clock = time.perf_counter_ns
    for _ in range(rounds):
        for name, subject in subjects.items():
            times = nanoseconds[name]
            for i in range(n_calls // 10):
                subject(observations[i % len(observations)])
            for i in range(n_calls):
                observation = observations[i % len(observations)]
                start = clock()
                subject(observation)
                times.append(clock() - start)
    return {
        name: {f"p{q}": float(f"{np.percentile(times, q) / 1e3:.4g}") for q in (50, 99)}
        for name, times in nanoseconds.items()
    }


def make_subjects(folder: Path) -> tuple[dict[str, Subject], np.ndarray[Any, Any]]:
    """Return the routes from a raw observation to the action, and observations on the way.

    :param folder: takes the ONNX files.
    """
    env = VecNormalize(DummyVecEnv([lambda: make_gym_env(ENV_ID)]))
    model = PPO("MlpPolicy", env, n_steps=1024, seed=0, device="cpu").learn(2048)
    env.training = False
    observations = _visited(model, env)
    files = {}
    for dtype in ("float32", "float64"):
        files[dtype] = folder / f"{dtype}.onnx"
        files[dtype].write_bytes(
            onnx_bytes(build_policy_onnx(model.policy, normalizer_of(env), dtype=dtype))
        )
    subjects: dict[str, Subject] = {
        "SB3: normalize_obs + predict": lambda obs: model.predict(
            env.normalize_obs(obs), deterministic=True
        )[0],
        "torch modules, inference mode": _torch_modules(model, env),
        "OnnxPolicy": OnnxPolicy(files["float32"]),
        "OnnxPolicy, check_range=False": OnnxPolicy(files["float32"], check_range=False),
        "OnnxPolicy, float64": OnnxPolicy(files["float64"]),
        "onnxruntime: session.run": _bare(files["float32"], np.float32),
        "onnxruntime: session.run, float64": _bare(files["float64"], np.float64),
    }
    _check_equal(subjects, observations)
    return subjects, observations


def _visited(model: PPO, env: VecNormalize) -> np.ndarray[Any, Any]:
    env.reset()
    visited = []
    for _ in range(_N_OBSERVATIONS):
        raw = env.get_original_obs()
        visited.append(raw[0].astype(np.float64))  # what Gymnasium's environment gives
        actions, _ = model.predict(env.normalize_obs(raw))
        env.step(actions)
    return np.array(visited)


def _torch_modules(model: PPO, env: VecNormalize) -> Subject:
    """Return what is left of ``predict`` when only the arithmetic is."""
    statistics = env.obs_rms
    mean = torch.as_tensor(statistics.mean, dtype=torch.float32)
    std = torch.as_tensor(np.sqrt(statistics.var + env.epsilon), dtype=torch.float32)
    network = torch.nn.Sequential(
        *model.policy.mlp_extractor.policy_net, model.policy.action_net
    ).eval()

    def act(observation: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        with torch.inference_mode():
            obs = torch.as_tensor(observation, dtype=torch.float32)
            scaled = ((obs - mean) / std).clamp(-env.clip_obs, env.clip_obs)
            return network(scaled).clamp(-1.0, 1.0).numpy()

    return act


def _bare(path: Path, dtype: Any) -> Subject:
    """Return ONNX Runtime as its documentation uses it, in one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def act(observation: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        actions: np.ndarray[Any, Any] = session.run(None, {"obs": observation[None].astype(dtype)})[
            0
        ]
        return actions[0]

    return act


def _check_equal(subjects: Mapping[str, Subject], observations: np.ndarray[Any, Any]) -> None:
    reference = next(iter(subjects.values()))
    for name, subject in subjects.items():
        for observation in observations:
            np.testing.assert_allclose(
                subject(observation), reference(observation), atol=1e-5, err_msg=name
            )


def measure(rounds: int, n_calls: int) -> dict[str, dict[str, float]]:
    """Measure every route and save the result."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        subjects, observations = make_subjects(Path(folder))
        values = percentiles(subjects, observations, rounds, n_calls)
    save(
        "runtime_latency",
        {
            "env_id": ENV_ID,
            "unit": "microseconds per call with one observation",
            "calls": rounds * n_calls,
            "onnxruntime": onnxruntime.__version__,
            "subjects": values,
        },
    )
    return values


def main() -> None:
    """Measure on one core and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10, help="default 10")
    parser.add_argument("--calls", type=int, default=3000, help="in a round; default 3000")
    parser.add_argument("--cpu", type=int, help="core to run on; default: any")
    args = parser.parse_args()
    if args.cpu is not None:
        os.sched_setaffinity(0, {args.cpu})
    for name, values in measure(args.rounds, args.calls).items():
        print(f"{name:<36} p50 {values['p50']:8.2f} µs   p99 {values['p99']:8.2f} µs")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
