"""The callbacks that every training has."""

from __future__ import annotations

from benchmarl.experiment.callback import Callback

from benchmarl_mkt.training.accounts import Accounts
from benchmarl_mkt.training.guards import GuardCallback
from benchmarl_mkt.training.resume import ResumeCallback
from benchmarl_mkt.training.win_rates import WinRates


def standard_callbacks() -> list[Callback]:
    """Return new ones; resume comes first, innermost at the collector."""
    return [ResumeCallback(), GuardCallback(), Accounts(), WinRates()]
