"""The multi-particle environments (MPE)."""

from benchmarl_mkt.environments.mpe.environment import MpeClass, MpeEnv, MpeTask

__all__ = ["MpeClass", "MpeEnv", "MpeTask"]
