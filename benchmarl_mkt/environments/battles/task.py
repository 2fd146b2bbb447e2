"""What SMAX and StarCraft II have in common as BenchMARL's tasks."""

from __future__ import annotations

from tensordict import TensorDictBase
from torchrl.data import Composite
from torchrl.envs import EnvBase

from benchmarl_mkt.environments.common import DiscreteTaskClass
from benchmarl_mkt.environments.wins import WON, win_rate

GROUP = "agents"  # the allies


class BattleClass(DiscreteTaskClass):
    """One group of allies with action masks, a state, and ``info`` that knows who won."""

    def state_spec(self, env: EnvBase) -> Composite:
        return Composite(state=env.full_observation_spec_unbatched["state"])

    def info_spec(self, env: EnvBase) -> Composite:
        return Composite(info=env.full_observation_spec_unbatched["info"])

    @staticmethod
    def log_info(batch: TensorDictBase) -> dict[str, float]:
        """Return the rate of battles won among those that ended in the batch, if any did."""
        return win_rate(batch, "collection/info/win_rate", ("next", *WON))
