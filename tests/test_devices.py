"""What is computed stays on the device of its inputs.

The tensors are torch's ``meta`` ones, on a device that is never the default: a tensor that forgets
to ask for its inputs' device is made on the CPU, and told. No GPU is needed.
"""

import pytest
import torch
from tensordict import TensorDict
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torchrl.envs.utils import ExplorationType, set_exploration_type

from benchmarl_mkt.models import EpsilonGreedyPolicy, MultiTaskModelConfig, StudentNetwork
from benchmarl_mkt.models.mixers import MIXERS, Entities, make_mixer
from benchmarl_mkt.objectives import MktLoss
from benchmarl_mkt.replay import MultiTaskReplayBuffer, make_segments
from benchmarl_mkt.teams.evaluation import greedy_policy, random_policy
from benchmarl_mkt.teams.folder import TeamSpecs
from benchmarl_mkt.teams.frozen import FrozenTeam, build_model
from tests.helpers import make_agents, random_segments, small_model
from tests.models.test_entity import battle, models, sizes

N, D, A, S, BATCH, STEPS = 2, 5, 4, 3, 3, 4
SIZES = {"one": (N, D, A), "two": (N, D + 2, A - 1)}


class OnMeta(TorchDispatchMode):
    """Refuses every tensor that is made elsewhere."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor) and leaf.device.type != "meta":
                raise AssertionError(f"{func} made a tensor on {leaf.device}")
        return out


def test_a_tensor_on_the_default_device_is_noticed():
    with OnMeta(), pytest.raises(AssertionError, match="made a tensor on cpu"):
        torch.zeros(3)


def segments() -> TensorDict:
    parts = {task: random_segments(*sizes, S, BATCH, STEPS) for task, sizes in SIZES.items()}
    return TensorDict(parts, [BATCH]).to("meta")


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("settings", [
    {},
    {"standardise": False, "lmbda": 0.7, "hysteresis": 0.5, "double_q": False},
    {"temperature": 0.1, "share_temperature": True, "state_lengths": {"one": 2, "two": 1}},
])  # fmt: skip
def test_the_loss_and_its_gradient(mixer, norm, settings):
    states = {t: N * n for t, n in settings.get("state_lengths", {}).items()} or {
        task: S for task in SIZES
    }
    teams = {task: sizes[0] for task, sizes in SIZES.items()}
    network = StudentNetwork(
        make_agents(SIZES, small_model(layer_norm=norm)),
        make_mixer(
            mixer, states, teams, mixing_embed_dim=6, state_embed_dim=4, hypernet_embed_dim=7,
            device="cpu",
        ),
    )  # fmt: skip
    loss, batch = MktLoss(network.to("meta"), **settings), segments()
    loss.alpha = loss.alpha.to("meta")
    with OnMeta():
        loss(batch)["loss"].backward()
    grads = [parameter.grad for parameter in loss.network_params.values(True, True)]
    assert all(grad is not None and grad.is_meta for grad in grads)


@pytest.mark.parametrize("exploration", [ExplorationType.RANDOM, ExplorationType.DETERMINISTIC])
def test_the_policy(exploration):
    policy = EpsilonGreedyPolicy(make_agents(SIZES), 1.0, 0.1, 100).to("meta")
    data = TensorDict(
        {task: part.select("observation", "action_mask") for task, part in segments().items()}
    )
    with OnMeta(), set_exploration_type(exploration):
        policy(data)
        policy.step(10)
    assert data["one", "action"].shape == (BATCH, STEPS + 1, N)


def test_networks_over_entities():
    """Agents and mixer, in one product for all entities: chunks are a CPU's."""
    armies = {"one": (3, 2), "two": (5, 4)}
    layouts = {task: battle(*army) for task, army in armies.items()}
    agents = models({t: (layouts[t], army[0], *sizes(*army)) for t, army in armies.items()})
    states = {task: sizes(*army)[0] for task, army in armies.items()}
    teams = {task: allies for task, (allies, _) in armies.items()}
    mixer = make_mixer(
        "vdn_s", states, teams, mixing_embed_dim=6, state_embed_dim=4, hypernet_embed_dim=7,
        device="cpu", entities=Entities({task: (layouts[task], 1) for task in armies}, 5),
    )  # fmt: skip
    parts = {t: random_segments(teams[t], *sizes(*armies[t]), states[t]) for t in armies}
    batch = TensorDict(parts, [BATCH]).to("meta")
    loss = MktLoss(StudentNetwork(agents, mixer).to("meta"), standardise=False)
    loss.alpha = loss.alpha.to("meta")
    policy = EpsilonGreedyPolicy(agents, 1.0, 0.1, 100).to("meta")
    seen = TensorDict({t: batch[t].select("observation", "action_mask") for t in armies})
    with OnMeta():
        loss(batch)["loss"].backward()
        policy(seen)
    assert all(p.grad.is_meta for p in loss.network_params.values(True, True))
    assert seen["two", "action"].shape == (BATCH, STEPS + 1, 5)


@pytest.mark.parametrize("update", ["sequential", "joint"])
def test_the_replay(update):
    replay = MultiTaskReplayBuffer(list(SIZES), 9, 4, update, device="meta")
    replay.extend(segments())
    with OnMeta():
        sample = replay.sample()
    assert sample["one", "reward"].shape == (4, STEPS)


def test_segments_of_a_collected_batch():
    flags, per_agent = torch.zeros(BATCH, STEPS, 1, dtype=torch.bool), (BATCH, STEPS, N, 1)
    group = {"observation": torch.zeros(BATCH, STEPS, N, D)}
    group["action_mask"] = torch.ones(BATCH, STEPS, N, A, dtype=torch.bool)
    ends = {key: torch.zeros(per_agent, dtype=torch.bool) for key in ("done", "terminated")}
    after = {"one": {**group, "reward": torch.zeros(per_agent), **ends}, "done": flags}
    after |= {"state": {"one": torch.zeros(BATCH, STEPS, S)}, "is_init": flags}
    group["teacher_values"] = torch.zeros(BATCH, STEPS, N, A)
    group["action"] = torch.zeros(BATCH, STEPS, N, dtype=torch.long)
    entries = {"one": group, "active": {"one": ~flags}, "state": after["state"], "is_init": flags}
    batch = TensorDict({**entries, "next": after}, [BATCH, STEPS]).to("meta")
    with OnMeta():
        cut = make_segments(batch, ["one"])
    assert cut["one", "observation"].shape == (BATCH, STEPS + 1, N, D)


def test_a_frozen_team_and_random_play():
    config, specs = MultiTaskModelConfig(), TeamSpecs(N, D, A)
    metadata = {"kind": "values", "specs": vars(specs)}
    team = FrozenTeam(build_model(config, specs, "values"), config, metadata).to("meta")
    observation = torch.zeros(BATCH, N, D, device="meta")
    mask = torch.ones(BATCH, N, A, dtype=torch.bool, device="meta")
    begins = torch.ones(BATCH, 1, dtype=torch.bool, device="meta")
    seen = TensorDict({"observation": observation, "action_mask": mask})
    with OnMeta():
        for policy in (greedy_policy({"one": team}), random_policy(["one"])):
            data = TensorDict({"one": seen.clone(False), "is_init": begins})
            assert policy(policy(data))["one", "action"].is_meta
