"""Whether the installed versions are those this package was made for. Needs no torch."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, requires, version

from packaging.requirements import Requirement

_DISTRIBUTION = "benchmarl-mkt"


def check_versions() -> None:
    """Compare the installed versions with the ranges of this package's own requirements.

    Raises:
        ImportError: if one is missing or out of its range (one line that names it and the remedy).
    """
    for requirement in requirements():
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            raise ImportError(
                f"{requirement.name} is not installed; pip install '{requirement}'"
            ) from None
        if not requirement.specifier.contains(installed, prereleases=True):
            raise ImportError(
                f"{requirement.name} {installed} is installed, but {_DISTRIBUTION} needs "
                f"{requirement}; pip install '{requirement}'"
            )


def requirements() -> list[Requirement]:
    """Return what must be installed, extras apart; nothing if this package is not installed."""
    try:
        lines = requires(_DISTRIBUTION) or []
    except PackageNotFoundError:  # run from its sources
        return []
    return [
        Requirement(f"{one.name}{one.specifier}")
        for one in map(Requirement, lines)
        if one.marker is None or one.marker.evaluate({"extra": ""})
    ]
