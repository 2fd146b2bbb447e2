"""Episodes side by side as one animated GIF."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from benchmarl_mkt.rendering.episode import Episode

_CAPTION, _GAP, _COLUMNS = 40, 6, 4
_STEP, _HOLD = 120, 1500  # milliseconds a picture stays; the last one's


def write_gif(episodes: Mapping[str, Episode], path: Path) -> Path:
    """Write one panel per task, with its name and its return so far; it repeats for ever.

    An episode that is over shows its last picture. Panels have the size of the first task's.
    """
    length = max(len(episode.frames) for episode in episodes.values())
    pages = [_page(episodes, step) for step in range(length)]
    palette = pages[-1].quantize(128)
    frames = [page.quantize(palette=palette, dither=Image.Dither.NONE) for page in pages]
    path.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(
        path,
        format="GIF",
        save_all=True,
        append_images=frames[1:],
        duration=[_STEP] * (length - 1) + [_HOLD],
        loop=0,
    )
    return path


def _page(episodes: Mapping[str, Episode], step: int) -> Image.Image:
    height, width = next(iter(episodes.values())).frames[0].shape[:2]
    columns = min(len(episodes), _COLUMNS)
    rows = -(-len(episodes) // columns)
    page = Image.new(
        "RGB",
        (columns * (width + _GAP) + _GAP, rows * (height + _CAPTION + _GAP) + _GAP),
        (221, 225, 230),
    )
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(14)
    for place, (task, episode) in enumerate(episodes.items()):
        now = min(step, len(episode.frames) - 1)
        row, column = divmod(place, columns)
        x, y = _GAP + column * (width + _GAP), _GAP + row * (height + _CAPTION + _GAP)
        panel = Image.fromarray(episode.frames[now])
        if panel.size != (width, height):
            panel = panel.resize((width, height), Image.Resampling.LANCZOS)
        page.paste(panel, (x, y + _CAPTION))
        pen.text((x + 4, y + 2), task, "black", font)
        pen.text((x + 4, y + 20), f"step {now}   return {episode.returns[now]:.2f}", "black", font)
    return page
