"""Steps per second of Tianshou 2's NPG or TRPO, in a virtual environment of its own.

``python benchmarks/tianshou_peer.py npg Walker2d-v4 20480`` prints one number. It imports nothing
of this project, since Tianshou's requirements need not be ours::

    python -m venv tianshou-venv
    tianshou-venv/bin/pip install -c constraints.txt torch 'gymnasium[mujoco]' 'tianshou>=2,<3'

The settings are those that ``benchmarks.training_rate.tianshou`` gives ours: 16 environments, 64
steps each, 64-64 tanh networks, 10 conjugate-gradient iterations on the whole batch, damping 0.1,
and 20 critic steps on the whole batch.
"""

from __future__ import annotations

import sys
import time
import warnings

import gymnasium
import numpy as np
import torch
from tianshou.algorithm import NPG, TRPO
from tianshou.algorithm.modelfree.reinforce import ProbabilisticActorPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.env import DummyVectorEnv, VectorEnvNormObs
from tianshou.utils.net.common import Net
from tianshou.utils.net.continuous import ContinuousActorProbabilistic, ContinuousCritic
from tianshou.utils.torch_utils import policy_within_training_step
from torch.distributions import Distribution, Independent, Normal

N_ENVS, N_STEPS, HIDDEN = 16, 64, [64, 64]
CRITIC_STEPS = 20


def make_algorithm(name: str, env: gymnasium.Env) -> NPG | TRPO:
    """Return the algorithm with networks as in Tianshou's own MuJoCo examples."""
    shape = env.observation_space.shape
    actor = ContinuousActorProbabilistic(
        preprocess_net=Net(state_shape=shape, hidden_sizes=HIDDEN, activation=torch.nn.Tanh),
        action_shape=env.action_space.shape,
        unbounded=True,
    )
    critic = ContinuousCritic(
        preprocess_net=Net(state_shape=shape, hidden_sizes=HIDDEN, activation=torch.nn.Tanh)
    )
    torch.nn.init.constant_(actor.sigma_param, -0.5)

    def distribution(loc_scale: tuple[torch.Tensor, torch.Tensor]) -> Distribution:
        return Independent(Normal(*loc_scale), 1)

    policy = ProbabilisticActorPolicy(
        actor=actor,
        dist_fn=distribution,
        action_space=env.action_space,
        action_scaling=True,
        action_bound_method="clip",
    )
    settings = {
        "policy": policy,
        "critic": critic,
        "optim": AdamOptimizerFactory(lr=1e-3),
        "optim_critic_iters": CRITIC_STEPS,
        "max_batchsize": N_ENVS * N_STEPS,
        "return_scaling": True,
    }
    if name == "npg":
        return NPG(trust_region_size=0.1, **settings)
    return TRPO(max_kl=0.02, max_backtracks=10, backtrack_coeff=0.8, **settings)


def training_rate(name: str, env_id: str, n_timesteps: int) -> float:
    """Train for ``n_timesteps`` steps and return steps per second."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)
    env = VectorEnvNormObs(DummyVectorEnv([lambda: gymnasium.make(env_id)] * N_ENVS))
    env.seed(0)
    algorithm = make_algorithm(name, gymnasium.make(env_id))
    buffer = VectorReplayBuffer(N_ENVS * N_STEPS, N_ENVS)
    collector = Collector(algorithm, env, buffer)
    collector.reset()
    n_updates = max(1, n_timesteps // (N_ENVS * N_STEPS))
    start = time.perf_counter()
    with policy_within_training_step(algorithm.policy):
        for _ in range(n_updates):
            collector.collect(n_step=N_ENVS * N_STEPS)
            algorithm.update(buffer, batch_size=None, repeat=1)
            collector.reset_buffer(keep_statistics=True)
    return n_updates * N_ENVS * N_STEPS / (time.perf_counter() - start)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(training_rate(sys.argv[1], sys.argv[2], int(sys.argv[3])))
