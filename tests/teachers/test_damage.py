"""Damage in the store: every entry is whole or refused by name, and nothing is deleted."""

import itertools
import json
import os
import shutil
import signal
import time
from dataclasses import replace

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarl_mkt.files import sha256
from benchmarl_mkt.teachers import TeacherStore, load_teacher
from benchmarl_mkt.teachers.find import find_teachers, missing_teachers
from benchmarl_mkt.teams.folder import METADATA, WEIGHTS, checksum
from tests.processes import in_process, start, wait_for
from tests.teachers.test_store import RECIPE, WEIGHT

FILES = (METADATA, WEIGHTS)


@pytest.fixture
def store(teachers, tmp_path):
    """A copy of the store, to be mangled; it must keep every file that it had."""
    return TeacherStore(shutil.copytree(teachers.store, tmp_path / "mangled"))


def push(teachers, store):
    return store.root / teachers.paths["simple_push"].name


def refusal(teachers, store) -> str:
    """What a student of both tasks is told; the store is as it was."""
    before = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    config = teachers.config(
        teacher={"store": str(store.root), "experiment": str(teachers.experiment)}
    ).teacher_settings
    assert missing_teachers(config, teachers.task) == {}  # nothing is trained over it
    env = teachers.task.get_env_fun(1, False, 0, "cpu")()
    with pytest.raises(ValueError, match=r"^teachers: ") as error:
        find_teachers(config, teachers.task, env)
    after = {path: path.read_bytes() for path in store.root.rglob("*") if path.is_file()}
    assert after == before
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
@pytest.mark.parametrize("file", FILES)
def test_truncated(teachers, store, file, share):
    path = push(teachers, store) / file
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert str(path.parent) in refusal(teachers, store)


@pytest.mark.parametrize("file", FILES)
def test_removed(teachers, store, file):
    (push(teachers, store) / file).unlink()
    assert str(push(teachers, store)) in refusal(teachers, store)


@pytest.mark.parametrize("file", FILES)
def test_swapped_with_another_teachers_file(teachers, store, file):
    other = store.root / teachers.paths["simple_speaker_listener"].name
    shutil.copy(other / file, push(teachers, store) / file)
    assert str(push(teachers, store)) in refusal(teachers, store)


def test_swapped_with_another_teacher_of_the_same_task(teachers, store):
    """Both files, whole: another seed's teacher at this address."""
    content = json.loads((push(teachers, store) / METADATA).read_text())
    content["recipe"]["seed"] = 9
    content["checksum"] = checksum(push(teachers, store) / WEIGHTS, content)
    (push(teachers, store) / METADATA).write_text(json.dumps(content))
    load_teacher(push(teachers, store))  # a good teacher
    assert "another recipe than its address says" in refusal(teachers, store)


def test_a_file_instead_of_a_folder(teachers, store):
    shutil.rmtree(push(teachers, store))
    push(teachers, store).write_text("teacher")
    assert str(push(teachers, store)) in refusal(teachers, store)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), file=st.sampled_from(FILES))
def test_a_flipped_bit(teachers, tmp_path_factory, place, bit, file):
    """Anywhere in either file: refused, or it says the same as before."""
    folder = tmp_path_factory.mktemp("flipped") / "push"
    shutil.copytree(teachers.paths["simple_push"], folder)
    content = bytearray((folder / file).read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    (folder / file).write_bytes(content)
    try:
        loaded = load_teacher(folder)
    except ValueError as error:
        assert str(folder) in str(error)
    else:
        assert file == METADATA
        assert loaded.metadata == load_teacher(teachers.paths["simple_push"]).metadata


@settings(max_examples=60)
@given(data=st.binary(max_size=300), file=st.sampled_from(FILES))
def test_random_bytes(teachers, tmp_path_factory, data, file):
    folder = tmp_path_factory.mktemp("random") / "push"
    shutil.copytree(teachers.paths["simple_push"], folder)
    (folder / file).write_bytes(data)
    with pytest.raises(ValueError, match="damaged or no teacher"):
        load_teacher(folder)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)
READ = (
    "kind",
    "task",
    "specs",
    "model",
    "share_params",
    "temperature",
    "score",
    "random",
    "frames",
)


@settings(max_examples=100)
@given(key=st.sampled_from(READ), value=VALUES, inside=st.booleans())
def test_random_values_under_a_right_checksum(teachers, tmp_path_factory, key, value, inside):
    """One ValueError or a teacher that can be asked; never another exception."""
    folder = tmp_path_factory.mktemp("random") / "push"
    shutil.copytree(teachers.paths["simple_push"], folder)
    content = json.loads((folder / METADATA).read_text())
    if inside and isinstance(content[key], dict):
        inner = sorted(content[key])[hash(str(value)) % len(content[key])]
        content[key][inner] = value
    else:
        content[key] = value
    content["checksum"] = checksum(folder / WEIGHTS, content)
    (folder / METADATA).write_text(json.dumps(content))
    try:
        teacher = load_teacher(folder)
    except ValueError as error:
        assert str(folder) in str(error)
        return
    assert teacher.temperature > 0
    assert teacher.kind in ("values", "logits")


def test_a_teacher_of_the_first_version_is_read(teachers, tmp_path):
    """Its checksum is over the weights alone."""
    folder = shutil.copytree(teachers.paths["simple_push"], tmp_path / "old")
    content = json.loads((folder / METADATA).read_text())
    content["checksum"] = sha256(folder / WEIGHTS)
    (folder / METADATA).write_text(json.dumps(content))
    load_teacher(folder)


# ---- processes ----


@pytest.mark.parametrize("moment", [1, 3])
def test_killed_while_writing(tmp_path, moment):
    """The disk is asked for three times before the entry appears: no half one; the lock is free."""
    store = TeacherStore(tmp_path / "store")

    def write():
        calls, original = itertools.count(1), os.fsync

        def fsync(handle):
            if next(calls) == moment:
                os.kill(os.getpid(), signal.SIGKILL)
            original(handle)

        os.fsync = fsync
        with store.lock(RECIPE):
            store.save(RECIPE, WEIGHT, {"kind": "values"})

    assert in_process(write) == -signal.SIGKILL
    assert RECIPE not in store
    assert store.entries() == []
    assert (store.root / f".{RECIPE.key}.lock").exists()  # stale
    with store.lock(RECIPE):
        path = store.save(RECIPE, WEIGHT, {"kind": "values"})
    assert store.entries() == [path]


def test_a_lock_is_held_while_its_process_lives(tmp_path):
    store = TeacherStore(tmp_path / "store")
    held = tmp_path / "held"

    def hold():
        with store.lock(RECIPE):
            held.touch()
            time.sleep(600)

    holder = start(hold)
    wait_for(held)
    file = store.root / f".{RECIPE.key}.lock"
    with pytest.raises(TimeoutError), FileLock(file, timeout=0.1):
        pass
    with store.lock(replace(RECIPE, seed=1)):  # another teacher is free
        pass
    holder.kill()
    holder.join()
    with store.lock(RECIPE):  # nobody has removed the file, and nobody waits for it
        assert file.exists()
