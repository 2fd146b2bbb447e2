"""Makes BenchMARL's Hydra applications find this package's configuration, and no others."""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

PROVIDER = "benchmarl-mkt"


def _is_benchmarl(search_path: ConfigSearchPath) -> bool:
    """Tell whether the running application composes BenchMARL's configuration folder."""
    return any(
        element.provider == "main" and _normalised(element.path).endswith("/benchmarl/conf")
        for element in search_path.get_path()
    )


def _normalised(path: str) -> str:
    """Turn ``pkg://benchmarl.conf``, ``file:///x/benchmarl/conf`` or a folder into one form."""
    if path.startswith("pkg://"):
        path = path.removeprefix("pkg://").replace(".", "/")
    return "/" + path.removeprefix("file://").replace("\\", "/").rstrip("/")


class BenchmarlMktSearchPath(SearchPathPlugin):
    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        if not _is_benchmarl(search_path):
            return
        from benchmarl_mkt import register
        from benchmarl_mkt.files import conf_path

        register()
        search_path.append(provider=PROVIDER, path=f"file://{conf_path()}")
