"""Frozen opponents: policies of the agents that the team does not control."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

FORMAT = "benchmarl-mkt-opponent/1"
_SHIPPED = Path(__file__).resolve().parent / "policies"


class FrozenPolicy(nn.Module):
    """A multi-layer perceptron (ReLU) that picks the action of largest logit; it never trains.

    Args:
        layers: the (weight [out, in], bias [out]) pairs, first layer first.
        metadata: what the file says of itself (provenance, environment, group).
    """

    def __init__(self, layers: list[tuple[Tensor, Tensor]], metadata: dict[str, str]):
        super().__init__()
        self.metadata = metadata
        self.sizes = [layers[0][0].shape[1], *(weight.shape[0] for weight, _ in layers)]
        modules: list[nn.Module] = []
        for weight, bias in layers:
            modules += [nn.Linear(weight.shape[1], weight.shape[0]), nn.ReLU()]
            modules[-2].load_state_dict({"weight": weight, "bias": bias})
        self.network = nn.Sequential(*modules[:-1]).requires_grad_(False)

    @torch.no_grad()
    def forward(self, observation: Tensor) -> Tensor:
        """Map observations [*B, n_agents, d] to actions [*B, n_agents] (integers)."""
        return self.network(observation).argmax(-1)

    @classmethod
    def load(cls, source: str | Path) -> FrozenPolicy:
        """Load a shipped policy by name, or any by path to a ``.safetensors`` file.

        Raises:
            ValueError: if there is no such policy or the file is not one.
        """
        path = policy_path(source)
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {key: file.get_tensor(key) for key in file.keys()}
            if metadata.get("format") != FORMAT:
                raise ValueError(f"its format is {metadata.get('format')!r}, not {FORMAT!r}")
            layers = [
                (tensors[f"layers.{i}.weight"], tensors[f"layers.{i}.bias"])
                for i in range(len(tensors) // 2)
            ]
            return cls(layers, metadata)
        except (SafetensorError, KeyError, RuntimeError, ValueError) as error:
            raise ValueError(f"opponents: {path} is not an opponent policy: {error}") from error

    @property
    def provenance(self) -> dict:
        """How the policy was trained and what it scored, as written at training time."""
        return json.loads(self.metadata.get("provenance", "{}"))


def policy_path(source: str | Path) -> Path:
    """Return the file of a shipped policy's name, or the path itself.

    Raises:
        ValueError: if there is no such file.
    """
    for path in (_SHIPPED / f"{source}.safetensors", Path(source).expanduser()):
        if path.is_file():
            return path
    shipped = ", ".join(sorted(path.stem for path in _SHIPPED.glob("*.safetensors")))
    raise ValueError(
        f"opponents: no policy '{source}'; give a .safetensors file or one of: {shipped}"
    )
