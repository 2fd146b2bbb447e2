"""Discs, boxes and lines on white paper, with Pillow: no screen, no OpenGL."""

from __future__ import annotations

from cmath import rect
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_FINER = 3  # drawn so many times larger, then scaled down: smooth edges
_GREY = (90, 90, 90)

Color = tuple[float, ...]  # red, green, blue


class Shape(NamedTuple):
    """One thing in a world, in the world's units.

    Args:
        kind: ``disc``, ``box`` or ``line``.
        center: x and y.
        size: of a disc (radius,), of a box (length, width), of a line (length,).
        color: red, green, blue in [0, 1].
        angle: counter-clockwise rotation in radians.
        outlined: whether it gets an edge, as agents do.
        label: text beside it.
    """

    kind: str
    center: tuple[float, float]
    size: tuple[float, ...]
    color: Color
    angle: float = 0.0
    outlined: bool = False
    label: str = ""


class Scene(NamedTuple):
    """Shapes, first one lowest, and the half width of the square that is shown around ``center``.

    Shapes beyond the edge are cut off.
    """

    shapes: list[Shape]
    half_width: float
    center: tuple[float, float] = (0.0, 0.0)


def draw(scene: Scene, pixels: int) -> np.ndarray:
    """Draw a scene: uint8 [pixels, pixels, 3]; y points up."""
    side = pixels * _FINER
    scale = side / (2 * scene.half_width)
    image = Image.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(13 * _FINER)

    def place(point: complex) -> tuple[float, float]:
        offset = scale * (point - complex(*scene.center))
        return side / 2 + offset.real, side / 2 - offset.imag

    for shape in scene.shapes:
        color = tuple(round(255 * min(max(part, 0.0), 1.0)) for part in shape.color)
        edge: dict[str, Any] = {"outline": _GREY, "width": _FINER} if shape.outlined else {}
        center, turn = complex(*shape.center), rect(1.0, shape.angle)
        x, y = place(center)
        if shape.kind == "disc":
            radius = max(shape.size[0] * scale, 2 * _FINER)  # the smallest stay visible
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), color, **edge)
        elif shape.kind == "box":
            right, up = turn * shape.size[0] / 2, 1j * turn * shape.size[1] / 2
            corners = (right + up, up - right, -right - up, right - up)
            pen.polygon([place(center + corner) for corner in corners], color, **edge)
        else:
            end = turn * shape.size[0] / 2
            pen.line([place(center - end), place(center + end)], color, 2 * _FINER)
        if shape.label:
            beside = 0.7 * shape.size[0] * scale
            pen.text((x + beside, y - beside), shape.label, "black", font, anchor="ls")
    image = image.resize((pixels, pixels), Image.Resampling.LANCZOS)
    return np.asarray(image)
