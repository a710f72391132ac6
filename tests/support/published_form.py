"""Checkpoints of tiny models as the published trainer would save them."""

import torch
from torch import nn

from srt.model.srt import build_model
from srt.published.tensor_names import published_order
from srt.training.loop import learning_rate

STEP = 4


class Published(nn.Module):
    """Parameters under published names, registered as the published modules register theirs."""

    def __init__(self, model):
        super().__init__()
        tensors, parameters = build_model(model, seed=3).state_dict(), {}
        for theirs, ours in published_order(model, tensors):
            *modules, name = theirs.split(".")
            place = self
            for module in modules:
                if not hasattr(place, module):
                    place.add_module(module, nn.Module())
                place = place.get_submodule(module)
            parameters.setdefault(ours, nn.Parameter(tensors[ours]))
            place.register_parameter(name, parameters[ours])
        self.by_our_name = parameters


def published_content(experiment, step=STEP):
    """What the published trainer would save after a few updates, each gradient its weight."""
    module = Published(experiment.model)
    adam = torch.optim.Adam(module.parameters(), lr=0)
    for it in range(step):
        for parameter in module.parameters():
            parameter.grad = parameter.detach() + it
        adam.param_groups[0]["lr"] = learning_rate(it, experiment.train)
        adam.step()
    states = {"encoder": module.encoder.state_dict(), "decoder": module.decoder.state_dict()}
    progress = {"epoch_it": 1, "it": step, "t": 12.34, "loss_val_best": 21.5, "run_id": "2x8k1"}
    return {**states, "optimizer": adam.state_dict(), **progress}, module, adam


def same(first, second):
    """Compares nested values, tensors bit for bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second) and first.dtype == second.dtype
    if isinstance(first, dict):
        return list(first) == list(second) and all(same(first[key], second[key]) for key in first)
    return first == second
