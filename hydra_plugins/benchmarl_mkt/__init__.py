"""Hydra plugin: the search path of benchmarl-mkt."""
