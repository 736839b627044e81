"""Pure tensor maths of the natural-gradient family; knows no environment and no algorithm."""

from agents.functional.advantages import discounted_returns, generalized_advantages
from agents.functional.conjugate_gradient import (
    CGResult,
    NotPositiveDefinite,
    conjugate_gradient,
)
from agents.functional.divergence import mean_kl
from agents.functional.fisher import (
    dependent_parameters,
    fisher_vector_product,
    flatten,
    gauss_newton_vector_product,
    write_flat,
)
from agents.functional.line_search import LineSearchResult, backtracking_line_search
from agents.functional.mlp import MLPLinearization
from agents.functional.output_metric import (
    bernoulli_metric,
    categorical_metric,
    gaussian_mean_metric,
)

__all__ = [
    "CGResult",
    "LineSearchResult",
    "MLPLinearization",
    "NotPositiveDefinite",
    "backtracking_line_search",
    "bernoulli_metric",
    "categorical_metric",
    "conjugate_gradient",
    "dependent_parameters",
    "discounted_returns",
    "fisher_vector_product",
    "flatten",
    "gauss_newton_vector_product",
    "gaussian_mean_metric",
    "generalized_advantages",
    "mean_kl",
    "write_flat",
]
