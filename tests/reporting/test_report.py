"""From result files to tables and pictures."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarl_mkt.reporting.labels import Labels
from benchmarl_mkt.reporting.report import write_report
from benchmarl_mkt.reporting.runs import read_runs
from tests.helpers import command
from tests.reporting.results import SCORES, evaluations, row, summary, write_results, write_run

PICTURES = ("aggregate", "curves", "efficiency", "profile")
TABLES = ("returns", "final", "scores", "aggregate", "leads", "budget", "teacher_level")


def report(results: Path, out: Path, labels: Labels | None = None) -> Path:
    out.mkdir()
    write_report(*read_runs([results]), labels or Labels(), out)
    return out


def table(path: Path) -> dict[str, dict[str, str]]:
    """A CSV table by its first column."""
    with path.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    return {next(iter(row.values())): row for row in rows}


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """The report on six finished runs."""
    folder = tmp_path_factory.mktemp("full")
    labels = Labels(
        methods={"mkt": "MKT", "other": "Other"},
        notes={"other": "BenchMARL's own"},
        tasks={"push": "Push"},
        published={"push": {"mkt": -9.0, "teacher": -11.5}},
        source="a paper",
    )
    return report(write_results(folder / "results"), folder / "out", labels)


def test_everything_is_written(full):
    found = {path.name for path in (full / "multitask_two").iterdir()}
    expected = {f"{name}.{suffix}" for name in TABLES for suffix in ("md", "tex", "csv")}
    expected |= {f"{name}.{suffix}" for name in PICTURES for suffix in ("png", "pdf")}
    assert found == expected
    text = (full / "report.md").read_text()
    for name in TABLES:
        assert (full / "multitask_two" / f"{name}.md").read_text() in text
    for name in PICTURES:
        assert f"(multitask_two/{name}.png)" in text
    assert "6 finished runs, 0 unfinished." in text


def test_returns_by_hand(full):
    """MKT's push scores 1, 1.1, 0.9 are returns -10, -8, -12: sd 2, t of 2 degrees 4.302653."""
    rows = table(full / "multitask_two" / "returns.csv")
    assert list(rows) == ["uniform random", "teachers", "MKT", "Other"]
    half = 4.302653 * 2 / 3**0.5
    mkt = {key: float(rows["MKT"][f"Push {key}"]) for key in ("mean", "low", "high")}
    assert mkt == pytest.approx({"mean": -10, "low": -10 - half, "high": -10 + half}, abs=1e-5)
    assert [rows[name]["Push, paper"] for name in rows] == ["", "-11.5", "-9.0", ""]
    assert rows["Other"]["note"] == "BenchMARL's own"
    assert rows["MKT"]["seeds"] == "3"
    text = (full / "multitask_two" / "returns.md").read_text()
    assert f"| MKT | **-10.00 ± {half:.2f}** | -9.00 | **8.80 ± 1.99** | 3 |  |" in text
    assert "Paper: a paper" in text


def test_scores_by_hand(full):
    rows = table(full / "multitask_two" / "scores.csv")
    for name, method in (("MKT", "mkt"), ("Other", "other")):
        written = np.array([[seed["push"], seed["tag"]] for seed in SCORES[method]])
        assert float(rows[name]["Push mean"]) == pytest.approx(written[:, 0].mean())
        assert float(rows[name]["mean of tasks mean"]) == pytest.approx(written.mean())


def test_aggregates_by_hand(full):
    """Of six scores one is cut at either end.

    MKT: 0.9 1 1 1.1 1.1 1.2, other: 0.2 0.4 0.5 0.6 0.7 1.2.
    """
    rows = table(full / "multitask_two" / "aggregate.csv")
    assert float(rows["MKT"]["IQM value"]) == pytest.approx(1.05)
    assert float(rows["Other"]["IQM value"]) == pytest.approx(0.55)
    assert float(rows["MKT"]["optimality gap value"]) == pytest.approx(0.1 / 6, abs=1e-6)
    assert float(rows["Other"]["optimality gap value"]) == pytest.approx(
        (0.8 + 0.6 + 1.2) / 6, abs=1e-6
    )
    assert rows["MKT"]["P(> MKT) value"] == ""
    # On tag 1.2 ties with MKT's 1.2 and beats 1.0 and 1.1: 2.5 of 9 pairs.
    assert float(rows["Other"]["P(> MKT) value"]) == pytest.approx(2.5 / 9 / 2, abs=1e-6)
    for name in rows:
        low, value, high = (float(rows[name][f"IQM {part}"]) for part in ("low", "value", "high"))
        assert low < value < high


