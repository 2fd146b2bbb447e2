"""An expert as an ONNX file: a network of any framework, run by onnxruntime."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from tensordict import TensorDictBase
from torch import Tensor, nn
from torchrl.data import Composite, Unbounded

from benchmarl_mkt.teams.folder import TeamSpecs

NAME = "onnx"  # in a team's metadata: the model's name
_DOMAINS = ("", "ai.onnx")  # ONNX's own operators
_TYPES = {
    "tensor(float)": np.float32,
    "tensor(double)": np.float64,
    "tensor(float16)": np.float16,
    "tensor(bool)": np.bool_,
}


class OnnxConfig:
    """What of an ONNX file is what, as ``model`` in a team's metadata has it.

    Args:
        size: bytes of the file.
        observation: name of the input that takes observations, [B, N, d] or, agents being rows,
            [B N, d]; d is the length of the task's observation, with agent id or without.
        values: name of the output with values or logits, [B, N, A] or [B N, A].
        action_mask: name of an input that takes masks, None if there is none. It is all true:
            what is not available is masked afterwards.
        states: name of an input that takes a hidden state -> name of the output that gives it.
        shapes: such an input -> the shape of one agent's state.

    Raises:
        ValueError: if an agent's state has no fixed sizes.
    """

    def __init__(
        self,
        size: int,
        observation: str,
        values: str,
        action_mask: str | None = None,
        states: Mapping[str, str] | None = None,
        shapes: Mapping[str, list[int]] | None = None,
    ):
        self.size, self.observation, self.values = int(size), str(observation), str(values)
        self.action_mask = action_mask
        self.states, self.shapes = dict(states or {}), dict(shapes or {})
        for key in self.states:
            if not all(type(size) is int for size in self.shapes[key]):
                raise ValueError(f"its state {key} has no fixed sizes: {self.shapes[key]}")

    def get_model_state_spec(self, model_index: int = 0) -> Composite:
        """Return the hidden states of one agent, as BenchMARL's models do."""
        return Composite({key: Unbounded(tuple(shape)) for key, shape in self.shapes.items()})

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, with the name."""
        return {"name": NAME, **vars(self)}


class OnnxNetwork(nn.Module):
    """An ONNX file, called as a team's one network is.

    The file's bytes are the only weight: they are stored and checked as weights are. It is opened
    when it has them, if :func:`check_content` finds nothing that is not ONNX's own.

    Args:
        config: what of the file is what.
        team: the team's sizes.
        kind: ``values`` or ``logits``.
    """

    agent_group = "team"

    def __init__(self, config: OnnxConfig, team: TeamSpecs, kind: str):
        super().__init__()
        self.config, self.team = config, team
        self.out_key = ("team", "action_value" if kind == "values" else "logits")
        self.content = nn.Parameter(torch.zeros(config.size, dtype=torch.uint8), False)
        self.register_load_state_dict_post_hook(lambda module, _: module.open())

    def open(self) -> None:
        """Prepare to run the file.

        Raises:
            ImportError: if onnx or onnxruntime is not installed.
            ValueError: if it is none, or does not have these inputs and outputs in such sizes.
        """
        content = self.content.cpu().numpy().tobytes()
        self._session = open_session(content)
        self._inputs = {entry.name: entry for entry in self._session.get_inputs()}
        config, team = self.config, self.team
        needed = [config.observation, *config.states]
        needed += [config.action_mask] if config.action_mask else []
        if set(needed) != set(self._inputs):
            raise ValueError(f"its inputs are {sorted(self._inputs)}, used are {sorted(needed)}")
        shape = self._inputs[config.observation].shape
        self._rows = len(shape) == 2
        self._length = shape[-1] if shape and isinstance(shape[-1], int) else team.observation_size
        plain = team.observation_size - team.n_agents
        if len(shape) not in (2, 3) or self._length not in (plain, team.observation_size):
            raise ValueError(
                f"its input {config.observation} is {shape}, but the task's observation is "
                f"[B, {team.n_agents}, {plain}], with agent ids [B, {team.n_agents}, "
                f"{team.observation_size}]"
            )
        states = {k: torch.zeros(1, team.n_agents, *config.shapes[k]) for k in config.states}
        self._step(torch.zeros(1, team.n_agents, team.observation_size), states)

    def forward(self, data: TensorDictBase) -> TensorDictBase:
        """Read ``(team, observation)`` [*B, N, D]; write values or logits [*B, N, A].

        Hidden states as in BenchMARL's models: without them the batch is [B, T], a sequence from
        zero states, which ``is_init`` [B, T, 1] sets back.
        """
        team = data.get(self.agent_group)
        rows, names = team.get("observation"), list(self.config.states)
        if not names:
            return data.set(self.out_key, self._step(rows, {})[0])
        begins = data.get("is_init").unsqueeze(-2)  # [*B, 1, 1]
        if names[0] in team.keys():
            states = {key: _reset(team.get(key), begins) for key in names}
            values, states = self._step(rows, states)
            for key, state in states.items():
                data.set(("next", self.agent_group, key), state)
            return data.set(self.out_key, values)
        shapes = self.config.shapes
        states = {key: rows.new_zeros(len(rows), rows.shape[-2], *shapes[key]) for key in names}
        steps = []
        for seen, begin in zip(rows.unbind(1), begins.unbind(1)):
            values, states = self._step(seen, {k: _reset(v, begin) for k, v in states.items()})
            steps.append(values)
        return data.set(self.out_key, torch.stack(steps, 1))

    def _step(
        self, observation: Tensor, states: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Run the file on [*B, N, D]; values [*B, N, A] and new states."""
        config, agents = self.config, observation.shape[:-1]
        given = {config.observation: observation[..., : self._length], **states}
        if config.action_mask:
            given[config.action_mask] = observation.new_ones(*agents, self.team.n_actions)
        lead = (agents.numel(),) if self._rows else (-1, self.team.n_agents)
        names = [config.values, *config.states.values()]
        try:
            feed = {
                name: value.reshape(*lead, *value.shape[len(agents) :]).cpu().numpy()
                for name, value in given.items()
            }
            feed = {k: v.astype(_TYPES[self._inputs[k].type]) for k, v in feed.items()}
            outputs = [torch.from_numpy(part) for part in self._session.run(names, feed)]
        except Exception as error:  # onnxruntime's own
            raise ValueError(f"it cannot be run ({' '.join(str(error).split()):.200})") from error
        expected = [*lead[1:], self.team.n_actions]
        if list(outputs[0].shape[1:]) != expected:
            raise ValueError(
                f"its output {config.values} is {list(outputs[0].shape)}, but the task needs "
                f"{['B', *expected]}"
            )
        shaped = [
            part.float().reshape(*agents, *part.shape[len(lead) :]).to(observation.device)
            for part in outputs
        ]
        return shaped[0], dict(zip(config.states, shaped[1:]))


