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

    def observation_spec(self, env: EnvBase) -> Composite:
        return _of_group(env, "observation")

    def action_mask_spec(self, env: EnvBase) -> Composite:
        return _of_group(env, "action_mask")

    def state_spec(self, env: EnvBase) -> Composite:
        return Composite(state=env.full_observation_spec_unbatched["state"])

    def info_spec(self, env: EnvBase) -> Composite:
        return Composite(info=env.full_observation_spec_unbatched["info"])

    @staticmethod
    def log_info(batch: TensorDictBase) -> dict[str, float]:
        """Return the rate of battles won among those that ended in the batch, if any did."""
        return win_rate(batch, "collection/info/win_rate", ("next", *WON))


def _of_group(env: EnvBase, key: str) -> Composite:
    """The specification of one copy with the group's one entry."""
    group = env.full_observation_spec_unbatched[GROUP]
    return Composite({GROUP: Composite({key: group[key]}, shape=group.shape)})
