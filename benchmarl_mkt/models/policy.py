"""The student's behaviour: epsilon-greedy over the available actions of all tasks at once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

import torch
from tensordict import TensorDictBase
from tensordict.nn import TensorDictModuleBase
from torch import Tensor
from torchrl.envs.utils import ExplorationType, exploration_type

from benchmarl_mkt.models.actions import epsilon_greedy_actions, greedy_actions
from benchmarl_mkt.models.multitask import MultiTaskModel, network_outputs

Actions = dict[tuple[str, str], Tensor]


class EpsilonGreedyPolicy(TensorDictModuleBase):
    """Acts for every task in one call; explores under ``ExplorationType.RANDOM`` alone.

    Reads ``(task, "observation")`` and ``(task, "action_mask")``, writes ``(task, "action")``
    [*B, n_agents]. Attribute ``is_recurrent`` tells whether a team has hidden states.

    Args:
        agents: task -> the agents' network.
        eps_init: epsilon at the start.
        eps_end: epsilon at the end.
        annealing_frames: frames over which it falls, linearly.
    """

    def __init__(
        self,
        agents: Mapping[str, MultiTaskModel],
        eps_init: float,
        eps_end: float,
        annealing_frames: int,
        device: torch.device | str | None = None,
    ):
        super().__init__()
        self.agents = torch.nn.ModuleDict(agents)
        self.is_recurrent = any(agent.is_recurrent for agent in agents.values())
        first = next(iter(agents.values()))
        one_trunk = all(agent.trunk is first.trunk for agent in agents.values())
        self._at_once = one_trunk and not self.is_recurrent
        self._network = functools.partial(
            network_outputs,
            {task: agent.embedding for task, agent in agents.items()},
            first.trunk,
            {task: agent.head for task, agent in agents.items()},
            activate=first.activate,
        )
        in_keys = [key for agent in agents.values() for key in agent.in_keys]
        in_keys += [(task, "action_mask") for task in agents]
        self.in_keys = list(dict.fromkeys(in_keys))
        self.out_keys = [(task, "action") for task in agents]
        self.out_keys += [key for agent in agents.values() for key in agent.out_keys[1:]]
        self.eps_end = eps_end
        self.register_buffer("eps", torch.tensor(float(eps_init), device=device))
        # A buffer, so that a run continued beyond its plan keeps to the plan's schedule.
        decay = (eps_init - eps_end) / max(annealing_frames, 1)
        self.register_buffer("decay", torch.tensor(decay, dtype=torch.float64, device=device))

    def step(self, frames: int = 1) -> None:
        """Anneal epsilon by ``frames`` collected frames."""
        self.eps.sub_(self.decay * frames).clamp_(min=self.eps_end)

    @torch.no_grad()
    def forward(self, tensordict: TensorDictBase) -> TensorDictBase:
        """Write every task's actions."""
        return tensordict.update(self.act(tensordict))

    @torch.no_grad()
    def act(self, entries: TensorDictBase | Mapping[tuple[str, str], Tensor]) -> Actions:
        """Return every task's actions; without hidden states a plain mapping is enough."""
        choose: Callable[[Tensor, Tensor], Tensor] = greedy_actions
        if exploration_type() in (ExplorationType.RANDOM, None):
            choose = functools.partial(epsilon_greedy_actions, eps=self.eps)
        return {
            (task, "action"): choose(values, entries.get((task, "action_mask")))
            for task, values in self._values(entries).items()
        }

    def _values(self, entries: TensorDictBase | Mapping) -> dict[str, Tensor]:
        """Every task's action values; a trunk without hidden states runs once for all."""
        if not self._at_once:
            return {task: agent.evaluate(entries) for task, agent in self.agents.items()}
        return self._network({task: agent.read(entries) for task, agent in self.agents.items()})
