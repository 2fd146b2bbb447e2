"""Play SMAX battles of any sizes with a team of the entity network, without training.

python benchmarks/entity_sizes.py runs/3s5z/team 4s4z 2s3z
"""

import argparse
import sys

from benchmarl_mkt.environments import MultiTaskClass
from benchmarl_mkt.teams import FrozenTeam, load_team
from benchmarl_mkt.teams.evaluation import greedy_policy, play_on, stage
from benchmarl_mkt.teams.expert import load_weights
from benchmarl_mkt.teams.export import team_specs
from benchmarl_mkt.teams.frozen import build_model

EPISODES, SEED = 64, 0


def main() -> None:
    """Parse the command line and play."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("team")
    parser.add_argument("battles", nargs="+")
    arguments = parser.parse_args()
    (source,) = load_team(arguments.team).values()
    for battle in arguments.battles:
        config = {**source.metadata["task"], "tasks": [f"smax/{battle}"], "only": None}
        with stage(MultiTaskClass("sizes", config), EPISODES) as env:
            ((name, team),) = env.teams.items()
            specs = team_specs(env, name)
            model = build_model(source.config, specs, source.kind, layout=team.layout)
            load_weights(model, source.model.state_dict())
            agents = FrozenTeam(model, source.config, {**source.metadata, "specs": vars(specs)})
            score = play_on(env, greedy_policy({name: agents}), EPISODES, SEED).score(name)
        sys.stdout.write(f"{battle}: {score.won.mean:.2f} wins of {EPISODES} battles\n")


if __name__ == "__main__":
    main()
