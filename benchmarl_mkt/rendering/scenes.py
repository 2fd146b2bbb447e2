"""What the first copy of an environment looks like now."""

from __future__ import annotations

from typing import Any

import numpy as np
from torchrl.envs import EnvBase, SerialEnv, TransformedEnv

from benchmarl_mkt.environments.mpe import MpeEnv
from benchmarl_mkt.rendering.drawing import Scene, Shape, draw

PIXELS = 300
_MPE_HALF_WIDTHS = (1.4, 2.4)  # landmarks start within 1; agents wander, some very far


def picture(env: EnvBase, pixels: int = PIXELS) -> np.ndarray:
    """Draw the first copy of ``env``: uint8 [pixels, pixels, 3], or what its ``render()`` gives.

    MPE and VMAS are drawn from their state; another environment must have ``render()`` that
    returns uint8 [H, W, 3].

    Raises:
        ValueError: if it has none.
    """
    env = _innermost(env)
    if isinstance(env, MpeEnv):
        return draw(mpe_scene(env), pixels)
    world = getattr(getattr(env, "_env", None), "world", None)
    if hasattr(world, "batch_dim"):
        return draw(vmas_scene(env._env), pixels)
    try:
        found = np.asarray(env.render())
    except (AttributeError, NotImplementedError, TypeError) as error:
        raise ValueError(
            f"render: {type(env).__name__} cannot be drawn ({error}); give it a render() that "
            "returns uint8 [H, W, 3]"
        ) from error
    if found.dtype != np.uint8 or found.ndim != 3 or found.shape[-1] != 3:
        raise ValueError(
            f"render: {type(env).__name__}.render() gave {found.dtype} {list(found.shape)}; it "
            "must give uint8 [H, W, 3]"
        )
    return found


def _innermost(env: EnvBase) -> EnvBase:
    while True:
        if isinstance(env, TransformedEnv):
            env = env.base_env
        elif isinstance(env, SerialEnv):
            env = env._envs[0]
        else:
            return env


def mpe_scene(env: MpeEnv) -> Scene:
    """Return the scene of MPE's first copy; an agent that speaks shows its message as a letter."""
    shapes = []
    for entity, position, color, message in env.games.entities(0):
        shapes.append(
            Shape(
                "disc",
                (float(position[0]), float(position[1])),
                (float(entity.size),),
                tuple(map(float, color)),
                outlined=hasattr(entity, "silent"),  # an agent
                label="" if message is None else chr(ord("A") + message),
            )
        )
    shapes.reverse()  # agents above landmarks
    far = max(abs(part) for shape in shapes for part in shape.center)
    least, most = _MPE_HALF_WIDTHS
    return Scene(shapes, min(max(least, far + 0.2), most))


def vmas_scene(env: Any) -> Scene:
    """Return the scene of the first copy of a VMAS ``Environment``, without sensors and trails."""
    from vmas.simulator.core import Agent, Box, Sphere

    shapes = []
    for entity in [*env.world.landmarks, *env.world.agents]:
        if not entity.is_rendering[0]:
            continue
        color = entity.color
        if getattr(color, "ndim", 1) > 1:  # one for every copy
            color = color[0]
        shape, kind = entity.shape, "line"
        size: tuple[float, ...] = (getattr(shape, "length", 0.0),)
        if isinstance(shape, Sphere):
            kind, size = "disc", (shape.radius,)
        elif isinstance(shape, Box):
            kind, size = "box", (shape.length, shape.width)
        x, y = entity.state.pos[0].tolist()
        shapes.append(
            Shape(
                kind,
                (x, y),
                tuple(map(float, size)),
                tuple(float(part) for part in color)[:3],
                float(entity.state.rot[0]),
                outlined=isinstance(entity, Agent),
            )
        )
    scenario, agents = env.scenario, env.world.agents
    origin = tuple(map(float, scenario.render_origin))
    radius = max(agent.shape.circumscribed_radius() for agent in agents)
    far = max(abs(float(a.state.pos[0][i]) - origin[i]) for a in agents for i in (0, 1))
    return Scene(shapes, max(float(scenario.viewer_zoom), far + 2 * radius), origin)
