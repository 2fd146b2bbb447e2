from copy import deepcopy

import numpy as np
import pytest
import torch
from tensordict import TensorDict
from tensordict.nn import TensorDictModule, TensorDictSequential
from torch import nn
from torchrl.modules import QValueModule
from torchrl.objectives import HardUpdate, SoftUpdate, ValueEstimators
from torchrl.objectives.multiagent import QMixerLoss

from benchmarl_mkt.models import IndependentMixer, MultiTaskMixer, StudentNetwork, VdnMixer
from benchmarl_mkt.objectives import MktLoss, distillation_kl
from benchmarl_mkt.objectives.active import places_of, rows, spread, worthwhile
from tests.helpers import make_agents, random_segments

AGENTS, SIZE, ACTIONS, STATE, GAMMA = 2, 5, 4, 3, 0.9
SIZES = {"one": (AGENTS, SIZE, ACTIONS), "two": (AGENTS, SIZE + 2, ACTIONS - 1)}
STATES = {"one": STATE, "two": STATE + 1}


def make_student(tasks=("one",), mixer="qmix") -> StudentNetwork:
    agents = make_agents({task: SIZES[task] for task in tasks})
    if mixer != "qmix":
        return StudentNetwork(agents, VdnMixer() if mixer == "vdn" else IndependentMixer())
    states = {task: STATES[task] for task in tasks}
    return StudentNetwork(agents, MultiTaskMixer(states, AGENTS, 6, 4, 7))


def make_batch(*tasks: str, **sizes) -> TensorDict:
    segments = {}
    for task in tasks:
        agents, size, actions = SIZES[task]
        segments[task] = random_segments(agents, size, actions, STATES[task], **sizes)
    return TensorDict(segments, batch_size=next(iter(segments.values())).batch_size)


def randomise_target(loss: MktLoss, like: nn.Module) -> None:
    """Give the target network the parameters of another student."""
    loss.target_network_params.data.update_(TensorDict.from_module(like).data)


class LocalValues(nn.Module):
    """The agents of task "one" alone, for TorchRL."""

    def __init__(self, student: StudentNetwork):
        super().__init__()
        self.embeddings, self.trunk, self.heads = student.embeddings, student.trunk, student.heads
        self.activate = student.activate

    forward = StudentNetwork.forward


class Bound(nn.Module):
    """A module of several tasks, bound to task "one"."""

    def __init__(self, module: nn.Module, mixes: bool):
        super().__init__()
        self.module, self.mixes = module, mixes

    def forward(self, *inputs):
        if self.mixes:
            values, state = inputs
            return self.module("one", values.squeeze(-1), state).unsqueeze(-1)
        return self.module({"one": inputs[0]})["one"]


def torchrl_loss(student: StudentNetwork) -> QMixerLoss:
    """TorchRL's QMIX loss around the very same networks."""
    agents = TensorDictSequential(
        TensorDictModule(
            Bound(LocalValues(student), False),
            in_keys=[("agents", "observation")],
            out_keys=[("agents", "action_value")],
        ),
        QValueModule(
            action_value_key=("agents", "action_value"),
            action_mask_key=("agents", "action_mask"),
            out_keys=[
                ("agents", "action"),
                ("agents", "action_value"),
                ("agents", "chosen_action_value"),
            ],
            action_space="categorical",
        ),
    )
    mixer = TensorDictModule(
        Bound(student.mixer, True),
        in_keys=[("agents", "chosen_action_value"), "state"],
        out_keys=["chosen_action_value"],
    )
    loss = QMixerLoss(agents, mixer, action_space="categorical", delay_value=True)
    loss.make_value_estimator(ValueEstimators.TD0, gamma=GAMMA)
    return loss


def as_transitions(segments: TensorDict) -> TensorDict:
    """[B, T+1] entries as B * T transitions for TorchRL."""

    def rows(name, part):
        return segments[name][:, part].flatten(0, 1)

    now, later = slice(None, -1), slice(1, None)
    content = {}
    for where, part in ((content, now), (content.setdefault("next", {}), later)):
        where["agents"] = {key: rows(key, part) for key in ("observation", "action_mask")}
        where["state"] = rows("state", part)
    content["agents"]["action"] = segments["action"].flatten(0, 1)
    content["next"]["reward"] = segments["reward"].flatten().unsqueeze(-1)
    terminated = segments["terminated"].flatten().unsqueeze(-1)
    content["next"].update({"terminated": terminated, "done": terminated.clone()})
    return TensorDict(content, batch_size=[terminated.shape[0]])


