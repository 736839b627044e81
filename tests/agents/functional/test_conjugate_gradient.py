"""Conjugate gradient against a direct solve, at every scale, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agents.functional import NotPositiveDefinite, conjugate_gradient

MatVec = Callable[[torch.Tensor], torch.Tensor]


def spd(n: int, *, seed: int = 0, condition: float = 10.0) -> torch.Tensor:
    """Return a symmetric matrix with eigenvalues spread over ``[1, condition]``."""
    generator = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))
    matrix = basis @ torch.diag(torch.linspace(1.0, condition, n, dtype=torch.float64)) @ basis.T
    return (matrix + matrix.T) / 2.0


def vector(n: int, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, generator=generator, dtype=torch.float64)


def never(v: torch.Tensor) -> torch.Tensor:
    raise AssertionError("no product was needed")


@pytest.mark.parametrize("n", [1, 2, 7, 20])
def test_equals_the_direct_solve(n: int) -> None:
    matrix, rhs = spd(n), vector(n)
    result = conjugate_gradient(lambda v: matrix @ v, rhs, max_iters=10 * n, rtol=1e-13)
    torch.testing.assert_close(
        result.solution, torch.linalg.solve(matrix, rhs), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_k_distinct_eigenvalues_take_k_iterations(k: int) -> None:
    basis, _ = torch.linalg.qr(torch.randn(20, 20, dtype=torch.float64))
    eigenvalues = torch.tensor([1.0 + (i % k) for i in range(20)], dtype=torch.float64)
    matrix = basis @ torch.diag(eigenvalues) @ basis.T
    result = conjugate_gradient(lambda v: matrix @ v, vector(20), max_iters=50, rtol=1e-10)
    assert result.n_iters == k


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_identity_takes_one_iteration(dtype: torch.dtype) -> None:
    rhs = vector(9).to(dtype)
    result = conjugate_gradient(lambda v: v.clone(), rhs)
    assert result.n_iters == 1
    torch.testing.assert_close(result.solution, rhs)


@pytest.mark.parametrize("scale", [1e-12, 1e-6, 1e-3, 1.0, 1e3, 1e6])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-6)])
def test_accuracy_does_not_depend_on_the_scale_of_rhs(
    scale: float, dtype: torch.dtype, bound: float
) -> None:
    matrix, rhs = spd(20).to(dtype), (scale * vector(20)).to(dtype)
    result = conjugate_gradient(lambda v: matrix @ v, rhs, max_iters=40)
    true_residual = (matrix @ result.solution - rhs).norm() / rhs.norm()
    assert true_residual < bound
    reference = conjugate_gradient(lambda v: matrix @ v, vector(20).to(dtype), max_iters=40)
    assert result.n_iters == reference.n_iters


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_squares_that_leave_the_range_of_float32_do_no_harm(scale: float) -> None:
    # ‖rhs‖² is 0 or inf in float32 although every entry of rhs and of the solution is fine.
    matrix = spd(20).float()
    rhs = scale * vector(20).float()
    result = conjugate_gradient(lambda v: matrix @ v, rhs, max_iters=40)
    expected = torch.linalg.solve(spd(20), rhs.double())
    torch.testing.assert_close(result.solution.double(), expected, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("scale", [1e-8, 1e8])
def test_accuracy_does_not_depend_on_the_scale_of_the_matrix(scale: float) -> None:
    matrix, rhs = (scale * spd(20)).float(), vector(20).float()
    result = conjugate_gradient(lambda v: matrix @ v, rhs, max_iters=40)
    assert (matrix @ result.solution - rhs).norm() < 1e-5 * rhs.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_rhs_returns_zero_at_once(dtype: torch.dtype) -> None:
    result = conjugate_gradient(never, torch.zeros(5, dtype=dtype))
    assert torch.equal(result.solution, torch.zeros(5, dtype=dtype))
    assert (result.n_iters, result.relative_residual) == (0, 0.0)


@pytest.mark.parametrize(
    "matrix",
    [
        torch.zeros(3, 3),
        torch.diag(torch.tensor([1.0, -2.0, 1.0])),
        -torch.eye(3),
        torch.full((3, 3), float("nan")),
        torch.full((3, 3), float("inf")),
    ],
    ids=["zero", "indefinite", "negative", "nan", "inf"],
)
def test_a_matrix_that_is_not_positive_definite_is_refused(matrix: torch.Tensor) -> None:
    with pytest.raises(NotPositiveDefinite, match="curvature"):
        conjugate_gradient(lambda v: matrix @ v, torch.ones(3))


def test_indefiniteness_is_noticed_in_a_later_step() -> None:
    matrix = torch.diag(torch.tensor([5.0, 3.0, -0.5], dtype=torch.float64))
    rhs = torch.tensor([1.0, 1.0, 0.1], dtype=torch.float64)
    assert rhs @ matrix @ rhs > 0.0
    with pytest.raises(NotPositiveDefinite, match=r"in step [12]"):
        conjugate_gradient(lambda v: matrix @ v, rhs)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_an_rhs_that_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="finite") as caught:
        conjugate_gradient(never, torch.tensor([1.0, bad]))
    assert not isinstance(caught.value, NotPositiveDefinite)


@pytest.mark.parametrize("shape", [(), (2, 2)])
def test_an_rhs_that_is_not_a_vector_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be a vector"):
        conjugate_gradient(never, torch.ones(shape))


@pytest.mark.parametrize("max_iters", [0, 1, 3])
def test_max_iters_counts_products(max_iters: int) -> None:
    matrix, calls = spd(20, condition=1e4), []

    def matvec(v: torch.Tensor) -> torch.Tensor:
        calls.append(v)
        return matrix @ v

    result = conjugate_gradient(matvec, vector(20), max_iters=max_iters, rtol=1e-12)
    assert len(calls) == max_iters == result.n_iters


@pytest.mark.parametrize("max_iters", [0, 1, 2, 5, 40])
def test_relative_residual_is_the_true_one(max_iters: int) -> None:
    matrix, rhs = spd(20, condition=100.0), vector(20)
    result = conjugate_gradient(lambda v: matrix @ v, rhs, max_iters=max_iters, rtol=1e-9)
    true_residual = float((matrix @ result.solution - rhs).norm() / rhs.norm())
    assert result.relative_residual == pytest.approx(true_residual, rel=1e-5, abs=1e-14)
    assert max_iters < 40 or result.relative_residual <= 1e-9


def test_it_stops_as_soon_as_the_tolerance_is_met() -> None:
    matrix, rhs = spd(20, condition=100.0), vector(20)
    loose = conjugate_gradient(lambda v: matrix @ v, rhs, max_iters=40, rtol=0.1)
    before = conjugate_gradient(lambda v: matrix @ v, rhs, max_iters=loose.n_iters - 1, rtol=1e-12)
    assert loose.relative_residual <= 0.1 < before.relative_residual


@pytest.mark.parametrize("rtol", [0.0, 1e-30])
@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4])
def test_a_tolerance_below_rounding_does_not_run_into_underflow(seed: int, rtol: float) -> None:
    # Past the machine epsilon residuals keep shrinking until their square is zero and the
    # curvature seems to be zero too.
    matrix, rhs = 0.01 * spd(4, seed=seed, condition=1.5).float(), vector(4).float()
    result = conjugate_gradient(lambda v: matrix @ v, rhs, max_iters=1000, rtol=rtol)
    torch.testing.assert_close(
        result.solution, torch.linalg.solve(matrix, rhs), rtol=1e-4, atol=1e-3
    )


def test_the_rhs_is_left_alone() -> None:
    rhs = vector(6)
    copy = rhs.clone()
    matrix = spd(6)
    conjugate_gradient(lambda v: matrix @ v, rhs)
    assert torch.equal(rhs, copy)


def test_two_calls_agree_bit_for_bit() -> None:
    matrix, rhs = spd(20).float(), vector(20).float()
    first = conjugate_gradient(lambda v: matrix @ v, rhs)
    second = conjugate_gradient(lambda v: matrix @ v, rhs)
    assert torch.equal(first.solution, second.solution)


@settings(max_examples=50, deadline=None)
@given(
    n=st.integers(1, 12),
    seed=st.integers(0, 2**31),
    log_condition=st.floats(0.0, 3.0),
    log_scale=st.floats(-12.0, 6.0),
)
def test_any_positive_definite_system_is_solved(
    n: int, seed: int, log_condition: float, log_scale: float
) -> None:
    matrix = spd(n, seed=seed, condition=10.0**log_condition)
    rhs = 10.0**log_scale * vector(n, seed=seed + 1)
    result = conjugate_gradient(lambda v: matrix @ v, rhs, max_iters=20 * n, rtol=1e-10)
    assert (matrix @ result.solution - rhs).norm() <= 1e-8 * rhs.norm()
    if n > 1:  # the energy norm of the error falls from the zero start
        assert float(result.solution @ rhs) > 0.0
