"""Gradients over several processes, in messages that are sent while backward goes on."""

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing, nn

from srt.common import distributed
from srt.common.distributed import Processes

WORLD = 2


def model():
    torch.manual_seed(0)
    return nn.ModuleDict(
        {
            "first": nn.Linear(3, 5),
            "last": nn.Linear(5, 4),
            "early": nn.Linear(5, 1),  # its gradients are whole before the last backward pass
            "unused": nn.Linear(2, 2),
        }
    )


def backward(net, rank, last_backward):
    """Gives gradients in two passes, as groups of rays do; the last one is within the context."""
    x = torch.arange(6.0).view(2, 3) + rank
    net["early"](net["first"](x).detach()).square().sum().backward()
    net["last"](net["first"](x)).square().sum().backward()
    with last_backward:
        net["last"](net["first"](x + 1)).sum().backward()


def gradients(net):
    return {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}


def work(rank, address, bucket, folder):
    distributed.BUCKET = bucket
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=WORLD)
    net = model()
    reduction = Processes(rank, WORLD, torch.device("cpu"), None).reduction(net.parameters())
    steps = []
    for step in range(2):  # what one step leaves behind must not reach the next
        net.zero_grad(set_to_none=True)
        backward(net, rank + step, reduction.last_backward())
        steps.append(gradients(net))
    torch.save(steps, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.parametrize("bucket", [1, 20, 10**6])
def test_each_gradient_becomes_its_sum_over_the_processes(bucket, tmp_path):
    address = f"file://{tmp_path}/rendezvous"
    multiprocessing.spawn(work, (address, bucket, tmp_path), nprocs=WORLD)
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(WORLD)]
    for step in range(2):
        alone = []
        for rank in range(WORLD):
            net = model()
            backward(net, rank + step, torch.enable_grad())
            alone.append(gradients(net))
        assert "unused.weight" not in alone[0]
        for rank in range(WORLD):
            assert found[rank][step].keys() == alone[0].keys()
            for name, gradient in found[rank][step].items():
                torch.testing.assert_close(gradient, sum(each[name] for each in alone), msg=name)


def test_a_process_alone_reduces_nothing():
    assert Processes(0, 1, torch.device("cpu"), None).reduction(model().parameters()) is None
