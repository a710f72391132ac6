"""Reads and writes the CSV files of the stages: history.csv and scenes.csv.

Their header is their format: a file with another header is refused. PSNRs are in dB. The cell of a
figure that was not measured is empty.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from srt.common.errors import DataError
from srt.common.files import write_atomically
from srt.results.curves import Curve
from srt.results.record_files import shorten
from srt.results.records import Baselines, Measures

MEASURES = tuple(field.name for field in dataclasses.fields(Measures))
BASELINES = tuple(field.name for field in dataclasses.fields(Baselines))

# The columns of scenes.csv: those of the item, the model's measures, and those of each baseline.
PREFIXES = ("", *(f"{name}_" for name in BASELINES))
_FIGURES = tuple(prefix + name for prefix in PREFIXES for name in MEASURES)
SCENE_COLUMNS = ("protocol", "scene", "class", "inputs", *_FIGURES)


@dataclass(frozen=True, kw_only=True)
class HistoryRow:
    """A row of history.csv: a step that was logged, validated or both."""

    step: int
    train_psnr: float | None  # dB, of the mean error since the last log
    learning_rate: float | None
    validation_psnr: float | None  # dB


HISTORY_COLUMNS = tuple(field.name for field in dataclasses.fields(HistoryRow))


@dataclass(frozen=True)
class History:
    """The learning curve of a training."""

    rows: tuple[HistoryRow, ...]

    @property
    def train_psnr(self) -> Curve:
        """The PSNR of the training's rays over the steps that were logged."""
        return [(float(r.step), r.train_psnr) for r in self.rows if r.train_psnr is not None]

    @property
    def validation_psnr(self) -> Curve:
        """The PSNR of validation images over the steps that were validated."""
        rows = self.rows
        return [(float(r.step), r.validation_psnr) for r in rows if r.validation_psnr is not None]


@dataclass(frozen=True, kw_only=True)
class ItemScores:
    """A row of scenes.csv: an item, and what was measured of it."""

    protocol: str
    scene: str  # the scene's name
    class_name: str
    inputs: tuple[int, ...]  # the input views
    scores: Measures
    baselines: Baselines | None  # None: not measured


def write_history(path: Path, history: History) -> None:
    """Write history.csv. Equal histories give equal bytes."""
    write_atomically(path, history_text(history).encode())


def history_text(history: History) -> str:
    """Return the content of history.csv. Figures have six digits."""
    lines = [",".join(HISTORY_COLUMNS)]
    for row in history.rows:
        figures = (row.train_psnr, row.learning_rate, row.validation_psnr)
        cells = ["" if figure is None else f"{figure:.6g}" for figure in figures]
        lines.append(",".join((str(row.step), *cells)))
    return "\n".join(lines) + "\n"


def read_history(path: Path) -> History:
    """Return the content of history.csv, or raise DataError that names the line and the value."""
    return History(
        tuple(
            HistoryRow(
                step=cells.whole_number("step"),
                train_psnr=cells.figure("train_psnr"),
                learning_rate=cells.figure("learning_rate"),
                validation_psnr=cells.figure("validation_psnr"),
            )
            for cells in _read_table(path, HISTORY_COLUMNS)
        )
    )


def write_scenes(path: Path, rows: Sequence[ItemScores]) -> None:
    """Write scenes.csv. Figures have six decimals.

    Raises:
        DataError: a figure is not finite, because the model predicts no finite colours.
    """
    # Lines end as on Linux, so that the file is equal on every machine.
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(SCENE_COLUMNS)
    for row in rows:
        inputs = " ".join(map(str, row.inputs))
        item = (row.protocol, row.scene, row.class_name, inputs)
        writer.writerow((*item, *_figure_cells(row, path)))
    write_atomically(path, text.getvalue().encode())


