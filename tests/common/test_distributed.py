"""Gradients are added up over several processes, in messages sent while backward goes on."""

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing, nn

from srt.common import distributed
from srt.common.distributed import Processes

WORLD_SIZE = 2


def make_model():
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "first": nn.Linear(3, 5),
            "last": nn.Linear(5, 4),
            "early": nn.Linear(5, 1),  # its gradients are complete before the last backward pass
            "unused": nn.Linear(2, 2),
        }
    )


def run_backward(model, rank, last_backward):
    """Compute gradients in two passes, as groups of rays do; the last pass is in the context."""
    x = torch.arange(6.0).view(2, 3) + rank
    model["early"](model["first"](x).detach()).square().sum().backward()
    model["last"](model["first"](x)).square().sum().backward()
    with last_backward:
        model["last"](model["first"](x + 1)).sum().backward()


def gradients(model):
    """Return copies of the gradients that a model has."""
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def run_two_steps(rank, address, bucket, folder):
    """Save the reduced gradients of two steps; runs in a process of its own."""
    distributed.BUCKET = bucket
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=WORLD_SIZE)
    model = make_model()
    reduction = Processes(rank, WORLD_SIZE, torch.device("cpu"), None).reduction(model.parameters())

    # The second step shows that the first one leaves nothing behind.
    steps = []
    for step in range(2):
        model.zero_grad(set_to_none=True)
        run_backward(model, rank + step, reduction.last_backward())
        steps.append(gradients(model))
    torch.save(steps, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("bucket", [1, 20, 10**6])
def test_each_gradient_becomes_its_sum_over_the_processes(bucket, tmp_path):
    address = f"file://{tmp_path}/rendezvous"
    multiprocessing.spawn(run_two_steps, (address, bucket, tmp_path), nprocs=WORLD_SIZE)
    reduced = [torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD_SIZE)]
    for step in range(2):
        # What each process computes without the others.
        separate = []
        for rank in range(WORLD_SIZE):
            model = make_model()
            run_backward(model, rank + step, torch.enable_grad())
            separate.append(gradients(model))
        assert "unused.weight" not in separate[0]

        for rank in range(WORLD_SIZE):
            assert reduced[rank][step].keys() == separate[0].keys()
            for name, gradient in reduced[rank][step].items():
                expected = sum(values[name] for values in separate)
                torch.testing.assert_close(gradient, expected, msg=name)


def test_a_process_alone_reduces_nothing():
    alone = Processes(0, 1, torch.device("cpu"), None)
    assert alone.reduction(make_model().parameters()) is None
