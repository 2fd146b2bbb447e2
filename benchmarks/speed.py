"""How fast training is: ratios measured side by side in one process, a table and JSON.

    python benchmarks/speed.py [--repeats 200] [--out benchmarks/results/speed.json]

Everything runs on one thread of the CPU, if it does not say two; contenders take turns, and
medians are reported, since machines drift. An update is one task's: 32 episodes of 25 steps,
2 agents, hidden 64, mixing 32.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import itertools
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from benchmarl.algorithms import MappoConfig, QmixConfig, VdnConfig
from benchmarl.experiment import Experiment
from benchmarl.models import MlpConfig
from safetensors.torch import save_file
from torch import Tensor, nn

import benchmarl_mkt
from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.environments import MultiTaskClass, MultiTaskTask, SmaxEnv, SmaxTask
from benchmarl_mkt.environments.mpe import MpeEnv
from benchmarl_mkt.models import EntityModelConfig, MultiTaskModelConfig
from benchmarl_mkt.models.serialisation import model_to_dict
from benchmarl_mkt.presets import experiment_preset
from benchmarl_mkt.quiet import quiet
from benchmarl_mkt.teams.export import team_specs
from benchmarl_mkt.teams.folder import TeamSpecs, write_team
from benchmarl_mkt.teams.frozen import build_model
from benchmarl_mkt.training.machine import keep_memory

STUDENT = "student"
BATTLES = ("3m", "5m_vs_6m", "2s3z", "8m_vs_9m", "10m_vs_11m", "27m_vs_30m")
BATTLES += ("3m 2s3z 8m", "5m_vs_6m 5h_vs_5z 2s3z", "1s7z 2s6z 3s5z")  # sets
NO_SCORE = {"mean": 0.0, "low": 0.0, "high": 0.0, "episodes": 0}


def medians(contenders: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Call the contenders in turn; return each one's median milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for repeat in range(repeats + 3):
        for name, call in contenders.items():
            start = time.perf_counter()
            call()
            if repeat >= 3:
                times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def make_experiment(
    task: MultiTaskClass, folder: Path, teachers: bool = True, num_envs: int = 10, **algorithm: Any
) -> Experiment:
    """Build an MKT experiment with untrained teachers and full-size minibatches."""
    folder.mkdir(parents=True, exist_ok=True)
    config = experiment_preset("mkt_quick")
    config.save_folder, config.loggers = str(folder), ["csv"]
    config.evaluation, config.checkpoint_at_end, config.create_json = False, False, False
    config.off_policy_n_envs_per_worker = num_envs
    config.off_policy_collected_frames_per_batch = 25 * num_envs
    config.off_policy_n_optimizer_steps = num_envs
    config.max_n_frames = 25 * num_envs * 1000
    named = untrained_teachers(task, folder / "teachers") if teachers else {}
    annealing = {"start": 0.5, "end": 0.5, "fraction": 1.0}
    if not teachers:
        annealing = {"start": 1.0, "end": 1.0, "fraction": 1.0}
    return Experiment(
        task=task,
        algorithm_config=MktConfig(teachers=named, annealing=annealing, **algorithm),
        model_config=MultiTaskModelConfig(),
        seed=0,
        config=config,
    )


def untrained_teachers(task: MultiTaskClass, folder: Path) -> dict[str, str]:
    """Write a teacher of random weights for every task; return their folders."""
    env = task.get_env_fun(1, continuous_actions=False, seed=0, device="cpu")()
    config, paths = MultiTaskModelConfig(), {}
    for name in env.teams:
        specs = team_specs(env, name)
        weights = build_model(config, specs, "values").state_dict()
        metadata = {"kind": "values", "specs": vars(specs), "model": model_to_dict(config)}
        metadata |= {"share_params": True, "temperature": 0.02, "task": task.single(name).identity}
        metadata |= {"frames": 0, "score": NO_SCORE, "random": NO_SCORE}
        paths[name] = str(write_team(folder / name, weights, metadata))
    env.close()
    return paths


def fill(experiment: Experiment, batches: int = 4) -> None:
    """Collect some batches into the replay."""
    iterator = iter(experiment.collector)
    for _ in range(batches):
        batch = next(iterator)
        segments = experiment.algorithm.process_batch(STUDENT, batch)
        experiment.replay_buffers[STUDENT].extend(segments)


def mpe(count: int) -> MultiTaskClass:
    """Return a set of ``count`` tasks: those of the MPE set, over and over."""
    entries = MultiTaskTask.MPE.get_from_yaml().team_configs
    tasks = [
        {**asdict(entries[i % len(entries)]), "name": f"{entries[i % len(entries)].name}_{i}"}
        for i in range(count)
    ]
    return MultiTaskClass("speed", {"tasks": tasks})


class BareMkt:
    """The same mathematics as a hand-written PyTorch loop on plain tensors: the yardstick."""

    def __init__(self, sizes: tuple[int, int, int, int], episodes: int = 40, steps: int = 25):
        agents, length, actions, state = sizes
        torch.manual_seed(0)

        def two(a: int, b: int, c: int) -> nn.Sequential:
            return nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c))

        def network() -> nn.ModuleDict:
            return nn.ModuleDict(
                {
                    "agent": nn.Sequential(
                        *(nn.Linear(length, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()),
                        nn.Linear(64, actions),
                    ),
                    "state": nn.Linear(state, 32),
                    "w1": two(32, 64, 32 * agents),
                    "w2": two(32, 64, 32),
                    "b1": nn.Linear(32, 32),
                    "b2": two(32, 32, 1),
                }
            )

        self.online, self.target = network(), network().requires_grad_(False)
        self.target.load_state_dict(self.online.state_dict())
        self.parameters = list(self.online.parameters())
        self.optimizer = torch.optim.Adam(self.parameters, lr=5e-4, fused=True)
        shape = (episodes, steps + 1, agents)
        self.observation = torch.randn(*shape, length)
        self.mask = torch.ones(*shape, actions, dtype=torch.bool)
        self.state = torch.randn(episodes, steps + 1, state)
        self.action = torch.randint(actions, (episodes, steps, agents))
        self.reward = torch.randn(episodes, steps)
        self.terminated = torch.zeros(episodes, steps, dtype=torch.bool)
        self.active = torch.ones(episodes, steps, dtype=torch.bool)
        self.teacher = torch.randn(episodes, steps, agents, actions)
        self.agents, self.updates = agents, 0

    def values(self, net: nn.ModuleDict, observation: Tensor) -> Tensor:
        rows = net["agent"](observation.reshape(-1, observation.shape[-1]))
        return rows.view(*observation.shape[:-1], -1)

    def mix(self, net: nn.ModuleDict, values: Tensor, state: Tensor) -> Tensor:
        z = torch.relu(net["state"](state.reshape(-1, state.shape[-1])))
        w1 = net["w1"](z).abs().view(-1, self.agents, 32)
        hidden = nn.functional.elu((values.reshape(-1, self.agents, 1) * w1).sum(1) + net["b1"](z))
        total = (hidden * net["w2"](z).abs()).sum(-1) + net["b2"](z).squeeze(-1)
        return total.view(values.shape[:-1])

    def update(self) -> None:
        """Sample 32 episodes and take one step."""
        index = torch.randint(len(self.observation), (32,))
        mask, state, active = self.mask[index], self.state[index], self.active[index]
        observation, low = self.observation[index], -1e30
        values = self.values(self.online, observation)
        taken = values[:, :-1].gather(-1, self.action[index].unsqueeze(-1)).squeeze(-1)
        q_tot = self.mix(self.online, taken, state[:, :-1])
        with torch.no_grad():
            best = values[:, 1:].masked_fill(~mask[:, 1:], low).argmax(-1, keepdim=True)
            following = self.values(self.target, observation)[:, 1:].gather(-1, best).squeeze(-1)
            reward = self.reward[index]
            reward = (reward - reward.mean()) / (reward.std(correction=0) + 1e-5)
            ongoing = ~self.terminated[index]
            goal = reward + 0.99 * ongoing * self.mix(self.target, following, state[:, 1:])
        count = active.sum()
        td = ((q_tot - goal).square() * active).sum() / count
        log_t = (self.teacher[index] / 0.02).masked_fill(~mask[:, :-1], low).log_softmax(-1)
        log_s = values[:, :-1].masked_fill(~mask[:, :-1], low).log_softmax(-1)
        kl = (log_t.exp() * (log_t - log_s)).sum((-2, -1))
        loss = 0.5 * (kl * active).sum() / count + 0.5 * td
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 10.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.updates += 1
        if self.updates % 200 == 0:
            self.target.load_state_dict(self.online.state_dict())

    def products(self) -> None:
        """Do the linear layers of an update alone, forward and backward: the floor."""
        observation, state = self.observation[:32], self.state[:32]
        rows = observation.reshape(-1, observation.shape[-1])
        inputs = state[:, :-1].reshape(-1, state.shape[-1])
        outputs = self._linears(self.online, rows, inputs)
        torch.autograd.backward(outputs, [torch.ones_like(out) for out in outputs])
        self.optimizer.zero_grad()
        with torch.no_grad():
            self._linears(self.target, rows, state[:, 1:].reshape(-1, state.shape[-1]))

    def _linears(self, net: nn.ModuleDict, rows: Tensor, state: Tensor) -> list[Tensor]:
        for layer in net["agent"]:
            rows = layer(rows) if isinstance(layer, nn.Linear) else rows
        z, outputs = net["state"](state), [rows]
        for name in ("w1", "w2", "b2"):
            outputs.append(net[name][2](net[name][0](z)))
        return [*outputs, net["b1"](z)]


def measure_updates(folder: Path, repeats: int) -> dict[str, float]:
    """(a)-(d): an MKT update through BenchMARL's loop, bare, stock QMIX, and the floor."""
    experiment = make_experiment(mpe(1), folder)
    fill(experiment)
    team = next(iter(experiment.test_env.teams.values()))
    bare = BareMkt((team.n_agents, team.observation_size, team.n_actions, team.state_size))
    stock = stock_qmix(folder)
    (group,) = stock.group_map
    return medians(
        {
            "mkt_update": lambda: experiment._optimizer_loop(STUDENT),
            "bare_update": bare.update,
            "stock_qmix_update": lambda: stock._optimizer_loop(group),
            "products": bare.products,
        },
        repeats,
    )


