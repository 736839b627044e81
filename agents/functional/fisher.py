"""Products with the Fisher matrix and with Gauss-Newton matrices, for any differentiable network.

Vectors are flat: the parameters' entries one after the other, in the order of the list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

__all__ = [
    "MatVec",
    "dependent_parameters",
    "fisher_vector_product",
    "flatten",
    "gauss_newton_vector_product",
    "write_flat",
]

MatVec = Callable[[torch.Tensor], torch.Tensor]
"""Maps a vector of shape ``(n,)`` to a matrix times it, shape ``(n,)``."""


def flatten(tensors: Iterable[torch.Tensor]) -> torch.Tensor:
    """Return the entries of all ``tensors`` as one new vector."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


@torch.no_grad()
def write_flat(vector: torch.Tensor, parameters: Sequence[torch.Tensor]) -> None:
    """Write ``vector`` into ``parameters`` in place; the inverse of :func:`flatten`."""
    sizes = [parameter.numel() for parameter in parameters]
    for part, parameter in zip(torch.split(vector, sizes), parameters, strict=True):
        parameter.copy_(part.view_as(parameter))


def dependent_parameters(
    output: torch.Tensor, parameters: Iterable[torch.nn.Parameter]
) -> list[torch.nn.Parameter]:
    """Return those of ``parameters`` that ``output`` depends on, in the same order.

    :param output: a scalar with its graph, which is kept.
    """
    candidates = [parameter for parameter in parameters if parameter.requires_grad]
    if not candidates or not output.requires_grad:
        return []
    gradients = torch.autograd.grad(output, candidates, retain_graph=True, allow_unused=True)
    return [
        parameter
        for parameter, gradient in zip(candidates, gradients, strict=True)
        if gradient is not None
    ]


def fisher_vector_product(
    kl: torch.Tensor, parameters: Sequence[torch.Tensor], damping: float = 0.0
) -> MatVec:
    """Return the product ``v ↦ (F + damping · I) v`` with the Fisher matrix of the policy.

    ``F`` is the Hessian of ``kl`` at the point where both policies agree; there it equals
    ``E_s E_{a~π}[∇log π ∇log πᵀ]``. One graph of the gradient is built and kept; each product
    costs one backward pass through it.

    :param kl: :func:`~agents.functional.divergence.mean_kl` of a detached old policy and the
        current one, a scalar with its graph; it must depend on every parameter.
    :param parameters: ``n`` entries in all.
    :param damping: added to the diagonal; 0.1 is customary.
    :return: maps ``(n,)`` to ``(n,)``, detached.

    Ref: Schulman et al. 2015, arXiv:1502.05477, appendix C.1.
    """
    gradient = flatten(torch.autograd.grad(kl, parameters, create_graph=True))

    def product(vector: torch.Tensor) -> torch.Tensor:
        rows = torch.autograd.grad(gradient @ vector, parameters, retain_graph=True)
        return flatten(rows).add_(vector, alpha=damping)

    return product


def gauss_newton_vector_product(
    outputs: torch.Tensor, parameters: Sequence[torch.Tensor], damping: float = 0.0
) -> MatVec:
    """Return the product ``v ↦ (JᵀJ / N + damping · I) v`` for the Jacobian of ``outputs``.

    ``J v`` is had by differentiating ``Jᵀu``, which is linear in ``u``, a second time.

    :param outputs: shape ``(N,)``, with its graph.
    :param parameters: ``n`` entries in all.
    :param damping: added to the diagonal (Levenberg-Marquardt).
    :return: maps ``(n,)`` to ``(n,)``, detached.
    """
    dual = torch.zeros_like(outputs, requires_grad=True)
    transposed = flatten(
        torch.autograd.grad(outputs, parameters, grad_outputs=dual, create_graph=True)
    )

    def product(vector: torch.Tensor) -> torch.Tensor:
        (tangent,) = torch.autograd.grad(transposed @ vector, dual, retain_graph=True)
        rows = torch.autograd.grad(
            outputs, parameters, grad_outputs=tangent / outputs.numel(), retain_graph=True
        )
        return flatten(rows).add_(vector, alpha=damping)

    return product
