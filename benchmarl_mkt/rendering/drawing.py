"""Discs, boxes and lines on white paper, with Pillow."""

from __future__ import annotations

from math import cos, sin
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
    center: tuple[float, ...] = (0.0, 0.0)


def draw(scene: Scene, pixels: int) -> np.ndarray:
    """Draw a scene: uint8 [pixels, pixels, 3]; y points up."""
    side = pixels * _FINER
    scale = side / (2 * scene.half_width)
    image = Image.new("RGB", (side, side), "white")
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(13 * _FINER)

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            side / 2 + (x - scene.center[0]) * scale,
            side / 2 - (y - scene.center[1]) * scale,
        )

    for shape in scene.shapes:
        color = tuple(round(255 * min(max(float(part), 0.0), 1.0)) for part in shape.color[:3])
        edge: dict[str, Any] = {"outline": _GREY, "width": _FINER} if shape.outlined else {}
        x, y = place(*shape.center)
        if shape.kind == "disc":
            radius = max(shape.size[0] * scale, 2 * _FINER)  # the smallest stay visible
            pen.ellipse((x - radius, y - radius, x + radius, y + radius), color, **edge)
        elif shape.kind == "box":
            pen.polygon([place(*corner) for corner in _corners(shape)], color, **edge)
        else:
            (length,) = shape.size
            dx, dy = cos(shape.angle) * length / 2, sin(shape.angle) * length / 2
            ends = [place(shape.center[0] + s * dx, shape.center[1] + s * dy) for s in (-1, 1)]
            pen.line(ends, color, 2 * _FINER)
        if shape.label:
            beside = 0.7 * shape.size[0] * scale
            pen.text((x + beside, y - beside), shape.label, "black", font, anchor="ls")
    image = image.resize((pixels, pixels), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _corners(box: Shape) -> list[tuple[float, float]]:
    (length, width), (x, y) = box.size, box.center
    right, up = cos(box.angle), sin(box.angle)
    halves = [(sx * length / 2, sy * width / 2) for sx, sy in ((1, 1), (-1, 1), (-1, -1), (1, -1))]
    return [(x + a * right - b * up, y + a * up + b * right) for a, b in halves]
