"""A teacher of your own, from BenchMARL's MAPPO as it is.

MAPPO learns a task set of one task; its agents become a teacher's folder, and MKT distils them.
"""

from dataclasses import replace
from pathlib import Path

from benchmarl.algorithms import MappoConfig
from benchmarl.experiment import Experiment
from benchmarl.models import MlpConfig

import benchmarl_mkt
from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.environments import MultiTaskClass
from benchmarl_mkt.models import MultiTaskModelConfig
from benchmarl_mkt.presets import experiment_preset
from benchmarl_mkt.teachers import export_teacher, load_teacher


def main(folder: Path, **changes) -> Experiment:
    """Train the teacher, then the student; return the student's experiment.

    Args:
        folder: where everything is written.
        changes: fields of BenchMARL's ``ExperimentConfig`` to change, such as ``max_n_frames``.
    """
    benchmarl_mkt.register()
    folder.mkdir(parents=True, exist_ok=True)
    config = replace(experiment_preset("mkt_quick"), save_folder=str(folder), **changes)
    task = MultiTaskClass("push", {"tasks": ["mpe/simple_push"]})

    mappo = Experiment(
        task=task,
        algorithm_config=MappoConfig.get_from_yaml(),
        model_config=MlpConfig.get_from_yaml(),
        seed=0,
        config=config,
    )
    mappo.run()
    teacher = export_teacher(mappo, "simple_push", folder / "mappo_teacher")
    print("MAPPO's return:", load_teacher(teacher).score)

    student = Experiment(
        task=task,
        algorithm_config=MktConfig(teachers={"simple_push": str(teacher)}),
        model_config=MultiTaskModelConfig(),
        seed=0,
        config=config,
    )
    student.run()
    return student


if __name__ == "__main__":
    main(Path("runs/teacher_from_mappo"))
