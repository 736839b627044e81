"""The names that others may rely on, and the examples in the docstrings."""

from __future__ import annotations

import doctest
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

import agents
import agents.functional

ROOT = Path(agents.__file__).parents[1]


def test_public_names() -> None:
    ours = ["A2C", "A3C", "NPG", "PPO", "PPOKL", "REINFORCE", "TRPO", "ActorCritic", "OffPAC"]
    assert agents.__all__ == ours
    for name in agents.__all__:
        assert getattr(agents, name).__name__ == name


def test_public_names_of_the_maths() -> None:
    assert agents.functional.__all__ == [
        "CGResult",
        "GTDState",
        "GTDWeights",
        "LineSearchResult",
        "MLPLinearization",
        "NotPositiveDefinite",
        "backtracking_line_search",
        "bernoulli_metric",
        "categorical_metric",
        "conjugate_gradient",
        "dependent_parameters",
        "discounted_returns",
        "effective_sample_size",
        "emphatic_weights",
        "fisher_vector_product",
        "flatten",
        "gauss_newton_vector_product",
        "gaussian_mean_metric",
        "generalized_advantages",
        "gtd_step",
        "gtd_weights",
        "importance_ratios",
        "mean_kl",
        "off_policy_advantages",
        "standardized",
        "take_states",
        "whole_returns",
        "write_flat",
    ]
    assert all(callable(getattr(agents.functional, name)) for name in agents.functional.__all__)


def test_a_name_that_does_not_exist() -> None:
    with pytest.raises(AttributeError, match="module 'agents' has no attribute 'TPRO'"):
        _ = agents.TPRO


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("agents.errors", ["torch", "stable_baselines3", "gymnasium", "numpy"]),
        ("agents.functional", ["stable_baselines3", "gymnasium"]),
    ],
)
def test_an_import_costs_only_what_it_needs(module: str, absent: list[str]) -> None:
    script = f"import sys, {module}; print(*[m for m in {absent!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    assert result.stdout.split() == []


MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in (ROOT / "agents").rglob("*.py")
)
WITH_EXAMPLES = {
    "agents",
    "agents.a3c.a3c",
    "agents.functional.conjugate_gradient",
    "agents.functional.off_policy",
    "agents.npg",
    "agents.off_pac",
    "agents.actor_critic",
    "agents.ppo_kl",
    "agents.reinforce",
    "agents.trpo",
}


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(name: str) -> None:
    module = importlib.import_module(name)
    result = doctest.testmod(module, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0
    assert name not in WITH_EXAMPLES or result.attempted > 0


@pytest.mark.parametrize("name", MODULES)
def test_every_module_says_what_is_public(name: str) -> None:
    module = importlib.import_module(name)
    # As ruff sorts: NAMES, then Classes, then functions.
    kinds = {public: (not public.isupper(), public[0].islower()) for public in module.__all__}
    assert module.__all__ == sorted(module.__all__, key=lambda public: (kinds[public], public))
    assert all(hasattr(module, public) for public in module.__all__)
