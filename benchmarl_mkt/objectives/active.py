"""Steps that count: what idle ones would give is not computed."""

from __future__ import annotations

import torch
from torch import Tensor


def places_of(mask: Tensor) -> Tensor:
    """Return where ``mask`` [B, T] is true: [M], counted row by row."""
    return mask.flatten().nonzero().squeeze(-1)


def worthwhile(active: Tensor) -> bool:
    """Tell whether it saves time to leave out the steps that are not ``active`` [B, T].

    It does where a third of them idle, and on no GPU, which would have to wait for their number.
    """
    return active.device.type == "cpu" and 0 < 3 * int(active.sum()) <= 2 * active.numel()


def active_places(active: Tensor) -> Tensor | None:
    """Return where steps are ``active`` [B, T]; None, if all had better be computed."""
    return places_of(active) if worthwhile(active) else None


def rows(entries: Tensor, places: Tensor | None) -> Tensor:
    """Take [M, ...] of the entries [B, T, ...]; if ``places`` is None all, as they are."""
    return entries if places is None else entries.flatten(0, 1).index_select(0, places)


def spread(entries: Tensor, places: Tensor | None, batch: torch.Size) -> Tensor:
    """Put [M, ...] where :func:`rows` took it of ``batch`` [B, T]; elsewhere is zero."""
    if places is None:
        return entries
    empty = torch.zeros((batch.numel(), *entries.shape[1:]), dtype=entries.dtype)
    return empty.index_copy(0, places, entries).unflatten(0, batch)