def test_leads_within_a_seed_by_hand(full):
    """MKT is ahead of the other by 0.5 and 0, 0.4 and 0.6, 0.3 and 0.9, and of its teachers by
    0 and 0.2, 0.1 and 0, -0.1 and 0.1: means over the tasks 0.25, 0.5, 0.6 and 0.1, 0.05, 0.
    """
    rows = table(full / "multitask_two" / "leads.csv")
    assert list(rows) == ["teachers", "Other"]
    for name, seeds in (("teachers", [10, 5, 0]), ("Other", [25, 50, 60])):
        half = 4.302653 * np.std(seeds, ddof=1) / 3**0.5
        assert float(rows[name]["final policy mean"]) == pytest.approx(np.mean(seeds), abs=1e-4)
        assert float(rows[name]["final policy high"]) == pytest.approx(
            np.mean(seeds) + half, abs=1e-4
        )
    assert (rows["teachers"]["pairs ahead"], rows["Other"]["pairs ahead"]) == ("3 of 6", "5 of 6")
    assert (rows["teachers"]["best checkpoint mean"], rows["Other"]["seeds"]) == ("", "3")
    assert rows["Other"]["pairs ahead of best"] == "5 of 6"


def test_the_way_to_the_teachers_level_by_hand(full):
    """Curves are at 0, 0.5, 1, 1 of their best score after 100 to 400 of 400 frames."""
    rows = table(full / "multitask_two" / "budget.csv")
    mkt, other = rows["MKT"], rows["Other"]
    assert (mkt["own"], mkt["teachers'"], mkt["total"]) == ("400", "300", "700")
    assert (other["own"], other["teachers'"], other["total"]) == ("400", "0", "400")
    assert (mkt["≥ 1 first"], mkt["≥ 1 held"], mkt["≥ 1 there"], mkt["≥ 1 seeds"]) == (
        *("0.75", "0.75", "3", "3"),
    )  # fmt: skip
    assert (mkt["own to it"], mkt["total to it"]) == ("300", "600")
    assert (other["≥ 0.95 first"], other["≥ 0.95 there"], other["own to it"]) == ("", "0", "")
    tasks = table(full / "multitask_two" / "teacher_level.csv")
    assert tasks["MKT"]["Push ≥ 1 there"] == "2"
    assert tasks["Other"]["tag ≥ 1 there"] == "1"
    assert tasks["Other"]["tag ≥ 1 held"] == ""


def test_the_json_has_the_numbers_behind_the_tables(full):
    numbers = json.loads((full / "report.json").read_text())
    two = numbers["sets"]["multitask/two"]
    assert numbers["remarks"] == []
    assert (two["reference"], two["tasks"]) == ("mkt", ["push", "tag"])
    assert two["teacher"] == {"push": [-10.0] * 3, "tag": [8.0] * 3}
    other = two["methods"]["other"]
    assert other["tasks"]["push"]["best"]["seeds"] == [-20.0, -16.0, -18.0]
    assert other["tasks"]["push"]["best"]["score"]["mean"] == 0.6
    assert other["best"]["iqm"]["value"] == 0.55
    assert other["best"]["improvement"]["value"] == round(2.5 / 18, 6)
    assert other["reached"]["1.0"]["push"] == {"first": None, "held": None, "there": 0, "seeds": 3}


def test_the_same_results_give_the_same_bytes(tmp_path, full):
    """Tables, numbers and pictures, wherever the files lie and whatever matplotlib is set to."""
    import matplotlib

    results = write_results(tmp_path / "one" / "results")
    write_run(results / "late", summary(seed=5), evaluations({"push": [0.0]}, 5))
    first = report(results, tmp_path / "first")
    (tmp_path / "two").mkdir()
    results.rename(tmp_path / "two" / "results")
    with matplotlib.rc_context({"font.size": 20, "lines.linewidth": 9}):
        second = report(tmp_path / "two" / "results", tmp_path / "second")
    files = sorted(path.relative_to(first) for path in first.rglob("*") if path.is_file())
    assert len(files) == 3 + 3 * len(TABLES) + 2 * len(PICTURES)
    for path in files:
        assert (first / path).read_bytes() == (second / path).read_bytes(), path
    for path in first.rglob("*.pdf"):
        assert b"CreationDate" not in path.read_bytes()


