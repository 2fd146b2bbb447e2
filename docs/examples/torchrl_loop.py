"""The parts alone, in a plain TorchRL training loop: no Experiment, no Hydra, no configuration.

Environment, collector, replay, loss and teachers are ordinary TorchRL objects; the student here is
a network of plain PyTorch.
"""

import torch
from tensordict import TensorDict
from torch import nn
from torchrl.collectors import SyncDataCollector
from torchrl.objectives import HardUpdate

import benchmarl_mkt
from benchmarl_mkt.collectors import MultiTaskCollector
from benchmarl_mkt.environments import MultiTaskClass
from benchmarl_mkt.models import MultiTaskMixer
from benchmarl_mkt.models.actions import epsilon_greedy_actions
from benchmarl_mkt.objectives import AnnealingSchedule, MktLoss
from benchmarl_mkt.replay import MultiTaskReplayBuffer, make_segments
from benchmarl_mkt.teams import load_team

STEPS, ENVS = 25, 10


class Student(nn.Module):
    """E_k, F, EA_k and a mixer, as MktLoss wants them: task -> observations to task -> values."""

    def __init__(self, env, hidden: int = 64):
        super().__init__()
        teams = env.teams
        self.embeddings = nn.ModuleDict(
            {task: nn.Linear(team.observation_size, hidden) for task, team in teams.items()}
        )
        self.trunk = nn.Sequential(nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU())
        self.heads = nn.ModuleDict(
            {task: nn.Linear(hidden, team.n_actions) for task, team in teams.items()}
        )
        states = {task: team.state_size for task, team in teams.items()}
        self.mixer = MultiTaskMixer(states, n_agents=2)

    def forward(self, observations, is_init=None):
        return {
            task: self.heads[task](self.trunk(self.embeddings[task](seen)))
            for task, seen in observations.items()
        }


def main(epochs: int = 4000, team: str | None = None, seed: int = 0) -> list[dict[str, float]]:
    """Train a student on two tasks; return the losses of every iteration.

    Args:
        epochs: episodes of every task; one update per episode and task.
        team: folder of a trained team to distil; None learns from rewards alone.
        seed: seed of everything.
    """
    torch.manual_seed(seed)
    benchmarl_mkt.register()
    task_set = MultiTaskClass("two", {"tasks": ["mpe/simple_push", "mpe/simple_speaker_listener"]})
    env = task_set.get_env_fun(ENVS, continuous_actions=False, seed=seed, device="cpu")()
    tasks = list(env.teams)
    teachers = {} if team is None else load_team(team)

    student = Student(env)
    temperatures = {task: teacher.temperature for task, teacher in teachers.items()}
    lengths = {task: env.teams[task].state_length for task in tasks}  # states are observations
    loss = MktLoss(student, gamma=0.99, temperature=temperatures or 1.0, state_lengths=lengths)
    schedule = AnnealingSchedule(0.1, 0.5, 0.6) if teachers else AnnealingSchedule(1.0, 1.0, 1.0)
    target = HardUpdate(loss, value_network_update_interval=200 * len(tasks))
    optimizer = torch.optim.Adam(loss.parameters(), lr=5e-4)
    epsilon = 1.0

    @torch.no_grad()
    def act(data: TensorDict) -> TensorDict:
        values = student({task: data[task, "observation"] for task in tasks})
        for task in tasks:
            mask = data[task, "action_mask"]
            data[task, "action"] = epsilon_greedy_actions(values[task], mask, epsilon)
        return data

    frames = epochs * STEPS
    collector = MultiTaskCollector(
        SyncDataCollector(env, act, frames_per_batch=ENVS * STEPS, total_frames=frames), teachers
    )
    replay = MultiTaskReplayBuffer(tasks, capacity=5000, batch_size=32)
    history, seen = [], 0
    for batch in collector:  # [ENVS, STEPS]: one episode of every task in every environment
        seen += batch.numel()
        replay.extend(make_segments(batch, tasks))
        loss.alpha.fill_(schedule(min(seen / frames, 1.0)))
        epsilon = max(0.05, 1.0 - 3 * seen / frames)
        for _ in range(ENVS * len(tasks)):  # the buffer deals out one task after the other
            terms = loss(replay.sample())
            optimizer.zero_grad()  # to None: an Adam step leaves the other task's layers alone
            terms["loss"].backward()
            nn.utils.clip_grad_norm_(loss.parameters(), 10.0)
            optimizer.step()
            target.step()
        rewards = {task: batch["next", task, "reward"][..., 0, 0].sum(-1).mean() for task in tasks}
        terms = {key: float(terms[key]) for key in ("kl", "td", "q_tot", "alpha")}
        history.append({**terms, **{task: float(value) for task, value in rewards.items()}})
    collector.shutdown()
    return history


if __name__ == "__main__":
    for iteration, row in enumerate(main()):
        if iteration % 40 == 39:
            print(iteration + 1, {key: round(value, 3) for key, value in row.items()})