def stock_qmix(folder: Path) -> Experiment:
    """Build BenchMARL's QMIX on one task of the same sizes, its buffer filled."""
    config = experiment_preset("mkt_quick")
    config.save_folder, config.loggers = str(folder), ["csv"]
    config.evaluation, config.checkpoint_at_end, config.create_json = False, False, False
    config.adam_extra_kwargs = {}  # as it comes
    experiment = Experiment(
        task=mpe(1),
        algorithm_config=QmixConfig.get_from_yaml(),
        model_config=MlpConfig(num_cells=[64, 64], layer_class=nn.Linear, activation_class=nn.ReLU),
        seed=0,
        config=config,
    )
    (group,) = experiment.group_map
    iterator = iter(experiment.collector)
    for _ in range(8):
        batch = next(iterator).exclude(*experiment._get_excluded_keys(group))
        batch = experiment.algorithm.process_batch(group, batch).reshape(-1)
        experiment.replay_buffers[group].extend(batch)
    return experiment


def measure_phases(folder: Path, repeats: int) -> dict[str, float]:
    """(a): the phases of an update through the loop; ``rest`` is the loop's own bookkeeping."""
    experiment = make_experiment(mpe(1), folder)
    fill(experiment)
    buffer, loss = experiment.replay_buffers[STUDENT], experiment.losses[STUDENT]
    optimizer = experiment.optimizers[STUDENT]["loss"]
    updater, callback = experiment.target_updaters[STUDENT], experiment.callbacks[0]
    kept: dict[str, Any] = {}
    phases = {
        "sample": lambda: kept.update(batch=buffer.sample()),
        "forward": lambda: kept.update(out=loss(kept["batch"])),
        "backward": lambda: kept["out"]["loss"].backward(),
        "clip": lambda: experiment._grad_clip(optimizer),
        "adam": optimizer.step,
        "zero_grad": optimizer.zero_grad,
        "target": updater.step,
        "callback": lambda: callback.on_train_step(kept["batch"], STUDENT),
    }
    found = medians({**phases, "loop": lambda: experiment._optimizer_loop(STUDENT)}, repeats)
    total = found.pop("loop")
    return {**found, "rest": total - sum(found.values()), "total": total}


