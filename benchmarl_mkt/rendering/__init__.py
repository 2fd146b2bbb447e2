"""Pictures of episodes, drawn without a screen: no window, no OpenGL."""

from benchmarl_mkt.rendering.drawing import Scene, Shape, draw
from benchmarl_mkt.rendering.episode import Episode, record
from benchmarl_mkt.rendering.gif import write_gif
from benchmarl_mkt.rendering.scenes import picture

__all__ = ["Episode", "Scene", "Shape", "draw", "picture", "record", "write_gif"]
