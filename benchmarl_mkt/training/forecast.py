"""How long a training takes, said once its first iterations are timed."""

from __future__ import annotations

import logging
import math
import time

from tensordict import TensorDictBase
from tqdm.contrib.logging import logging_redirect_tqdm

from benchmarl_mkt.training.monitors import RunCallback

logger = logging.getLogger(__name__)


class Forecast(RunCallback):
    """Logs once how long the rest of a training will take, with its evaluations.

    Works with any algorithm. Iterations are timed from the first batch on: compiling and starting
    games come before it. Give it last, so that what others do in evaluations counts.

    Args:
        after: seconds of iterations to time before it speaks.
    """

    def __init__(self, after: float = 20.0):
        super().__init__()
        self.after = after

    def on_setup(self) -> None:
        self._begin: tuple[float, int] | None = None  # time, iterations done
        self._evaluating, self._evaluation = 0.0, math.nan  # seconds: of all so far, of the last
        self._told = False

    def on_batch_collected(self, batch: TensorDictBase) -> None:
        """Another iteration has been timed."""
        now, done = time.monotonic(), self.experiment.n_iters_performed
        if self._begin is None:
            self._begin = now, done
            return
        began, first = self._begin
        seconds = now - began - self._evaluating
        if self._told or seconds < self.after:
            return
        self._told = True
        experiment, on_policy = self.experiment, self.experiment.on_policy
        config, last = experiment.config, experiment.config.get_max_n_iters(on_policy)
        left, note = (last - done) * seconds / (done - first), ""
        if evaluations := self.evaluations():
            timed = not math.isnan(self._evaluation)  # not yet, if the run was stopped before
            left += evaluations * self._evaluation if timed else 0.0
            note = f", evaluations {'included' if timed else 'not counted'}"
        each = " of each task" if len(getattr(experiment.test_env, "teams", ())) > 1 else ""
        frames = config.get_max_n_frames(on_policy)
        with logging_redirect_tqdm():  # on a line of its own
            logger.info("%s frames%s: about %s to go%s", f"{frames:,}", each, duration(left), note)

    def on_train_end(self, training_td: TensorDictBase, group: str) -> None:
        """Updates are done; an evaluation may begin."""
        self._trained = time.monotonic()

    def on_evaluation_end(self, rollouts: list[TensorDictBase]) -> None:
        """An evaluation is done."""
        self._evaluation = time.monotonic() - self._trained
        self._evaluating += self._evaluation

    def evaluations(self) -> int:
        """Return how many evaluations are to come, after the first."""
        experiment, config = self.experiment, self.experiment.config
        if not config.evaluation or not (config.loggers or config.create_json):
            return 0
        frames = config.collected_frames_per_batch(experiment.on_policy)
        every = config.evaluation_interval // frames  # iterations
        last = config.get_max_n_iters(experiment.on_policy)
        return last // every - experiment.n_iters_performed // every


def duration(seconds: float) -> str:
    """Write a time as people say it: 40 seconds, 6 minutes, 2.5 hours."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
