"""Loading teachers: checked, frozen, and without running any code from their files."""

from __future__ import annotations

import json
from math import inf, isfinite
from pathlib import Path
from typing import Any

import torch
from benchmarl.models.common import Model
from safetensors import SafetensorError
from safetensors.torch import load_file
from tensordict import TensorDict
from torch import Tensor, nn
from torchrl.data import Categorical, Composite, Unbounded

from benchmarl_mkt.environments import MultiTaskConfig
from benchmarl_mkt.environments.task_set import RUN_FIELDS
from benchmarl_mkt.serialisation import model_from_dict
from benchmarl_mkt.teachers.store import (
    FORMAT,
    METADATA,
    WEIGHTS,
    Recipe,
    TeacherSpecs,
    checksum,
    sha256,
)

KINDS = ("values", "logits")
_DAMAGE = (
    *(ValueError, LookupError, TypeError, AttributeError, OSError),
    *(RuntimeError, OverflowError, MemoryError, SafetensorError),
)


class Teacher(nn.Module):
    """A frozen team: observations [*B, N, D] to action values or logits [*B, N, A].

    Args:
        model: the agents' BenchMARL model.
        metadata: content of ``teacher.json``.
        path: where it came from.
    """

    def __init__(self, model: Model, metadata: dict[str, Any], path: Path):
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.metadata, self.path = metadata, path
        self.specs = TeacherSpecs(**metadata["specs"])

    @torch.no_grad()
    def forward(self, observation: Tensor, is_init: Tensor | None = None) -> Tensor:
        """Return action values (``kind`` "values") or logits (``kind`` "logits").

        A recurrent teacher needs whole sequences [B, T, N, D] and ``is_init`` [B, T, 1], true in
        the first step of each episode; it starts from zeros.
        """
        own = next(self.parameters()).device
        team = TensorDict({"observation": observation.to(own)}, observation.shape[:-1])
        data = TensorDict({self.model.agent_group: team}, observation.shape[:-2])
        if is_init is not None:
            data.set("is_init", is_init.to(own))
        return self.model(data).get(self.model.out_key).to(observation.device)

    @property
    def is_recurrent(self) -> bool:
        """Whether the team remembers."""
        return "is_init" in self.model.in_keys

    @property
    def kind(self) -> str:
        """What the outputs are: ``values`` (QMIX, VDN, IQL) or ``logits`` (MAPPO, IPPO)."""
        return self.metadata["kind"]

    @property
    def score(self) -> dict[str, float]:
        """Return over fresh episodes: mean, low and high of the 95 % interval, episodes."""
        return self.metadata["score"]

    @property
    def temperature(self) -> float:
        """The calibrated temperature of Eq. 3 (see :func:`calibrated_temperature`)."""
        return float(self.metadata["temperature"])


def build_model(
    config: dict[str, Any], specs: TeacherSpecs, kind: str, share_params: bool = True
) -> Model:
    """Build the agents' network of a teacher, as BenchMARL's algorithms build theirs."""
    out = "action_value" if kind == "values" else "logits"
    shape = (specs.n_agents,)
    return model_from_dict(config).get_model(
        input_spec=Composite(
            team=Composite(
                observation=Unbounded((specs.n_agents, specs.observation_size)), shape=shape
            )
        ),
        output_spec=Composite(
            team=Composite({out: Unbounded((specs.n_agents, specs.n_actions))}, shape=shape)
        ),
        agent_group="team",
        input_has_agent_dim=True,
        n_agents=specs.n_agents,
        centralised=False,
        share_params=share_params,
        device="cpu",
        action_spec=Composite(
            team=Composite(action=Categorical(specs.n_actions, shape=shape), shape=shape)
        ),
    )


