"""The callbacks that every training has."""

from __future__ import annotations

from benchmarl.experiment.callback import Callback

from benchmarl_mkt.accounts import Accounts
from benchmarl_mkt.guards import GuardCallback
from benchmarl_mkt.resume import ResumeCallback
from benchmarl_mkt.win_rates import WinRates


def standard_callbacks() -> list[Callback]:
    """Return new ones; resume comes first, innermost at the collector."""
    return [ResumeCallback(), GuardCallback(), Accounts(), WinRates()]