@pytest.mark.parametrize("mixer", ["qmix", "vdn"])
@pytest.mark.parametrize("seed", range(3))
def test_td_and_gradients_equal_torchrl(mixer, seed):
    torch.manual_seed(seed)
    student, target = make_student(mixer=mixer), make_student(mixer=mixer)
    reference = torchrl_loss(deepcopy(student))
    other = torchrl_loss(deepcopy(target))
    for part in ("local_value_network", "mixer_network"):
        getattr(reference, f"target_{part}_params").data.update_(
            getattr(other, f"{part}_params").data
        )
    ours = MktLoss(deepcopy(student), gamma=GAMMA, double_q=False, standardise=False)
    randomise_target(ours, target)
    batch = make_batch("one", batch=6, steps=5)

    expected = reference(as_transitions(batch["one"]))["loss"]
    result = ours(batch)["loss"]
    torch.testing.assert_close(result, expected)
    untrained = MktLoss(deepcopy(student), gamma=GAMMA, double_q=False, standardise=False)
    assert not torch.isclose(untrained(batch)["loss"], expected)  # the target network matters

    expected.backward()
    result.backward()
    found = ours.network_params.flatten_keys(".")
    theirs = {
        name.removeprefix("module.0.module.module."): parameter
        for name, parameter in reference.local_value_network_params.flatten_keys(".").items()
    }
    theirs |= {
        name.replace("module.module.", "mixer."): parameter
        for name, parameter in reference.mixer_network_params.flatten_keys(".").items()
    }
    assert set(theirs) == set(found.keys())
    for name, parameter in found.items():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, msg=name)


def hand_td(student, target, segments, double_q, standardise) -> float:
    """Eq. 5 step by step in plain Python."""
    errors, rewards = [], segments["reward"].numpy().astype(np.float64)
    active, known = segments["active"].numpy(), segments["bootstrap"].numpy()
    if standardise:
        chosen = rewards[active]
        rewards = (rewards - chosen.mean()) / (chosen.std() + 1e-5)
    for b, t in np.ndindex(*rewards.shape):
        if not (active[b, t] and known[b, t]):
            continue
        observation, following = segments["observation"][b, t], segments["observation"][b, t + 1]
        taken = torch.stack(
            [q[a] for q, a in zip(student({"one": observation})["one"], segments["action"][b, t])]
        )
        total = student.mixer("one", taken, segments["state"][b, t])
        chooser = (
            student({"one": following})["one"] if double_q else target({"one": following})["one"]
        )
        best = [
            max(mask.nonzero().flatten().tolist(), key=lambda a, q=q: q[a].item())
            for q, mask in zip(chooser, segments["action_mask"][b, t + 1])
        ]
        ahead = torch.stack([q[a] for q, a in zip(target({"one": following})["one"], best)])
        value = target.mixer("one", ahead, segments["state"][b, t + 1]).item()
        goes_on = not segments["terminated"][b, t]
        errors.append((total.item() - rewards[b, t] - GAMMA * goes_on * value) ** 2)
    return float(np.mean(errors))


@pytest.mark.parametrize("double_q", [False, True])
@pytest.mark.parametrize("standardise", [False, True])
def test_td_by_hand_on_active_steps_with_known_next_observation(double_q, standardise):
    student, target = make_student(), make_student()
    batch = make_batch("one")
    batch["one", "active"][0, 2:] = False
    batch["one", "bootstrap"][1, 1] = False
    loss = MktLoss(deepcopy(student), GAMMA, double_q=double_q, standardise=standardise)
    randomise_target(loss, target)
    with torch.no_grad():
        expected = hand_td(student, target, batch["one"], double_q, standardise)
    assert loss(batch)["td"].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("hysteresis", [1.0, 0.3])
