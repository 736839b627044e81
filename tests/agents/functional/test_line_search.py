"""Backtracking: the bar is linear in the fraction, failures leave the start as it was."""

from __future__ import annotations

import pytest
import torch

from agents.functional import LineSearchResult, backtracking_line_search

START = torch.tensor([1.0, -2.0])
FULL_STEP = torch.tensor([8.0, 16.0])


class Recorder:
    """Answers with a gain and a constraint for each candidate in turn, and keeps the candidates."""

    def __init__(self, *answers: tuple[float, float]) -> None:
        self.answers = list(answers)
        self.candidates: list[torch.Tensor] = []

    def __call__(self, candidate: torch.Tensor) -> tuple[float, float]:
        self.candidates.append(candidate.clone())
        return self.answers[len(self.candidates) - 1]


def search(evaluate: Recorder, **kwargs: float) -> LineSearchResult:
    settings = {
        "predicted_gain": 1.0,
        "max_constraint": 0.01,
        "shrink": 0.5,
        "max_backtracks": 10,
        "accept_ratio": 1.0,
    } | kwargs
    return backtracking_line_search(evaluate, START, FULL_STEP, **settings)  # type: ignore[arg-type]


def test_the_bar_after_three_backtracks_is_an_eighth() -> None:
    # Bars 1, 1/2, 1/4, 1/8: each gain lies just below its bar, the last exactly on it.
    evaluate = Recorder((0.99, 0.0), (0.49, 0.0), (0.24, 0.0), (0.125, 0.0))
    result = search(evaluate)
    assert result.accepted
    assert (result.fraction, result.n_backtracks, result.gain) == (0.125, 3, 0.125)


def test_a_compounding_bar_would_accept_too_early() -> None:
    # Compounded, the bars would be 1, 1/2, 1/8, 1/64: 0.2 would pass at the third candidate.
    evaluate = Recorder((0.99, 0.0), (0.49, 0.0), (0.2, 0.0), (0.1249, 0.0), (0.0625, 0.0))
    result = search(evaluate)
    assert (result.fraction, result.n_backtracks, result.gain) == (0.0625, 4, 0.0625)


def test_a_bar_that_stays_where_it_was_would_reject_everything() -> None:
    evaluate = Recorder((0.9, 0.0), (0.5, 0.0))
    assert search(evaluate).fraction == 0.5


def test_accept_ratio_scales_the_bar() -> None:
    answers = [(0.19, 0.0), (0.1, 0.0)]
    assert search(Recorder(*answers), accept_ratio=0.2).n_backtracks == 1
    assert search(Recorder(*answers), accept_ratio=0.19).n_backtracks == 0


def test_accept_ratio_zero_asks_for_no_loss() -> None:
    result = search(Recorder((-1e-9, 0.0), (0.0, 0.0)), accept_ratio=0.0)
    assert (result.fraction, result.gain) == (0.5, 0.0)


def test_the_bound_holds_for_what_is_accepted() -> None:
    result = search(Recorder((5.0, 0.04), (5.0, 0.0100001), (5.0, 0.01), (5.0, 0.0)))
    assert (result.fraction, result.constraint) == (0.25, 0.01)


@pytest.mark.parametrize(
    "answer",
    [
        (float("nan"), 0.0),
        (float("inf"), 0.0),
        (-float("inf"), 0.0),
        (2.0, float("nan")),
        (2.0, float("inf")),
        (2.0, -float("inf")),
        (float("nan"), float("nan")),
    ],
)
def test_what_is_not_finite_is_rejected(answer: tuple[float, float]) -> None:
    result = search(Recorder(answer, (2.0, 0.0)))
    assert (result.fraction, result.gain, result.constraint) == (0.5, 2.0, 0.0)


def test_failure_returns_the_start_itself() -> None:
    before = START.clone()
    evaluate = Recorder(*[(-1.0, 0.0)] * 4)
    result = search(evaluate, max_backtracks=3)
    assert result.point is START
    assert torch.equal(START, before)
    assert result == LineSearchResult(START, 0.0, 3, 0.0, 0.0, False)


def test_a_prediction_that_is_nan_accepts_nothing() -> None:
    evaluate = Recorder(*[(1.0, 0.0)] * 11)
    assert not search(evaluate, predicted_gain=float("nan")).accepted


@pytest.mark.parametrize("max_backtracks", [0, 1, 5])
def test_number_of_candidates(max_backtracks: int) -> None:
    evaluate = Recorder(*[(-1.0, 0.0)] * 10)
    search(evaluate, max_backtracks=max_backtracks)
    assert len(evaluate.candidates) == 1 + max_backtracks


def test_nothing_is_evaluated_after_the_choice() -> None:
    evaluate = Recorder((-1.0, 0.0), (1.0, 0.0))
    result = search(evaluate)
    assert len(evaluate.candidates) == 2
    assert torch.equal(result.point, evaluate.candidates[-1])


@pytest.mark.parametrize("shrink", [0.5, 0.8])
def test_candidates_lie_on_the_line(shrink: float) -> None:
    evaluate = Recorder(*[(-1.0, 0.0)] * 4)
    search(evaluate, shrink=shrink, max_backtracks=3)
    for k, candidate in enumerate(evaluate.candidates):
        torch.testing.assert_close(candidate, START + shrink**k * FULL_STEP)
    assert torch.equal(evaluate.candidates[0], START + FULL_STEP)


def test_the_first_good_candidate_is_taken_not_the_best() -> None:
    result = search(Recorder((1.0, 0.0), (100.0, 0.0)))
    assert (result.fraction, result.gain, result.n_backtracks) == (1.0, 1.0, 0)
