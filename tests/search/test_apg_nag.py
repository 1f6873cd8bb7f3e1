"""APG-NAG against its closed form, a plain transcription of Eq. 6-8, and the lasso it solves."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Lasso
from torch import Tensor, nn

from dsonas_hw.search.apg_nag import APGNAG, apg_nag_step, soft_threshold

numbers = st.floats(-10, 10, allow_nan=False)
not_negative = st.floats(0, 10, allow_nan=False)


def tensor(values: list[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


# -- the proximal operator --------------------------------------------------------------------------------


@given(numbers, not_negative)
def test_soft_threshold_is_the_prox_of_the_l1_norm(z: float, threshold: float) -> None:
    s = soft_threshold(tensor([z]), tensor([threshold])).item()
    # Optimality of s = argmin ½(s − z)² + t·|s|:  z − s ∈ t·∂|s|.
    if s == 0.0:
        assert abs(z) <= threshold
    else:
        assert z - s == pytest.approx(math.copysign(threshold, s), abs=1e-12)

    def objective(x: float) -> float:
        return 0.5 * (x - z) ** 2 + threshold * abs(x)

    grid = np.linspace(-11, 11, 201)
    assert objective(s) <= min(map(objective, grid)) + 1e-9


def test_zeros_are_exact() -> None:
    result = soft_threshold(torch.tensor([0.3, -0.3, 0.2, 0.5]), torch.tensor([0.3, 0.3, 0.3, 0.0]))
    assert result.tolist() == [0.0, 0.0, 0.0, 0.5]


# -- one step ---------------------------------------------------------------------------------------------


def transcription(
    lam: float, v: float, g: float, gamma: float, lr: float, momentum: float
) -> tuple[float, float]:
    """Eq. 6-8 of DSO-NAS for one number, with the release's clamp."""
    z = lam - lr * g
    s = math.copysign(max(abs(z) - lr * gamma, 0.0), z)
    v = s - lam + momentum * v
    return max(s + momentum * v, 0.0), v


@given(
    st.lists(st.tuples(not_negative, numbers, numbers, not_negative), min_size=1, max_size=6),
    st.floats(1e-4, 1.0),
    st.floats(0.0, 0.99),
)
def test_a_step_is_eq_6_to_8_elementwise(
    edges: list[tuple[float, float, float, float]], lr: float, momentum: float
) -> None:
    lam, velocity, grad, gamma = (tensor(list(column)) for column in zip(*edges, strict=True))
    new_lam, new_velocity = apg_nag_step(lam, velocity, grad, gamma, lr=lr, momentum=momentum)
    expected = [transcription(*edge, lr, momentum) for edge in edges]
    assert list(zip(new_lam.tolist(), new_velocity.tolist(), strict=True)) == [
        pytest.approx(pair, rel=1e-12, abs=1e-12) for pair in expected
    ]


def test_one_step_by_hand() -> None:
    lam, v = apg_nag_step(tensor([1.0]), tensor([-0.1]), tensor([2.0]), tensor([0.5]), lr=0.1, momentum=0.9)
    # z = 1 − 0.1·2 = 0.8;  s = 0.8 − 0.05 = 0.75;  v = 0.75 − 1 − 0.09 = −0.34;  λ = 0.75 − 0.306
    assert v.item() == pytest.approx(-0.34)
    assert lam.item() == pytest.approx(0.444)


def test_lambda_is_clamped_after_the_momentum_step_and_the_velocity_is_not() -> None:
    lam, v = apg_nag_step(tensor([0.1]), tensor([-1.0]), tensor([0.0]), tensor([0.0]), lr=0.1, momentum=0.9)
    # s = 0.1;  v = 0 − 0.9;  λ = 0.1 − 0.81 < 0
    assert lam.item() == 0.0
    assert v.item() == pytest.approx(-0.9)


