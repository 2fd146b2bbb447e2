# Agents, enemies and step limit of the maps that tests play.
_MAPS = {
    name: {"n_agents": 3, "n_enemies": 3, "limit": limit}
    for name, limit in (("3m", 60), ("10gen_protoss", 200))
}


def get_map_params(map_name):
    return _MAPS[map_name]