def test_unfinished_and_damaged_runs_are_listed(tmp_path):
    results = write_results(tmp_path / "results")
    write_run(results / "late", summary("other", 7), evaluations({"push": [0.0]}, 7))
    write_run(results / "new", summary("new", 0), evaluations({"push": [1.0], "tag": [1.0]}))
    write_run(results / "bad", b"\x00")
    write_run(
        results / "lost", summary(seed=9, finished=True, tasks={"push": row("push", 1)}), b"{"
    )
    out = report(results, tmp_path / "out")
    text = (out / "report.md").read_text()
    assert "7 finished runs, 2 unfinished." in text
    for line in (
        "- results/bad: damaged, left out (summary.json: ",
        "- results/late: other, seed 7 is unfinished (100 of 400 frames evaluated)",
        "- results/lost: evaluations.json: no evaluations can be read (",
        "| new (unfinished) |",
    ):
        assert line in text
    rows = table(out / "multitask_two" / "returns.csv")
    assert (rows["mkt"]["seeds"], rows["other"]["seeds"]) == ("3-4", "3")
    assert "new (unfinished)" not in rows


def test_groups_have_their_own_folder_with_the_reference_in_each(tmp_path):
    results = write_results(
        tmp_path / "results", {key: SCORES["mkt"] for key in ("mkt", "a", "b", "c")}
    )
    labels = Labels(groups={"first": ("a",), "second": ("b", "a"), "unused": ("x",)})
    out = report(results, tmp_path / "out", labels)
    found = {
        folder.name: list(table(folder / "aggregate.csv"))
        for folder in out.iterdir()
        if folder.is_dir()
    }
    assert found == {
        "multitask_two_first": ["mkt", "a"],
        "multitask_two_second": ["mkt", "a", "b"],
        "multitask_two_others": ["mkt", "c"],
    }


def test_sets_apart_and_names_that_fall_together(tmp_path):
    for name in ("a/b", "a_b"):
        tasks = {"push": row("push", 1.0)}
        write_run(tmp_path / "results" / name, summary(set=name, finished=True, tasks=tasks))
    out = report(tmp_path / "results", tmp_path / "out")
    assert {path.name for path in out.iterdir() if path.is_dir()} == {"a_b", "a_b_"}


def test_one_unfinished_run_is_enough(tmp_path):
    write_run(tmp_path / "run", summary(), evaluations({"push": [0.0, 1.0]}))
    out = report(tmp_path / "run", tmp_path / "out")
    assert {path.name for path in (out / "multitask_two").iterdir()} == {"curves.png", "curves.pdf"}
    write_run(tmp_path / "none", b"[]")
    assert (
        "0 finished runs"
        in (report(tmp_path / "none", tmp_path / "empty") / "report.md").read_text()
    )


def test_win_rates_have_tables_of_their_own(tmp_path):
    rates = {"random": 0.0, "teacher": 0.8, "best": 0.75}
    won = {f"{player}_win_rate": {"mean": rate} for player, rate in rates.items()}
    tasks = {"push": {**row("push", 1.0), **won}}
    write_run(tmp_path / "run", summary(finished=True, tasks=tasks))
    out = report(tmp_path / "run", tmp_path / "out")
    shown = table(out / "multitask_two" / "win_rate.csv")
    means = {method: cells["push mean"] for method, cells in shown.items()}
    assert means == {"uniform random": "0.0", "teachers": "0.8", "mkt": "0.75"}


def test_intervals_of_win_rates_end_at_0_and_1(tmp_path):
    """0.9, 1 and 1: t of two degrees 4.302653 times 0.0333 goes from 0.823 to 1.110."""
    for seed, rate in enumerate((0.9, 1.0, 1.0)):
        won = {"best_win_rate": {"mean": rate}, "random_win_rate": {"mean": 0.1 * (1 - rate)}}
        tasks = {"push": {**row("push", 1.0), **won}}
        write_run(tmp_path / str(seed), summary(seed=seed, finished=True, tasks=tasks))
    out = report(tmp_path, tmp_path / "out")
    text = (out / "multitask_two" / "win_rate.md").read_text()
    assert "| 0.97 [0.82, 1.00] |" in text
    assert "| 0.00 [0.00, 0.02] |" in text
    found = json.loads((out / "report.json").read_text())["sets"]["multitask/two"]["methods"]
    assert found["mkt"]["tasks"]["push"]["best_win_rate"]["high"] == 1.0


