"""What compilers do to the C header: its speed, and whether it still gives the same bits.

The subject is a PPO agent of SB3 on Walker2d-v4 (64-64 tanh, ``VecNormalize``) and 10,000
observations that it meets. Each build of the header is compared with ONNX Runtime on the float64
file, action by action.
"""

from __future__ import annotations

import argparse
import ctypes
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from benchmarks.measure import save
from hub.c_code.header import build_c_header
from hub.control_names import describe_control
from hub.gym_env import make_gym_env
from hub.onnx_export import build_policy_onnx, onnx_bytes
from hub.onnx_file import OnnxFile
from hub.vec_normalize import normalizer_of

ENV_ID = "Walker2d-v4"
N_OBSERVATIONS, N_ENVS = 10_000, 10
BUILDS = (
    "-O0",
    "-O2",
    "-O3",
    "-O3 -march=native -ffp-contract=off",
    "-O3 -march=native",
    "-O3 -march=native -ffast-math",
)
_PROGRAM = """
#include "agent.h"
void act_all(const double *obs, float *actions, long n)
{
    long k;
    for (k = 0; k < n; k++) agent_act(obs + k * AGENT_N_OBS, actions + k * AGENT_N_ACTIONS);
}
"""

Array = np.ndarray[Any, Any]


def make_subject(folder: Path) -> tuple[str, Array, Array]:
    """Return the header, observations, and the float64 file's actions for them.

    :param folder: takes the ONNX file.
    """
    env = VecNormalize(DummyVecEnv([lambda: make_gym_env(ENV_ID)] * N_ENVS))
    model = PPO("MlpPolicy", env, n_steps=1024, seed=0, device="cpu").learn(20_480)
    normalizer = normalizer_of(env)
    file = folder / "policy.f64.onnx"
    model_file = build_policy_onnx(model.policy, normalizer, dtype="float64", metadata={})
    file.write_bytes(onnx_bytes(model_file))
    session = OnnxFile.open(file).session
    observations, met = env.venv.reset(), []
    for _ in range(N_OBSERVATIONS // N_ENVS):
        met.append(np.asarray(observations))
        actions = session.run(None, {"obs": met[-1]})[0]
        observations, _, _, _ = env.venv.step(actions)
    together = np.concatenate(met)
    header = build_c_header(
        model.policy, normalizer, name="agent", control=describe_control(make_gym_env(ENV_ID))
    )
    return header, together, session.run(None, {"obs": together})[0]


def compile_header(header: str, flags: str, folder: Path) -> Callable[[Array, Array], None]:
    """Return the header's function, compiled, of observations and the actions to fill in.

    :param flags: of the compiler.
    :param folder: an empty one.
    """
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        sys.exit("There is no C compiler; install gcc.")
    (folder / "agent.h").write_text(header)
    (folder / "agent.c").write_text(_PROGRAM)
    command = [compiler, *flags.split(), "-shared", "-fPIC", "agent.c", "-o", "agent.so", "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    library = ctypes.CDLL(str(folder / "agent.so"))

    def act(observations: Array, actions: Array) -> None:
        pointers = (ctypes.c_void_p(array.ctypes.data) for array in (observations, actions))
        library.act_all(*pointers, ctypes.c_long(len(observations)))

    return act


def measure(header: str, observations: Array, expected: Array, rounds: int) -> dict[str, Any]:
    """Return for each build its time per action and how many actions differ."""
    results: dict[str, Any] = {}
    functions, actions = {}, np.empty_like(expected)
    for flags in BUILDS:
        with tempfile.TemporaryDirectory() as folder:
            functions[flags] = compile_header(header, flags, Path(folder))
        functions[flags](observations, actions)
        results[flags] = {
            "different_actions": int(np.any(actions != expected, axis=1).sum()),
            "largest_difference": float(np.abs(actions - expected).max()),
        }
    seconds: dict[str, list[float]] = {flags: [] for flags in BUILDS}
    for _ in range(rounds):
        for flags, act in functions.items():
            start = time.process_time()  # what other processes do meanwhile does not count
            act(observations, actions)
            seconds[flags].append(time.process_time() - start)
    for flags, values in seconds.items():
        results[flags]["microseconds"] = round(1e6 * float(np.median(values)) / len(expected), 3)
    return results


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m benchmarks.c_header")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="default 9")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        header, observations, expected = make_subject(Path(folder))
    results = measure(header, np.ascontiguousarray(observations), expected, args.rounds)
    for flags, result in results.items():
        print(f"{flags:40} {result['microseconds']:7.2f} µs  {result['different_actions']} differ")
    save("c_header", {"task": ENV_ID, "n_observations": N_OBSERVATIONS, "builds": results})


if __name__ == "__main__":
    main()
