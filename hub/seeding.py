"""Seeds that never meet: training draws below 2³¹, evaluation from 2³¹ upwards.

A run is cut into segments, one per checkpoint. Each segment starts from parameters, optimiser,
normaliser and counters alone: environments are reset and every random generator is seeded with
``segment_seed(seed, segment)``. A resumed run therefore continues exactly as one that was never
stopped, also on environments whose state cannot be saved.
"""

from __future__ import annotations

import numpy as np

from agents.errors import ConfigError

__all__ = ["EVALUATION_SEED_START", "check_seed", "evaluation_seeds", "segment_seed"]

EVALUATION_SEED_START = 2**31
_EPISODES_PER_SEED = 1_000_000
# Room for one seed per environment above a segment's seed.
_TRAINING_SEEDS = EVALUATION_SEED_START - 100_000


def check_seed(seed: int) -> int:
    """Return ``seed`` if training may use it.

    :raises ConfigError: it is negative or reaches into the evaluation seeds.
    """
    if not 0 <= seed < _TRAINING_SEEDS:
        raise ConfigError(f"seed={seed} must be in 0 … {_TRAINING_SEEDS - 1}; try --seed 0.")
    return seed


def segment_seed(seed: int, segment: int) -> int:
    """Return the seed of a segment of a run; that of segment 0 is ``seed`` itself."""
    if segment == 0:
        return seed
    state = np.random.SeedSequence([seed, segment]).generate_state(1, np.uint64)[0]
    return int(state % _TRAINING_SEEDS)


def evaluation_seeds(seed: int, n_episodes: int) -> list[int]:
    """Return one Gymnasium seed per episode, all outside what training can draw.

    Evaluation ``seed`` s has the seeds ``2³¹ + 10⁶ s + 0, 1, 2, …``, so that evaluations with
    different seeds share no episode.

    :raises ConfigError: the seed is negative or there are too many episodes.
    """
    if seed < 0:
        raise ConfigError(f"evaluation seed {seed} must not be negative; try --seed 0.")
    if not 1 <= n_episodes <= _EPISODES_PER_SEED:
        raise ConfigError(f"episodes={n_episodes} must be in 1 … {_EPISODES_PER_SEED}.")
    start = EVALUATION_SEED_START + _EPISODES_PER_SEED * seed
    return list(range(start, start + n_episodes))