def _reset(state: Tensor, begins: Tensor) -> Tensor:
    """A state [*B, N, ...], zero where an episode begins ([*B, 1, 1])."""
    return torch.where(begins.view(*begins.shape, *[1] * (state.ndim - begins.ndim)), 0, state)


def open_session(content: bytes) -> Any:
    """Open an ONNX file on the CPU.

    Raises:
        ImportError: if onnx or onnxruntime is not installed.
        ValueError: if it is none, or :func:`check_content` refuses it.
    """
    missing = [name for name in ("onnx", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ImportError(
            f"teachers: {' and '.join(missing)} not installed; pip install 'benchmarl-mkt[onnx]'"
        )
    import onnxruntime

    check_content(content)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # the networks are small
    options.log_severity_level = 3
    # Else a file may be ONNX for one reader and of onnxruntime's own format for the other.
    options.add_session_config_entry("session.load_model_format", "ONNX")
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own
        raise ValueError(f"it is no ONNX file ({' '.join(str(error).split()):.200})") from error


def check_content(content: bytes) -> None:
    """Refuse an ONNX file that needs more than itself and ONNX's own operators.

    Raises:
        ValueError: if it has operators of another domain or data in other files, or is none.
    """
    import onnx

    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # protobuf's own
        raise ValueError("it is no ONNX file") from error
    own = {(function.domain, function.name) for function in model.functions}
    for part in _messages(model):
        if isinstance(part, onnx.NodeProto) and part.domain not in _DOMAINS:
            if (part.domain, part.op_type) not in own:
                raise ValueError(f"it has a custom operator, {part.domain}.{part.op_type}")
        elif isinstance(part, onnx.TensorProto) and (part.external_data or part.data_location):
            raise ValueError(f"its {part.name} lies in another file; write all data into one file")


def _messages(message: Any) -> Iterator:
    """Yield a message of protobuf's and all within it, however deep."""
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _messages(part)
