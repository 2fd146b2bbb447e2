import itertools
from collections import deque

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tensordict import TensorDict

from benchmarl_mkt.models import MultiTaskMixer, StudentNetwork
from benchmarl_mkt.objectives import MktLoss
from benchmarl_mkt.replay import MultiTaskReplayBuffer, make_segments
from tests.helpers import SPEAKER, make_agents, task_set
from tests.toys import toy

TASKS = ["a", "b"]


def collect(*tasks, steps: int, copies: int = 2):
    """A batch [B, T] as a collector gives it: episodes follow each other."""
    env = task_set(*tasks).get_env_fun(copies, False, 0, "cpu")()
    return env.rollout(steps, break_when_any_done=False)


def test_segments_hold_one_observation_more_than_steps():
    batch = collect(toy("a", length=3, masked=True, state=True), toy("b", length=3), steps=5)
    segments = make_segments(batch, TASKS)
    assert "state" not in segments["b"].keys()  # it is in the observations
    assert "state" not in make_segments(batch, TASKS, states=False)["a"].keys()
    assert segments.batch_size == (2,)
    for task in TASKS:
        segment = segments[task]
        for key, source in (
            ("observation", (task, "observation")),
            ("action_mask", (task, "action_mask")),
            *([("state", ("state", "a"))] if task == "a" else []),
        ):
            assert segment[key].shape[1] == 6
            assert torch.equal(segment[key][:, :5], batch[source])
            assert torch.equal(segment[key][:, 5], batch["next"][source][:, 4])
        assert torch.equal(segment["action"], batch[task, "action"])
        reward = batch["next", task, "reward"]
        assert torch.equal(segment["reward"], reward[..., 0, 0])
        assert torch.equal(segment["active"], batch["active", task].squeeze(-1))
        assert segment["terminated"].tolist() == [[False, False, True, False, False]] * 2
        assert segment["bootstrap"].all()
        assert "teacher_values" not in segment.keys()
        assert "is_init" not in segment.keys()


def test_idle_steps_are_inactive():
    batch = collect(toy("a", length=2), toy("b", length=4), steps=8)
    segments = make_segments(batch, TASKS)
    assert segments["a", "active"].tolist() == [[True, True, False, False] * 2] * 2
    assert segments["b", "active"].all()
    assert (segments["a", "reward"][~segments["a", "active"]] == 0).all()


@pytest.mark.parametrize(
    ("terminal", "length", "steps", "expected"),
    [
        (False, 3, 7, [1, 1, 0, 1, 1, 0, 1]),  # two rounds end inside the segment
        (False, 3, 6, [1, 1, 0, 1, 1, 1]),  # the second ends at its last step: observation known
        (True, 3, 7, [1] * 7),  # a terminal step needs no next observation
        (False, 9, 7, [1] * 7),
    ],
)
def test_bootstrap_is_false_exactly_where_a_truncated_round_ends_inside(
    terminal, length, steps, expected
):
    batch = collect(toy("a", length=length, terminal=terminal), steps=steps)
    segments = make_segments(batch, ["a"])
    assert segments["a", "bootstrap"].int().tolist() == [expected] * 2
    known = segments["a", "bootstrap"] & ~segments["a", "terminated"]
    # Wherever TD bootstraps, the next observation is the one the environment returned.
    returned = batch["next", "a", "observation"]
    assert torch.equal(segments["a", "observation"][:, 1:][known], returned[known])
    if not known.all():
        assert not torch.equal(segments["a", "observation"][:, 1:], returned)


def test_a_truncated_task_keeps_its_last_observation_while_it_idles():
    """Truncated at step 2 of a round of 4: the idle observation after it is its own last one."""
    batch = collect(toy("a", length=2, terminal=False), toy("b", length=4), steps=6)
    segment = make_segments(batch, TASKS)["a"]
    assert not segment["terminated"].any()
    assert segment["bootstrap"][0, 1]
    assert torch.equal(segment["observation"][:, 2], batch["next", "a", "observation"][:, 1])
    # Where the round ends the next observation is lost; that step is idle for this task.
    assert segment["bootstrap"].int()[0].tolist() == [1, 1, 1, 0, 1, 1]
    assert not segment["active"][:, 3].any()


def test_extras_are_carried():
    batch = collect(toy("a", length=3), steps=5)
    batch["a", "teacher_values"] = torch.randn(2, 5, 2, 3)
    batch["is_init"] = torch.zeros(2, 5, 1, dtype=torch.bool)
    batch["is_init"][:, 3] = True
    batch["next", "is_init"] = torch.zeros(2, 5, 1, dtype=torch.bool)
    segment = make_segments(batch, ["a"])["a"]
    assert torch.equal(segment["teacher_values"], batch["a", "teacher_values"])
    # A recurrent student starts every segment afresh.
    assert segment["is_init"][0].flatten().tolist() == [True, False, False, True, False, False]


