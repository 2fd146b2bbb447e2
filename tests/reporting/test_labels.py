import pytest

from benchmarl_mkt.reporting.labels import Labels, find_labels, read_labels
from tests.helpers import REPOSITORY

FULL = """
methods:
  mkt: {name: MKT-MARL}
  other: {name: Other, note: BenchMARL's own}
  0.95: {}
groups: {baselines: [other]}
tasks: {push: simple push}
published: {push: {mkt: 18.25, teacher: 16}}
source: Table II
"""


def test_labels(tmp_path):
    path = tmp_path / "labels.yaml"
    path.write_text(FULL.replace("0.95", "'0.95'"))
    labels = Labels(
        methods={"mkt": "MKT-MARL", "other": "Other", "0.95": "0.95"},
        notes={"other": "BenchMARL's own"},
        groups={"baselines": ("other",)},
        tasks={"push": "simple push"},
        published={"push": {"mkt": 18.25, "teacher": 16}},
        source="Table II",
    )
    assert read_labels(path) == find_labels([tmp_path / "none", tmp_path]) == labels
    assert list(labels.methods) == ["mkt", "other", "0.95"]
    assert find_labels([tmp_path / "none"]) == Labels()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (FULL, "methods: expected texts as keys (quote 0.95), got 0.95"),
        ("[", "cannot read"),
        ("- a", "the file: expected a mapping, got ['a']"),
        ("colours: {}", "the file: unknown key 'colours'; known are methods, groups, tasks"),
        ("methods: {mkt: MKT}", "methods.mkt: expected a mapping, got 'MKT'"),
        ("methods: {mkt: {nam: MKT}}", "methods.mkt: unknown key 'nam'; known are name, note"),
        ("methods: {mkt: {name: 3}}", "methods.mkt.name: expected a text, got 3"),
        ("groups: {a: mkt}", "groups.a: expected a list of methods, got 'mkt'"),
        ("groups: {a: [1]}", "groups.a: expected a list of methods, got 1"),
        ("published: {push: 3}", "published.push: expected a mapping, got 3"),
        ("published: {push: {mkt: high}}", "published.push.mkt: expected a number, got 'high'"),
        ("published: {push: {mkt: true}}", "published.push.mkt: expected a number, got True"),
        ("source: [1]", "source: expected a text"),
        ("a: !!python/object/apply:os.getcwd []", "cannot read"),
        ("\x00", "cannot read"),
    ],
)
def test_wrong_labels_are_named(tmp_path, text, problem):
    path = tmp_path / "labels.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="--labels: ") as error:
        read_labels(path)
    assert problem in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_labels_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"--labels: cannot read .*none\.yaml"):
        read_labels(tmp_path / "none.yaml")


def test_the_papers_labels():
    """They know every method that can be run, and the two numbers of the paper that we know."""
    labels = read_labels(REPOSITORY / "benchmarks" / "paper_labels.yaml")
    assert next(iter(labels.methods)) == "mkt"
    smax = read_labels(REPOSITORY / "benchmarks" / "smax_labels.yaml")
    assert next(iter(smax.methods)) == "mkt_smax_mappo"
    methods = {path.stem for path in (REPOSITORY / "conf" / "method").glob("*")}
    assert methods <= {*labels.methods, *smax.methods}
    grouped = set().union(*labels.groups.values())
    assert grouped == set(labels.methods) - {"mkt"}
    assert labels.published == {"simple_adversary": {"teacher": 16.57, "mkt": 18.25}}