@given(
    st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=1, max_size=20),
    st.lists(not_negative, min_size=3, max_size=3),
)
@settings(deadline=None, max_examples=40)
def test_the_optimizer_is_the_transcription_over_many_steps(
    gradients: list[list[float]], gammas: list[float]
) -> None:
    lam = nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = APGNAG([lam], lr=0.1, momentum=0.9)
    optimizer.param_groups[0]["gamma"] = [tensor(gammas)]
    plain = [(1.0, 0.0)] * 3
    for gradient in gradients:
        lam.grad = tensor(gradient)
        optimizer.step()
        plain = [
            transcription(*state, g, gamma, 0.1, 0.9)
            for state, g, gamma in zip(plain, gradient, gammas, strict=True)
        ]
    assert lam.tolist() == pytest.approx([value for value, _ in plain], rel=1e-9, abs=1e-12)
    assert bool((lam >= 0).all())


def test_without_a_gradient_lambda_dies_after_about_1009_steps() -> None:
    # Momentum multiplies the step by 1 / (1 − μ) = 10: 1 / (10 · 0.1 · 1e-3) = 1000, and 9 to get going.
    lam = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = APGNAG([lam], lr=0.1, momentum=0.9, gamma=1e-3)
    lam.grad = torch.zeros(1, dtype=torch.float64)
    steps = 0
    while lam.item() > 0:
        optimizer.step()
        steps += 1
    assert steps == pytest.approx(1009, abs=2)


# -- what it converges to ---------------------------------------------------------------------------------


def quadratic(seed: int, *, positive: bool) -> tuple[Any, Any]:
    """A least-squares problem (A, b) with a sparse solution, of both signs unless `positive`."""
    rng = np.random.default_rng(seed)
    A = rng.standard_normal((40, 12))
    x = rng.uniform(0.5, 2.0, 12) * (rng.random(12) < 0.5)
    if not positive:
        x *= rng.choice([-1, 1], 12)
    return A, A @ x + 0.1 * rng.standard_normal(40)


def minimise(A: Any, b: Any, gamma: Tensor | float, *, momentum: float, steps: int) -> Tensor:
    """APG-NAG on ‖Aλ − b‖² / 2n + γ·‖λ‖₁, λ ≥ 0."""
    A, b = torch.from_numpy(A), torch.from_numpy(b)
    lam = nn.Parameter(torch.ones(A.shape[1], dtype=torch.float64))
    # The extrapolated steps are 1 / (1 − μ) times as long.
    smoothness = torch.linalg.eigvalsh(A.T @ A / len(b)).max().item()
    optimizer = APGNAG([lam], lr=(1 - momentum) / smoothness, momentum=momentum)
    optimizer.param_groups[0]["gamma"] = [torch.full_like(lam, 1.0) * gamma]
    for _ in range(steps):
        lam.grad = A.T @ (A @ lam.detach() - b) / len(b)
        optimizer.step()
    return lam.detach()


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("positive", [True, False])
@pytest.mark.parametrize("gamma", [0.02, 0.3])
def test_it_converges_to_the_lasso(gamma: float, positive: bool, momentum: float) -> None:
    for seed in range(2):
        A, b = quadratic(seed, positive=positive)
        lasso = Lasso(alpha=gamma, positive=True, fit_intercept=False, tol=1e-12, max_iter=100_000)
        expected = lasso.fit(A, b).coef_
        found = minimise(A, b, gamma, momentum=momentum, steps=2500)
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
        assert ((found.numpy() == 0) == (expected == 0)).all()  # exact zeros, the same ones
        assert 0 < (expected == 0).sum() < 12


def test_each_element_has_its_own_gamma() -> None:
    A, b = quadratic(1, positive=True)
    gamma = torch.linspace(0.01, 0.5, 12, dtype=torch.float64)
    found = minimise(A, b, gamma, momentum=0.9, steps=4000)
    # A weighted lasso is a plain one in x·γ, with the columns divided by γ.
    lasso = Lasso(alpha=1.0, positive=True, fit_intercept=False, tol=1e-12, max_iter=100_000)
    expected = lasso.fit(A / gamma.numpy(), b).coef_ / gamma.numpy()
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)


