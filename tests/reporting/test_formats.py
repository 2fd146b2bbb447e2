import csv
import io

import pytest
from rich.console import Console

from benchmarl_mkt.reporting.formats import Reach, Table, cell_text
from benchmarl_mkt.statistics import Estimate, Interval

NAN = float("nan")
REACH = Reach(0.1, None, 2, 3)
TABLE = Table(
    "stem",
    "Return",
    "a_set",
    ["method", "push_it", "IQM", "at", "frames", "note"],
    [
        ["a|b_c", Interval(1.0, 0.5, 1.5), Estimate(1.0, 0.9, 1.2), REACH, 12000, ""],
        ["[x] 5%", Interval(-0.001, NAN, NAN), None, None, None, "own"],
    ],
    ["95 % ± noise, P(> a) [/b]"],
    frozenset({(0, 1)}),
)


@pytest.mark.parametrize(
    ("cell", "text"),
    [
        (None, "-"),
        ("text", "text"),
        (12345, "12,345"),
        (1.005, "1.00"),
        (-0.001, "0.00"),
        (NAN, "-"),
        (Interval(1.5, 1.0, 2.0), "1.50 ± 0.50"),
        (Interval(1.5, NAN, NAN), "1.50"),
        (Estimate(1.5, 1.25, 2.0), "1.50 [1.25, 2.00]"),
        (Estimate(1.5, NAN, NAN), "1.50"),
        (Reach(0.25, 0.5, 2, 3), "0.25 / 0.50 (2/3)"),
        (Reach(None, None, 0, 3), "- / - (0/3)"),
    ],
)
def test_cells(cell, text):
    assert cell_text(cell) == text


def test_markdown():
    assert TABLE.markdown().splitlines() == [
        "| method | push_it | IQM | at | frames | note |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
        "| a\\|b_c | **1.00 ± 0.50** | 1.00 [0.90, 1.20] | 0.10 / - (2/3) | 12,000 |  |",
        "| [x] 5% | 0.00 | - | - | - | own |",
        "",
        "95 % ± noise, P(> a) [/b]",
    ]


def test_latex():
    assert TABLE.latex().splitlines() == [
        "\\begin{table}",
        "\\centering",
        "\\caption{Return, a\\_set. 95 \\% $\\pm$ noise, P($>$ a) [/b]}",
        "\\begin{tabular}{lrrrrl}",
        "\\toprule",
        "method & push\\_it & IQM & at & frames & note \\\\",
        "\\midrule",
        "a|b\\_c & \\textbf{1.00 $\\pm$ 0.50} & 1.00 [0.90, 1.20] & "
        "0.10 / - (2/3) & 12,000 &  \\\\",
        "{}[x] 5\\% & 0.00 & - & - & - & own \\\\",
        "\\bottomrule",
        "\\end{tabular}",
        "\\end{table}",
    ]


def test_csv_has_a_column_for_each_part_of_an_estimate():
    header, first, second = csv.reader(io.StringIO(TABLE.csv()))
    assert header == [
        "method",
        *(f"push_it {part}" for part in ("mean", "low", "high")),
        *(f"IQM {part}" for part in ("value", "low", "high")),
        *(f"at {part}" for part in ("first", "held", "there", "seeds")),
        *("frames", "note"),
    ]
    numbers = ["1.0", "0.5", "1.5", "1.0", "0.9", "1.2", "0.1", "", "2", "3", "12000"]
    assert first == ["a|b_c", *numbers, ""]
    assert second == ["[x] 5%", "-0.001", *[""] * 10, "own"]


def test_the_terminal_shows_names_as_they_are():
    text = io.StringIO()
    Console(file=text, width=150).print(TABLE.rich())
    for part in (
        "Return, a_set",
        "[x] 5%",
        "a|b_c",
        "1.00 ± 0.50",
        "1.00 [0.90, 1.20]",
        "noise, P(> a) [/b]",
    ):
        assert part in text.getvalue()
