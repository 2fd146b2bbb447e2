"""What a SMAX battle looks like."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarl_mkt.drawing import Color, Scene, Shape
from benchmarl_mkt.environments.battles.smax_scenarios import UNITS

ALLY: Color = (0.13, 0.40, 0.85)
ENEMY: Color = (0.85, 0.20, 0.15)
_HURT = 0.75  # how far towards white the lost part of the health is
_SIDE = 32.0  # of the field


def smax_scene(state: Any, radii: np.ndarray, full_health: np.ndarray) -> Scene:
    """Return the scene of one battle: discs of the unit's size, allies blue, enemies red.

    What is filled of a disc's area is the unit's health; the dead are gone. Where armies are mixed
    a letter tells the unit (:data:`~benchmarl_mkt.environments.battles.smax_scenarios.UNITS`).

    Args:
        state: SMAX's state of one battle, for U units: ``unit_positions`` [U, 2], and [U] each
            ``unit_health``, ``unit_alive``, ``unit_types`` and ``unit_teams``.
        radii, full_health: of every unit type.
    """
    mixed = len(set(state.unit_types.tolist())) > 1
    shapes = []
    for unit in np.flatnonzero(state.unit_alive):
        kind = state.unit_types[unit]
        color, radius = ENEMY if state.unit_teams[unit] else ALLY, float(radii[kind])
        pale = tuple(part + _HURT * (1 - part) for part in color)
        x, y = map(float, state.unit_positions[unit])
        shapes.append(Shape("disc", (x, y), (radius,), pale, outlined=True))
        health = float(state.unit_health[unit] / full_health[kind])
        label = UNITS[kind] if mixed else ""
        shapes.append(Shape("disc", (x, y), (radius * health**0.5,), color, label=label))
    return Scene(shapes, _SIDE / 2 + 0.5, (_SIDE / 2, _SIDE / 2))
