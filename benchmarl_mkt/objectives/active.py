"""Rows that count: what idle steps would give is not computed."""

from __future__ import annotations

import torch
from torch import Tensor


def some(mask: Tensor) -> Tensor | None:
    """Return ``mask`` [*B] if it is worth leaving out what it hides, else None.

    It is not where all or none is true, nor on a GPU, which would have to wait for the count.
    """
    if mask.device.type != "cpu":
        return None
    return mask if 0 < int(mask.sum()) < mask.numel() else None


def rows(entries: Tensor, mask: Tensor | None) -> Tensor:
    """Take the entries [*B, ...] where ``mask`` [*B] is true: [M, ...]; if None, all."""
    return entries if mask is None else entries[mask]


def spread(entries: Tensor, mask: Tensor | None) -> Tensor:
    """Put [M, ...] back where :func:`rows` took it: [*B, ...], zero elsewhere."""
    if mask is None:
        return entries
    places = torch.zeros((*mask.shape, *entries.shape[1:]), dtype=entries.dtype, device=mask.device)
    return places.index_put((mask,), entries)
