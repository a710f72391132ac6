"""Our attention against PyTorch's: its kernels run on a GPU, else by Triton's interpreter."""

import pytest
import torch
import torch.nn.functional as F
from support.kernel_modules import GPU, load_kernels

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
DEVICE, KIND = ("cuda", torch.bfloat16) if GPU else ("cpu", torch.float32)
MOST = 1e-2 if GPU else 1e-4  # relative error: of products in bfloat16, in float32


@pytest.fixture
def _kernels(monkeypatch):
    load_kernels("triton_attention", monkeypatch)


def random(*shape):
    return torch.randn(*shape, device=DEVICE).to(KIND).requires_grad_()


def deal_out(together, parts):
    """Returns so many tensors (b h n d) that stand side by side."""
    return together.unflatten(-1, (parts, HEADS, DIM)).permute(2, 0, 3, 1, 4).unbind()


def exactly(query, key, value, scale):
    return join_heads(F.scaled_dot_product_attention(query, key, value, scale=scale))


def assert_same(found, wanted, inputs, exact):
    """Compares what two ways gather, and the gradients of what they gathered it from."""
    dy = torch.randn_like(found)
    gradients = torch.autograd.grad(found, inputs, dy)
    expected = torch.autograd.grad(wanted, exact, dy.double())
    for ours, theirs in zip((found, *gradients), (wanted, *expected)):
        assert ours.shape == theirs.shape
        assert (ours.double() - theirs).norm() < MOST * theirs.norm()


@pytest.mark.usefixtures("_kernels")
@pytest.mark.parametrize(("queries", "tokens"), [(100, 70), (64, 64), (7, 16), (130, 5), (1, 200)])
@pytest.mark.parametrize("strong", [1.0, 5.0])  # weights that are nearly 1 and 0, too
def test_the_kernels_gather_what_plain_attention_does_and_so_are_the_gradients(
    queries, tokens, strong
):
    torch.manual_seed(queries)
    query, pair = random(SCENES, queries, HEADS * DIM), random(SCENES, tokens, 2 * HEADS * DIM)
    exact = [part.detach().double().requires_grad_() for part in (query, pair)]
    scale = strong * DIM**-0.5
    found = kernel_attention(*deal_out(query, 1), *deal_out(pair, 2), scale)
    wanted = exactly(*deal_out(exact[0], 1), *deal_out(exact[1], 2), scale)
    assert_same(found, wanted, [query, pair], exact)


@pytest.mark.usefixtures("_kernels")
def test_keys_and_values_may_stand_apart():
    torch.manual_seed(0)
    query, key, value = (random(SCENES, HEADS, count, DIM) for count in (9, 20, 20))
    turned = value.detach().transpose(2, 3).contiguous().transpose(2, 3).requires_grad_()
    exact = [part.detach().double().requires_grad_() for part in (query, key, value)]
    found = kernel_attention(query, key, turned, 1.0)
    assert_same(found, exactly(*exact, 1.0), [query, key, turned], exact)


@pytest.mark.usefixtures("_kernels")
@pytest.mark.parametrize("tokens", [5, 16, 64, 100])
def test_tokens_gather_from_each_other_what_plain_attention_does(tokens):
    torch.manual_seed(tokens)
    projected = random(SCENES, tokens, 3 * HEADS * DIM)
    exact = projected.detach().double().requires_grad_()
    found = kernel_self_attention(projected, HEADS)
    assert_same(found, exactly(*deal_out(exact, 3), DIM**-0.5), [projected], [exact])


@pytest.mark.usefixtures("_kernels")
def test_a_layer_is_the_same_with_the_kernels_and_without(monkeypatch):
    torch.manual_seed(0)
    layer = SelfAttention(HEADS * DIM, HEADS, DIM).to(DEVICE, KIND)
    tokens = random(SCENES, 20, HEADS * DIM)
    monkeypatch.setattr(attention, "kernels_attend", lambda *_: False)
    plain = layer(tokens)
    monkeypatch.setattr(attention, "kernels_attend", lambda *_: True)
    assert (layer(tokens) - plain).norm() < MOST * plain.norm()


def test_the_kernels_are_for_bfloat16_on_a_gpu_few_tokens_and_heads_they_know(monkeypatch):
    assert not can_use_attention_kernel(torch.zeros(1, dtype=torch.bfloat16), 16, 64)
    monkeypatch.setattr(attention, "kernels_available", lambda: True)

    class OnGpu(torch.Tensor):
        is_cuda = True

    values = torch.zeros(1, dtype=torch.bfloat16).as_subclass(OnGpu)
    assert can_use_attention_kernel(values, MAX_KERNEL_TOKENS, 64)
    assert not can_use_attention_kernel(values, MAX_KERNEL_TOKENS + 1, 64)
    assert not can_use_attention_kernel(values, MAX_KERNEL_TOKENS, 48)
    assert not can_use_attention_kernel(values.float(), 16, 64)


@pytest.mark.parametrize("scale", [None, 1.0])
def test_attended_is_attention_of_heads_that_stand_side_by_side(scale):
    torch.manual_seed(0)
    query = torch.randn(SCENES, 4, HEADS * DIM, dtype=torch.float64)
    key, value = (torch.randn(SCENES, HEADS, 6, DIM, dtype=torch.float64) for _ in range(2))
    split = query.unflatten(-1, (HEADS, DIM)).transpose(1, 2)
    scores = split @ key.transpose(2, 3) * (scale or DIM**-0.5)
    wanted = (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
    torch.testing.assert_close(attend(query, key, value, scale), wanted)