# ---- buffers ----


def numbered(*numbers: int) -> TensorDict:
    """Segments whose content is a number; task b's is its negative."""
    values = torch.tensor(numbers, dtype=torch.float32)
    return TensorDict(
        {"a": {"reward": values.unsqueeze(-1)}, "b": {"reward": -values.unsqueeze(-1)}},
        batch_size=[len(numbers)],
    )


def contents(buffer, task="a") -> set[float]:
    seen = torch.cat([buffer.sample_tasks([task])[task, "reward"] for _ in range(50)])
    return set(seen.flatten().tolist())


def test_first_in_first_out():
    buffer = MultiTaskReplayBuffer(TASKS, capacity=3, batch_size=4)
    buffer.extend(numbered(1, 2))
    assert (len(buffer), contents(buffer)) == (2, {1.0, 2.0})
    buffer.extend(numbered(3, 4))
    assert (len(buffer), contents(buffer)) == (3, {2.0, 3.0, 4.0})
    buffer.extend(numbered(5))
    assert contents(buffer) == {3.0, 4.0, 5.0}
    assert contents(buffer, "b") == {-3.0, -4.0, -5.0}


def test_tasks_take_turns():
    buffer = MultiTaskReplayBuffer(TASKS, capacity=3, batch_size=2)
    buffer.extend(numbered(1, 2, 3))
    dealt = []
    for _ in range(5):
        sample = buffer.sample()
        assert sample.batch_size == (2,)
        dealt.append(list(sample.keys()))
        buffer.sample_tasks(["b"])  # looking at a task does not change whose turn it is
    assert dealt == [["a"], ["b"], ["a"], ["b"], ["a"]]


def test_joint_samples_hold_all_tasks_drawn_independently():
    buffer = MultiTaskReplayBuffer(TASKS, capacity=9, batch_size=20, update="joint")
    buffer.extend(numbered(*range(1, 10)))
    sample = buffer.sample()
    assert set(sample.keys()) == {"a", "b"}
    assert (sample["a", "reward"] > 0).all()
    assert (sample["b", "reward"] < 0).all()
    assert not torch.equal(sample["a", "reward"], -sample["b", "reward"])


def test_state_round_trip():
    buffer = MultiTaskReplayBuffer(TASKS, capacity=4, batch_size=3)
    buffer.extend(numbered(1, 2, 3, 4, 5))
    buffer.sample()
    restored = MultiTaskReplayBuffer(TASKS, capacity=4, batch_size=3)
    restored.load_state_dict(buffer.state_dict())
    assert len(restored) == len(buffer) == 4
    assert contents(restored) == {2.0, 3.0, 4.0, 5.0}
    assert list(restored.sample().keys()) == ["b"]  # whose turn it was
    torch.manual_seed(0)
    expected = buffer.sample_tasks(["a"])
    torch.manual_seed(0)
    assert (restored.sample_tasks(["a"]) == expected).all()
    restored.extend(numbered(9))  # and it goes on where the other would
    assert contents(restored) == {3.0, 4.0, 5.0, 9.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"update": "parallel"}, "update: 'parallel'"),
        ({"capacity": 0}, "capacity 0"),
        ({"batch_size": 0}, "batch size 0"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        MultiTaskReplayBuffer(TASKS, **{"capacity": 2, "batch_size": 1, **arguments})


def test_a_time_limit_bootstraps_over_available_actions_only():
    """The observation that ends an episode keeps its mask: the speaker has 3 of 5 actions."""
    speaker = {"task": SPEAKER, "config": {"terminate_at_limit": False}}
    env = task_set(speaker).get_env_fun(2, False, 0, "cpu")()
    segments = make_segments(env.rollout(25, break_when_any_done=False), list(env.teams))
    (segment,) = segments.values()
    assert segment["bootstrap"].all() and segment["active"].all()
    assert not segment["terminated"].any()
    assert not segment["action_mask"][:, -1, 0, 3:].any()


# ---- properties ----

OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("extend"), st.integers(1, 6)),
        st.tuples(st.just("sample"), st.integers(1, 4)),
        st.tuples(st.just("save"), st.just(0)),
    ),
    max_size=20,
)