def test_who_had_twice_the_candidates_is_said(tmp_path):
    for method in ("mkt", "other"):
        content = summary(method, finished=True, tasks={"push": row("push", 1.0)})
        content["averaged_weights"] = method == "mkt"
        write_run(tmp_path / method, content)
    out = report(tmp_path, tmp_path / "out", Labels(methods={"mkt": "MKT"}))
    for table, said in (("returns", True), ("scores", True), ("aggregate", True), ("final", False)):
        text = (out / "multitask_two" / f"{table}.md").read_text()
        assert ("Best of twice as many candidates: MKT (" in text) == said, table


def test_odd_names_break_nothing(tmp_path):
    """Formulas, markup and separators in names are shown as they are."""
    odd = "$x_{$ [bold] |%&#~^\\"
    tasks = {odd: row("push", 1.0)}
    curve = evaluations({"push": [0.0, 1.0]})
    run = curve["multitask"]["two"]["mkt"]["seed_0"]
    for step in run.values():
        step[f"{odd}_return"] = step.pop("push_return")
    for method in ("mkt", odd):
        write_run(
            tmp_path / "results" / str(len(method)),
            summary(method, set=odd, finished=True, tasks=tasks),
            curve,
        )
    out = report(tmp_path / "results", tmp_path / "out")
    assert len(list(out.rglob("*.png"))) == len(PICTURES)
    assert odd in table(out / "x_bold" / "aggregate.csv")


VALUE = st.floats(-1e15, 1e15)


@settings(max_examples=6)
@given(
    means=st.lists(st.tuples(VALUE, VALUE, VALUE, VALUE), min_size=1, max_size=4), data=st.data()
)
def test_any_numbers_can_be_reported(tmp_path_factory, means, data):
    """Equal, huge and reversed levels, single seeds, curves of different length."""
    folder = tmp_path_factory.mktemp("any")
    for i, values in enumerate(means):
        task = {
            who: {"mean": v} for who, v in zip(("random", "teacher", "best", "student"), values)
        }
        scores = data.draw(st.lists(VALUE, max_size=4))
        steps = {
            f"step_{k}": {"step_count": k // 2, "push_return": [value]}
            for k, value in enumerate(scores)
        }
        content = summary(f"m{i % 2}", i, finished=True, tasks={"push": task})
        write_run(folder / "runs" / str(i), content, {"a": {"b": {"c": {"d": steps}}}})
    assert (report(folder / "runs", folder / "out") / "report.md").is_file()


COMMAND = """
import sys
from benchmarl_mkt.cli import main
main(["report", "results"])
heavy = {"torch", "torchrl", "tensordict", "benchmarl", "hydra"} & set(sys.modules)
sys.exit(f"imported: {heavy}" if heavy else 0)
"""


def test_the_command_does_not_need_torch(tmp_path):
    results = write_results(tmp_path / "results")
    again = {task: row(task, 1.0) for task in ("push", "tag")}
    write_run(results / "again", summary(finished=True, max_frames=900, tasks=again))
    (results / "labels.yaml").write_text("methods: {other: {name: Another}, mkt: {}}")
    found = command("-c", COMMAND, cwd=tmp_path, store=tmp_path)
    assert found.returncode == 0, found.stderr
    assert "Return of the best checkpoint, multitask/two" in found.stdout
    assert "P(> Another)" in found.stdout
    assert "Report: results/report/report.md" in found.stdout
    assert "Page: results/report/report.html" in found.stdout
    assert "mkt, seed 0: results/again (900 frames) counts, not results/two/mkt" in found.stdout
    assert (results / "report" / "multitask_two" / "curves.png").read_bytes().startswith(b"\x89PNG")


WRONG = [
    ((), "report: the following arguments are required: RESULTS"),
    (("results", "--colour", "red"), "report: unrecognized arguments: --colour red"),
    (("nowhere",), "RESULTS: there is no folder nowhere"),
    (("empty",), "RESULTS: no summary.json below empty"),
    (("results", "--labels", "none.yaml"), "--labels: cannot read none.yaml"),
    (("results", "--out", "results/mkt/summary.json/x"), "--out: cannot write to"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG, ids=[m for _, m in WRONG])
def test_wrong_input_is_one_line_and_status_2(tmp_path, monkeypatch, capsys, arguments, message):
    from benchmarl_mkt.cli import main

    write_run(tmp_path / "results" / "mkt", summary())
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main(["report", *arguments])
    error = capsys.readouterr().err
    assert exit_.value.code == 2
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1
