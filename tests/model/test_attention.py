"""Our attention against PyTorch's. The kernels run on a GPU, or else in Triton's interpreter."""

import pytest
import torch
import torch.nn.functional as F
from support.kernel_modules import DEVICE, DTYPE, TOLERANCE, load_kernels

from srt.model import attention
from srt.model.attention import (
    MAX_KERNEL_TOKENS,
    SelfAttention,
    attend,
    can_use_attention_kernel,
    join_heads,
)
from srt.model.kernels.attention_operators import kernel_attention, kernel_self_attention

SCENES, HEADS, DIM = 2, 3, 32


@pytest.fixture
def _kernels(monkeypatch):
    load_kernels("triton_attention", monkeypatch)


def random_tensor(*shape):
    return torch.randn(*shape, device=DEVICE).to(DTYPE).requires_grad_()


def exact_copy(tensor):
    return tensor.detach().double().requires_grad_()


def split_side_by_side(joined, count):
    """Return `count` tensors (b h n d) that lie side by side in the channels of one tensor."""
    return joined.unflatten(-1, (count, HEADS, DIM)).permute(2, 0, 3, 1, 4).unbind()


def pytorch_attention(query, key, value, scale):
    return join_heads(F.scaled_dot_product_attention(query, key, value, scale=scale))


def assert_equal_results_and_gradients(result, inputs, exact_result, exact_inputs):
    """Compare a result and the gradients of its inputs with those of a computation in float64."""
    dy = torch.randn_like(result)
    gradients = torch.autograd.grad(result, inputs, dy)
    exact_gradients = torch.autograd.grad(exact_result, exact_inputs, dy.double())
    for ours, exact in zip((result, *gradients), (exact_result, *exact_gradients)):
        assert ours.shape == exact.shape
        assert (ours.double() - exact).norm() < TOLERANCE * exact.norm()


@pytest.mark.usefixtures("_kernels")
@pytest.mark.parametrize(("queries", "tokens"), [(100, 70), (64, 64), (7, 16), (130, 5), (1, 200)])
@pytest.mark.parametrize("strength", [1.0, 5.0])  # strong scores give weights of almost 1 and 0
def test_the_kernels_results_and_gradients_are_those_of_pytorchs_attention(
    queries, tokens, strength
):
    torch.manual_seed(queries)
    query = random_tensor(SCENES, queries, HEADS * DIM)
    pair = random_tensor(SCENES, tokens, 2 * HEADS * DIM)
    exact_query, exact_pair = exact_copy(query), exact_copy(pair)

    scale = strength * DIM**-0.5
    result = kernel_attention(*split_side_by_side(query, 1), *split_side_by_side(pair, 2), scale)
    exact_result = pytorch_attention(
        *split_side_by_side(exact_query, 1), *split_side_by_side(exact_pair, 2), scale
    )
    assert_equal_results_and_gradients(
        result, [query, pair], exact_result, [exact_query, exact_pair]
    )


@pytest.mark.usefixtures("_kernels")
def test_keys_and_values_may_have_different_strides():
    torch.manual_seed(0)
    query, key, value = (random_tensor(SCENES, HEADS, count, DIM) for count in (9, 20, 20))
    exact_inputs = [exact_copy(tensor) for tensor in (query, key, value)]

    # These values have rows, not channels, side by side in memory.
    value = value.detach().transpose(2, 3).contiguous().transpose(2, 3).requires_grad_()
    assert_equal_results_and_gradients(
        kernel_attention(query, key, value, 1.0),
        [query, key, value],
        pytorch_attention(*exact_inputs, 1.0),
        exact_inputs,
    )


@pytest.mark.usefixtures("_kernels")
@pytest.mark.parametrize("tokens", [5, 16, 64, 100])
def test_the_kernels_self_attention_is_that_of_pytorch(tokens):
    torch.manual_seed(tokens)
    projected = random_tensor(SCENES, tokens, 3 * HEADS * DIM)
    exact_projected = exact_copy(projected)
    assert_equal_results_and_gradients(
        kernel_self_attention(projected, HEADS),
        [projected],
        pytorch_attention(*split_side_by_side(exact_projected, 3), DIM**-0.5),
        [exact_projected],
    )


@pytest.mark.usefixtures("_kernels")
def test_a_layer_gives_the_same_with_and_without_the_kernels(monkeypatch):
    torch.manual_seed(0)
    layer = SelfAttention(HEADS * DIM, HEADS, DIM).to(DEVICE, DTYPE)
    tokens = random_tensor(SCENES, 20, HEADS * DIM)
    monkeypatch.setattr(attention, "can_use_attention_kernel", lambda *_: False)
    plain = layer(tokens)
    monkeypatch.setattr(attention, "can_use_attention_kernel", lambda *_: True)
    assert (layer(tokens) - plain).norm() < TOLERANCE * plain.norm()


def test_the_kernels_are_used_for_bfloat16_on_a_gpu_with_few_tokens_and_certain_heads(monkeypatch):
    assert not can_use_attention_kernel(torch.zeros(1, dtype=torch.bfloat16), 16, 64)
    monkeypatch.setattr(attention, "kernels_available", lambda: True)

    class GpuTensor(torch.Tensor):
        is_cuda = True

    values = torch.zeros(1, dtype=torch.bfloat16).as_subclass(GpuTensor)
    assert can_use_attention_kernel(values, MAX_KERNEL_TOKENS, 64)
    assert not can_use_attention_kernel(values, MAX_KERNEL_TOKENS + 1, 64)
    assert not can_use_attention_kernel(values, MAX_KERNEL_TOKENS, 48)
    assert not can_use_attention_kernel(values.float(), 16, 64)


@pytest.mark.parametrize("scale", [None, 1.0])
def test_each_head_attends_with_its_own_channels_of_the_query(scale):
    torch.manual_seed(0)
    query = torch.randn(SCENES, 4, HEADS * DIM, dtype=torch.float64)
    key, value = (torch.randn(SCENES, HEADS, 6, DIM, dtype=torch.float64) for _ in range(2))
    split = query.unflatten(-1, (HEADS, DIM)).transpose(1, 2)
    scores = split @ key.transpose(2, 3) * (scale or DIM**-0.5)
    expected = (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attend(query, key, value, scale), expected)