@given(
    operations=OPERATIONS,
    capacity=st.integers(1, 9),
    batch_size=st.integers(1, 5),
    update=st.sampled_from(["sequential", "joint"]),
)
def test_nothing_is_lost_and_nothing_invented(operations, capacity, batch_size, update):
    """Against queues of Python, whatever the order of insertion, sampling, saving and loading."""
    tasks = ["a", "b"]
    buffer = MultiTaskReplayBuffer(tasks, capacity, batch_size, update)
    queue, counter, turn = deque(maxlen=capacity), itertools.count(1), 0
    for operation, number in operations:
        if operation == "extend":
            number = min(number, capacity)  # TorchRL's storage takes no more at once
            new = [float(next(counter)) for _ in range(number)]
            buffer.extend(numbered(*new))
            queue.extend(new)
        elif operation == "save":
            state, buffer = buffer.state_dict(), None
            buffer = MultiTaskReplayBuffer(tasks, capacity, batch_size, update)
            buffer.load_state_dict(state)
        elif queue:
            for _ in range(number):
                sample = buffer.sample()
                dealt = tasks if update == "joint" else [tasks[turn % 2]]
                turn += 1
                assert list(sample.keys()) == dealt
                for task in dealt:
                    drawn = sample[task, "reward"].flatten().tolist()
                    assert len(drawn) == batch_size
                    assert {abs(value) for value in drawn} <= set(queue)
                    assert all((value > 0) is (task == "a") for value in drawn)
        assert len(buffer) == len(queue)
        for task, sign in (("a", 1), ("b", -1)):
            stored = buffer.buffers[task][:]["reward"].flatten().tolist() if queue else []
            assert sorted(stored) == sorted(sign * value for value in queue)


LENGTHS = st.fixed_dictionaries(
    {
        "length": st.integers(1, 4),
        "spread": st.integers(1, 3),
        "terminal": st.booleans(),
        "masked": st.booleans(),
        "limit": st.integers(1, 6),
        "state": st.booleans(),
    }
)


@settings(max_examples=25)
@given(
    toys=st.lists(LENGTHS, min_size=2, max_size=2),
    steps=st.integers(1, 9),
    standardise=st.booleans(),
    seed=st.integers(0, 99),
)
def test_no_idle_step_ever_trains(toys, steps, standardise, seed):
    """Whatever stands in the idle steps of what was sampled, loss and gradients stay the same."""
    torch.manual_seed(seed)
    env = task_set(*(toy(name, **config) for name, config in zip(TASKS, toys))).get_env_fun(
        3, False, seed, "cpu"
    )()
    buffer = MultiTaskReplayBuffer(TASKS, capacity=6, batch_size=4, update="joint")
    for _ in range(2):
        batch = env.rollout(steps, break_when_any_done=False)
        for name, team in env.teams.items():
            shape = (*batch.batch_size, team.n_agents, team.n_actions)
            batch[name, "teacher_values"] = torch.randn(shape)
        buffer.extend(make_segments(batch, TASKS))
    sizes = {n: (t.n_agents, t.observation_size, t.n_actions) for n, t in env.teams.items()}
    states = {n: t.state_size for n, t in env.teams.items()}
    student = StudentNetwork(make_agents(sizes), MultiTaskMixer(states, 2, 6, 4, 7))
    lengths = {n: t.state_length for n, t in env.teams.items() if t.state_length is not None}
    loss = MktLoss(student, standardise=standardise, state_lengths=lengths)
    loss.alpha.fill_(0.5)
    sample = buffer.sample()
    before = loss_and_gradients(loss, sample)
    for name in TASKS:
        segment, idle = sample[name], ~sample[name, "active"]
        unseen = torch.nn.functional.pad(idle, (0, 1)) & torch.cat(
            [torch.ones_like(idle[:, :1]), idle], 1
        )  # observations that no active step begins with or leads to
        for key, hidden, junk in (
            ("observation", unseen, 1e3),
            *([] if name in lengths else [("state", unseen, -1e3)]),
            ("teacher_values", idle, 1e6),
            ("reward", idle, -1e6),
            ("terminated", idle, True),
            ("bootstrap", idle, False),
            ("action", idle, 0),
        ):
            segment[key][hidden] = junk
    for expected, found in zip(before, loss_and_gradients(loss, sample), strict=True):
        torch.testing.assert_close(found, expected)


def loss_and_gradients(loss, sample) -> list[torch.Tensor]:
    loss.zero_grad()
    value = loss(sample)["loss"]
    value.backward()
    gradients = [p.grad.clone() for p in loss.parameters() if p.grad is not None]
    return [value.detach(), *gradients]