def _figure_cells(row: ItemScores, path: Path) -> list[str]:
    """Return the cells of an item's measures, the model's first."""
    baselines = [getattr(row.baselines, name, None) for name in BASELINES]
    cells = []
    for prefix, measures in zip(PREFIXES, (row.scores, *baselines), strict=True):
        for name in MEASURES:
            figure = getattr(measures, name, None)
            if figure is not None and not math.isfinite(figure):
                raise DataError(
                    f"{path}: protocol {row.protocol}, scene {row.scene}: {prefix}{name}: {figure}"
                    " is not a finite number, so the file is not written"
                )
            cells.append("" if figure is None else f"{figure:.6f}")
    return cells


def read_scenes(path: Path) -> list[ItemScores]:
    """Return the rows of scenes.csv, or raise DataError that names the line and the value."""
    return [_read_item(cells) for cells in _read_table(path, SCENE_COLUMNS)]


def _read_item(cells: _Cells) -> ItemScores:
    # Every item has a PSNR.
    scores = _read_measures(cells, "")
    if scores is None:
        raise cells.refusal("psnr", "a finite number")
    try:
        inputs = tuple(int(view) for view in cells.values["inputs"].split())
    except ValueError:
        raise cells.refusal("inputs", "a list of views") from None
    return ItemScores(
        protocol=cells.values["protocol"],
        scene=cells.values["scene"],
        class_name=cells.values["class"],
        inputs=inputs,
        scores=scores,
        baselines=_read_baselines(cells),
    )


def _read_baselines(cells: _Cells) -> Baselines | None:
    """Return the measures of the baselines; None if their cells are empty."""
    mean_colour = _read_measures(cells, "mean_colour_")
    input_view = _read_measures(cells, "input_view_")
    if mean_colour is None and input_view is None:
        return None

    # They are measured together.
    if mean_colour is None:
        raise cells.refusal("mean_colour_psnr", "a finite number")
    if input_view is None:
        raise cells.refusal("input_view_psnr", "a finite number")
    warped_input = _read_measures(cells, "warped_input_")
    return Baselines(mean_colour=mean_colour, input_view=input_view, warped_input=warped_input)


def _read_measures(cells: _Cells, prefix: str) -> Measures | None:
    """Return the measures whose columns have this prefix; None if the PSNR was not measured."""
    psnr = cells.figure(f"{prefix}psnr")
    if psnr is None:
        return None
    others = {name: cells.figure(prefix + name) for name in MEASURES if name != "psnr"}
    return Measures(psnr=psnr, **others)


@dataclass(frozen=True)
class _Cells:
    """The cells of a line by their columns, and where the line is, for errors."""

    where: str
    values: dict[str, str]

    def figure(self, column: str) -> float | None:
        """Return a number, or None for an empty cell."""
        text = self.values[column]
        if not text:
            return None
        try:
            figure = float(text)
        except ValueError:
            raise self.refusal(column, "a finite number") from None
        if not math.isfinite(figure):
            raise self.refusal(column, "a finite number")
        return figure

    def whole_number(self, column: str) -> int:
        """Return a whole number."""
        try:
            return int(self.values[column])
        except ValueError:
            raise self.refusal(column, "a whole number") from None

    def refusal(self, column: str, expected: str) -> DataError:
        """Return the error for a cell that is not as expected."""
        value = shorten(self.values[column])
        return DataError(f"{self.where}: {column}: {value} is not {expected}")


def _read_table(path: Path, columns: Sequence[str]) -> Iterable[_Cells]:
    """Yield the lines of a CSV file below its header, which must name these columns."""
    try:
        header, *lines = list(csv.reader(io.StringIO(path.read_text()))) or [[]]
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file") from None
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path}: not readable ({error})") from error

    # Columns are found by their names, so all of them must be there.
    if header != list(columns):
        actual, expected = shorten(",".join(header)), shorten(",".join(columns))
        raise DataError(f"{path}: its header is {actual}, not {expected}")

    # A file that was cut off ends within a line.
    for number, cells in enumerate(lines, 2):
        where = f"{path}: line {number}"
        if len(cells) != len(columns):
            raise DataError(f"{where} has {len(cells)} cells, not {len(columns)}")
        yield _Cells(where, dict(zip(columns, cells, strict=True)))
