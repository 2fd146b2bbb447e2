r"""Sets of entities: tokens, pooled by mean and maximum, and a score for each.

Rows are entity by entity, :math:`x` [n, M, f] for n entities that M agents see; the last of the f
numbers is 1 where the entity is there, and what is not there is zero throughout. A token is
:math:`t = relu(W x)`, so that the last column of W [w, f] is the bias, and the token of nothing is
zero.

On a CPU both functions go through chunks of agents that stay in its cache, and keep no tokens for
the backward pass, which computes them again.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CACHED = 2**17  # numbers of a chunk that stay in a processor's cache
_relu_backward = torch.ops.aten.threshold_backward.grad_input


def pooled(x: Tensor, weight: Tensor) -> Tensor:
    """Mean and maximum of the tokens of the entities that are there: [M, 2 w]; of none, zero.

    Deep Sets (`arXiv:1703.06114 <https://arxiv.org/abs/1703.06114>`_). Tokens are not negative, so
    those of absent entities change neither sum nor maximum.
    """
    if x.shape[0] == 0:
        return x.new_zeros(x.shape[1], 2 * len(weight))
    count = x[..., -1].sum(0).clamp(min=1.0).unsqueeze(-1)
    if in_chunks(x):
        total, largest = _Pooled.apply(x, weight)
    else:
        tokens = torch.relu(x @ weight.t())
        total, largest = tokens.sum(0), tokens.amax(0)
    return torch.cat((total / count, largest), -1)


def target_scores(x: Tensor, weight: Tensor, key: Tensor, query: Tensor, out: Tensor) -> Tensor:
    """One score per entity, [M, n]: :math:`out^T relu(query + key t)`.

    Args:
        x: the entities [n, M, f].
        weight: of their tokens [w, f].
        key: U [h, w], from tokens.
        query: W c [M, h], of the agents.
        out: [h].
    """
    if in_chunks(x):
        return _TargetScores.apply(x, weight, key, query, out).t()
    return (torch.relu(query + torch.relu(x @ weight.t()) @ key.t()) @ out).t()


def in_chunks(x: Tensor) -> bool:
    """Whether to compute in chunks: on a CPU, where no exporter or transform looks inside.

    TorchRL's advantages of a critic are such a transform (vmap).
    """
    looked_into = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    return x.device.type == "cpu" and x.numel() > 0 and not x.requires_grad and not looked_into


def _chunks(x: Tensor, width: int) -> Iterator[tuple[slice, Tensor]]:
    """Some agents at a time, and their entities' rows [n R, f]."""
    n, agents, size = x.shape
    rows = max(1, CACHED // (n * width))
    for start in range(0, agents, rows):
        chunk = slice(start, start + rows)
        yield chunk, x[:, chunk].reshape(-1, size)


def _buffers(x: Tensor, *widths: int) -> list[Tensor]:
    """Memory for the largest chunk, one matrix per width."""
    n, agents, _ = x.shape
    rows = n * min(agents, max(1, CACHED // (n * max(widths))))
    return [x.new_empty(rows, width) for width in widths]


class _Pooled(torch.autograd.Function):
    """Sum and maximum [M, w] of the tokens."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        n, agents, _ = x.shape
        width, columns = len(weight), weight.t().contiguous()
        total, largest = x.new_empty(agents, width), x.new_empty(agents, width)
        (memory,) = _buffers(x, width)
        for chunk, rows in _chunks(x, width):
            tokens = torch.mm(rows, columns, out=memory[: len(rows)]).relu_().view(n, -1, width)
            torch.sum(tokens, 0, out=total[chunk])
            torch.amax(tokens, 0, out=largest[chunk])
        ctx.save_for_backward(x, weight)
        return total, largest

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_total: Tensor, of_largest: Tensor) -> tuple[None, Tensor]:
        x, weight = ctx.saved_tensors
        n, width, columns = len(x), len(weight), weight.t().contiguous()
        gradient = torch.zeros_like(columns)
        memory = _buffers(x, width, width, width)
        for chunk, rows in _chunks(x, width):
            before, at_top, of_tokens = (part[: len(rows)] for part in memory)
            torch.mm(rows, columns, out=before)
            shape = (n, -1, width)
            largest = before.view(shape).amax(0)
            torch.eq(before.view(shape), largest, out=at_top.view(shape))
            ties = at_top.view(shape).sum(0)  # they share a gradient, as in torch
            of_top = torch.where(largest > 0, of_largest[chunk] / ties, 0)  # relu's
            spread = of_total[chunk].expand(n, -1, -1)
            _relu_backward(spread, before.view(shape), 0, grad_input=of_tokens.view(shape))
            of_tokens.view(shape).addcmul_(at_top.view(shape), of_top)
            gradient.addmm_(rows.t(), of_tokens)
        return None, gradient.t()


class _TargetScores(torch.autograd.Function):
    """Scores [n, M]; see :func:`target_scores`."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, key: Tensor, query: Tensor, out: Tensor
    ) -> Tensor:
        n, agents, _ = x.shape
        columns, keys = weight.t().contiguous(), key.t().contiguous()
        scores = x.new_empty(n, agents)
        memory = _buffers(x, len(weight), len(key))
        for chunk, rows in _chunks(x, max(len(weight), len(key))):
            tokens, hidden = (part[: len(rows)] for part in memory)
            _hidden(rows, columns, keys, query[chunk], tokens, hidden)
            scores[:, chunk] = torch.mv(hidden, out).view(n, -1)
        ctx.save_for_backward(x, weight, key, query, out)
        return scores

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_scores: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, key, query, out = ctx.saved_tensors
        n, width, inner = len(x), len(weight), len(key)
        columns, keys = weight.t().contiguous(), key.t().contiguous()
        of_columns, of_keys = torch.zeros_like(columns), torch.zeros_like(keys)
        of_query, of_out = torch.empty_like(query), torch.zeros_like(out)
        memory = _buffers(x, width, width, inner, inner)
        for chunk, rows in _chunks(x, max(width, inner)):
            tokens, of_tokens, hidden, of_hidden = (part[: len(rows)] for part in memory)
            _hidden(rows, columns, keys, query[chunk], tokens, hidden)
            of_rows = of_scores[:, chunk].reshape(-1)
            of_out.addmv_(hidden.t(), of_rows)
            torch.mul(of_rows.unsqueeze(-1), out, out=of_hidden)
            _relu_backward(of_hidden, hidden, 0, grad_input=of_hidden)
            torch.sum(of_hidden.view(n, -1, inner), 0, out=of_query[chunk])
            of_keys.addmm_(tokens.t(), of_hidden)
            torch.mm(of_hidden, key, out=of_tokens)
            _relu_backward(of_tokens, tokens, 0, grad_input=of_tokens)
            of_columns.addmm_(rows.t(), of_tokens)
        return None, of_columns.t(), of_keys.t(), of_query, of_out


def _hidden(
    rows: Tensor, columns: Tensor, keys: Tensor, query: Tensor, tokens: Tensor, hidden: Tensor
) -> None:
    """Fill tokens [n R, w] and hidden units [n R, h] of a chunk, both after their relu."""
    torch.mm(rows, columns, out=tokens).relu_()
    torch.mm(tokens, keys, out=hidden)
    hidden.view(-1, *query.shape).add_(query).relu_()
