"""``benchmarl teachers``: train and show the teachers in the store."""

from __future__ import annotations

from benchmarl_mkt.cli.common import make_console, stops, user_errors
from benchmarl_mkt.cli.composed import task_and_algorithm, with_hydra

SUMMARY = "train or show the teachers in the store"
HELP = """Usage: benchmarl teachers train OVERRIDES ...
       benchmarl teachers list

  train   train the teachers that a run with the same (Hydra's) overrides would need
  list    show the teachers in the store, $BENCHMARL_MKT_STORE or the user's cache

Example:
  benchmarl teachers train algorithm=mkt task=multitask/mpe
"""


def main(arguments: list[str]) -> None:
    """Run ``train`` or ``list``."""
    match arguments:
        case ["train", *overrides]:
            with_hydra("teachers train", overrides, _train)
        case ["list"]:
            _list()
        case _:
            with user_errors():
                raise ValueError(
                    f"teachers: {' '.join(arguments) or 'nothing'!r} given; choose train or list"
                )


def _train(cfg) -> None:
    from benchmarl_mkt.teachers.ensure import ensure_teachers

    with user_errors():
        _, task, algorithm = task_and_algorithm(cfg, for_teachers=True)
    with stops("continue with the same command"):
        ensure_teachers(algorithm, task, make_console())
    _list(algorithm.teacher_store)


def _list(root: str | None = None) -> None:
    from rich.table import Table

    import benchmarl_mkt
    from benchmarl_mkt.teachers import TeacherStore, load_teacher

    benchmarl_mkt.register()
    table = Table("teacher", "algorithm", "seed", "frames", "return", "95% CI", "random")
    store = TeacherStore(root)
    for path in store.entries():
        try:
            data = load_teacher(path).metadata
        except ValueError:
            table.add_row(path.name, "damaged", *["-"] * 5)
            continue
        score = data["score"]
        table.add_row(
            path.name,
            data["algorithm"],
            str(data["seed"]),
            f"{data['frames']:,}",
            f"{score['mean']:.2f}",
            f"[{score['low']:.2f}, {score['high']:.2f}]",
            f"{data['random']['mean']:.2f}",
        )
    console = make_console()
    console.print(table)
    console.print(f"Store: {store.root}")
