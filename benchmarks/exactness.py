"""Measures how far bfloat16 and our kernels are from float64, for each model.

    python -m benchmarks.exactness --out reports/exactness.json

Compared are tokens, pixels and gradients, for random weights, images and rays. An error is
‖ours − exact‖ / ‖exact‖. `autocast` is the published algorithm with matrix products in bfloat16:
these errors are those of any training in bfloat16.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from benchmarks.command_line import make_parser
from benchmarks.plain import plainly
from benchmarks.rendering import DEVICE, random_batch
from benchmarks.training import paper
from srt.data.batch import Batch
from srt.model import attention, fused_decoder
from srt.model.inference import training_precision
from srt.model.srt import SRT, build_model
from srt.training import gradients

SCENES, RAYS = 2, 1024
MODELS = ("nmr_srt", "msn_srt", "msn_isrt", "nmr_vsrt")


def compute_outputs(model: SRT, batch: Batch, bfloat16: bool) -> dict[str, Tensor]:
    """Return tokens, pixels and all gradients, in float64."""
    with training_precision(DEVICE) if bfloat16 else contextlib.nullcontext():
        tokens = model.encode(batch.images, batch.image_origins, batch.image_directions)
        pixels = model.decode(model.decoder.scene_keys_values(tokens), batch.rays).colours

    # So many queries hold all rays in one group.
    model.zero_grad(set_to_none=True)
    gradients.compute_gradients(model, batch, SCENES * RAYS * 512)
    flat = [
        parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None
    ]
    return {
        "tokens": tokens.detach().double(),
        "pixels": pixels.detach().double(),
        "gradients": torch.cat(flat).double(),
    }


@contextlib.contextmanager
def plain_layers() -> Iterator[None]:
    """Switch our own GPU kernels off."""
    with (
        mock.patch.object(fused_decoder, "can_fuse", return_value=False),
        mock.patch.object(attention, "can_use_attention_kernel", return_value=False),
    ):
        yield


def relative_errors(values: dict[str, Tensor], exact: dict[str, Tensor]) -> dict[str, float]:
    """Return the relative error of each output."""
    return {k: ((values[k] - exact[k]).norm() / exact[k].norm()).item() for k in exact}


def batch_in_float64(batch: Batch) -> Batch:
    """Return the batch in float64."""
    values: Any = {name: value.double() for name, value in batch.tensors().items()}
    return dataclasses.replace(batch, **values)


def main() -> None:
    """Print a table, and write it as JSON."""
    parser = make_parser(__doc__)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows = []
    for name in MODELS:
        torch.manual_seed(0)
        experiment = paper(name)
        model = build_model(experiment.model, seed=0).to(DEVICE)
        batch = random_batch(experiment, SCENES, RAYS if name != "nmr_vsrt" else 64)

        # The exact outputs come last, because the model then stays in float64.
        outputs = {"ours": compute_outputs(model, batch, bfloat16=True)}
        with plain_layers():
            outputs["autocast"] = compute_outputs(model, batch, bfloat16=True)
        with plainly():
            exact = compute_outputs(model.double(), batch_in_float64(batch), bfloat16=False)
        for way, values in outputs.items():
            rows.append({"model": name, "way": way, **relative_errors(values, exact)})
            print(rows[-1], flush=True)
    results = {"device": torch.cuda.get_device_name(), "torch": torch.__version__, "rows": rows}
    arguments.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
