"""MKT-MARL: deep multi-task multi-agent RL with knowledge transfer, as a plugin of BenchMARL.

Importing this package is light: torch and BenchMARL load when :func:`register` runs or a
subpackage is imported.
"""

__version__ = "0.1.0"


def register() -> None:
    """Add the tasks, algorithms, models and Hydra schemas to BenchMARL's registries.

    Idempotent. Hydra applications of BenchMARL call it through the installed search-path plugin,
    so only scripts that use BenchMARL's registries directly need it.

    Raises:
        ImportError: if a version is installed that this package was not made for.
    """
    from benchmarl_mkt.compatibility import check_versions

    check_versions()
    from benchmarl_mkt.registry import register as _register

    _register()


__all__ = ["__version__", "register"]