# -- the optimizer ----------------------------------------------------------------------------------------


def test_what_is_not_alive_stays_zero_with_its_velocity() -> None:
    lam = nn.Parameter(torch.tensor([1.0, 1.0, 0.0]))
    optimizer = APGNAG([lam], lr=0.1, momentum=0.9, gamma=0.0)
    optimizer.param_groups[0]["alive"] = [torch.tensor([True, False, False])]
    for _ in range(5):
        lam.grad = torch.full((3,), -1.0)  # pushes every λ up
        optimizer.step()
        assert lam.tolist()[1:] == [0.0, 0.0]
        assert optimizer.state[lam]["velocity"].tolist()[1:] == [0.0, 0.0]
    assert lam.tolist()[0] > 1.0


def test_parameters_without_a_gradient_rest() -> None:
    lam = nn.Parameter(torch.ones(3))
    optimizer = APGNAG([lam], gamma=1.0)
    optimizer.step()
    assert lam.tolist() == [1.0, 1.0, 1.0]


def test_a_closure_is_called_with_gradients() -> None:
    lam = nn.Parameter(torch.ones(2))
    optimizer = APGNAG([lam], lr=0.1, momentum=0.0, gamma=0.0)

    def closure() -> float:
        optimizer.zero_grad()
        loss = (lam**2).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.item()

    assert optimizer.step(closure) == 2.0
    assert lam.tolist() == pytest.approx([0.8, 0.8])


def test_groups_have_their_own_settings() -> None:
    one, two, late = (nn.Parameter(torch.ones(2)) for _ in range(3))
    optimizer = APGNAG([{"params": [one]}, {"params": [two], "lr": 0.2, "gamma": 0.5}], lr=0.1, gamma=1.0)
    optimizer.add_param_group({"params": [late], "momentum": 0.0})
    for lam in (one, two, late):
        lam.grad = torch.zeros(2)
    optimizer.step()
    # λ = s + μ·v with s = 1 − ηγ and v = −ηγ
    assert one.tolist() == pytest.approx([1 - 0.1 - 0.09] * 2)
    assert two.tolist() == pytest.approx([1 - 0.1 - 0.09] * 2)
    assert late.tolist() == pytest.approx([1 - 0.1] * 2)


def test_its_state_survives_saving_with_gamma_and_mask() -> None:
    def make() -> tuple[nn.Parameter, APGNAG]:
        lam = nn.Parameter(torch.ones(4, dtype=torch.float64))
        return lam, APGNAG([lam], lr=0.05, momentum=0.8, gamma=0.1)

    def run(lam: nn.Parameter, optimizer: APGNAG, steps: range) -> None:
        for step in steps:
            lam.grad = torch.sin(torch.arange(4.0, dtype=torch.float64) + step)
            optimizer.step()

    whole, whole_optimizer = make()
    first, first_optimizer = make()
    for optimizer in (whole_optimizer, first_optimizer):
        optimizer.param_groups[0]["gamma"] = [tensor([0.0, 0.1, 0.2, 0.3])]
        optimizer.param_groups[0]["alive"] = [torch.tensor([True, True, True, False])]
    run(whole, whole_optimizer, range(10))
    run(first, first_optimizer, range(5))
    state = copy.deepcopy(first_optimizer.state_dict())
    second, second_optimizer = make()
    second.data.copy_(first)
    second_optimizer.load_state_dict(state)
    group = second_optimizer.param_groups[0]
    assert group["gamma"][0].tolist() == [0.0, 0.1, 0.2, 0.3]
    assert group["alive"][0].tolist() == [True, True, True, False]
    assert (group["lr"], group["momentum"]) == (0.05, 0.8)
    run(second, second_optimizer, range(5, 10))
    assert torch.equal(second, whole)


@pytest.mark.parametrize("settings", [{"lr": 0.0}, {"momentum": 1.0}, {"momentum": -0.1}, {"gamma": -1.0}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="need lr > 0"):
        APGNAG([nn.Parameter(torch.ones(1))], **settings)
