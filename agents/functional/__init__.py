"""Pure tensor maths of the natural-gradient family; knows no environment and no algorithm."""

from agents.functional.advantages import (
    discounted_returns,
    generalized_advantages,
    standardized,
    whole_returns,
)
from agents.functional.conjugate_gradient import (
    CGResult,
    NotPositiveDefinite,
    conjugate_gradient,
)
from agents.functional.divergence import mean_kl, take_states
from agents.functional.fisher import (
    dependent_parameters,
    fisher_vector_product,
    flatten,
    gauss_newton_vector_product,
    write_flat,
)
from agents.functional.gradient_td import GTDState, GTDWeights, gtd_step, gtd_weights
from agents.functional.line_search import LineSearchResult, backtracking_line_search
from agents.functional.mlp import MLPLinearization
from agents.functional.off_policy import (
    effective_sample_size,
    emphatic_weights,
    importance_ratios,
    off_policy_advantages,
)
from agents.functional.output_metric import (
    bernoulli_metric,
    categorical_metric,
    gaussian_mean_metric,
)

__all__ = [
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
