import numpy as np

from benchmarl_mkt.environments.battles.smax_battle import battlefield
from benchmarl_mkt.environments.battles.smax_scenarios import SCENARIOS
from smacv2.env.starcraft2.maps import get_map_params

# smacv2's actions: no-op (the dead alone), stop, four moves, one attack for each enemy.
NO_OP, STOP, ATTACK = 0, 1, 6
_UNIT, _OWN = 13, 10  # numbers that SMAX shows of another unit and of the agent itself
_IN_SMAX = [4, 4, 0, 2, 1, 3]


class StarCraft2Env:
    """One battle of SMAX's 3m under smacv2's names and conventions."""

    made = []  # arguments of those made, for tests

    def __init__(
        self, map_name, seed=None, capability_config=None, continuing_episode=False, **options
    ):
        self.made.append({"map_name": map_name, "seed": seed, **options})
        params = get_map_params(map_name)
        self.n_agents, self.n_enemies = params["n_agents"], params["n_enemies"]
        if capability_config is not None:
            sizes = capability_config["n_units"], capability_config["n_enemies"]
            assert sizes == (self.n_agents, self.n_enemies)
        self.episode_limit = params["limit"]
        self.continuing_episode = continuing_episode
        self.n_actions_no_attack = ATTACK
        self.n_actions = ATTACK + self.n_enemies
        self.obs_instead_of_state = options.get("obs_instead_of_state", False)
        self.state_last_action = options.get("state_last_action", True)
        self.state_timestep_number = options.get("state_timestep_number", False)
        self.unit_type_bits = 3 if params["map_type"] == "protoss_gen" else 0
        self._field = battlefield(SCENARIOS["3m"])
        self._battles = self._field.slots(np.array([0 if seed is None else seed], np.uint32))
        self._steps = None

    def reset(self, episode_config=None):
        self._battles, self._view = self._field.restart(self._battles, np.ones(1, bool))
        self._steps, self._last = 0, np.zeros((self.n_agents, self.n_actions), np.float32)
        return self.get_obs(), self.get_state()

    def step(self, actions):
        assert self._steps is not None, "reset first"
        chosen = np.empty((1, self.n_agents), np.int32)
        for agent, action in enumerate(actions):
            available = self.get_avail_agent_actions(agent)
            assert available[action] == 1, f"Agent {agent} cannot perform action {action}"
            self._last[agent] = np.eye(self.n_actions)[action]
            chosen[0, agent] = _IN_SMAX[action] if action < ATTACK else action - 1
        self._battles = self._field.step(self._battles, chosen)
        self._view = self._field.view(self._battles)
        self._steps += 1
        view, alive = self._view, self._alive()
        info = {
            "battle_won": bool(view.won[0]),
            "dead_allies": int((~alive[: self.n_agents]).sum()),
            "dead_enemies": int((~alive[self.n_agents :]).sum()),
        }
        terminated = bool(view.terminated[0, 0])
        if not terminated and self._steps >= self.episode_limit:
            terminated = True
            if self.continuing_episode:
                info["episode_limit"] = True
        return float(view.reward[0, 0, 0]), terminated, info

    def _alive(self):
        return np.asarray(self._battles.running.state.state.unit_alive[0])

    def get_obs(self):
        """As smacv2: moves, enemies, allies, own numbers; SMAX has allies, enemies, own numbers."""
        rows, others = self._view.observation[0], self.n_agents - 1
        seen = []
        for agent, row in enumerate(rows):
            allies = row[: others * _UNIT].reshape(others, _UNIT)
            enemies = row[others * _UNIT : -_OWN].reshape(self.n_enemies, _UNIT)
            available = np.array(self.get_avail_agent_actions(agent), np.float32)
            there = (enemies[:, :1] > 0).astype(np.float32)  # where smacv2 has a distance
            parts = (
                available[2:6],
                np.concatenate((available[ATTACK:, None], there, enemies), 1),
                np.concatenate((allies[:, :1] > 0, allies), 1),
                row[-_OWN:],
            )
            seen.append(np.concatenate([part.ravel() for part in parts]).astype(np.float32))
        return seen

    def get_obs_move_feats_size(self):
        return 4

    def get_obs_enemy_feats_size(self):
        return self.n_enemies, 2 + _UNIT

    def get_obs_ally_feats_size(self):
        return self.n_agents - 1, 1 + _UNIT

    def get_obs_own_feats_size(self):
        return _OWN

    def get_ally_num_attributes(self):
        return 4 + self.unit_type_bits

    def get_enemy_num_attributes(self):
        return 3 + self.unit_type_bits

    def get_state(self):
        """As smacv2: allies (health, cooldown, x, y), enemies (without cooldown), last actions."""
        if self.obs_instead_of_state:
            return np.concatenate(self.get_obs())
        units = self._view.state[0][: _OWN * (self.n_agents + self.n_enemies)].reshape(-1, _OWN)
        types = np.zeros((len(units), self.unit_type_bits), np.float32)
        shown = np.concatenate((units[:, [0, 3, 1, 2]], types), 1) * self._alive()[:, None]
        parts = [shown[: self.n_agents], np.delete(shown[self.n_agents :], 1, 1)]
        if self.state_last_action:
            parts.append(self._last)
        if self.state_timestep_number:
            parts.append(np.array([self._steps / self.episode_limit]))
        return np.concatenate([part.ravel() for part in parts]).astype(np.float32)

    def get_obs_size(self):
        lists = self.get_obs_enemy_feats_size(), self.get_obs_ally_feats_size()
        return 4 + _OWN + sum(count * size for count, size in lists)

    def get_state_size(self):
        if self.obs_instead_of_state:
            return self.get_obs_size() * self.n_agents
        size = self.n_agents * self.get_ally_num_attributes()
        size += self.n_enemies * self.get_enemy_num_attributes()
        size += self.n_agents * self.n_actions * self.state_last_action
        return size + self.state_timestep_number

    def get_avail_actions(self):
        return [self.get_avail_agent_actions(agent) for agent in range(self.n_agents)]

    def get_avail_agent_actions(self, agent_id):
        if not self._alive()[agent_id]:
            return [1] + [0] * (self.n_actions - 1)
        attacks = np.asarray(self._view.action_mask[0, agent_id, 5:]).astype(int).tolist()
        return [0, 1, 1, 1, 1, 1, *attacks]

    def get_total_actions(self):
        return self.n_actions

    def close(self):
        self._steps = None