def test_independent_learners_have_an_error_each(hysteresis):
    """Without mixing every agent compares its own value with the team's reward and its own next."""
    agents = [make_agents({"one": SIZES["one"]}) for _ in range(2)]
    student, target = (StudentNetwork(own, IndependentMixer()) for own in agents)
    batch = make_batch("one")
    batch["one", "active"][0, 2:] = False
    loss = MktLoss(deepcopy(student), GAMMA, standardise=False, hysteresis=hysteresis)
    randomise_target(loss, target)
    segments, total, count = batch["one"], 0.0, 0
    with torch.no_grad():
        q, q_next = (net({"one": segments["observation"]})["one"] for net in (student, target))
    for b, t in segments["active"].nonzero().tolist():
        for agent in range(AGENTS):
            mask = segments["action_mask"][b, t + 1, agent]
            allowed = mask.nonzero().flatten().tolist()
            best = max(allowed, key=lambda a: q[b, t + 1, agent, a].item())
            ahead = 0.0 if segments["terminated"][b, t] else q_next[b, t + 1, agent, best]
            taken = q[b, t, agent, segments["action"][b, t, agent]]
            error = float(segments["reward"][b, t] + GAMMA * ahead - taken)
            total += error**2 * (hysteresis if error < 0 else 1.0)
            count += 1
    assert loss(batch)["td"].item() == pytest.approx(total / count, rel=1e-4)


def test_double_q_uses_the_online_argmax():
    student, target = make_student(), make_student()
    batch = make_batch("one")
    values = []
    for double_q in (False, True):
        loss = MktLoss(deepcopy(student), GAMMA, double_q=double_q)
        randomise_target(loss, target)
        values.append(loss(batch)["td"].item())
    assert values[0] != pytest.approx(values[1], rel=1e-4)


@pytest.mark.parametrize("share", [False, True])
def test_kl_term_by_hand(share):
    student = make_student(("one", "two"))
    batch = make_batch("one", "two")
    batch["one", "active"][0, 1:] = False
    temperature = {"one": 0.5, "two": 2.0}
    loss = MktLoss(deepcopy(student), temperature=temperature, share_temperature=share)
    loss.alpha.fill_(0.0)
    loss(batch)
    for task, t in temperature.items():
        segments = batch[task]
        divergence = distillation_kl(
            segments["teacher_values"],
            student({task: segments["observation"][:, :-1]})[task],
            segments["action_mask"][:, :-1],
            t,
            t if share else 1.0,
        )
        expected = divergence[segments["active"]].mean()
        torch.testing.assert_close(loss.last_terms[task]["kl"], expected.detach())


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_loss_is_the_weighted_sum_over_tasks(alpha):
    loss = MktLoss(make_student(("one", "two")), temperature=0.5)
    loss.alpha.fill_(alpha)
    result = loss(make_batch("one", "two"))
    expected = sum(
        (1 - alpha) * terms["kl"] + alpha * terms["td"] for terms in loss.last_terms.values()
    )
    torch.testing.assert_close(result["loss"].detach(), expected)
    for name in ("kl", "td", "q_tot"):
        mean = torch.stack([terms[name] for terms in loss.last_terms.values()]).mean()
        torch.testing.assert_close(result[name], mean)
        assert not result[name].requires_grad
    assert result["alpha"].item() == alpha
    assert set(result.keys()) == set(loss.out_keys)


def test_distillation_alone_needs_no_td_term():
    """With a = 0 the loss and all gradients are those of the whole loss, number by number."""
    student, batch = make_student(("one", "two")), make_batch("one", "two")
    whole, alone = MktLoss(deepcopy(student)), MktLoss(deepcopy(student), td=False)
    for loss in (whole, alone):
        loss.alpha.fill_(0.0)
    batch["one", "reward"].fill_(torch.nan)  # nobody looks at it
    values = alone(batch)
    assert set(values.keys()) == set(alone.out_keys) == {"loss", "kl", "alpha"}
    batch["one", "reward"].fill_(1.0)
    assert torch.equal(values["loss"], whole(batch)["loss"])
    values["loss"].backward()
    whole(batch)["loss"].backward()
    others = whole.network_params.flatten_keys(".")
    for name, parameter in alone.network_params.flatten_keys(".").items():
        if name.startswith("mixer."):
            assert parameter.grad is None
            assert not others[name].grad.any()
        else:
            assert torch.equal(parameter.grad, others[name].grad), name


