from importlib import metadata

import pytest

import benchmarl_mkt
from benchmarl_mkt import compatibility
from benchmarl_mkt.compatibility import check_versions, requirements
from tests.helpers import command


def test_the_installed_versions_fit():
    names = {requirement.name for requirement in requirements()}
    assert {"benchmarl", "torchrl", "tensordict", "torch", "hydra-core"} <= names
    assert "mpe2" not in names  # extras are checked where they are used
    check_versions()


@pytest.mark.parametrize("found", ["0.12.0", "0.10.9", "1.0"])
def test_a_version_out_of_range_is_named_with_the_remedy(found, monkeypatch, cli):
    real = metadata.version
    monkeypatch.setattr(
        compatibility, "version", lambda name: found if name == "torchrl" else real(name)
    )
    line = f"torchrl {found} is installed, but benchmarl-mkt needs torchrl<0.12,>=0.11; pip install"
    with pytest.raises(ImportError, match=line):
        benchmarl_mkt.register()
    status, out, error = cli("tasks")
    assert (status, out) == (2, "")
    assert error == f"error: {line} 'torchrl<0.12,>=0.11'\n"
    assert cli("--help")[0] == 0


def test_a_missing_package_is_named(monkeypatch):
    def version(name):
        if name == "safetensors":
            raise metadata.PackageNotFoundError(name)
        return metadata.version(name)

    monkeypatch.setattr(compatibility, "version", version)
    with pytest.raises(ImportError, match=r"^safetensors is not installed; pip install 'safet"):
        check_versions()


def test_local_and_later_versions_fit(monkeypatch):
    monkeypatch.setattr(
        compatibility,
        "version",
        lambda name: (
            {"torch": "2.15.0+cpu", "torchrl": "0.11.9"}.get(name) or metadata.version(name)
        ),
    )
    check_versions()


def test_sources_that_are_not_installed_are_not_checked(monkeypatch):
    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(compatibility, "requires", requires)
    assert requirements() == []


def test_the_check_does_not_need_torch(tmp_path, own_store):
    code = (
        "import sys; from benchmarl_mkt.compatibility import check_versions; check_versions(); "
        "sys.exit('torch' in sys.modules)"
    )
    found = command("-c", code, cwd=tmp_path, store=own_store)
    assert found.returncode == 0, found.stderr