def raw_games(task: MultiTaskClass) -> Callable[[], None]:
    """Return what plays 10 episodes of each game of the set, without teams, rounds or policy."""
    raw = [MpeEnv(team.task.split("/")[1], 10, seed=0) for team in task.team_configs]
    actions = [env.rand_action(env.reset()) for env in raw]

    def play() -> None:
        for env, action in zip(raw, actions):
            for _ in range(25):
                env.step_leaves(action)
            env.reset_leaves(None)

    return play


def measure_collection(folder: Path, repeats: int) -> dict[str, float]:
    """(e): frames per second at 10 environments: raw games, teams, rounds, collector."""
    task = MultiTaskTask.MPE.get_from_yaml()
    everyone = torch.ones(10, dtype=torch.bool)
    rounds = task.get_env_fun(10, continuous_actions=False, seed=0, device="cpu")()
    chosen = rounds.rand_action(rounds.reset())
    experiment = make_experiment(task, folder)

    def play_teams() -> None:
        for name, team in rounds.teams.items():
            for _ in range(25):
                team.step(chosen[name, "action"], everyone)
            team.reset(everyone)

    def play_rounds() -> None:
        with torch.no_grad():
            for _ in range(25):
                rounds._step(chosen)
            rounds._reset()

    contenders = {"raw_games": raw_games(task), "teams": play_teams}
    contenders |= {"rounds": play_rounds, "collector": collect(experiment)}
    found = medians(contenders, max(repeats // 4, 10))
    return {name: 250 * 3 / (milliseconds / 1e3) for name, milliseconds in found.items()}


def measure_epoch(folder: Path, repeats: int) -> dict[str, float]:
    """(f): milliseconds of one epoch of the three-task set at 10 environments, by phase."""
    task = MultiTaskTask.MPE.get_from_yaml()
    experiment = make_experiment(task, folder)
    iterator, buffer = iter(experiment.collector), experiment.replay_buffers[STUDENT]
    kept: dict[str, Any] = {}

    def store() -> None:
        buffer.extend(experiment.algorithm.process_batch(STUDENT, kept["batch"]))

    def learn() -> None:
        steps = experiment.config.off_policy_n_optimizer_steps
        kept["td"] = torch.stack([experiment._optimizer_loop(STUDENT) for _ in range(steps)])

    def log() -> None:
        logger = experiment.logger
        logger.log_collection(kept["batch"], task=task, total_frames=0, step=0)
        logger.log_training(STUDENT, kept["td"], step=0)
        experiment._on_train_end(kept["td"], STUDENT)

    loss, kept_loss = experiment.losses[STUDENT], {}

    def forward() -> None:
        kept_loss["out"] = loss(kept_loss["batch"])

    stock = stock_qmix(folder)
    (group,) = stock.group_map
    updates = experiment.config.off_policy_n_optimizer_steps
    contenders = {
        "collect": lambda: kept.update(batch=next(iterator)),
        "store": store,
        "learn": learn,
        "log": log,
        "games": raw_games(task),
        "sample": lambda: kept_loss.update(batch=buffer.sample()),
        "forward": forward,
        "backward": lambda: kept_loss["out"]["loss"].backward(),
        "stock_qmix_update": lambda: stock._optimizer_loop(group),
    }
    found = medians(contenders, max(repeats // 4, 5))
    epoch = {name: found[name] / 10 for name in ("collect", "store", "learn", "log")}
    passes = (found["forward"] + found["backward"]) * updates / 10
    return {
        **epoch,
        "total": sum(epoch.values()),
        "of which games": found["games"] / 10,
        "of which forward and backward": passes,
        "stock_qmix_update": found["stock_qmix_update"],
    }


def iterate(experiment: Experiment) -> Callable[[], None]:
    """Return what does one iteration of BenchMARL's loop: collect, store, train."""
    iterator, config = iter(experiment.collector), experiment.config
    on_policy = experiment.on_policy
    minibatches = -(
        -config.train_batch_size(on_policy) // config.train_minibatch_size(on_policy)
    ) * config.n_optimizer_steps(on_policy)

    def iteration() -> None:
        batch = next(iterator)
        for group, buffer in experiment.replay_buffers.items():
            data = batch.exclude(*experiment._get_excluded_keys(group))
            data = experiment.algorithm.process_batch(group, data)
            buffer.extend(data if experiment.algorithm.has_rnn else data.reshape(-1))
            for _ in range(minibatches):
                experiment._optimizer_loop(group)

    return iteration


def measure_protocol(folder: Path, repeats: int) -> dict[str, float]:
    """Hours of the paper's MPE protocol for one seed, projected from measured iterations.

    50k epochs of three teachers, of MKT, and of QMIX, VDN and MAPPO (BenchMARL's, one trunk).
    """
    task = MultiTaskTask.MPE.get_from_yaml()
    config = experiment_preset("mkt_paper")
    config.save_folder, config.loggers = str(folder), ["csv"]
    config.evaluation, config.checkpoint_at_end, config.create_json = False, False, False
    experiments = {
        "three teachers": make_experiment(mpe(1), folder / "teacher", teachers=False),
        "MKT": make_experiment(task, folder / "mkt"),
    }
    for algorithm in (QmixConfig, VdnConfig, MappoConfig):
        experiments[algorithm.associated_class().__name__] = Experiment(
            task=task,
            algorithm_config=algorithm.get_from_yaml(),
            model_config=MultiTaskModelConfig(),
            critic_model_config=MultiTaskModelConfig(),
            seed=0,
            config=config,
        )
    found = medians({name: iterate(e) for name, e in experiments.items()}, max(repeats // 20, 5))
    hours = {}
    for name, milliseconds in found.items():
        frames = experiments[name].config.collected_frames_per_batch(experiments[name].on_policy)
        epochs = frames / 25
        times = 3 if name == "three teachers" else 1
        hours[name] = times * 50_000 * milliseconds / epochs / 3.6e6
    return {**hours, "total": sum(hours.values())}


def measure_growth(folder: Path, repeats: int) -> dict[str, dict[str, float]]:
    """(g): milliseconds of an epoch's K updates as tasks are added, one by one or joint."""
    found: dict[str, dict[str, float]] = {}
    for update in ("sequential", "joint"):
        contenders = {}
        for count in (1, 3, 9):
            experiment = make_experiment(mpe(count), folder / f"{update}{count}", update=update)
            fill(experiment)
            steps = experiment.algorithm.updates_per_turn

            def epoch(experiment: Experiment = experiment, steps: int = steps) -> None:
                for _ in range(steps):
                    experiment._optimizer_loop(STUDENT)

            contenders[f"{count}"] = epoch
        found[update] = medians(contenders, max(repeats // 4, 10))
    return found


def measure_agents(folder: Path, repeats: int) -> dict[str, float]:
    """(g): milliseconds of an update for teams of 2, 8 and 27 agents (VMAS flocking)."""
    contenders = {}
    for count in (2, 8, 27):
        entry = {"task": "vmas/flocking", "config": {"n_agents": count, "max_steps": 25}}
        task = MultiTaskClass("agents", {"tasks": [entry]})
        experiment = make_experiment(task, folder / f"agents{count}")
        fill(experiment)
        contenders[str(count)] = lambda e=experiment: e._optimizer_loop(STUDENT)
    return medians(contenders, max(repeats // 4, 10))


def measure_entities(folder: Path, repeats: int) -> dict[str, float]:
    """(j): milliseconds of networks on 2,048 steps of a team of eight in SMAX's 3s5z.

    Forward passes without gradients, and updates: a forward and a backward pass and Adam.
    """
    entities, task = EntityModelConfig(), SmaxTask["3s5z"].get_from_yaml()
    (layout,) = task.entity_layout(None).values()
    agents, size, n_actions = 8, 205, 13
    specs = TeamSpecs(agents, size, n_actions)
    wide = replace(entities, token_size=64, score_size=64, embedding_size=128)
    networks = {
        "the paper's student": build_model(MultiTaskModelConfig(), specs, "values"),
        "entities, tokens of 32": build_model(entities, specs, "values", layout=layout),
        "entities, tokens of 64": build_model(wide, specs, "values", layout=layout),
        "entities, attention": build_model(
            replace(entities, pooling="attention"), specs, "values", layout=layout
        ),
    }
    torch.manual_seed(0)
    seen, contenders = torch.rand(2048, agents, size), {}
    for name, network in networks.items():
        optimizer = torch.optim.Adam(network.parameters(), fused=True)

        def forward(network: Any = network) -> None:
            with torch.no_grad():
                network.compute(seen)

        def update(network: Any = network, optimizer: torch.optim.Optimizer = optimizer) -> None:
            network.compute(seen).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()

        contenders |= {f"{name}, forward": forward, f"{name}, update": update}
    return medians(contenders, max(repeats // 8, 10))


def measure_learner(folder: Path, repeats: int) -> dict[str, float]:
    """(k): milliseconds of an update on 2,050 steps of eight agents in SMAX's 3s5z.

    On one thread and on two; beside them the matrix products of the agents' network in an update,
    forward, backward and once more for the target. And of an update in which the team idles in the
    second half of every segment, as it does in a set with longer battles.
    """
    task = MultiTaskClass("learner", {"tasks": ["smax/3s5z"], "reward": "mean"})
    experiment = make_experiment(task, folder, num_envs=32, mixer="vdn_s", lmbda=0.7)
    fill(experiment)
    experiment.replay_buffers[STUDENT].batch_size = 82  # segments of 25 steps
    active = experiment.replay_buffers[STUDENT].buffers["3s5z"].storage[:]["active"]
    (agents,) = experiment.replay_buffers[STUDENT].sample().values()
    rows = agents.get("observation").flatten(0, 2)
    sizes = (rows.shape[-1], 64, 64, agents.get("action_mask").shape[-1])
    weights = [torch.randn(b, a, requires_grad=True) for a, b in itertools.pairwise(sizes)]

    def outputs() -> Tensor:
        return functools.reduce(nn.functional.linear, weights, rows)

    def products() -> None:
        out = outputs()
        out.backward(torch.ones_like(out))
        with torch.no_grad():
            outputs()

    def on(threads: int, call: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            torch.set_num_threads(threads)
            call()
            torch.set_num_threads(1)

        return run

    def half_idle() -> None:
        active[:, active.shape[1] // 2 :] = False
        update()
        active[:] = True

    update = functools.partial(experiment._optimizer_loop, STUDENT)
    calls = {"update": update, "update, half idle": half_idle, "products": products}
    return medians(
        {f"{name}, {n} threads": on(n, call) for name, call in calls.items() for n in (1, 2)},
        max(repeats // 4, 10),
    )


def measure_envs(folder: Path, repeats: int) -> dict[str, float]:
    """(g): milliseconds of collection per episode of the three-task set, by environments."""
    contenders = {}
    for count in (1, 8, 32, 128):
        experiment = make_experiment(
            MultiTaskTask.MPE.get_from_yaml(), folder / f"envs{count}", num_envs=count
        )
        contenders[str(count)] = collect(experiment)
    found = medians(contenders, 5)
    return {count: value / int(count) for count, value in found.items()}


def collect(experiment: Experiment) -> Callable[[], None]:
    """Return what collects one batch as BenchMARL's loop does, iteration after iteration."""
    iterator = iter(experiment.collector)

    def collect_batch() -> None:
        next(iterator)
        experiment.n_iters_performed += 1

    return collect_batch


def measure_smax(folder: Path, repeats: int) -> dict[str, float]:
    """(i): frames per second of SMAX at 32 environments; of each set all take turns."""
    copies, steps = 32, 25
    found = {}
    for label in BATTLES:
        contenders = smax_contenders(folder / label, label.split(), copies, steps)
        for who, value in medians(contenders, max(repeats // 8, 10)).items():
            found[f"{label}: {who}"] = copies * steps / (value / 1e3)
    return found


def smax_contenders(
    folder: Path, names: list[str], copies: int, steps: int
) -> dict[str, Callable[[], None]]:
    """Return what plays ``steps`` of the battles: JaxMARL's own step, ours, a collector.

    JaxMARL's is its jitted ``step`` with reset, as its own training loops call it, and the same
    with what we ask of XLA.
    """
    import jax

    from benchmarl_mkt.environments.battles.smax_battle import compiled

    envs = [SmaxEnv(name, copies, seed=0) for name in names]
    fields = [env.field.env for env in envs]
    keys = jax.random.split(jax.random.PRNGKey(0), copies)
    chosen = [actions(env, 9) for env in envs]
    for env in envs:
        env.reset()

    def jaxmarl(compiler: Callable) -> Callable[[], None]:
        raw_steps = [compiler(jax.vmap(field.step)) for field in fields]
        states = [jax.jit(jax.vmap(field.reset))(keys)[1] for field in fields]

        def play() -> None:
            for t in range(steps):
                for k, field in enumerate(fields):
                    own = chosen[k][t % 9]
                    named = {agent: own[:, i] for i, agent in enumerate(field.agents)}
                    states[k] = raw_steps[k](keys, states[k], named)[1]
            jax.block_until_ready(states)

        return play

    def ours() -> None:
        for t in range(steps):
            for env, own in zip(envs, chosen):
                env.step_leaves({("agents", "action"): torch.from_numpy(own[t % 9])})

    task = MultiTaskClass("smax", {"tasks": [f"smax/{n}" for n in names], "reward": "mean"})
    experiment = make_experiment(task, folder, False, copies, mixer="vdn")
    return {
        "JaxMARL": jaxmarl(jax.jit),
        "JaxMARL, XLA's options as ours": jaxmarl(compiled),
        "environment": ours,
        "collector": collect(experiment),
    }


def actions(env: SmaxEnv, count: int) -> list[Any]:
    """Random actions [B, N] int32 for ``count`` steps."""
    import numpy as np

    draw, shape = np.random.default_rng(0), (*env.batch_size, env.field.n_agents)
    return [draw.integers(0, env.field.n_actions, shape).astype(np.int32) for _ in range(count)]


def measure_replay(folder: Path, repeats: int) -> dict[str, float]:
    """(h): megabytes of replay per 1000 episodes against those of the data itself."""
    experiment = make_experiment(mpe(1), folder)
    fill(experiment)
    (buffer,) = experiment.replay_buffers[STUDENT].buffers.values()
    storage = buffer.storage._storage
    length = len(storage)
    kept = sum(tensor.untyped_storage().nbytes() for tensor in storage.values(True, True))
    with tempfile.TemporaryDirectory() as place:
        needed = dict(buffer[:].items())
        save_file({k: t.contiguous() for k, t in needed.items()}, Path(place) / "data")
        data = sum(tensor.nbytes for tensor in needed.values()) / len(buffer)
    scale = 1000 / 2**20
    return {"replay_mb": kept / length * scale, "data_mb": data * scale}


PARTS: dict[str, Callable[[Path, int], dict]] = {
    "updates": measure_updates,
    "phases": measure_phases,
    "collection": measure_collection,
    "epoch": measure_epoch,
    "growth": measure_growth,
    "envs": measure_envs,
    "agents": measure_agents,
    "entities": measure_entities,
    "learner": measure_learner,
    "protocol": measure_protocol,
    "smax": measure_smax,
    "replay": measure_replay,
}


def report(found: dict[str, Any]) -> str:
    """Return the tables as Markdown, ratios first."""
    u, epoch, growth = found["updates"], found["epoch"], found["growth"]
    ratio = {
        "MKT update / bare loop (target <= 1.15)": u["mkt_update"] / u["bare_update"],
        "stock QMIX update / MKT update (target >= 2)": u["stock_qmix_update"] / u["mkt_update"],
        "bare loop / its matrix products": u["bare_update"] / u["products"],
        "three-task epoch / stock QMIX update (target <= 2.4)": epoch["total"]
        / epoch["stock_qmix_update"],
        "games, forward and backward / three-task epoch (target >= 0.7)": (
            epoch["of which games"] + epoch["of which forward and backward"]
        )
        / epoch["total"],
        "growth K = 1 to 9, sequential (linear: 9)": growth["sequential"]["9"]
        / growth["sequential"]["1"],
        "milliseconds per added task beyond its share of K = 1 (target < 2)": (
            growth["sequential"]["9"] - 9 * growth["sequential"]["1"]
        )
        / 8,
        "growth K = 1 to 9, joint": growth["joint"]["9"] / growth["joint"]["1"],
        "replay / its data (target <= 1.25)": found["replay"]["replay_mb"]
        / found["replay"]["data_mb"],
    }
    for kind in ("forward", "update"):
        own, others = (
            found["entities"][f"{name}, {kind}"]
            for name in ("the paper's student", "entities, tokens of 32")
        )
        ratio[f"{kind} of the entity network / of the paper's student (target <= 5)"] = others / own
    learner = found["learner"]
    ratio["SMAX update / its matrix products, one thread"] = (
        learner["update, 1 threads"] / learner["products, 1 threads"]
    )
    ratio["SMAX update, one thread / two threads"] = (
        learner["update, 1 threads"] / learner["update, 2 threads"]
    )
    ratio["SMAX update, half of its steps idle / none, one thread"] = (
        learner["update, half idle, 1 threads"] / learner["update, 1 threads"]
    )
    for name in BATTLES:
        fps = {who: found["smax"][f"{name}: {who}"] for who in ("JaxMARL", "collector")}
        key = f"collector / JaxMARL's own steps, {name}, 32 environments (target >= 0.6)"
        ratio[key] = fps["collector"] / fps["JaxMARL"]
    lines = ["| ratio | |", "|---|---|", *(f"| {k} | {v:.2f} |" for k, v in ratio.items())]
    titles = {
        "updates": "Milliseconds per update",
        "phases": "Milliseconds of an MKT update through BenchMARL's loop",
        "collection": "Frames per second (all tasks together), 10 environments",
        "smax": "Frames per second of SMAX, 32 environments",
        "epoch": "Milliseconds per epoch of three tasks, 10 environments",
        "envs": "Milliseconds of collection per episode of three tasks, by environments",
        "agents": "Milliseconds per update, by agents of the team",
        "entities": "Milliseconds of networks on 2,048 steps of eight agents (3s5z)",
        "replay": "Megabytes per 1000 episodes",
        "learner": "Milliseconds per update of eight agents in SMAX, 2,050 steps",
        "protocol": "Projected hours of the paper's MPE protocol, one seed (EPyMARL: 6.7)",
    }
    for key, title in titles.items():
        lines += ["", f"| {title} | |", "|---|---|"]
        lines += [f"| {name} | {value:,.2f} |" for name, value in found[key].items()]
    lines += [
        "",
        "| Milliseconds of the updates of an epoch | K = 1 | K = 3 | K = 9 |",
        "|---|---|---|---|",
    ]
    for name, row in growth.items():
        lines.append(f"| {name} | {' | '.join(f'{v:.1f}' for v in row.values())} |")
    return "\n".join(lines)


def main() -> None:
    """Parse the command line, measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results/speed.json")
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, help="measure these alone; --out keeps the others"
    )
    arguments = parser.parse_args()
    quiet()
    torch.set_num_threads(1)
    keep_memory()
    benchmarl_mkt.register()
    found = json.loads(arguments.out.read_text()) if arguments.parts else {}
    with tempfile.TemporaryDirectory() as place, contextlib.redirect_stderr(io.StringIO()):
        for name in arguments.parts or PARTS:
            (Path(place) / name).mkdir()
            found[name] = PARTS[name](Path(place) / name, arguments.repeats)
    text = report(found)
    sys.stdout.write(text + "\n")
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    arguments.out.with_suffix(".md").write_text(text + "\n")


if __name__ == "__main__":
    main()
