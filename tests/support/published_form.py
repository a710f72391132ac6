"""Checkpoints of tiny models in the form in which the published trainer saves them."""

import torch
from torch import nn

from srt.model.srt import build_model
from srt.published.tensor_names import published_order
from srt.training.loop import learning_rate

STEP = 4


class Published(nn.Module):
    """A module that has our parameters under the published names, in the published order.

    `by_our_name` has the same parameters under our names.
    """

    def __init__(self, model):
        super().__init__()
        tensors = build_model(model, seed=3).state_dict()
        parameters = {}
        for published_name, our_name in published_order(model, tensors):
            # A dotted name goes through nested modules.
            *names, parameter_name = published_name.split(".")
            module = self
            for name in names:
                if not hasattr(module, name):
                    module.add_module(name, nn.Module())
                module = module.get_submodule(name)

            # Two published names may be one parameter of ours.
            parameters.setdefault(our_name, nn.Parameter(tensors[our_name]))
            module.register_parameter(parameter_name, parameters[our_name])
        self.by_our_name = parameters


def published_content(experiment, step=STEP):
    """Return a published checkpoint after a few updates, the module and its optimiser."""
    # Each gradient is the weight itself plus the step, and the learning rate changes every step.
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


def equal_values(first, second):
    """Return whether nested values are equal; tensors must be bit for bit and of one type."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second) and first.dtype == second.dtype
    if isinstance(first, dict):
        return list(first) == list(second) and all(
            equal_values(first[key], second[key]) for key in first
        )
    return first == second
