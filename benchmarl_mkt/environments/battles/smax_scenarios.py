"""The battles: who fights whom, and for how long.

Unit letters: m marine, M marauder, s stalker, z zealot, g zergling, h hydralisk. Names and step
limits are those of SMAC (https://arxiv.org/abs/1902.04043); names that SMAC does not have are the
paper's, with 150 steps, or 180 where 27 units fight as in SMAC. The battles are fought in SMAX
(https://arxiv.org/abs/2311.10090), on an open field of 32 x 32: results are not SMAC's.
"""

from __future__ import annotations

import re
from typing import NamedTuple

UNITS = "mMszgh"  # in SMAX's order of unit types
MOST_UNITS = 100  # of an army of one's own
CUSTOM = "custom"  # the scenario whose armies the task's configuration names


class Scenario(NamedTuple):
    """Two armies, as strings of unit letters, and the step limit of an episode."""

    allies: str
    enemies: str
    max_steps: int

    @property
    def unit_types(self) -> list[int]:
        """SMAX's unit types, allies first."""
        return [UNITS.index(letter) for letter in self.allies + self.enemies]


def _mirrored(army: str, max_steps: int) -> Scenario:
    return Scenario(army, army, max_steps)


SCENARIOS: dict[str, Scenario] = {
    # Marines
    "3m": _mirrored("m" * 3, 60),
    "8m": _mirrored("m" * 8, 120),
    "25m": _mirrored("m" * 25, 150),
    "5m_vs_6m": Scenario("m" * 5, "m" * 6, 70),
    "8m_vs_9m": Scenario("m" * 8, "m" * 9, 120),
    "10m_vs_11m": Scenario("m" * 10, "m" * 11, 150),
    "27m_vs_30m": Scenario("m" * 27, "m" * 30, 180),
    # Stalkers and zealots
    "2s3z": _mirrored("ss" + "zzz", 120),
    "3s5z": _mirrored("sss" + "zzzzz", 150),
    "3s5z_vs_3s6z": Scenario("sss" + "zzzzz", "sss" + "zzzzzz", 170),
    "3s_vs_5z": Scenario("sss", "zzzzz", 250),
    "1s7z": _mirrored("s" + "z" * 7, 150),
    "2s6z": _mirrored("s" * 2 + "z" * 6, 150),
    "4s4z": _mirrored("s" * 4 + "z" * 4, 150),
    "5s3z": _mirrored("s" * 5 + "z" * 3, 150),
    "6s2z": _mirrored("s" * 6 + "z" * 2, 150),
    "7s1z": _mirrored("s" * 7 + "z", 150),
    "8s_vs_8z": Scenario("s" * 8, "z" * 8, 150),
    # Hydralisks, zealots, zerglings
    "5h_vs_5z": Scenario("h" * 5, "z" * 5, 150),
    "6h_vs_7z": Scenario("h" * 6, "z" * 7, 150),
    "6h_vs_8z": Scenario("h" * 6, "z" * 8, 150),
    "27h_vs_30z": Scenario("h" * 27, "z" * 30, 180),
    "corridor": Scenario("z" * 6, "g" * 24, 400),
    # SMAX has no medivacs: MMM and MMM2 without theirs, one unit fewer on each side.
    "mmm_no_medivac": _mirrored("MM" + "m" * 7, 150),
    "mmm2_no_medivac": Scenario("MM" + "m" * 7, "MMM" + "m" * 8, 180),
    # The paper's pair of eight agents, which it does not define: MMM2 with one marine fewer on both
    # sides, and the same with a marauder in a marine's place.
    "mmm2_8_no_medivac": Scenario("MM" + "m" * 6, "MMM" + "m" * 7, 180),
    "mmm2_8_2_no_medivac": Scenario("MMM" + "m" * 5, "MMMM" + "m" * 6, 180),
}


def scenario_of(
    name: str, max_steps: int | None = None, allies: str | None = None, enemies: str | None = None
) -> Scenario:
    """Return the scenario of a name, or, of the name ``custom``, the one of these armies.

    Args:
        name: of :data:`SCENARIOS`, or ``custom``.
        max_steps: step limit of an episode; None is the scenario's.
        allies: numbers and unit letters, such as ``4s4z``.
        enemies: the same; None are the allies once more.

    Raises:
        ValueError: if an army is none.
    """
    if name != CUSTOM:
        scenario = SCENARIOS[name]
        return scenario if max_steps is None else scenario._replace(max_steps=max_steps)
    own = _army("allies", allies)
    other = own if enemies is None else _army("enemies", enemies)
    return Scenario(own, other, 150 if max_steps is None else max_steps)


def _army(key: str, text: str | None) -> str:
    parts = re.findall(rf"(\d+)([{UNITS}])", str(text))
    army = "".join(letter * int(count) for count, letter in parts if len(count) < 4)
    if "".join(map("".join, parts)) != text or not 0 < len(army) <= MOST_UNITS:
        raise ValueError(
            f"task.{key}: {text!r} must be numbers and unit letters, {MOST_UNITS} units at most, "
            "such as 4s4z; m is a marine, M a marauder, s a stalker, z a zealot, g a zergling, "
            "h a hydralisk"
        )
    return army
