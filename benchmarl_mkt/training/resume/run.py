"""Running an experiment to its end, from where it was stopped."""

from __future__ import annotations

import contextlib
import logging
import shutil
import traceback
from pathlib import Path

from benchmarl.experiment import Experiment

from benchmarl_mkt.training.monitors import TrainingError, environment_error
from benchmarl_mkt.training.resume import signals
from benchmarl_mkt.training.resume.callback import FOLDER, ResumeCallback

logger = logging.getLogger(__name__)


def run(experiment: Experiment) -> None:
    """Run ``experiment`` to its end, from the newest checkpoint in its folder if there is one.

    Within :func:`~benchmarl_mkt.training.resume.signals.stop_signals` a signal is answered at the
    end of the iteration, after saving.

    Raises:
        ValueError: if the checkpoint is of another experiment.
        TrainingError: if training cannot go on; the message names the last good checkpoint.
        Stopped: if a signal asked to.
    """
    resume = next(c for c in experiment.callbacks if isinstance(c, ResumeCallback))
    resume.start()
    if experiment.n_iters_performed:
        last = experiment.config.get_max_n_iters(experiment.on_policy)
        logger.info("continuing after iteration %d of %d", experiment.n_iters_performed, last)
    answers = not experiment.config.collect_with_grad  # else there is no collector to do so
    try:
        with signals.deferred() if answers else contextlib.nullcontext():
            experiment.run()
    except signals.Stopped as stopped:
        experiment.close()
        raise stopped.with_traceback(None) from None  # lets go of the loop, and its progress bar
    except Exception as error:
        signals.raise_if_received()  # it may have reached a game's process first
        known = _known(error)
        if known is None:
            raise
        logger.debug("where it failed", exc_info=error)
        saved = resume.last_saved or "none yet"
        raise TrainingError(f"{known}; last good checkpoint: {saved}") from error
    signals.raise_if_received()  # in the last iteration


def _known(error: BaseException) -> TrainingError | None:
    """What stopped a training, if a guard or an environment did.

    Closing an experiment whose environment is dead may fail again: the first error counts.
    """
    while error.__context__ is not None and not isinstance(error, TrainingError):
        error = error.__context__
    if isinstance(error, TrainingError):
        return error
    frames = traceback.walk_tb(error.__traceback__)
    if isinstance(error, Exception) and any(
        frame.f_code.co_name == "_evaluation_loop" for frame, _ in frames
    ):
        return environment_error("playing evaluation episodes", error)
    return None


def forget(folder: Path) -> None:
    """Remove the checkpoints of a finished experiment in ``folder``."""
    shutil.rmtree(folder / FOLDER, ignore_errors=True)
