"""Seeds that never meet: training draws below 2³¹, evaluation from 2³¹ upwards.

A run is cut into segments, one per checkpoint. Each segment starts from parameters, optimiser,
normaliser and counters alone: environments are reset and every random generator is seeded with
``segment_seed(seed, segment)``. A resumed run therefore continues exactly as one that was never
stopped, also on environments whose state cannot be saved.

Numbers that are published must not be measured on seeds that chose the settings, so each purpose
has seeds of its own, :data:`SEED_STARTS` for training and these for evaluation:

====================  ========================  ====================================
evaluation seed       episodes                  what they decide
====================  ========================  ====================================
0                     final evaluation          nothing: the number that is published
1                     periodic evaluations      the best model, learning curves
2                     trials of ``zoo.tune``    which settings are ranked again
3                     re-ranking                which settings become the preset
====================  ========================  ====================================

A run on environments 0, 1, … gives them the seeds ``seed``, ``seed + 1``, …; the seeds of a purpose
are :data:`SEED_SPACING` apart, so that no two runs begin with the same episode. Seeds below 100,000
are free for runs by hand.
"""

from __future__ import annotations

import numpy as np

from agents.errors import ConfigError

__all__ = [
    "EVALUATION_SEED_START",
    "FINAL_EVALUATION_SEED",
    "PERIODIC_EVALUATION_SEED",
    "RERANKING_EVALUATION_SEED",
    "SEED_SPACING",
    "SEED_STARTS",
    "TUNING_EVALUATION_SEED",
    "check_seed",
    "evaluation_seeds",
    "purpose_seeds",
    "segment_seed",
]

EVALUATION_SEED_START = 2**31
FINAL_EVALUATION_SEED = 0
PERIODIC_EVALUATION_SEED = 1
TUNING_EVALUATION_SEED = 2
RERANKING_EVALUATION_SEED = 3

#: First training seed of each purpose. Changing one would let published numbers see tuning's seeds.
SEED_STARTS = {"benchmark": 100_000, "tuning": 200_000, "reranking": 300_000}
SEED_SPACING = 1_000
_SEEDS_PER_PURPOSE = 100

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


def purpose_seeds(purpose: str, n_seeds: int) -> list[int]:
    """Return the first ``n_seeds`` training seeds of ``purpose``.

    :param purpose: a key of :data:`SEED_STARTS`; different purposes share no seed.
    :raises ConfigError: there are not so many.
    """
    if not 1 <= n_seeds <= _SEEDS_PER_PURPOSE:
        raise ConfigError(f"{n_seeds} seeds: give a number in 1 … {_SEEDS_PER_PURPOSE}.")
    start = SEED_STARTS[purpose]
    return list(range(start, start + n_seeds * SEED_SPACING, SEED_SPACING))
