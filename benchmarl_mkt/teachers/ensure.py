"""Train every missing teacher, in parallel processes, with progress bars."""

from __future__ import annotations

import multiprocessing
import os
import queue
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import BaseContext
from multiprocessing.queues import Queue

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarl_mkt.environments import MultiTaskClass
from benchmarl_mkt.environments.registration import register_tasks
from benchmarl_mkt.files import check_writable
from benchmarl_mkt.models.registration import register_models
from benchmarl_mkt.quiet import quiet
from benchmarl_mkt.teachers.find import missing_teachers
from benchmarl_mkt.teachers.settings import TeacherSettings
from benchmarl_mkt.teachers.store import TeacherStore
from benchmarl_mkt.teachers.train import remove_leftovers, train_teacher
from benchmarl_mkt.teams.load import load_teacher
from benchmarl_mkt.training.machine import keep_memory
from benchmarl_mkt.training.monitors import TrainingError
from benchmarl_mkt.training.resume.signals import Stopped, obey_parent

START_METHOD = "spawn"  # a fork would copy the threads' locks, and JAX's
_news: Queue  # of a worker process: tells how far its teacher is


def ensure_teachers(
    settings: TeacherSettings, task: MultiTaskClass, console: Console, workers: int | None = None
) -> None:
    """Train the teachers that the store lacks, one process per core.

    Args:
        settings: how teachers are trained.
        task: the task set.
        console: where progress is shown.
        workers: processes at once; by default one per core.

    Raises:
        ValueError: if the store cannot be written.
        TrainingError: if a training cannot go on.
    """
    store = TeacherStore(settings.store)
    check_writable("algorithm.teacher.store", store.root)
    remove_leftovers(store)
    names = list(missing_teachers(settings, task))
    if not names:
        return
    console.print(f"Training {len(names)} teachers: {', '.join(names)}")
    context = _context()
    news, others = context.Queue(), set(multiprocessing.active_children())
    count = min(len(names), workers or len(os.sched_getaffinity(0)))
    with (
        _bars(console) as bars,
        ProcessPoolExecutor(count, context, initializer=_begin, initargs=(news,)) as pool,
    ):
        rows = {name: bars.add_task(name, total=None, best="waiting") for name in names}
        jobs = {pool.submit(_work, settings, task.config, name): name for name in names}
        waiting = dict(jobs)
        try:
            while waiting:
                _show(news, bars, rows)
                for job in [job for job in waiting if job.done()]:
                    _finish(job, waiting.pop(job), bars, rows)
        except BaseException:  # a signal, or a teacher's error: the others save and stop as well
            for job in jobs:
                job.cancel()
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            raise


def _context() -> BaseContext:
    """Return the context of the workers, also within a worker of joblib's.

    Such a worker has a start method of joblib's own, which its children would ask for in vain.
    """
    if multiprocessing.get_start_method() not in multiprocessing.get_all_start_methods():
        multiprocessing.set_start_method(START_METHOD, force=True)
    return multiprocessing.get_context(START_METHOD)


def _begin(news: Queue) -> None:
    """Prepare a worker process."""
    register_models()
    register_tasks()
    obey_parent()
    quiet()
    keep_memory()
    torch.set_num_threads(1)  # the networks are small, and every core has its own teacher
    news.cancel_join_thread()  # who reads them may be gone
    global _news
    _news = news


def _work(settings: TeacherSettings, task_config: dict, name: str) -> str:
    """Train one teacher in a worker process."""
    task = MultiTaskClass("teachers", task_config)
    try:
        path = train_teacher(
            settings, task, name, lambda frames, total, best: _news.put((name, frames, total, best))
        )
    except Stopped as stopped:
        os._exit(int(stopped.code or 0))  # the pool would catch it, and go on with the next teacher
    return str(path)


def _show(news: Queue, bars: Progress, rows: dict) -> None:
    try:
        name, frames, total, best = news.get(timeout=0.2)
    except queue.Empty:
        return
    bars.update(rows[name], completed=frames, total=total, best=f"best {best:.2f}")


def _finish(job: Future, name: str, bars: Progress, rows: dict) -> None:
    try:
        score = load_teacher(job.result()).score
    except BrokenProcessPool as error:
        raise TrainingError("a process that trained a teacher was killed") from error
    bars.update(rows[name], total=1, completed=1, best=f"scored {score['mean']:.2f}")


def _bars(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:<28}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[best]:<16}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
