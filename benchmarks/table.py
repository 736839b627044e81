"""``python -m benchmarks.table``: the runs in ``benchmarks/runs`` as a Markdown table.

Each cell is the mean ± standard deviation over training seeds of the *final* agent's return (100
deterministic episodes on Gymnasium each), with the published bar beside it.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np

RUNS = Path(__file__).parent / "runs"
# Highest published mean over several seeds at 1M steps, with its source; v2 and v3 of the tasks.
BARS: dict[tuple[str, str], str] = {
    ("npg", "HalfCheetah-v4"): "3485 (Tianshou)",
    ("npg", "Hopper-v4"): "1915 (Tianshou)",
    ("npg", "Walker2d-v4"): "2503 (Tianshou)",
    ("trpo", "HalfCheetah-v4"): "4471 (Tianshou)",
    ("trpo", "Hopper-v4"): "3372 (sb3-contrib)",
    ("trpo", "Walker2d-v4"): "4502 (sb3-contrib)",
}


def main() -> None:
    """Print the table."""
    scores: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for path in sorted(RUNS.glob("*/*/evaluation.json")):
        report = json.loads(path.read_text())
        key = (report["algo"], report["env_id"])
        scores[key][report["training_seed"]] = report["mean_return"]
    print("| task | algorithm | return at 1M steps | each seed | best published |")
    print("|---|---|---:|---|---:|")
    for (algo, env_id), by_seed in sorted(scores.items(), key=lambda item: item[0][::-1]):
        values = np.array([by_seed[seed] for seed in sorted(by_seed)])
        spread = values.std(ddof=1) if len(values) > 1 else float("nan")
        each = ", ".join(f"{value:.0f}" for value in values)
        bar = BARS.get((algo, env_id), "–")
        print(
            f"| {env_id} | {algo.upper()} | **{values.mean():.0f} ± {spread:.0f}** "
            f"| {each} | {bar} |"
        )


if __name__ == "__main__":
    main()
