"""Weights in few bits: rounding within its bound, products that are those of the rounded numbers, bits that stay."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from foretell.model.quantized import GROUP, Bits, quantize


def weight(rows: int, wide: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, wide, generator=torch.Generator().manual_seed(seed)) * 0.05


def rounded(matrix: Tensor, bits: Bits) -> Tensor:
    """The numbers that a product multiplies by: those of the identity's."""
    return quantize(matrix, bits).product(torch.eye(matrix.shape[1], dtype=torch.bfloat16)).T.double()


@given(seed=st.integers(0, 1000), spread=st.sampled_from([1e-4, 1.0, 300.0]))
def test_int8_rounds_each_number_by_half_a_level_of_its_row_at_most(seed: int, spread: float) -> None:
    matrix = weight(16, 64, seed) * spread
    level = matrix.abs().amax(1, keepdim=True) / 127
    # 2⁻⁸ of the value: scales, and what the product gives, have eight bits themselves.
    assert ((rounded(matrix, 8) - matrix).abs() <= level / 2 + matrix.abs() * 2**-7).all()


@given(seed=st.integers(0, 1000), shift=st.sampled_from([0.0, 0.2]))
def test_int4_is_at_least_as_near_as_the_sixteen_levels_of_each_groups_range(seed: int, shift: float) -> None:
    matrix = weight(16, 2 * GROUP, seed) + shift
    groups = matrix.view(16, 2, GROUP)
    low, high = groups.amin(2, keepdim=True), groups.amax(2, keepdim=True)
    step = (high - low) / 15
    plain = (groups - low).div(step).round() * step + low
    ours, theirs = (rounded(matrix, 4) - matrix).square().sum(), (plain - groups).square().sum()
    assert ours <= 1.1 * theirs + matrix.square().sum() * 2**-16


@pytest.mark.parametrize("bits", [8, 4])
def test_a_matrix_whose_numbers_are_levels_is_kept_as_it_is(bits: Bits) -> None:
    levels = torch.randint(-8, 8, (32, 64), generator=torch.Generator().manual_seed(0)).float()
    levels[:, ::GROUP], levels[:, 1::GROUP] = -8, 7
    if bits == 8:
        levels[:, 0] = 127
    assert torch.equal(rounded(levels * 0.25, bits), (levels * 0.25).double())


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("rows", "wide"), [(32, 64), (48, 96), (512, 128)])
def test_products_are_those_of_the_rounded_numbers_whatever_the_number_of_rows(
    bits: Bits, rows: int, wide: int
) -> None:
    matrix = weight(rows, wide)
    held = quantize(matrix, bits)
    x = torch.randn(13, wide, generator=torch.Generator().manual_seed(1)).bfloat16()
    y = held.product(x)
    torch.testing.assert_close(y.double(), x.double() @ rounded(matrix, bits).T, rtol=2**-7, atol=8e-3)
    for count in (1, 2, 3, 4, 5, 8):
        assert torch.equal(held.product(x[2 : 2 + count]), y[2 : 2 + count])
    assert torch.equal(held.product(x.view(1, 13, wide)), y.view(1, 13, rows))


def test_int4_takes_half_the_memory_of_int8_and_its_rows_are_those_of_the_matrix() -> None:
    matrix = weight(64, 256)
    eight, four = quantize(matrix, 8), quantize(matrix, 4)
    assert four.data.nbytes == eight.data.nbytes / 2 == matrix.numel() / 2
    index = torch.tensor([[3, 0], [63, 3]])
    assert torch.equal(eight.rows(index).double(), rounded(matrix, 8)[index])


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize(("rows", "wide"), [(23, 64), (24, 40), (32, 40), (16, 5)])
def test_odd_shapes_are_multiplied_too_in_four_bits_where_there_is_a_kernel(bits: Bits, rows: int, wide: int) -> None:
    matrix = weight(rows, wide)
    held = quantize(matrix, bits)
    assert held.bits == (8 if rows % 16 else bits)
    x = torch.randn(3, wide, generator=torch.Generator().manual_seed(2)).bfloat16()
    torch.testing.assert_close(held.product(x).double(), x.double() @ matrix.double().T, rtol=0.05, atol=0.1)


@pytest.mark.parametrize("bits", [8, 4])
def test_zeros_stay_as_good_as_zero(bits: Bits) -> None:
    assert rounded(torch.zeros(16, 64), bits).abs().max() < 1e-9
