"""Replay: segments of episodes, one buffer per task."""

from benchmarl_mkt.replay.multitask import MultiTaskReplayBuffer, make_segments

__all__ = ["MultiTaskReplayBuffer", "make_segments"]
