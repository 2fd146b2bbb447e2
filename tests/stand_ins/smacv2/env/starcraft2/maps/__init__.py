# Agents, enemies and step limit of the maps that tests play.
_MAPS = {
    name: {
        "n_agents": 3,
        "n_enemies": 3,
        "limit": limit,
        "a_race": race,
        "b_race": race,
        "map_type": kind,
    }
    for name, limit, race, kind in (
        ("3m", 60, "T", "marines"),
        ("10gen_protoss", 200, "P", "protoss_gen"),
    )
}


def get_map_params(map_name):
    return _MAPS[map_name]
