"""What a training measures and shows while it runs: validation images, pictures, a progress bar.

The training loss is of single rays that were drawn at random. Here the model predicts whole images,
always the same ones, so that figures and pictures of different steps can be compared.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from srt.common.distributed import Processes
from srt.data.batch import make_view_config
from srt.data.packed.reader import Scenes
from srt.evaluation.comparison import compare_views
from srt.evaluation.evaluator import evaluate_items
from srt.evaluation.protocols import protocol_items
from srt.results.record_tables import History, HistoryRow
from srt.tracking.tracker import Tracker
from srt.training.state import TrainingState

# How many scenes of each split the logged pictures show.
PICTURED_SCENES = 4


@dataclass(frozen=True)
class TrainingData:
    """The packed splits that a training reads: it learns from one and is measured on the other."""

    train: Scenes
    validation: Scenes


def validate(
    training: TrainingState, data: TrainingData, tracker: Tracker, processes: Processes
) -> None:
    """Measure the validation images, and keep a copy of the weights if they are the best so far."""
    with training.with_average_weights():
        psnr = measure_validation(training, data, processes)
        training.validation.append((training.step, psnr))
        tracker.log_metrics({"validation/psnr": psnr}, training.step)

        # The best weights become the trained model. If there is an average of the weights, it is
        # the average that was measured, and the average that is copied.
        if psnr > training.best_psnr:
            training.best_psnr = psnr
            training.best_step = training.step
            weights = training.model.state_dict()
            training.best = {name: value.detach().clone() for name, value in weights.items()}


def measure_validation(training: TrainingState, data: TrainingData, processes: Processes) -> float:
    """Return the mean PSNR of full validation images, by protocol `stelzner`, in dB.

    The processes share the images out among themselves; all of them get the mean of all images.
    """
    train = training.experiment.train
    view_config = make_view_config(training.experiment)
    scenes = data.validation
    items = protocol_items(scenes, "stelzner", view_config.input_views, train.validation_items)

    # Only the PSNR counts here. Mixed precision is that of training, and faster than float32.
    rows = evaluate_items(
        training.model,
        scenes,
        items,
        "stelzner",
        mean_colour=None,
        lpips=None,
        view_config=view_config,
        rays_per_group=train.rays_per_group,
        processes=processes,
        mixed_precision=True,
    )
    return float(sum(row.scores.psnr for row in rows) / len(rows))


def log_pictures(
    training: TrainingState, data: TrainingData, tracker: Tracker, processes: Processes
) -> None:
    """Log inputs, targets, predictions and errors of a few training and validation scenes."""
    # One process draws and logs all pictures. The others wait for it at the next step.
    if not processes.main:
        return

    # Beside each other, the two splits show whether the model learns the training scenes by heart.
    view_config = make_view_config(training.experiment)
    for split, scenes in (("validation", data.validation), ("train", data.train)):
        image = compare_views(
            training.model,
            scenes,
            protocol_items(scenes, "stelzner", view_config.input_views, PICTURED_SCENES),
            view_config=view_config,
            rays_per_group=training.experiment.train.rays_per_group,
            mixed_precision=True,
        )
        tracker.log_image(f"views/{split}", image, training.step)


def learning_curve(training: TrainingState) -> History:
    """Return the PSNR and the learning rate of the steps that were logged or validated.

    No time and no date is in it, so that the same training always has the same curve.
    """
    # A step can have a log, a validation or both. What it does not have stays empty.
    validation = dict(training.validation)
    logged = {step: (psnr, rate) for step, psnr, rate in training.curve}
    rows = []
    for step in sorted(logged.keys() | validation.keys()):
        psnr, rate = logged.get(step, (None, None))
        rows.append(
            HistoryRow(
                step=round(step),
                train_psnr=psnr,
                learning_rate=rate,
                validation_psnr=validation.get(step),
            )
        )
    return History(tuple(rows))


@contextlib.contextmanager
def progress_bar(done: int, steps: int, name: str, processes: Processes) -> Iterator[Any]:
    """Show the steps, their rate and the time left, in the main process."""
    from tqdm import tqdm

    # A terminal shows one line again and again; a log file keeps every line, so write few.
    seconds_between_lines = 0.1 if sys.stderr.isatty() else 30
    with tqdm(
        total=steps,
        initial=done,
        desc=f"train {name}",
        unit="step",
        disable=not processes.main,
        mininterval=seconds_between_lines,
    ) as bar:
        yield bar


def describe_progress(training: TrainingState) -> str:
    """Return the newest PSNRs as the progress bar shows them, without those not yet measured."""
    texts = []
    if training.curve:
        texts.append(f"train {training.curve[-1][1]:.2f} dB")
    if training.validation:
        newest = training.validation[-1][1]
        texts.append(f"validation {newest:.2f} dB (best {training.best_psnr:.2f})")
    return ", ".join(texts)
