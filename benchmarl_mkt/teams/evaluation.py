"""Playing whole episodes on fresh environments, and scoring who has played."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from benchmarl.experiment import Experiment
from benchmarl.utils import DEVICE_TYPING
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.envs import EnvBase
from torchrl.envs.utils import ExplorationType, set_exploration_type, step_mdp

from benchmarl_mkt.environments import MultiTaskClass
from benchmarl_mkt.environments.wins import won
from benchmarl_mkt.models.actions import random_actions
from benchmarl_mkt.statistics import Interval, mean_interval, rate_interval
from benchmarl_mkt.teams.frozen import FrozenTeam

COPIES = 32  # episodes at a time, where nothing else says how many
Policy = Callable[[TensorDictBase], TensorDictBase]
Watch = Callable[[str, Tensor, TensorDictBase], None]


class Score(NamedTuple):
    """Of one policy on one task: return and, where the task knows victories, win rate."""

    returns: Interval
    won: Interval | None
    episodes: int

    @property
    def described(self) -> dict[str, float]:
        """The return as a team's folder has it: mean, low, high, episodes."""
        return {**self.returns._asdict(), "episodes": self.episodes}

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
            None if won is None else rate_interval(won.numpy()),
            len(self.returns[task]),
        )


@torch.no_grad()
def play_on(env: EnvBase, policy: Policy, episodes: int, seed: int) -> Episodes:
    """Play fresh episodes of every task, as many at a time as ``env`` has copies.

    The same seed gives the same initial states (and the same random actions), so that policies
    can be compared episode by episode, if the tasks take seeds. The policy acts deterministically
    where it can; it also reads ``is_init`` [B, 1], true in the first step of every episode. The
    caller's random state is left alone.

    Args:
        env: a :class:`~benchmarl_mkt.environments.MultiTaskEnv`, with or without transforms.
        policy: writes ``(task, "action")`` of every task.
        episodes: number of episodes; what the last round plays beyond them does not count.
        seed: seed of environments and random actions.
    """
    seeds = [seed] + [
        int(np.random.SeedSequence((seed, part)).generate_state(1)[0]) >> 2
        for part in range(1, -(-episodes // env.batch_size[0]))
    ]
    with torch.random.fork_rng(), set_exploration_type(ExplorationType.DETERMINISTIC):
        rounds = [_play_round(env, policy, part) for part in seeds]

    def joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {
            task: torch.cat([part[task] for part in parts])[:episodes].cpu() for task in parts[0]
        }

    return Episodes(joined([r.returns for r in rounds]), joined([r.won for r in rounds]))


def _play_round(env: EnvBase, policy: Policy, seed: int) -> Episodes:
    """One episode in every copy."""
    with contextlib.suppress(NotImplementedError):  # then the game takes none
        env.set_seed(seed)
    torch.manual_seed(seed)
    (copies,), device = env.batch_size, env.device
    playing = torch.ones(copies, dtype=torch.bool, device=device)
    returns = {name: torch.zeros(copies, device=device) for name in env.teams}
    wins = {name: ~playing for name, team in env.teams.items() if team.knows_wins}
    data, begins = env.reset(), playing.unsqueeze(-1)
    while playing.any():
        after = env.step(policy(data.set("is_init", begins)))
        for name, total in returns.items():
            total += after.get(("next", name, "reward"))[:, 0, 0] * playing
        for name, flags in wins.items():
            flags |= won(after, name) & playing
        data, begins = step_mdp(after), torch.zeros_like(begins)
        playing = playing & ~data.get("done").squeeze(-1)
    return Episodes(returns, wins)


@contextlib.contextmanager
def stage(task: MultiTaskClass, copies: int, device: DEVICE_TYPING = "cpu") -> Iterator[EnvBase]:
    """Give an environment to play on, for several calls of :func:`play_on`.

    Args:
        task: the task set.
        copies: episodes at a time, of every task.
        device: device of the environment.
    """
    env = task.get_env_fun(copies, continuous_actions=False, seed=0, device=device)()
    with contextlib.closing(env):
        yield env


def play(
    task: MultiTaskClass, policy: Policy, episodes: int, seed: int, copies: int = COPIES
) -> Episodes:
    """Play fresh episodes, at most ``copies`` at a time; see :func:`stage` and :func:`play_on`."""
    with stage(task, min(copies, episodes)) as env:
        return play_on(env, policy, episodes, seed)


def copies_of(experiment: Experiment) -> int:
    """How many copies of a game to play at a time: as many as in training or in evaluation.

    More are cheap where all tasks are vectorised: there at least :data:`COPIES`.
    """
    config, teams = experiment.config, experiment.test_env.teams.values()
    copies = max(config.evaluation_episodes, config.n_envs_per_worker(experiment.on_policy))
    return max(copies, COPIES) if all(team.vectorised for team in teams) else copies


@contextlib.contextmanager
def stage_of(experiment: Experiment) -> Iterator[EnvBase]:
    """Give an environment to play the experiment's task on.

    While it runs its own for evaluation, so that no more games are alive; after its end a new one,
    of as many copies as it had at a time.
    """
    if not experiment.test_env.is_closed:
        yield experiment.test_env
        return
    device = experiment.config.train_device
    with stage(experiment.task, copies_of(experiment), device) as env:
        yield env


def random_policy(tasks: Iterable[str]) -> Policy:
    """Return the policy that draws uniformly among the available actions."""

    def act(data: TensorDictBase) -> TensorDictBase:
        for task in tasks:
            data.set((task, "action"), random_actions(data.get((task, "action_mask"))))
        return data

    return act


def greedy_policy(teams: Mapping[str, FrozenTeam], watch: Watch | None = None) -> Policy:
    """Return the policy in which every task's team acts, greedily.

    Args:
        teams: task -> its team; a recurrent one remembers from one call to the next, until
            ``is_init`` [B, 1], if there is one, says that an episode begins.
        watch: called with (task, values [B, N, A], tensordict) at every step.
    """
    states: dict[str, dict[str, Tensor]] = {task: {} for task in teams}

    def act(data: TensorDictBase) -> TensorDictBase:
        for task, team in teams.items():
            if team.is_recurrent and "is_init" in data.keys():
                states[task]["is_init"] = data.get("is_init")
            seen = data.get((task, "observation")), data.get((task, "action_mask"))
            out = team.act(*seen, states[task])
            states[task] = {key: out["next", key] for key in team.state_shapes}
            if watch is not None:
                watch(task, out[team.out_key], data)
            data.set((task, "action"), out["action"])
        return data

    return act


def team_task(team: Mapping[str, FrozenTeam]) -> MultiTaskClass:
    """Return the task set that the team was trained on."""
    configs = [agents.metadata["task"] for agents in team.values()]
    entries = [entry for config in configs for entry in config["tasks"]]
    return MultiTaskClass("team", {**configs[0], "tasks": entries})


def copies_for(team: Mapping[str, FrozenTeam]) -> int:
    """How many episodes a team plays at a time: the fewest that its parts were made with."""
    return min(agents.metadata.get("copies", COPIES) for agents in team.values())


def evaluate_team(
    team: Mapping[str, FrozenTeam], episodes: int, seed: int
) -> dict[str, dict[str, Score]]:
    """Play fresh greedy episodes: task -> scores of the ``team`` and of ``random`` play.

    Both play from the same initial states.
    """
    policies = {"team": greedy_policy(team), "random": random_policy(team)}
    with stage(team_task(team), min(copies_for(team), episodes)) as env:
        played = {who: play_on(env, policy, episodes, seed) for who, policy in policies.items()}
    return {name: {who: played[who].score(name) for who in played} for name in team}
