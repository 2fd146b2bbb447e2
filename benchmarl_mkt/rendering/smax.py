"""What a SMAX battle looks like."""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarl_mkt.environments.battles.smax_scenarios import UNITS
from benchmarl_mkt.rendering.drawing import Color, Scene, Shape

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
    mixed = len(set(np.asarray(state.unit_types).tolist())) > 1
    shapes = []
    for position, health, alive, kind, team in zip(
        *map(
            np.asarray,
            (
                state.unit_positions,
                state.unit_health,
                state.unit_alive,
                state.unit_types,
                state.unit_teams,
            ),
        )
    ):
        if not alive:
            continue
        color, radius = ENEMY if team else ALLY, float(radii[kind])
        left = float(health / full_health[kind])
        pale = tuple(part + _HURT * (1 - part) for part in color)
        place = (float(position[0]), float(position[1]))
        shapes.append(Shape("disc", place, (radius,), pale, outlined=True))
        label = UNITS[kind] if mixed else ""
        shapes.append(Shape("disc", place, (radius * left**0.5,), color, label=label))
    return Scene(shapes, _SIDE / 2 + 0.5, (_SIDE / 2, _SIDE / 2))
