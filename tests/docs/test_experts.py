"""What the page on experts imports acts as the networks do that were exported."""

import functools
import shlex

import pytest
import torch
from torch import Tensor

from benchmarl_mkt.teams import load_teacher
from benchmarl_mkt.teams.evaluation import play
from tests.docs.blocks import blocks, call, commands, run_python
from tests.helpers import REPOSITORY, task_set

PAGE = REPOSITORY / "docs" / "experts.md"
EPISODES = 40  # more than are played at a time


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The names that the page's Python blocks define, in a folder with the files they write."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    namespace, folder = {"__name__": "page"}, tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        torch.manual_seed(0)
        for block in blocks(PAGE):
            if block.language == "python":
                run_python(block.text, namespace, PAGE, block.line)
    return namespace, folder


def imported(file: str, folder, monkeypatch):
    """The team that the page's command makes of a file."""
    monkeypatch.chdir(folder)
    (words,) = (
        words
        for block in blocks(PAGE)
        if block.language == "console"
        for words in commands(block.text)
        if words[1:4] == ["teachers", "import", file]
    )
    assert call(words[1:]) == 0, shlex.join(words)
    return load_teacher(folder / words[-1])


def compare(team, task: str, size: int, hidden: int, agent) -> int:
    """Play whole episodes with a team; return in how many steps ``agent`` has done the same.

    Args:
        team: the team.
        task: its task.
        size: numbers of an observation that the agent reads.
        hidden: size of its state.
        agent: maps rows [B, size] and states [B, hidden] to values [B, A] and new states.
    """
    name, states, own, count = task.split("/")[-1], {}, torch.zeros(0, hidden), 0

    def policy(data):
        nonlocal states, own, count
        observation, mask = (data.get((name, key)) for key in ("observation", "action_mask"))
        begins = data.get("is_init")
        if begins.all():
            own = observation.new_zeros(observation.shape[:-1].numel(), hidden)
        values, own = agent(observation[..., :size].flatten(0, 1), own)
        out = team.act(observation, mask, {**states, "is_init": begins})
        states = {"state": out["next", "state"]}
        torch.testing.assert_close(out[team.out_key].flatten(0, 1), values, rtol=1e-4, atol=1e-5)
        greedy = values.view(mask.shape).masked_fill(~mask, -torch.inf).argmax(-1)
        assert torch.equal(out["action"], greedy)
        count += 1
        return data.set((name, "action"), greedy)

    play(task_set(task), policy, EPISODES, 0)
    return count


def test_epymarls_agent(page, monkeypatch):
    namespace, folder = page
    team = imported("push.onnx", folder, monkeypatch)
    assert team.state_shapes == {"state": (2, 128)}
    assert team.kind == "values"
    with torch.no_grad():
        assert compare(team, "mpe/simple_push", 21, 128, namespace["agent"]) == 50


def test_jaxmarls_actor(page, monkeypatch):
    """Written by JaxMARL, applied by flax, in its own battles."""
    jax = pytest.importorskip("jax")
    pytest.importorskip("jaxmarl")
    from flax import linen
    from jaxmarl.wrappers.baselines import save_params

    class ScannedRNN(linen.Module):
        @functools.partial(
            linen.scan, variable_broadcast="params", in_axes=0, out_axes=0,
            split_rngs={"params": False},
        )  # fmt: skip
        @linen.compact
        def __call__(self, state, x):
            return linen.GRUCell(features=x.shape[-1])(state, x)

    class ActorRNN(linen.Module):
        @linen.compact
        def __call__(self, state, observation):
            state, x = ScannedRNN()(state, linen.relu(linen.Dense(64)(observation)))
            x = linen.relu(linen.Dense(64)(x))
            return linen.Dense(10)(x), state

    namespace, folder = page
    network, numbers = ActorRNN(), jax.random.PRNGKey(0)
    params = network.init(numbers, jax.numpy.ones((3, 64)), jax.numpy.ones((1, 3, 127)))
    params = jax.tree.map(lambda leaf: leaf + jax.random.normal(numbers, leaf.shape) / 8, params)
    save_params(params, folder / "actor.safetensors")
    actor = namespace["Actor"](namespace["load_file"](folder / "actor.safetensors"))
    namespace["write_onnx"](actor, 127, 64, "logits", folder / "battle.onnx")

    step = jax.jit(network.apply)

    def agent(rows: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        logits, new = step(params, state.numpy(), rows.numpy()[None])
        return torch.from_dlpack(logits[0]).clone(), torch.from_dlpack(new).clone()

    team = imported("battle.onnx", folder, monkeypatch)
    assert team.kind == "logits"
    assert compare(team, "smax/2s3z", 127, 64, agent) > 30
