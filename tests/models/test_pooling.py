"""Sets of entities: pooling and scores, in chunks and plain."""

import pytest
import torch

from benchmarl_mkt.models import pooling
from benchmarl_mkt.models.pooling import pooled, target_scores

N, AGENTS, SIZE, WIDTH, INNER = 5, 37, 6, 4, 3


@pytest.fixture(params=[1, 64, 2**17])
def cached(request, monkeypatch):
    """Chunks of one agent, of a few with a rest, and one chunk for all."""
    monkeypatch.setattr(pooling, "CACHED", request.param)


def drawn(n: int = N, dtype=torch.double) -> list[torch.Tensor]:
    """Entities, some absent, and the weights."""
    x = torch.randn(n, AGENTS, SIZE, dtype=dtype)
    x[..., -1] = torch.rand(n, AGENTS) < 0.6
    x = x * x[..., -1:]
    shapes = ((WIDTH, SIZE), (INNER, WIDTH), (AGENTS, INNER), (INNER,))
    return [x, *(torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes)]


def test_pooling_by_hand(cached):
    x, weight, *_ = drawn()
    found = pooled(x, weight)
    for agent in range(AGENTS):
        there = [x[i, agent] for i in range(N) if x[i, agent, -1]]
        tokens = [torch.relu(weight[:, :-1] @ e[:-1] + weight[:, -1]) for e in there]
        zero = torch.zeros(WIDTH, dtype=x.dtype)
        mean = sum(tokens, zero) / max(len(tokens), 1)
        largest = torch.stack(tokens).amax(0) if tokens else zero
        torch.testing.assert_close(found[agent], torch.cat([mean, largest]))


def test_scores_by_hand(cached):
    x, weight, key, query, out = drawn()
    found = target_scores(x, weight, key, query, out)
    assert found.shape == (AGENTS, N)
    for agent, entity in ((0, 0), (3, 4), (36, 2)):
        token = torch.relu(weight @ x[entity, agent])
        expected = out @ torch.relu(query[agent] + key @ token)
        torch.testing.assert_close(found[agent, entity], expected)


def test_gradients(cached):
    x, weight, *others = drawn()
    assert torch.autograd.gradcheck(lambda w: pooled(x, w), (weight,))
    assert torch.autograd.gradcheck(lambda *rest: target_scores(x, *rest), (weight, *others))


def test_chunks_are_the_plain_products(cached, monkeypatch):
    x, *weights = drawn(dtype=torch.float32)

    def both() -> list[torch.Tensor]:
        outputs = [pooled(x, weights[0]), target_scores(x, *weights)]
        total = sum(out.square().sum() for out in outputs)
        return [*outputs, *torch.autograd.grad(total, weights)]

    chunked = both()
    monkeypatch.setattr(pooling, "in_chunks", lambda _: False)
    for found, expected in zip(chunked, both()):
        torch.testing.assert_close(found, expected)


def test_equal_entities_share_the_gradient_of_a_maximum(cached):
    x, weight, *_ = drawn()
    x[3] = x[1]
    found = torch.autograd.grad(pooled(x, weight).square().sum(), weight)
    tokens = torch.relu(x @ weight.t())
    count = x[..., -1].sum(0).clamp(min=1).unsqueeze(-1)
    plain = torch.cat([tokens.sum(0) / count, tokens.amax(0)], -1).square().sum()
    torch.testing.assert_close(found, torch.autograd.grad(plain, weight))


def test_a_maximum_that_is_rounded_otherwise_the_second_time_has_its_gradient(cached):
    """The backward pass computes tokens again, with another number of threads, say."""
    x, weight, *_ = drawn()
    expected = torch.autograd.grad(pooled(x, weight).square().sum(), weight)
    total = pooled(x, weight).square().sum()
    x.data.mul_(1 + 1e-12)
    torch.testing.assert_close(torch.autograd.grad(total, weight), expected)


def test_nobody_at_all(cached):
    x, weight, *others = drawn(0)
    assert torch.equal(pooled(x, weight), torch.zeros(AGENTS, 2 * WIDTH, dtype=x.dtype))
    assert target_scores(x, weight, *others).shape == (AGENTS, 0)
    absent = torch.zeros(N, AGENTS, SIZE, dtype=x.dtype)
    assert not pooled(absent, weight).any()


def test_gradients_of_the_entities_are_right_too():
    """Nobody needs them in training; saliency does."""
    x, weight, *others = drawn()
    x.requires_grad_()

    def total(x):
        return pooled(x, weight).sum() + target_scores(x, weight, *others).sum()

    (found,) = torch.autograd.grad(total(x), x)
    step = torch.zeros_like(x)
    step[2, 5, 1] = 1e-6
    x = x.detach()
    assert float(found[2, 5, 1]) == pytest.approx(
        float(total(x + step) - total(x - step)) / 2e-6, rel=1e-4, abs=1e-6
    )


def test_under_vmap():
    """TorchRL computes advantages so: two sets of a critic's weights at once."""
    x, weight, *_ = drawn()
    weights = torch.stack([weight, weight + 1]).detach()
    found = torch.vmap(pooled, (None, 0))(x, weights)
    for index in range(2):
        torch.testing.assert_close(found[index], pooled(x, weights[index]))
