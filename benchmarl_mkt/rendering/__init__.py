"""Pictures of episodes, drawn without a screen: no window, no OpenGL."""

from benchmarl_mkt.drawing import Scene, Shape, draw
from benchmarl_mkt.rendering.episodes import Episode, record, write_gif
from benchmarl_mkt.rendering.scenes import picture

__all__ = ["Episode", "Scene", "Shape", "draw", "picture", "record", "write_gif"]