def load_teacher(
    path: str | Path,
    specs: TeacherSpecs | None = None,
    task: str | None = None,
    recipe: Recipe | None = None,
) -> Teacher:
    """Load a teacher's folder.

    Args:
        path: the folder with ``teacher.json`` and ``weights.safetensors``.
        specs: sizes of the task to teach; None skips that check.
        task: name of the task to teach, such as ``mpe/simple_push``; None skips that check.
        recipe: what the teacher must have been trained from; None skips that check.

    Raises:
        ValueError: if the folder is not a teacher, is damaged, or does not fit the task.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        raise ValueError(f"teachers: there is no teacher in {path} (no such folder)")
    if not (path / METADATA).is_file():
        raise ValueError(
            f"teachers: there is no teacher in {path} (no {METADATA}); remove the folder, or name "
            "another"
        )
    try:
        metadata = json.loads((path / METADATA).read_text())
        if metadata["format"] != FORMAT:
            raise ValueError(f"its format is {metadata['format']!r}, this version reads {FORMAT!r}")
        # The second is what the first version wrote: the weights alone.
        sums = checksum(path / WEIGHTS, metadata), sha256(path / WEIGHTS)
        if metadata["checksum"] not in sums:
            raise ValueError("its content does not match its checksum")
        if recipe is not None and Recipe(**metadata["recipe"]).digest != recipe.digest:
            raise ValueError("it was trained from another recipe than its address says")
        if metadata["kind"] not in KINDS:
            raise ValueError(f"its kind is {metadata['kind']!r}, not one of {KINDS}")
        own, taught = TeacherSpecs(**metadata["specs"]), _task_of(metadata["task"])
        model = build_model(metadata["model"], own, metadata["kind"], metadata["share_params"])
        sizes = {k: v for k, v in model.state_dict().items() if not isinstance(v, Tensor)}
        model.load_state_dict({**sizes, **load_file(path / WEIGHTS)})
        _check_numbers(metadata)
    except _DAMAGE as error:
        raise ValueError(
            f"teachers: {path} is damaged or no teacher: {error}; remove the folder and train it "
            "again"
        ) from error
    if specs is not None and own != specs:
        raise ValueError(f"teachers: {path} was made for {own}, but the task has {specs}")
    if task is not None and taught != task:
        raise ValueError(f"teachers: {path} was trained on {taught}, but the task is {task}")
    return Teacher(model, metadata, path)


def _task_of(config: Any) -> str:
    """The one task in the configuration of a task set, as :class:`MultiTaskClass` has it."""
    (team,) = config["tasks"]
    fields = set(MultiTaskConfig.__dataclass_fields__) - RUN_FIELDS
    if set(config) != fields or not isinstance(team["task"], str):
        raise ValueError(f"its task is {config!r:.80}")
    return team["task"]


def _check_numbers(metadata: dict[str, Any]) -> None:
    """Check what is shown and used of a teacher besides its weights."""
    if not 0 < float(metadata["temperature"]) < inf:
        raise ValueError(f"its temperature is {metadata['temperature']!r}")
    numbers = [metadata[who][key] for who in ("score", "random") for key in ("mean", "low", "high")]
    if not all(isfinite(float(number)) for number in [*numbers, metadata["frames"]]):
        raise ValueError("its scores are no numbers")


def calibrated_temperature(values: Tensor, mask: Tensor, kind: str) -> float:
    """Choose t of Eq. 3 from what a teacher shows: its mean gap between best and second best.

    Values of trained teachers lie so close together that softmax(Q_T) at t = 1 is almost uniform;
    divided by the mean gap, the best action is on average e times as likely as the second. Logits
    are a policy already: t = 1.

    Args:
        values: outputs [M, n_actions] in visited states.
        mask: available actions [M, n_actions].
        kind: ``values`` or ``logits``.
    """
    if kind == "logits":
        return 1.0
    choosing = mask.sum(-1) > 1
    best = values.masked_fill(~mask, -torch.inf)[choosing].topk(2, -1).values
    gap = (best[:, 0] - best[:, 1]).mean().item() if len(best) else 1.0
    return max(gap, 1e-6)
