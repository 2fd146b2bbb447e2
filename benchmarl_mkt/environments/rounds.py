"""Several tasks in one environment: every team plays one episode per round.

The agent groups of the environment are the tasks, so that BenchMARL's own experiment, loggers and
algorithms work on it unchanged.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor
from torchrl.data import Binary, Composite, Unbounded

from benchmarl_mkt.environments.leaves import Leaves, LeavesEnv, end_leaves
from benchmarl_mkt.environments.team import Team, TeamStep
from benchmarl_mkt.environments.wins import TEAMS_WON


class MultiTaskEnv(LeavesEnv):
    """K teams in synchronised rounds; batch size ``[num_envs]`` = B.

    A round ends, and the root ``done`` is true, when all K teams have finished their episode. A
    team that has finished idles until then: reward zero, its own ``done`` true, its last
    observation and, from the next step on, all actions available. A vectorised task may go on
    underneath; nothing of it shows.

    Per team (group) of N agents: ``observation`` [B, N, D], ``action_mask`` [B, N, A], ``action``
    [B, N], ``reward`` [B, N, 1] (the team's reward, the same for every agent) and ``done``,
    ``terminated``, ``truncated`` [B, N, 1]. Besides, ``("active", group)`` [B, 1]: true in the
    steps that belong to the team's episode; of tasks that have a state of their own
    ``("state", group)`` [B, S], that of the others is in their observations (``state_length`` of
    :class:`~benchmarl_mkt.environments.Team`); of tasks that know victories ``("won", group)``
    [B, 1], which stays true until the round ends. The root is ``terminated`` if every team's
    episode ended so, else ``truncated``.

    Args:
        teams: the teams; their names are the groups.
        seed: seeds every team's environment with a seed of its own.
    """

    def __init__(self, teams: Sequence[Team], seed: int | None = None):
        first = teams[0].env
        super().__init__(device=first.device, batch_size=first.batch_size)
        self.teams = {team.name: team for team in teams}
        self.group_map = {team.name: team.agents for team in teams}
        self.max_steps = max(team.max_steps for team in teams)
        nobody = torch.zeros(self.batch_size, dtype=torch.bool, device=self.device)
        self._finished = dict.fromkeys(self.teams, nobody)
        self._idle = dict(self._finished)  # before the last step
        self._with_wins = [team.name for team in teams if team.knows_wins]
        self._with_state = [team.name for team in teams if team.state_length is None]
        self._make_specs()
        self.is_closed = False  # TorchRL believes so before its first step: games stayed alive
        if seed is not None:
            with contextlib.suppress(NotImplementedError):  # each copy was made with a seed
                self.set_seed(seed)

    def _make_specs(self) -> None:
        batch, flag = self.batch_size, Binary(n=1, shape=(*self.batch_size, 1), dtype=torch.bool)
        states = {
            name: Unbounded((*batch, self.teams[name].state_size)) for name in self._with_state
        }
        others = {
            "active": {name: flag.clone() for name in self.teams},
            TEAMS_WON: {name: flag.clone() for name in self._with_wins},
            "state": states,
        }
        self._set_specs(
            {name: (team.observation_size, team.n_actions) for name, team in self.teams.items()},
            {key: Composite(specs, shape=batch) for key, specs in others.items() if specs},
            own_ends=True,
        )

    def _set_seed(self, seed: int | None) -> None:
        """Seed every team.

        Raises:
            NotImplementedError: naming the teams that take no seeds; the others are seeded.
        """
        refused = []
        for index, team in enumerate(self.teams.values()):
            try:
                team.set_seed(None if seed is None else seed + 1009 * index)
            except NotImplementedError:
                refused.append(team.name)
        if refused:
            raise NotImplementedError(f"{', '.join(refused)}: the game takes no seeds")

    def reset_leaves(self, mask: Tensor | None) -> Leaves:
        if mask is None:
            mask = torch.ones(self.batch_size, dtype=torch.bool, device=self.device)
        mask = mask.view(self.batch_size)
        for team in self.teams.values():  # each in the background, so all at once
            if isinstance(team.env, LeavesEnv):
                team.env.prepare()
        steps = {name: team.reset(mask) for name, team in self.teams.items()}
        for flags in (self._finished, self._idle):
            flags.update({name: flag & ~mask for name, flag in flags.items()})
        leaves = self._shown(steps)
        for name in self.teams:
            del leaves[name, "reward"]
        return leaves

    def begin_step(self, data: TensorDictBase | Leaves) -> Callable[[], Leaves]:
        self._idle.update(self._finished)
        begun = {
            name: team.begin_step(data[name, "action"], ~self._idle[name])
            for name, team in self.teams.items()
        }

        def end_step() -> Leaves:
            steps = {name: end() for name, end in begun.items()}
            for name, step in steps.items():
                self._finished[name] = self._idle[name] | step.terminated | step.truncated
            return self._shown(steps)

        return end_step

    def _shown(self, steps: Mapping[str, TeamStep]) -> Leaves:
        """What the rest follows from; a team's flags and rewards [B, 1, 1] are all agents'.

        The step that ends an episode keeps its true mask, since a value may bootstrap from its
        observation, unless nothing is available in it.
        """
        ended = functools.reduce(torch.logical_and, self._finished.values())
        leaves: Leaves = {"done": ended.unsqueeze(-1)}
        for name, step in steps.items():
            finished, mask = self._finished[name].view(-1, 1, 1), step.action_mask
            if finished.any():
                open_mask = self._idle[name].view(-1, 1, 1) | ~mask.any(-1, keepdim=True)
                mask = mask | (finished & open_mask)
            leaves[name, "observation"] = step.observation
            leaves[name, "action_mask"] = mask
            leaves[name, "reward"] = step.reward.view(-1, 1, 1)
            leaves[name, "done"] = finished
            leaves[name, "terminated"] = step.terminated.view(-1, 1, 1)
            if name in self._with_state:
                leaves["state", name] = step.state
            if name in self._with_wins:
                leaves[TEAMS_WON, name] = step.won.unsqueeze(-1)
        return leaves

    def complete(self, leaves: Leaves) -> Leaves:
        leaves = dict(leaves)
        terminated = leaves["done"]
        for name, team in self.teams.items():
            finished = leaves[name, "done"]
            agents = (*finished.shape[:-2], team.n_agents, 1)
            shared = end_leaves(finished, finished & leaves[name, "terminated"], name)
            if (name, "reward") in leaves:
                shared[name, "reward"] = leaves[name, "reward"]
            terminated = terminated & leaves[name, "terminated"].squeeze(-1)
            leaves |= {key: entry.expand(agents).clone() for key, entry in shared.items()}
            leaves["active", name] = ~finished.squeeze(-1)
        return leaves | end_leaves(leaves["done"], terminated)

    def close(self, **kwargs: Any) -> None:
        """Close every team's environment."""
        super().close(**kwargs)
        with contextlib.ExitStack() as stack:  # all of them, whichever fails
            # TorchRL's SerialEnv and ParallelEnv give threads back that they have not taken.
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            for team in self.teams.values():
                stack.callback(team.close)