def test_joint_gradient_is_the_sum_of_the_tasks_gradients():
    student = make_student(("one", "two"))
    batch = make_batch("one", "two")
    losses = [MktLoss(deepcopy(student)) for _ in range(3)]
    for loss in losses:
        loss.alpha.fill_(0.5)
    losses[0](batch)["loss"].backward()
    losses[1](batch.select("one"))["loss"].backward()
    losses[2](batch.select("two"))["loss"].backward()
    joint, first, second = (loss.network_params.flatten_keys(".") for loss in losses)
    for name, parameter in joint.items():
        parts = [p[name].grad for p in (first, second) if p[name].grad is not None]
        torch.testing.assert_close(parameter.grad, sum(parts), msg=name)


def test_a_tasks_loss_leaves_the_other_tasks_own_layers_without_gradient():
    loss = MktLoss(make_student(("one", "two")))
    loss.alpha.fill_(0.5)
    loss(make_batch("one"))["loss"].backward()
    for name, parameter in loss.network_params.flatten_keys(".").items():
        assert (parameter.grad is None) == (".two." in name), name


def test_the_target_network_has_no_gradient_and_starts_equal():
    loss = MktLoss(make_student())
    for name, parameter in loss.network_params.flatten_keys(".").items():
        assert torch.equal(parameter, loss.target_network_params.flatten_keys(".")[name])
    before = loss.target_network_params.data.clone()
    loss(make_batch("one"))["loss"].backward()
    assert all(p.grad is None for p in loss.target_network_params.values(True, True))
    assert (before == loss.target_network_params.data).all()


def test_teacher_values_may_be_missing_where_td_is_everything():
    batch = make_batch("one")
    with_teacher = MktLoss(student := make_student())
    without = MktLoss(deepcopy(student))
    expected = with_teacher(batch)["td"]
    result = without(batch.exclude(("one", "teacher_values")))
    torch.testing.assert_close(result["td"], expected)
    assert result["kl"].item() == 0.0


def test_inactive_steps_change_nothing():
    batch = make_batch("one")
    batch["one", "active"][1, 2:] = False
    loss = MktLoss(make_student())
    loss.alpha.fill_(0.5)
    before = loss(batch)["loss"].item()
    batch["one", "reward"][1, 2:] = 1e3
    batch["one", "teacher_values"][1, 2:] = torch.randn(AGENTS, ACTIONS) * 50
    batch["one", "observation"][1, 4:] = 7.0
    assert loss(batch)["loss"].item() == pytest.approx(before, rel=1e-5)


@pytest.mark.parametrize("td", [True, False])
@pytest.mark.parametrize("mixer", ["qmix", "vdn", "none"])
def test_idle_steps_are_left_out_and_nothing_else(mixer, td, monkeypatch):
    student = make_student(("one", "two"), mixer)
    loss, whole = (MktLoss(deepcopy(student), td=td, lmbda=0.7) for _ in range(2))
    loss.alpha.fill_(0.4)
    whole.alpha.fill_(0.4)
    batch = make_batch("one", "two", batch=5, steps=6)
    for task in ("one", "two"):  # all of an episode, parts of others, and two in one segment
        active = batch[task, "active"]
        active[0], active[1, 2:], active[2, 1:4], active[3, :3] = False, False, False, False
        batch[task, "bootstrap"] = torch.rand(active.shape) < 0.8
    with monkeypatch.context() as patch:
        for module in ("mkt", "active"):
            patch.setattr(f"benchmarl_mkt.objectives.{module}.worthwhile", lambda active: False)
        expected = whole(batch)
        expected["loss"].backward()
    for task in ("one", "two"):  # gradients of what is read would not be finite
        active = batch[task, "active"]
        read = nn.functional.pad(active, (0, 1))
        if td:
            read |= nn.functional.pad(active, (1, 0))
        batch[task, "observation"][~read] = torch.nan
        if mixer == "qmix":
            batch[task, "state"][~read] = torch.nan
    result = loss(batch)
    result["loss"].backward()
    torch.testing.assert_close(result, expected)
    torch.testing.assert_close(gradients(loss), gradients(whole))


@pytest.mark.parametrize("seed", range(20))
def test_steps_go_back_where_they_were_taken(seed):
    torch.manual_seed(seed)
    batch, entries = torch.Size((seed % 4 + 1, 5)), torch.randn(seed % 4 + 1, 5, 2, 3)
    mask = torch.rand(batch) < 0.5
    places = places_of(mask)
    torch.testing.assert_close(rows(entries, places), entries[mask])
    back = spread(rows(entries, places), places, batch)
    assert torch.equal(back, torch.where(mask[..., None, None], entries, 0.0))
    assert rows(entries, None) is entries
    assert spread(entries, None, batch) is entries


