"""Collectors: rollouts of several tasks with their teachers' values."""

from benchmarl_mkt.collectors.multitask import MultiTaskCollector

__all__ = ["MultiTaskCollector"]
