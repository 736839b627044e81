"""Start-up time, and how much memory training takes and keeps."""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["memory_growth", "startup_seconds"]


def startup_seconds(*arguments: str) -> float:
    """Return the wall time of a fresh ``python ARGUMENTS``."""
    start = time.perf_counter()
    command = [sys.executable, *arguments]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def memory_growth(algo: str, env_id: str, checkpoints: list[int]) -> list[dict[str, Any]]:
    """Train in a fresh process and return resident memory (MiB) at each number of steps."""
    arguments = ["-m", "benchmarks.memory", algo, env_id, *map(str, checkpoints)]
    run = subprocess.run([sys.executable, *arguments], check=True, capture_output=True, text=True)
    measured: list[dict[str, Any]] = json.loads(run.stdout.splitlines()[-1])
    return measured


def _resident_mib() -> float:
    """Return this process's resident memory now; Linux tells it in pages."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def _main() -> None:
    from stable_baselines3.common.callbacks import BaseCallback

    from benchmarks.training_rate import default_model

    class Watch(BaseCallback):
        def __init__(self, checkpoints: list[int]) -> None:
            super().__init__()
            self.left, self.measured = list(checkpoints), list[dict[str, Any]]()

        def _on_step(self) -> bool:
            if self.left and self.num_timesteps >= self.left[0]:
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                self.measured.append(
                    {
                        "timesteps": self.left.pop(0),
                        "resident_mib": round(_resident_mib(), 1),
                        "peak_mib": round(peak, 1),
                    }
                )
            return bool(self.left)

    parser = argparse.ArgumentParser()
    parser.add_argument("algo")
    parser.add_argument("env_id")
    parser.add_argument("checkpoints", nargs="+", type=int)
    args = parser.parse_args()
    watch = Watch(args.checkpoints)
    default_model(args.algo, args.env_id, env_threads=2).learn(10**9, callback=watch)
    print(json.dumps(watch.measured))


if __name__ == "__main__":
    _main()
