"""What SMAX and StarCraft II have in common as BenchMARL's tasks."""

from __future__ import annotations

from tensordict import TensorDictBase
from torchrl.data import Composite
from torchrl.envs import EnvBase

from benchmarl_mkt.environments.common import DiscreteTaskClass
from benchmarl_mkt.environments.wins import WON, win_rate
from benchmarl_mkt.models.layout import EntityLayout, described

GROUP = "agents"  # the allies


class BattleClass(DiscreteTaskClass):
    """One group of allies with action masks, a state, and ``info`` that knows who won."""

    def state_spec(self, env: EnvBase) -> Composite:
        spec = Composite(state=env.full_observation_spec_unbatched["state"])
        layout = self.state_layout(env)
        return spec if layout is None else described(spec, layout)

    def state_layout(self, env: EnvBase) -> EntityLayout | None:
        """Return what the state is made of; None, if it is not said."""
        return None

    def info_spec(self, env: EnvBase) -> Composite:
        return Composite(info=env.full_observation_spec_unbatched["info"])

    @staticmethod
    def log_info(batch: TensorDictBase) -> dict[str, float]:
        """Return the rate of battles won among those that ended in the batch, if any did."""
        return win_rate(batch, "collection/info/win_rate", ("next", *WON))
