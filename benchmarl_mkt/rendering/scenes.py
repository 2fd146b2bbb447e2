"""What the first copy of an environment looks like now."""

from __future__ import annotations

from typing import Any

import numpy as np
from torchrl.envs import EnvBase, SerialEnv, TransformedEnv

from benchmarl_mkt.drawing import Scene, Shape, draw
from benchmarl_mkt.environments.mpe import MpeEnv

PIXELS = 300
_MPE_HALF_WIDTHS = (1.4, 2.4)  # landmarks start within 1; agents wander, some very far


def picture(env: EnvBase, pixels: int = PIXELS) -> np.ndarray:
    """Draw the first copy of ``env``: uint8 [pixels, pixels, 3], or what its ``render()`` gives.

    MPE and VMAS are drawn from their state; another environment must have ``render()`` that
    returns uint8 [H, W, 3].

    Raises:
        ValueError: if it has none.
    """
    while isinstance(env, TransformedEnv | SerialEnv):
        env = env.base_env if isinstance(env, TransformedEnv) else env._envs[0]
    if isinstance(env, MpeEnv):
        return draw(mpe_scene(env), pixels)
    game, name = getattr(env, "_env", None), type(env).__name__
    if hasattr(getattr(game, "world", None), "batch_dim"):
        return draw(vmas_scene(game), pixels)
    try:
        image = np.asarray(env.render())
    except (AttributeError, NotImplementedError, TypeError) as error:
        raise ValueError(
            f"render: {name} cannot be drawn ({error}); give it a render() that returns "
            "uint8 [H, W, 3]"
        ) from error
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3:
        raise ValueError(
            f"render: {name}.render() gave {image.dtype} {list(image.shape)}; it must give "
            "uint8 [H, W, 3]"
        )
    return image


def mpe_scene(env: MpeEnv) -> Scene:
    """Return the scene of MPE's first copy; an agent that speaks shows its message as a letter."""
    shapes = [
        Shape(
            "disc",
            (float(x), float(y)),
            (float(entity.size),),
            tuple(map(float, color)),
            outlined=hasattr(entity, "silent"),  # an agent
            label="" if message is None else chr(ord("A") + message),
        )
        for entity, (x, y), color, message in reversed(env.games.entities(0))  # agents lie above
    ]
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
        shape = entity.shape
        if isinstance(shape, Sphere):
            kind, size = "disc", [shape.radius]
        elif isinstance(shape, Box):
            kind, size = "box", [shape.length, shape.width]
        else:
            kind, size = "line", [getattr(shape, "length", 0.0)]
        x, y = entity.state.pos[0].tolist()
        shapes.append(
            Shape(
                kind,
                (x, y),
                tuple(map(float, size)),
                tuple(map(float, color))[:3],
                float(entity.state.rot[0]),
                outlined=isinstance(entity, Agent),
            )
        )
    agents = env.world.agents
    origin_x, origin_y = map(float, env.scenario.render_origin)
    centers = (agent.state.pos[0].tolist() for agent in agents)
    far = max(max(abs(x - origin_x), abs(y - origin_y)) for x, y in centers)
    radius = max(agent.shape.circumscribed_radius() for agent in agents)
    half_width = max(float(env.scenario.viewer_zoom), far + 2 * radius)
    return Scene(shapes, half_width, (origin_x, origin_y))
