"""What every training has: monitors, the best policy, exact resume, a summary."""

from benchmarl.experiment.callback import Callback

from benchmarl_mkt.training.monitors import Accounts, GuardCallback, WinRates
from benchmarl_mkt.training.resume import ResumeCallback


def standard_callbacks() -> list[Callback]:
    """Return new ones; resume comes first, innermost at the collector."""
    return [ResumeCallback(), GuardCallback(), Accounts(), WinRates()]
