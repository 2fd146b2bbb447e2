"""Scoring policies: whole episodes on fresh environments."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from benchmarl.models.common import ModelConfig
from benchmarl.utils import DEVICE_TYPING, _add_rnn_transforms
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs.utils import ExplorationType, set_exploration_type, step_mdp

from benchmarl_mkt.environments import MultiTaskClass
from benchmarl_mkt.environments.wins import won
from benchmarl_mkt.objectives.td import greedy_actions, random_actions
from benchmarl_mkt.reporting.statistics import Interval, mean_interval

if TYPE_CHECKING:
    from benchmarl.experiment import Experiment

    from benchmarl_mkt.teachers.load import Teacher

Policy = Callable[[TensorDictBase], TensorDictBase]
Watch = Callable[[str, Tensor, TensorDictBase], None]


class Score(NamedTuple):
    """Of one policy on one task: return and, where the task knows victories, win rate."""

    returns: Interval
    won: Interval | None

    @property
    def level(self) -> tuple[float, float]:
        """What the better one has more of: victories, then return."""
        return (0.0 if self.won is None else self.won.mean, self.returns.mean)


class Episodes(NamedTuple):
    """Episodes that were played, task by task."""

    returns: dict[str, Tensor]  # team returns [episodes]
    won: dict[str, Tensor]  # bool [episodes], of the tasks that know victories

    def score(self, task: str) -> Score:
        """Means and 95 % intervals of one task."""
        won = self.won.get(task)
        return Score(
            mean_interval(self.returns[task].numpy()),
            None if won is None else mean_interval(won.double().numpy()),
        )


@torch.no_grad()
def play(
    task: MultiTaskClass,
    policy: Policy,
    episodes: int,
    seed: int,
    device: DEVICE_TYPING = "cpu",
    model_config: ModelConfig | None = None,
) -> Episodes:
    """Play fresh episodes of every task in the set.

    The same seed gives the same initial states (and the same random actions), so that policies
    can be compared episode by episode. The policy acts deterministically where it can; the
    caller's random state is left alone.

    Args:
        task: the task set.
        policy: writes ``(task, "action")`` of every task.
        episodes: number of episodes, all played at once.
        seed: seed of environments and random actions.
        device: device of the policy.
        model_config: the policy's model; a recurrent one needs its states in the environment.
    """
    env = task.get_env_fun(episodes, continuous_actions=False, seed=seed, device=device)()
    if model_config is not None and model_config.is_rnn:
        bare = env
        env = _add_rnn_transforms(lambda: bare, bare.group_map, model_config)()
    returns = {name: torch.zeros(episodes, device=device) for name in env.teams}
    wins = {
        name: torch.zeros(episodes, dtype=torch.bool, device=device)
        for name, team in env.teams.items()
        if team.knows_wins
    }
    playing = torch.ones(episodes, dtype=torch.bool, device=device)
    with torch.random.fork_rng(), set_exploration_type(ExplorationType.DETERMINISTIC):
        torch.manual_seed(seed)
        data = env.reset()
        while playing.any():
            after = env.step(policy(data))
            for name, total in returns.items():
                total += after.get(("next", name, "reward"))[:, 0, 0] * playing
            for name, flags in wins.items():
                flags |= won(after, name) & playing
            data = step_mdp(after)
            playing &= ~data.get("done").squeeze(-1)
    env.close()
    return Episodes(*({name: row.cpu() for name, row in rows.items()} for rows in (returns, wins)))


def play_in(experiment: Experiment, policy: Policy, episodes: int, seed: int) -> Episodes:
    """Play as :func:`play` does: the experiment's task, on its device, with its model's states."""
    where = experiment.config.train_device, experiment.model_config
    return play(experiment.task, policy, episodes, seed, *where)


def random_policy(tasks: Iterable[str]) -> Policy:
    """Return the policy that draws uniformly among the available actions."""

    def act(data: TensorDictBase) -> TensorDictBase:
        for task in tasks:
            data.set((task, "action"), random_actions(data.get((task, "action_mask"))))
        return data

    return act


def teachers_policy(teachers: Mapping[str, Teacher], watch: Watch | None = None) -> Policy:
    """Return the policy, for one :func:`play`, in which every task's teacher acts, greedily.

    Args:
        teachers: task -> its teacher; a recurrent one is shown all steps so far.
        watch: called with (task, values [B, N, A], tensordict) at every step.
    """
    seen: dict[str, list[Tensor]] = {task: [] for task in teachers}

    def act(data: TensorDictBase) -> TensorDictBase:
        for task, teacher in teachers.items():
            observation = data.get((task, "observation"))
            if teacher.is_recurrent:
                seen[task].append(observation)
                values = teacher(torch.stack(seen[task], 1), _from_start(seen[task]))[:, -1]
            else:
                values = teacher(observation)
            if watch is not None:
                watch(task, values, data)
            data.set((task, "action"), greedy_actions(values, data.get((task, "action_mask"))))
        return data

    return act


def _from_start(observations: list[Tensor]) -> Tensor:
    """``is_init`` [B, T, 1] of T steps from the start of an episode."""
    first, copies = observations[0], observations[0].shape[0]
    is_init = torch.zeros(copies, len(observations), 1, dtype=torch.bool, device=first.device)
    is_init[:, 0] = True
    return is_init
