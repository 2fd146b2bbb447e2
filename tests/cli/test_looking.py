"""The verbs that only look: tasks, teachers show, teachers verify."""

import json
import shutil

import pytest

from tests.helpers import REPOSITORY, command


@pytest.fixture
def store(teachers, tmp_path, monkeypatch):
    """A store with two teachers, to be damaged."""
    folder = tmp_path / "copied"
    shutil.copytree(teachers.store, folder)
    monkeypatch.setenv("BENCHMARL_MKT_STORE", str(folder))
    return folder


def test_all_tasks(cli):
    status, out, error = cli("tasks")
    assert (status, error) == (0, "")
    for text in ("simple_speaker_listener", "navigation", "mpe: mpe/simple_speaker_listener"):
        assert text in out
    assert "waterworld" not in out  # continuous actions only
    assert "custom:" not in out  # the set of tasks of one's own, which is empty


def test_what_is_listed_as_installed_can_be_built(cli):
    """The first task of every environment; and the one of those that is not cannot be."""
    _, out, _ = cli("tasks")
    rows = [[cell.strip() for cell in line.split("│")[1:4]] for line in out.splitlines()]
    rows = {row[0]: row[1:] for row in rows if len(row) == 3 and row[0] not in ("", "multitask")}
    assert {"mpe", "vmas", "pettingzoo", "smac", "smacv2"} <= set(rows)
    built = {}
    for environment, (installed, tasks) in rows.items():
        first = tasks.rpartition("such as ")[2].split(",")[0]
        status, _, error = cli("tasks", f"{environment}/{first}")
        built[environment] = status == 0
        assert built[environment] == (installed == "yes"), error
        assert error.count("\n") == (status != 0)
        if status:
            assert error.startswith(f"error: tasks: {environment}/{first} cannot be built: ")
    assert built["mpe"] and built["vmas"] and not built["meltingpot"]
    assert built["pettingzoo"] or "no: use mpe of benchmarl-mkt[mpe]" in out


def test_starcraft_needs_the_game_and_its_package(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("SC2PATH", str(tmp_path / "game"))
    monkeypatch.syspath_prepend(str(REPOSITORY / "tests" / "stand_ins"))
    needs = "no: benchmarks/smax.md says how"
    assert cli("tasks")[1].count(needs) == 2
    (tmp_path / "game").mkdir()
    assert cli("tasks")[1].count(needs) == 0


def test_sizes_of_teams(cli):
    status, out, _ = cli("tasks", "multitask/mpe", "mpe/simple_tag", "vmas/balance")
    assert status == 0
    rows = [line.replace("│", " ").split() for line in out.splitlines() if "/" in line]
    assert rows == [
        ["mpe/simple_speaker_listener", "simple_speaker_listener", "2", "13", "5", "22", "25"],
        ["mpe/simple_push", "simple_push", "2", "21", "5", "38", "25"],
        ["mpe/simple_adversary", "simple_adversary", "2", "12", "5", "20", "25"],
        ["mpe/simple_tag", "simple_tag", "4", "20", "5", "64", "25"],
        ["vmas/balance", "balance", "4", "20", "9", "64", "100"],
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["mpe/simple_puhs"], "'mpe/simple_puhs' is not registered; did you mean mpe/simple_push"),
        (["multitask/custom"], "'multitask/custom' has no tasks of its own"),
        (["pettingzoo/waterworld"], "'pettingzoo/waterworld' has continuous actions only"),
    ],
)
def test_wrong_tasks_are_refused_in_one_line(names, message, cli):
    status, _, error = cli("tasks", *names)
    assert status == 2
    assert error.startswith(f"error: tasks: {message}")
    assert error.count("\n") == 1


def test_a_teacher_is_shown(store, cli):
    (path,) = store.glob("mpe-simple-push-*")
    data = json.loads((path / "teacher.json").read_text())
    for name in ("mpe-simple-push", path.name, str(path)):
        status, out, error = cli("teachers", "show", name)
        assert (status, error) == (0, "")
        for text in ("mpe/simple_push", f"{data['score']['mean']:.2f} [", "n_agents 2", "values"):
            assert text in out
    status, _, error = cli("teachers", "show", "mpe-simple")
    assert status == 2
    assert error.count("mpe-simple-") == 2
    assert cli("teachers", "show", "nobody")[0] == 2
    assert "there is no teacher in /nowhere" in cli("teachers", "show", "/nowhere")[2]


def test_damage_is_found(store, cli):
    status, out, _ = cli("teachers", "verify")
    assert (status, out.count("intact   ")) == (0, 2)
    (path,) = store.glob("mpe-simple-push-*")
    weights = bytearray((path / "weights.safetensors").read_bytes())
    weights[-1] ^= 1
    (path / "weights.safetensors").write_bytes(weights)
    status, out, error = cli("teachers", "verify")
    assert (status, error) == (1, "")
    assert f"damaged  {path.name}: " in out
    assert "does not match its checksum" in out
    assert "1 intact, 1 damaged" in out
    status, out, _ = cli("teachers", "verify", "mpe-simple-speaker")
    assert (status, out.count("intact   ")) == (0, 1)
    assert cli("teachers", "verify", "mpe-simple-push")[0] == 1


def test_a_pipe_gets_plain_text(store, tmp_path, monkeypatch):
    """No escape sequences, and nothing but ASCII where that is all it takes."""
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    found = command("-m", "benchmarl_mkt.cli", "teachers", "list", cwd=tmp_path, store=store)
    assert found.returncode == 0
    assert "\x1b" not in found.stdout
    assert found.stdout.isascii()
    assert "mpe-simple-push-" in found.stdout
