"""Whatever stands in a file: it is read, or there is one ValueError."""

import contextlib
import os

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarl_mkt.reporting.runs import read_runs
from tests.test_no_code_from_files import READERS

TAGS = ["!!bool x", "!!int ''", "!!float ''", "!!timestamp x", "!!binary é", "2001-99-99", "? {a}"]
TEXTS = st.text("{}[]:,\"'\n -&*!?|>%@0123456789abc.", max_size=60).map(str.encode)
READ = {
    **{name: reader for name, reader in READERS.items() if not name.startswith("0")},
    "summary.json": lambda path: read_runs([path.parent]),
}


@pytest.mark.parametrize("name", READ)
@settings(max_examples=60)
@given(content=st.binary(max_size=200) | TEXTS | st.sampled_from(TAGS).map(str.encode))
@example(content=b"[" * 100_000)
@example(content=b"1" * 10_000)
@example(content=b'{"a": ' * 5_000)
@example(content=b"\xff\xfe\x00")
@example(content=b"")
def test_one_value_error_or_none(tmp_path_factory, name, content):
    path = tmp_path_factory.getbasetemp() / f"bytes-{os.getpid()}-{name}"
    path.mkdir(exist_ok=True)
    (path / name).write_bytes(content)
    with contextlib.suppress(ValueError):
        READ[name](path / name)


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("name", ["labels.yaml", "preset.yaml"])
def test_tags_of_yaml_name_the_file(tmp_path, name, tag):
    (tmp_path / name).write_text(f"lr: {tag}\n")
    with pytest.raises(ValueError, match=str(tmp_path / name)):
        READ[name](tmp_path / name)
