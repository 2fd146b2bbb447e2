"""Algorithms: MKT-MARL."""

from benchmarl_mkt.algorithms.mkt import Mkt, MktConfig

__all__ = ["Mkt", "MktConfig"]