@pytest.mark.parametrize(
    ("active", "idle", "expected"), [(6, 0, False), (5, 1, False), (4, 2, True), (0, 6, False)]
)
def test_a_third_must_idle_before_steps_are_left_out(active, idle, expected):
    assert worthwhile(torch.tensor([[True] * active + [False] * idle])) is expected


def test_a_minibatch_of_idle_steps_alone_teaches_nothing():
    batch = make_batch("one")
    batch["one", "active"][:] = False
    loss = MktLoss(make_student())
    loss(batch)["loss"].backward()
    assert not any(gradient.any() for gradient in gradients(loss).values())
    assert len(gradients(loss)) > 4


def gradients(loss: MktLoss) -> dict[str, torch.Tensor]:
    parameters = loss.network_params.flatten_keys(".").items()
    return {name: parameter.grad for name, parameter in parameters if parameter.grad is not None}


def test_keys_can_be_renamed():
    student, batch = make_student(), make_batch("one")
    expected = MktLoss(deepcopy(student))(batch)["loss"]
    loss = MktLoss(deepcopy(student))
    loss.set_keys(reward="team_reward")
    assert ("one", "team_reward") in loss.in_keys
    batch["one", "team_reward"] = batch["one", "reward"]
    batch["one", "reward"] = batch["one", "reward"] * 100
    torch.testing.assert_close(loss(batch)["loss"], expected)


def test_loaded_and_converted_parameters_are_the_ones_in_use():
    batch = make_batch("one")
    first, second = MktLoss(make_student()), MktLoss(make_student())
    randomise_target(first, make_student())
    expected = first(batch)["loss"].item()
    assert second(batch)["loss"].item() != pytest.approx(expected, rel=1e-4)
    second.load_state_dict(first.state_dict())
    assert second(batch)["loss"].item() == pytest.approx(expected, rel=1e-6)
    double = second.to(torch.float64)
    floats = batch.apply(lambda x: x.double() if x.is_floating_point() else x)
    result = double(floats)["loss"]
    assert result.dtype == torch.float64
    assert result.item() == pytest.approx(expected, rel=1e-4)
    result.backward()
    assert double.network_params["heads", "one", "weight"].grad is not None


def test_updaters_change_the_target_in_use():
    batch = make_batch("one")
    loss = MktLoss(make_student())
    randomise_target(loss, make_student())
    before = loss(batch)["td"].item()
    HardUpdate(loss, value_network_update_interval=1).step()
    SoftUpdate(loss, eps=0.0).step()
    fresh = MktLoss(make_student())
    for name, parameter in fresh.network_params.data.flatten_keys(".").items():
        parameter.copy_(loss.network_params.data.flatten_keys(".")[name])
    fresh.target_network_params.data.update_(fresh.network_params.data)
    assert loss(batch)["td"].item() == pytest.approx(fresh(batch)["td"].item(), rel=1e-5)
    assert loss(batch)["td"].item() != pytest.approx(before, rel=1e-4)


@pytest.mark.parametrize("temperature", [0.0, -1.0, {"one": 0.0}, float("nan")])
def test_temperature_must_be_positive(temperature):
    with pytest.raises(ValueError, match=r"temperature.*'one'.*> 0"):
        MktLoss(make_student(), temperature=temperature)


def test_descends_on_one_batch():
    batch = make_batch("one")
    loss = MktLoss(make_student(), temperature=0.3)
    loss.alpha.fill_(0.5)
    optimizer = torch.optim.Adam(list(loss.parameters()), lr=0.01)
    history = []
    for _ in range(60):
        value = loss(batch)["loss"]
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        history.append(value.item())
    assert history[-1] < 0.6 * history[0]


def test_a_state_that_nobody_has_is_told():
    student = StudentNetwork(
        make_agents({"one": (2, 4, 3)}), MultiTaskMixer({"one": 8}, 2, 6, 4, 7)
    )
    sample = TensorDict({"one": TensorDict({"observation": torch.randn(3, 5, 2, 4)}, [3])}, [3])
    with pytest.raises(ValueError, match=r"^state: task 'one' has none; give state_lengths"):
        MktLoss(student).terms(sample, ["one"])
