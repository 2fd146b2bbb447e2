from smacv2.env.starcraft2.starcraft2 import StarCraft2Env


class StarCraftCapabilityEnvWrapper:
    """Draws the armies of every episode (here: always the same) around the environment."""

    def __init__(self, **kwargs):
        self.distribution_config = kwargs["capability_config"]
        for key, config in self.distribution_config.items():
            if key not in ("n_units", "n_enemies"):
                config["env_key"] = key  # smacv2 writes into its argument, too
        self.env = StarCraft2Env(**kwargs)

    def reset(self):
        return self.env.reset({})

    def __getattr__(self, name):
        return getattr(self.env, name)
