"""The weight a of Eq. 6 over training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AnnealingSchedule:
    """Linear from ``start`` to ``end`` over the first ``fraction`` of training, then constant.

    The paper: 0.1 to 0.95 over 60 %. Ablations of Table IV: (1, 1) is TD alone, (0, 0)
    distillation alone, (0.5, 0.5) constant, (0.95, 0.1) reversed.

    Args:
        start: weight of TD at progress 0, in [0, 1].
        end: weight of TD from progress ``fraction`` on, in [0, 1].
        fraction: share of training that the change takes, in (0, 1].

    Raises:
        ValueError: if a number is outside its range.
    """

    start: float = 0.1
    end: float = 0.95
    fraction: float = 0.6

    def __post_init__(self) -> None:
        for name, weight in (("start", self.start), ("end", self.end)):
            if not 0.0 <= weight <= 1.0:
                why = "it is the weight of the TD loss"
                raise ValueError(f"annealing.{name}: {weight} must lie in [0, 1] ({why})")
        if not 0.0 < self.fraction <= 1.0:
            raise ValueError(
                f"annealing.fraction: {self.fraction} must lie in (0, 1] (a share of training)"
            )

    def __call__(self, progress: float) -> float:
        """Return the weight a at ``progress`` in [0, 1] of training."""
        if not 0.0 <= progress <= 1.0:
            raise ValueError(f"progress: {progress} must lie in [0, 1]")
        return self.start + (self.end - self.start) * min(progress / self.fraction, 1.0)

    @property
    def uses_teacher(self) -> bool:
        """Whether the distillation term ever counts."""
        return min(self.start, self.end) < 1.0

    @property
    def uses_rewards(self) -> bool:
        """Whether the TD term ever counts."""
        return max(self.start, self.end) > 0.0
