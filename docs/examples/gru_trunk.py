"""MKT with a recurrent trunk F: a GRU of BenchMARL's between the tasks' own layers.

The same from the command line: ``benchmarl run algorithm=mkt task=multitask/mpe
model=multitask_gru``; with ``algorithm.teacher.model=multitask_gru`` the teachers remember, too.
"""

from dataclasses import replace
from pathlib import Path

from benchmarl.experiment import Experiment

import benchmarl_mkt
from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.environments import MultiTaskTask
from benchmarl_mkt.models import MultiTaskModelConfig
from benchmarl_mkt.presets import experiment_preset
from benchmarl_mkt.teachers import train_teacher


def main(folder: Path, preset: str = "mkt_quick", hidden_size: int = 64, **changes) -> Experiment:
    """Train what teachers are missing, then the student; return the student's experiment.

    Args:
        folder: where the run is written.
        preset: the teachers' and the student's experiment, a name or a YAML file.
        hidden_size: of the GRU.
        changes: fields of BenchMARL's ``ExperimentConfig`` to change.
    """
    benchmarl_mkt.register()
    folder.mkdir(parents=True, exist_ok=True)
    task = MultiTaskTask.MPE.get_from_yaml()
    algorithm = MktConfig(teacher={"experiment": preset})
    for team in task.team_configs:
        train_teacher(algorithm.teacher_settings, task, team.name)
    trunk = {"name": "gru", "hidden_size": hidden_size, "n_layers": 1, "mlp_num_cells": []}
    student = Experiment(
        task=task,
        algorithm_config=algorithm,
        model_config=MultiTaskModelConfig(trunk=trunk),
        seed=0,
        config=replace(experiment_preset(preset), save_folder=str(folder), **changes),
    )
    student.run()
    return student


if __name__ == "__main__":
    main(Path("runs/gru_trunk"))
