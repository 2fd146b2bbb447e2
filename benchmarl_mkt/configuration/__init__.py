"""Whether a command line makes sense: found out before anything is trained or written."""
