"""A policy that a user has written in Python, as a frozen team."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torchrl.data import Composite

from benchmarl_mkt.teams.folder import TeamSpecs
from benchmarl_mkt.teams.frozen import FrozenTeam

Script = Callable[[Tensor], Tensor]


class ScriptedConfig:
    """A script remembers nothing."""

    def get_model_state_spec(self, model_index: int = 0) -> Composite:
        """Return no hidden states."""
        return Composite()


class ScriptedNetwork(nn.Module):
    """A script, called as a team's one network is.

    Args:
        script: maps observations [*B, N, D] to logits [*B, N, A]; what is not available is masked
            afterwards.
        specs: the team's sizes.
    """

    agent_group, out_key = "team", ("team", "logits")

    def __init__(self, script: Script, specs: TeamSpecs):
        super().__init__()
        self.script, self.specs = script, specs
        self.place = nn.Parameter(torch.empty(0), False)  # says on which device the team is

    def forward(self, data: TensorDictBase) -> TensorDictBase:
        """Read ``(team, observation)``; write ``(team, logits)``.

        Raises:
            ValueError: if the script gives something else.
        """
        observation = data.get(("team", "observation"))
        logits = self.script(observation.clone())  # which a script may write to
        expected = (*observation.shape[:-1], self.specs.n_actions)
        if not isinstance(logits, Tensor) or logits.shape != expected:
            given = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise ValueError(
                f"algorithm.teachers: {self.script} gives {given}, but must give logits "
                f"{list(expected)} for observations {list(observation.shape)}"
            )
        return data.set(self.out_key, logits.float())


def scripted_team(script: Script, specs: TeamSpecs, task: dict[str, Any]) -> FrozenTeam:
    """Return the team that acts as a script says.

    Args:
        script: see :class:`ScriptedNetwork`.
        specs: sizes of the task's team.
        task: the task, as a set of one.

    Raises:
        ValueError: if the script does not give logits of the right shape.
    """
    metadata = {
        "kind": "logits",
        "specs": vars(specs),
        "task": task,
        "temperature": 1.0,
        "algorithm": "script",
        "frames": 0,
    }
    team = FrozenTeam(ScriptedNetwork(script, specs), ScriptedConfig(), metadata)
    team.values(torch.zeros(2, specs.n_agents, specs.observation_size))
    return team
