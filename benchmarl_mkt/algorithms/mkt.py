"""MKT-MARL as a BenchMARL algorithm: wiring only; the mathematics is in ``objectives``."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from benchmarl.algorithms.common import Algorithm, AlgorithmConfig
from benchmarl.models.common import ModelConfig
from benchmarl.utils import _read_yaml_config
from omegaconf import OmegaConf
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.data import Composite, Unbounded
from torchrl.envs import EnvBase
from torchrl.objectives import HardUpdate, LossModule, SoftUpdate
from torchrl.objectives.utils import TargetNetUpdater

from benchmarl_mkt.algorithms.callback import StudentCallback
from benchmarl_mkt.algorithms.checks import (
    check_experiment,
    check_memory,
    check_processes,
    check_task,
)
from benchmarl_mkt.files import conf_path
from benchmarl_mkt.models import EntityModelConfig, EpsilonGreedyPolicy, StudentNetwork
from benchmarl_mkt.models.mixers import MIXERS, Entities, make_mixer
from benchmarl_mkt.models.multitask import as_multitask
from benchmarl_mkt.models.serialisation import model_from_dict
from benchmarl_mkt.objectives import AnnealingSchedule, MktLoss
from benchmarl_mkt.presets import compose_preset, experiment_config, experiment_preset
from benchmarl_mkt.replay import MultiTaskReplayBuffer, make_segments
from benchmarl_mkt.replay.multitask import UPDATES
from benchmarl_mkt.teachers.find import find_teachers
from benchmarl_mkt.teachers.settings import TeacherSettings, builtin_algorithm
from benchmarl_mkt.teams.frozen import FrozenTeam
from benchmarl_mkt.teams.load import load_trunk
from benchmarl_mkt.training import standard_callbacks

logger = logging.getLogger(__name__)

# What teachers' learning depends on, of the fields of MktConfig.
TEACHER_FIELDS = (
    "mixer", "mixing_embed_dim", "state_embed_dim", "hypernet_embed_dim", "double_q",
    "standardise_rewards", "hysteresis", "lmbda",
)  # fmt: skip
_ALONE = {"start": 1.0, "end": 1.0, "fraction": 1.0}


class Mkt(Algorithm):
    """MKT-MARL: one student team learns all tasks, from one teacher team per task (Eq. 1-6).

    To BenchMARL's training loop it shows one training group, the student, whose minibatches come
    task by task (Algorithm 1) or jointly. See :class:`MktConfig` for the arguments.

    Raises:
        ValueError: if the task is not a multi-task set, the configuration does not fit it, or a
            teacher is missing or unfit.
    """

    def __init__(self, experiment, **config: Any):
        super().__init__(experiment)
        self.config = MktConfig(**config)
        self.tasks = list(self.group_map)
        check_task(self.config.mixer, self.config.teachers, experiment.task, experiment.test_env)
        check_experiment(self.experiment_config)
        check_processes(self.experiment_config, experiment.task, experiment.test_env)
        self.schedule = AnnealingSchedule(**self.config.annealing)
        self.teachers: dict[str, FrozenTeam] = {}
        self.missing: list[str] = []  # the tasks without a teacher
        if self.config.uses_teacher:
            settings = self.config.teacher_settings
            self.teachers = find_teachers(settings, experiment.task, experiment.test_env)
            self.missing = [task for task in self.tasks if task not in self.teachers]
        teams = experiment.test_env.teams
        self.state_sizes = {task: teams[task].state_size for task in self.tasks}
        lengths = {task: teams[task].state_length for task in self.tasks}
        self.state_lengths = {task: n for task, n in lengths.items() if n is not None}
        self.largest_values = self._largest_values(experiment.test_env)
        self.has_rnn = True  # BenchMARL then keeps batches as segments [B, T]
        self._student: tuple[MktLoss, TargetNetUpdater] | None = None
        self._buffer: MultiTaskReplayBuffer | None = None
        self._add_callbacks(experiment)

    def _add_callbacks(self, experiment) -> None:
        """Add the callbacks that the experiment was not given."""
        given = experiment.callbacks
        added = [
            callback
            for callback in standard_callbacks()
            if not any(isinstance(other, type(callback)) for other in given)
        ]
        student = StudentCallback(self)  # first: its collector is the innermost
        for callback in (student, *added):
            callback.experiment = experiment
        experiment.callbacks = [student, *given, *added]

    def _largest_values(self, env: EnvBase) -> dict[str, float]:
        """The largest possible returns of the tasks that know them, if values are in their unit."""
        if self.config.standardise_rewards:
            return {}
        limits = {task: env.teams[task].max_return for task in self.tasks}
        return {task: limit for task, limit in limits.items() if limit is not None}

    @property
    def temperatures(self) -> dict[str, float]:
        """The temperature of Eq. 3 per task; 1 where there is no teacher."""
        if self.config.temperature != "auto":
            return dict.fromkeys(self.tasks, float(self.config.temperature))
        return {
            task: self.teachers[task].temperature if task in self.teachers else 1.0
            for task in self.tasks
        }

    @property
    def updates_per_turn(self) -> int:
        """Optimizer steps until every task had one update."""
        return len(self.tasks) if self.config.update == "sequential" else 1

    @property
    def averaged_weights(self) -> Callable[[], AbstractContextManager] | None:
        """A context in which the student has its averaged target's weights; None without one."""
        if not self.experiment_config.soft_target_update:
            return None
        loss, _ = self.get_loss_and_updater(self.tasks[0])
        return loss.averaged

    #############################
    # What BenchMARL asks for
    #############################

    def get_loss_and_updater(self, group: str) -> tuple[LossModule, TargetNetUpdater]:
        """Return the student's loss and target updater, whichever task is asked for."""
        if self._student is None:
            loss, _ = self._get_loss(group, None, continuous=False)
            config, turn = self.experiment_config, self.updates_per_turn
            if config.soft_target_update:  # as much in a turn as elsewhere in one update
                updater = SoftUpdate(loss, eps=(1 - config.polyak_tau) ** (1 / turn))
            else:
                interval = config.hard_target_update_frequency * turn
                updater = HardUpdate(loss, value_network_update_interval=interval)
            self._student = loss, updater
        return self._student

    def get_replay_buffer(self, group: str, transforms=None) -> MultiTaskReplayBuffer:
        """Return the student's K buffers, whichever task is asked for."""
        if self._buffer is None:
            config = self.experiment_config
            length = -(-config.collected_frames_per_batch(False) // config.n_envs_per_worker(False))
            capacity = max(1, config.replay_buffer_memory_size(False) // length)
            if str(self.buffer_device) == "cpu":
                filled = -(-config.get_max_n_frames(False) // length)  # at most
                check_memory(min(capacity, filled), self._segment_bytes(length), length)
            self._buffer = MultiTaskReplayBuffer(
                self.tasks,
                capacity=capacity,
                batch_size=-(-config.train_batch_size(False) // length),
                update=self.config.update,
                device=self.buffer_device,
            )
        return self._buffer

    def _segment_bytes(self, length: int) -> int:
        """The bytes that a segment of every task takes, by making one without memory."""
        env = self.experiment.test_env
        batch = env.fake_tensordict()[:1].to("meta").unsqueeze(1).repeat(1, length)
        for task in [*self.teachers, *self.missing]:
            values = env.teams[task].n_agents, env.teams[task].n_actions
            batch[task, "teacher_values"] = torch.empty(1, length, *values, device="meta")
        return self.process_batch(self.tasks[0], batch).bytes()

    def get_policy_for_collection(self) -> TensorDictSequential:
        """Return one epsilon-greedy policy that acts for all tasks."""
        config = self.experiment_config
        agents = {task: self.get_policy_for_loss(task) for task in self.tasks}
        self.policy = EpsilonGreedyPolicy(
            agents,
            eps_init=config.exploration_eps_init,
            eps_end=config.exploration_eps_end,
            annealing_frames=config.get_exploration_anneal_frames(False),
            device=self.device,
        )
        return TensorDictSequential(self.policy)

    def process_env_fun(self, env_fun: Callable[[], EnvBase]) -> Callable[[], EnvBase]:
        """Lock the environment's specs: TorchRL then derives its keys once, not at every step."""

        def make() -> EnvBase:
            env = env_fun()
            env.set_spec_lock_()
            return env

        return make

    def process_batch(self, group: str, batch: TensorDictBase) -> TensorDictBase:
        """Cut a batch [B, T] into segments with T + 1 observations."""
        loss, _ = self.get_loss_and_updater(self.tasks[0])
        return make_segments(batch, self.tasks, states=loss.network.mixer.reads_state)

    def _get_loss(
        self, group: str, policy_for_loss: TensorDictModule | None, continuous: bool
    ) -> tuple[LossModule, bool]:
        agents = {task: self.get_policy_for_loss(task) for task in self.tasks}
        network = StudentNetwork(agents, self._mixer())
        if self.config.trunk is not None:
            load_trunk(network, self.config.trunk)
        network.trunk.requires_grad_(not self.config.freeze_trunk)
        return (
            MktLoss(
                network,
                gamma=self.experiment_config.gamma,
                temperature=self.temperatures,
                share_temperature=self.config.share_temperature,
                double_q=self.config.double_q,
                standardise=self.config.standardise_rewards,
                hysteresis=self.config.hysteresis,
                lmbda=self.config.lmbda,
                state_lengths=self.state_lengths,
                td=self.schedule.uses_rewards,
            ),
            True,
        )

    def _mixer(self) -> nn.Module:
        config = self.config
        return make_mixer(
            config.mixer,
            self.state_sizes,
            {task: len(self.group_map[task]) for task in self.tasks},
            mixing_embed_dim=config.mixing_embed_dim,
            state_embed_dim=config.state_embed_dim,
            hypernet_embed_dim=config.hypernet_embed_dim,
            device=self.device,
            entities=self._entities(),
        )

    def _entities(self) -> Entities | None:
        """What states are made of, if the student's network is one over entities."""
        teams, model = self.experiment.test_env.teams, self.experiment.model_config
        if not isinstance(model, EntityModelConfig):
            return None
        layouts = {
            task: (team.state_layout, 1 if team.state_length is None else team.n_agents)
            for task, team in teams.items()
            if team.state_layout is not None
        }
        return Entities(layouts, model.token_size)

    def _get_parameters(self, group: str, loss: LossModule) -> dict[str, Iterable]:
        return {"loss": list(loss.parameters())}

    def _get_policy_for_loss(
        self, group: str, model_config: ModelConfig, continuous: bool
    ) -> TensorDictModule:
        n_agents = len(self.group_map[group])
        action = self.action_spec[group, "action"]
        values = Unbounded(shape=(*action.shape, action.space.n))
        return as_multitask(model_config).get_model(
            input_spec=Composite({group: self.observation_spec[group].clone().to(self.device)}),
            output_spec=Composite({group: Composite({"action_value": values}, shape=(n_agents,))}),
            agent_group=group,
            input_has_agent_dim=True,
            n_agents=n_agents,
            centralised=False,
            share_params=self.experiment_config.share_policy_params,
            device=self.device,
            action_spec=self.action_spec,
        )

    def _get_policy_for_collection(
        self, policy_for_loss: TensorDictModule, group: str, continuous: bool
    ) -> TensorDictModule:
        return self.policy


def _is_positive(value: Any) -> bool:
    """Tell whether ``value`` is a finite number above zero."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and 0 < value < float("inf")


@dataclass
class TeacherConfig:
    """How teachers are trained: ``algorithm.teacher`` in Hydra.

    Args:
        experiment: BenchMARL's experiment; or the name of a preset, or a YAML file.
        model: their network; or the name of a preset, or a YAML file.
        algorithm: fields of this algorithm, with a = 1, that differ from its defaults (QMIX); with
            ``name`` one of BenchMARL's.
        seed: seed of their training.
        store: folder of the teacher store; None is ``$BENCHMARL_MKT_STORE`` or the user's cache.
    """

    experiment: Any = "mkt_quick"
    model: Any = "multitask"
    algorithm: Any = None
    seed: int = 0
    store: str | None = None


@dataclass
class MktConfig(AlgorithmConfig):
    """Configuration of :class:`Mkt`; ``conf/algorithm/mkt.yaml`` explains every field.

    Raises:
        ValueError: if a value is out of range, naming the key and the remedy.
    """

    mixer: str = "qmix"
    mixing_embed_dim: int = 32
    state_embed_dim: int = 32
    hypernet_embed_dim: int = 64
    temperature: Any = "auto"
    share_temperature: bool = False
    annealing: dict[str, float] = field(
        default_factory=lambda: {"start": 0.1, "end": 0.95, "fraction": 0.6}
    )
    double_q: bool = True
    standardise_rewards: bool = True
    hysteresis: float = 1.0
    lmbda: float = 0.9
    update: str = "sequential"
    trunk: str | None = None
    freeze_trunk: bool = False
    teachers: Any = None
    teacher: Any = field(default_factory=TeacherConfig)  # a mapping is one, too
    # Names of before, for one release.
    teacher_experiment: Any = None
    teacher_model: Any = None
    teacher_algorithm: Any = None
    teacher_seed: Any = None
    teacher_store: Any = None

    def __post_init__(self) -> None:
        self._rename()
        self._check_teachers()
        if self.mixer not in MIXERS:
            raise ValueError(f"algorithm.mixer: {self.mixer!r} must be one of {MIXERS}")
        if self.update not in UPDATES:
            raise ValueError(f"algorithm.update: {self.update!r} must be one of {UPDATES}")
        for name in ("mixing_embed_dim", "state_embed_dim", "hypernet_embed_dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"algorithm.{name}: {getattr(self, name)} must be at least 1")
        if not (_is_positive(self.hysteresis) and self.hysteresis <= 1):
            raise ValueError(f"algorithm.hysteresis: {self.hysteresis!r} must lie in (0, 1]")
        if self.lmbda != 0 and not (_is_positive(self.lmbda) and self.lmbda <= 1):
            raise ValueError(f"algorithm.lmbda: {self.lmbda!r} must lie in [0, 1]")
        if self.temperature != "auto" and not _is_positive(self.temperature):
            raise ValueError(
                f"algorithm.temperature: {self.temperature!r} must be auto or a number > 0"
            )
        if self.freeze_trunk and self.trunk is None:
            raise ValueError(
                "algorithm.freeze_trunk: true needs a trained trunk; set algorithm.trunk to a run"
            )
        try:
            AnnealingSchedule(**self.annealing)
        except TypeError as error:
            raise ValueError(
                f"algorithm.annealing: {self.annealing} must have start, end, fraction"
            ) from error

    def _rename(self) -> None:
        """Take over what older commands and records call otherwise."""
        if isinstance(self.teacher, Mapping):
            self.teacher = TeacherConfig(**self.teacher)
        for name in vars(self.teacher):
            old = f"teacher_{name}"
            if getattr(self, old) is not None:
                logger.warning("algorithm.%s is called algorithm.teacher.%s now", old, name)
                self.teacher = replace(self.teacher, **{name: getattr(self, old)})
                setattr(self, old, None)

    def _check_teachers(self) -> None:
        """Check what the configuration says of teachers; null is nothing."""
        named = {} if self.teachers is None else self.teachers
        if not isinstance(named, Mapping) or not all(
            isinstance(name, str) and (isinstance(folder, str | Path) or callable(folder))
            for name, folder in named.items()
        ):
            raise ValueError(
                f"algorithm.teachers: {self.teachers!r} must be null or {{task: folder}}"
            )
        self.teachers = dict(named)
        for name, script in self.teachers.items():
            # BenchMARL writes an experiment's configuration, which needs the function's place.
            if "<" in getattr(script, "__qualname__", ""):
                raise ValueError(
                    f"algorithm.teachers: that of {name} is {script.__qualname__}; take a function "
                    "that a module defines at its top"
                )
        teacher = self.teacher
        if not 0 <= teacher.seed < 2**32:
            raise ValueError(f"algorithm.teacher.seed: {teacher.seed} must be 0 to 2**32 - 1")
        if not isinstance(teacher.algorithm, Mapping | None):
            raise ValueError(
                f"algorithm.teacher.algorithm: {teacher.algorithm!r} must be null or a mapping, "
                "such as {name: mappo}"
            )
        if teacher.algorithm:
            self._teacher_algorithm()

    @property
    def uses_teacher(self) -> bool:
        """Whether any teacher is needed: not if a = 1 throughout."""
        return AnnealingSchedule(**self.annealing).uses_teacher

    @property
    def teacher_settings(self) -> TeacherSettings:
        """How the teachers are trained, and where they are.

        Raises:
            ValueError: if ``teacher`` names no preset, or one that does not fit.
        """
        key, experiment, model = "algorithm.teacher", self.teacher.experiment, self.teacher.model
        if isinstance(experiment, str | Path):
            experiment = experiment_preset(str(experiment), f"{key}.experiment")
        elif isinstance(experiment, Mapping):  # of a run's record
            experiment = experiment_config(dict(experiment), "", f"{key}.experiment")
        if isinstance(model, str | Path):
            content = compose_preset("model", str(model), f"{key}.model")
            model = OmegaConf.to_container(content, resolve=True)
        try:
            model = as_multitask(
                model_from_dict(dict(model)) if isinstance(model, Mapping) else model
            )
        except ValueError as error:
            raise ValueError(f"{key}.model: {error}") from error
        return TeacherSettings(
            self._teacher_algorithm(),
            experiment,
            model,
            self.teacher.seed,
            self.teacher.store,
            dict(self.teachers),
        )

    def _teacher_algorithm(self) -> AlgorithmConfig:
        settings = dict(self.teacher.algorithm or {})
        name = settings.pop("name", "mkt")
        if name != "mkt":
            return builtin_algorithm(name, settings)
        unknown = set(settings) - set(TEACHER_FIELDS)
        if unknown:
            raise ValueError(
                f"algorithm.teacher.algorithm: unknown {sorted(unknown)}; it may set "
                f"{list(TEACHER_FIELDS)}"
            )
        return MktConfig(annealing=dict(_ALONE), **settings)

    @classmethod
    def get_from_yaml(cls, path: str | None = None) -> MktConfig:
        """Read the configuration from ``path``, by default the shipped one."""
        content = _read_yaml_config(path or str(conf_path() / "algorithm" / "mkt.yaml"))
        return cls(**content.get("algorithm", content))

    @staticmethod
    def associated_class() -> type[Algorithm]:
        return Mkt

    @staticmethod
    def supports_continuous_actions() -> bool:
        return False

    @staticmethod
    def supports_discrete_actions() -> bool:
        return True

    @staticmethod
    def on_policy() -> bool:
        return False
