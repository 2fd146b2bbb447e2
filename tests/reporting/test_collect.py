"""What benchmarks/collect.py keeps of runs."""

import json

import pytest

from benchmarks.collect import collect
from benchmarl_mkt.reporting.runs import read_runs
from tests.reporting.results import evaluations, row, summary, write_run


def test_finished_runs_with_and_without_evaluations_are_kept(tmp_path):
    tasks = {"push": row("push", 0.5)}
    for seed, name in enumerate(("evaluations.json", None)):
        content = summary(seed=seed, finished=True, tasks=tasks, evaluations=name)
        write_run(tmp_path / "runs" / str(seed), content, evaluations({"push": [0.0, 0.5]}, seed))
    write_run(tmp_path / "runs" / "late", summary(seed=2))
    assert collect(tmp_path / "runs", tmp_path / "kept") == 2
    (with_curve, without), damaged = read_runs([tmp_path / "kept"])
    assert damaged == []
    assert with_curve.tasks["push"].curve[1].tolist() == [-30.0, -20.0]
    assert without.tasks["push"].means == with_curve.tasks["push"].means
    assert without.tasks["push"].curve is None
    assert not (tmp_path / "kept" / "mkt" / "seed_1" / "evaluations.json").exists()


def test_two_runs_of_one_seed_are_refused(tmp_path):
    for name in ("a", "b"):
        content = summary(finished=True, tasks={"push": row("push", 0.5)})
        write_run(tmp_path / "runs" / name, content, evaluations({"push": [0.0]}))
    with pytest.raises(SystemExit, match=r"runs/b and .*runs/a are of one method and seed"):
        collect(tmp_path / "runs", tmp_path / "kept")
    kept = json.loads((tmp_path / "kept" / "mkt" / "seed_0" / "summary.json").read_text())
    assert kept["finished"]
