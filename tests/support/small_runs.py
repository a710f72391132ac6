"""Make the records of the stages with invented figures, and write the files of a run."""

import dataclasses
import math

import numpy as np
from PIL import Image

from srt.config.schema import SPLITS
from srt.evaluation.scores import summarise
from srt.rendering.video import Mp4Writer
from srt.results.record_files import write_record
from srt.results.record_tables import BASELINES, History, HistoryRow, ItemScores, history_text
from srt.results.records import (
    Baselines,
    CameraRanges,
    Measures,
    MeasuringConditions,
    Metrics,
    ModelCosts,
    ModelTimes,
    PixelStatistics,
    SplitSurvey,
    Survey,
    Training,
)
from srt.visualization.pictures import comparison_columns, grid

PLAIN = MeasuringConditions(input_views=1, trained_input_views=1, pose_noise=0.0)
COUNTED = ModelCosts(parameters=74_000_000, encode_flops=31_400_000_000, frame_flops=2_500_000_000)
TIMES = ModelTimes(encode_seconds=0.0123, frame_seconds=1.5, hardware="NVIDIA H200")

# The smallest, the median and the largest value of each measure of the cameras.
RANGE = (1.0, 2.5, 4.0)
GREY = (0.5, 0.5, 0.5)


def metrics_of(
    name, profile, synthetic, of, lpips=None, classes=("table", "lamp"), items=None, **changes
):
    """Return metrics as evaluate writes them.

    Args:
        of: how many items each protocol has.
        items: how many of them were measured; None: all.
        changes: other values of the record.
    """
    # Every item has random figures around a mean, for the model and for each baseline.
    generator = np.random.default_rng(len(name))

    def measures(protocol, psnr):
        full = protocol != "stelzner"
        return Measures(
            psnr=psnr + generator.normal(),
            ssim=0.85 + 0.02 * generator.normal() if full else None,
            lpips=lpips if full else None,
            lpips_alex=lpips if protocol == "gta" else None,
        )

    protocols = {}
    for protocol, count in of.items():
        rows = [
            ItemScores(
                protocol=protocol,
                scene=f"scene {item}",
                class_name=classes[item % len(classes)],
                inputs=(0,),
                scores=measures(protocol, 24),
                baselines=Baselines(**{name: measures(protocol, 13) for name in BASELINES}),
            )
            for item in range(30)
        ]
        scores = summarise(rows, count)
        protocols[protocol] = dataclasses.replace(scores, items=min(items or count, count))

    values = {"dataset": "nmr", "split": "test", "conditions": PLAIN, "fingerprint": "0123456789ab"}
    values |= {"experiment": name, "profile": profile, "synthetic": synthetic, "costs": COUNTED}
    return Metrics(**{**values, "protocols": protocols, **changes})


def training_of(name, **changes):
    """Return what a training cost. What is not in `changes` is as on a CPU before there were seeds.

    Args:
        changes: other values of the record.
    """
    values = {"steps": 1000, "best_step": 750, "seconds": 131.7}
    return Training(
        **{"experiment": name, "hardware": "x86_64 CPU, 2 threads", **values, **changes}
    )


def history_of(curve):
    """Return a history whose training and validation have the same curve."""
    rows = [
        HistoryRow(step=int(step), train_psnr=psnr, learning_rate=0.0001, validation_psnr=psnr)
        for step, psnr in curve
    ]
    return History(tuple(rows))


def survey_of(dataset, synthetic):
    """Return the survey of a dataset whose splits are all the same."""
    split = SplitSurvey(
        scenes=1234,
        views=3,
        image_size=(24, 32),
        storage="raw",
        uncompressed_bytes=2_500_000_000,
        classes={"a": 1000, "b": 234},
        pixels=PixelStatistics(mean_colour=GREY, std_colour=GREY, minimum=GREY, maximum=GREY),
        cameras=CameraRanges(
            distance_to_origin=RANGE,
            elevation_degrees=RANGE,
            angle_off_origin_degrees=RANGE,
            field_of_view_degrees=RANGE,
        ),
    )
    return Survey(
        dataset=dataset,
        profile="quick",
        synthetic=synthetic,
        source="synthetic" if synthetic else "somewhere",
        splits=dict.fromkeys(SPLITS, split),
    )


def write_run(folder, *arguments, **options):
    """Write the files of a run; `metrics_of` gets the arguments and options."""
    folder.mkdir(parents=True)
    write_record(folder / "metrics.json", metrics_of(folder.name, *arguments, **options))
    write_record(folder / "costs.json", TIMES)

    # The training: its cost and its learning curve.
    generator = np.random.default_rng(len(folder.name))
    write_record(folder / "training.json", training_of(folder.name))
    (folder / "history.csv").write_text(history_text(rising_history(generator)))

    # Pictures and a video of random pixels.
    pixels = generator.integers(0, 255, (5, 2, 16, 16, 3), dtype=np.uint8)
    picture = grid(comparison_columns(pixels[:1].repeat(2, 0)[:, :1], pixels[1], pixels[2]))
    for name in ("comparison.png", "extremes.png"):
        Image.fromarray(picture).save(folder / name)
    with Mp4Writer(folder / "video.mp4", 8) as writer:
        for frame in pixels[:, 0]:
            writer.write(frame)


def rising_history(generator):
    """Return a curve that rises to step 750 and is 1 dB lower after it."""
    rows = []
    for step in range(10, 1001, 10):
        psnr = 14 + 4 * math.log10(step) - (step > 750) + 0.3 * generator.normal()
        validation = psnr - 0.8 if step % 250 == 0 else None
        rows.append(
            HistoryRow(step=step, train_psnr=psnr, learning_rate=0.0001, validation_psnr=validation)
        )
    return History(tuple(rows))
