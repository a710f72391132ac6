"""Tables as LaTeX: what a paper takes of them, and that a LaTeX sets them without complaint."""

import re
import shutil
import subprocess

import pytest
from support.tracked_reports import REPORTS

from srt.report.format.latex import COLUMN_CHARACTERS, PREAMBLE, escape_latex, to_latex
from srt.report.format.table import Table, to_markdown

FILES = [file for report in REPORTS for file in sorted(report.glob("*.tex"))]
PAGE = r"""\documentclass{article}
\usepackage{booktabs, adjustbox}
\setlength{\textwidth}{%s}
\begin{document}
%s
\end{document}
"""
ARTICLE, BOTH_COLUMNS = "345pt", "496pt"  # of a page that has one column, of one that has two


def body(latex):
    """Return the lines between the header and the end of a table."""
    return latex.split("\\midrule\n", 1)[1].split("\n\\bottomrule")[0].splitlines()


def test_what_latex_would_take_for_a_command_is_printed():
    table = Table("50 % of a_b", "lr", ["x|y", "<z>"], [["a_b & c#", "−1 × 2 ± 3"]], ["{note}"])
    latex = to_latex(table)
    assert r"a\_b \& c\# & $-$1 $\times$ 2 $\pm$ 3 \\" in latex
    assert r"\caption{50 \% of a\_b}" in latex
    assert r"\label{tab:50-of-a-b}" in latex
    assert r"x$|$y & $<$z$>$ \\" in latex
    assert r"\{note\}" in latex
    assert escape_latex("[1] 2–3°\u00a0\\~^") == (
        r"{[}1] 2--3$^\circ$~\textbackslash{}\textasciitilde{}\textasciicircum{}"
    )


def test_what_has_no_figure_is_left_out_and_a_condition_of_all_rows_is_said_once():
    rows = [["a", "–", "1 CPU", "20.00", "5"], ["b", "not measured", "1 CPU", "20.00", "6"]]
    header = ["run", "LPIPS", "hardware", "PSNR", "steps"]
    latex = to_latex(Table("t", "lrlrr", header, rows, ["Note."]))
    assert body(latex) == [r"a & 20.00 & 5 \\", r"b & 20.00 & 6 \\"]
    assert r"\footnotesize In all rows: hardware 1 CPU. Note." in latex


def test_a_dataset_stands_above_its_rows_and_all_of_a_table_below_a_rule():
    rows = [["a", "nmr", "1"], ["b", "nmr", "2"], ["c", "msn", "3"], ["all", "msn", "4"]]
    assert body(to_latex(Table("t", "llr", ["run", "dataset", "PSNR"], rows, []))) == [
        r"\multicolumn{2}{@{}l}{\itshape nmr} \\",
        r"a & 1 \\",
        r"b & 2 \\",
        r"\addlinespace\multicolumn{2}{@{}l}{\itshape msn} \\",
        r"c & 3 \\",
        r"\midrule",
        r"all & 4 \\",
    ]


def test_what_neighbouring_columns_are_of_stands_above_them_and_no_figure_is_said_once_each():
    header = ["class", "a PSNR", "a SSIM", "b c PSNR", "b c SSIM", "b c LPIPS (AlexNet)"]
    rows = [["x", *["not run"] * 5], ["y", "1", "2", "3", *["not measured"] * 2]]
    latex = to_latex(Table("t", "lrrrrr", header, rows, []))
    head = latex.split("\\toprule\n")[1].split("\n\\midrule")[0].splitlines()
    assert head[0] == r" & \multicolumn{2}{c}{a} & \multicolumn{3}{c}{b c} \\"
    assert head[1] == r"\cmidrule(lr){2-3}\cmidrule(lr){4-6}"
    assert head[2].startswith(r"class & PSNR & SSIM & PSNR & SSIM & \begin{tabular}[b]{@{}r@{}}")
    assert body(latex) == [
        r"x & \multicolumn{2}{c}{not run} & \multicolumn{3}{c}{not run} \\",
        r"y & 1 & 2 & 3 & \multicolumn{2}{c}{not measured} \\",
    ]


def test_a_bold_cell_stays_bold_where_other_columns_are_left_out():
    rows = [["a", "nmr", "–", "1"], ["b", "nmr", "–", "2"]]
    table = Table("t", "llrr", ["run", "dataset", "LPIPS", "PSNR"], rows, [], frozenset({(1, 3)}))
    assert body(to_latex(table))[1:] == [r"a & 1 \\", r"b & \textbf{2} \\"]
    assert "| b | nmr | – | **2** |" in to_markdown(table)


def test_sources_are_numbered_in_order_and_said_below():
    rows = [["a", "first (read)"], ["b", "–"], ["c", "second (read)"], ["d", "first (read)"]]
    latex = to_latex(Table("t", "ll", ["method", "source"], rows, ["Note."]))
    assert [line.split(" & ")[1] for line in body(latex)] == [
        r"{[}1] \\", r"-- \\", r"{[}2] \\", r"{[}1] \\",
    ]  # fmt: skip
    assert "Note. {[}1] first (read); {[}2] second (read)." in latex


def test_only_what_is_wider_than_a_column_spans_both():
    def environment(columns):
        names = [f"{name}" * 8 for name in "abcdefgh"[:columns]]
        table = Table("t", "l" * columns, names, [["1.0"] * columns], [])
        return to_latex(table).splitlines()[0]

    assert environment(COLUMN_CHARACTERS // 10) == r"\begin{table}"
    assert environment(COLUMN_CHARACTERS // 10 + 1) == r"\begin{table*}"


@pytest.fixture(scope="module")
def latex():
    """Return the program; a test is skipped where it or a package is missing."""
    program, finder = shutil.which("pdflatex"), shutil.which("kpsewhich")
    if not program or not finder:
        pytest.skip("no LaTeX is installed: no pdflatex")
    for package in ("booktabs.sty", "adjustbox.sty"):
        if not subprocess.run([finder, package], capture_output=True, check=False).stdout:
            pytest.skip(f"this LaTeX has no {package}")
    return program


def complaints(program, folder, width, text):
    """Return what LaTeX says of a page: its errors, and what does not fit."""
    (folder / "page.tex").write_text(PAGE % (width, text))
    command = [program, "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    subprocess.run(command, cwd=folder, capture_output=True, check=False, timeout=120)
    log = (folder / "page.log").read_text(errors="replace")
    assert "Output written on page.pdf" in log, log[-2000:]
    return re.findall(r"^!.*|^Overfull.*|.*Float too large.*|^Missing character.*", log, re.M)


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_a_committed_table_is_set_in_a_page_of_one_column(latex, tmp_path, file):
    assert complaints(latex, tmp_path, ARTICLE, file.read_text()) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}/{file.name}")
def test_across_two_columns_a_committed_table_is_not_made_smaller(latex, tmp_path, file):
    text = file.read_text()
    fitted = "{max width=\\linewidth, center}"
    assert text.startswith(PREAMBLE)
    assert text.count(fitted) == text.count(r"\begin{adjustbox}")
    assert complaints(latex, tmp_path, BOTH_COLUMNS, text.replace(fitted, "{}")) == []
