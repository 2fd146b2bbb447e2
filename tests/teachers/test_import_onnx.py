"""Policies of other frameworks, imported as ONNX files."""

import json

import pytest
import torch
from torch import nn

from benchmarl_mkt.teachers.imports import RunSettings, import_onnx
from benchmarl_mkt.teams import load_teacher, load_team, onnx_expert
from benchmarl_mkt.teams.folder import METADATA, WEIGHTS, checksum
from benchmarl_mkt.teams.frozen import FrozenTeam
from benchmarl_mkt.teams.onnx import export_policy
from tests.helpers import PUSH
from tests.test_no_code_from_files import PAYLOADS

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
helper = onnx.helper

SETTINGS = RunSettings({"task": PUSH}, {"task": {}})
AGENTS, LENGTH, ACTIONS = 2, 19, 5  # of simple_push, without agent ids


class Rows(nn.Module):
    """A policy of rows [B, d], as CleanRL's are."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(LENGTH, 8), nn.Tanh(), nn.Linear(8, ACTIONS))

    def forward(self, obs):
        return self.net(obs)


class Recurrent(nn.Module):
    """One of EPyMARL's kind: rows, a mask that it applies, a hidden state."""

    def __init__(self):
        super().__init__()
        self.cell, self.head = nn.GRUCell(LENGTH, 6), nn.Linear(6, ACTIONS)

    def forward(self, obs, avail, h):
        h = self.cell(obs, h)
        return torch.where(avail, self.head(h), -1e9), h


def write(path, module, inputs, names, outputs):
    batch = torch.export.Dim("batch")
    program = torch.onnx.export(
        module.eval(),
        inputs,
        dynamo=True,
        verbose=False,
        input_names=names,
        output_names=outputs,
        dynamic_shapes=tuple({0: batch} for _ in inputs),
    )
    program.save(str(path), external_data=False)
    return path


@pytest.fixture
def rows(tmp_path):
    """A file of rows, and its module."""
    module = Rows()
    inputs = (torch.zeros(2, LENGTH),)
    return write(tmp_path / "rows.onnx", module, inputs, ["obs"], ["pi"]), module


NAMED = {"inputs": {"observation": "obs"}, "outputs": {"logits": "pi"}}


def seen(team: FrozenTeam, *batch: int) -> torch.Tensor:
    return torch.randn(*batch, team.specs.n_agents, team.specs.observation_size)


def test_what_is_exported_can_be_imported(teachers, own_store, tmp_path):
    team = load_teacher(teachers.paths["simple_push"])
    file = export_policy(team, tmp_path / "push.onnx")
    path = import_onnx(file, SETTINGS)
    assert path.parent == own_store
    again = load_teacher(path, team.specs, PUSH)
    for batch in ((1,), (3,), (2, 4)):
        rows = seen(team, *batch)
        mask = torch.rand(*batch, AGENTS, ACTIONS) < 0.6
        mask[..., 0] = True
        given, found = team.act(rows, mask, {}), again.act(rows, mask, {})
        torch.testing.assert_close(found["action_value"], given["action_value"])
        assert torch.equal(found["action"], given["action"])
    assert again.kind == "values"
    assert again.score["episodes"] == 100
    assert 0.5 < again.temperature / team.temperature < 2
    assert export_policy(again, tmp_path / "again.onnx").read_bytes() == file.read_bytes()
    assert import_onnx(tmp_path / "again.onnx", SETTINGS) == path


def test_rows_without_agent_ids(rows, tmp_path):
    file, module = rows
    team = load_teacher(import_onnx(file, SETTINGS, tmp_path / "expert", **NAMED))
    observation = seen(team, 3, 4)
    with torch.no_grad():
        expected = module(observation[..., :LENGTH])
    torch.testing.assert_close(team.values(observation), expected)
    assert (team.kind, team.temperature) == ("logits", 1.0)
    assert list(load_team(tmp_path / "expert")) == ["simple_push"]


def test_hidden_states_and_masks(tmp_path):
    module = Recurrent()
    inputs = (torch.zeros(2, LENGTH), torch.ones(2, ACTIONS).bool(), torch.zeros(2, 6))
    names = ["observation", "action_mask", "h"]
    file = write(tmp_path / "gru.onnx", module, inputs, names, ["action_value", "new_h"])
    with pytest.raises(ValueError, match=r"name every hidden state: states=\{INPUT: OUTPUT\}"):
        import_onnx(file, SETTINGS, tmp_path / "expert")
    path = import_onnx(file, SETTINGS, tmp_path / "expert", states={"h": "new_h"})
    team = load_teacher(path)
    assert team.state_shapes == {"h": (AGENTS, 6)}
    observation, begins = seen(team, 5, 7), torch.rand(5, 7, 1) < 0.3
    begins[:, 0] = True
    mask, states, own = torch.ones(5, AGENTS, ACTIONS).bool(), {}, torch.zeros(5 * AGENTS, 6)
    whole = team.values(observation, begins)
    for step in range(7):
        out = team.act(observation[:, step], mask, {**states, "is_init": begins[:, step]})
        states = {"h": out["next", "h"]}
        own = own * ~begins[:, step].repeat_interleave(AGENTS, 0)
        with torch.no_grad():
            rows = observation[:, step, :, :LENGTH].flatten(0, 1)
            values, own = module(rows, mask.flatten(0, 1), own)
        torch.testing.assert_close(out["action_value"].flatten(0, 1), values)
        torch.testing.assert_close(out["next", "h"].flatten(0, 1), own)
        torch.testing.assert_close(whole[:, step], out["action_value"])


def test_the_commands(rows, cli, tmp_path):
    file = str(rows[0])
    names = ["inputs={observation: obs}", "outputs={logits: pi}"]
    status, out, error = cli(
        "teachers", "import", file, f"task={PUSH}", *names, "task.max_cycles=9"
    )
    assert (status, error) == (0, "")
    assert "{task: mpe/simple_push, config: {max_cycles: 9}}" in out
    (path,) = (tmp_path / "store").iterdir()
    status, out, _ = cli("teachers", "show", str(path))
    assert status == 0
    assert "rows.onnx" in out.replace("\n", "")
    assert "1 intact" in cli("teachers", "verify")[1]
    assert cli("export", str(path), "simple_push", "--out=copy.onnx")[0] == 0
    assert (tmp_path / "copy.onnx").read_bytes() == rows[0].read_bytes()
    for given, reason in (
        ([file, *names], "needs task=ENVIRONMENT/TASK"),
        ([file, f"task={PUSH}", "seed=3"], "not seed"),
        ([file, f"task={PUSH}", "inputs=obs"], "must be a mapping"),
        (["nowhere.onnx", f"task={PUSH}"], "there is no file"),
    ):
        status, _, error = cli("teachers", "import", *given)
        assert status == 2
        assert reason in error
        assert error.count("\n") == 1


# ---- what is refused ----


def refusal(file, store, **names) -> str:
    with pytest.raises(ValueError, match=r"^import: ") as error:
        import_onnx(file, SETTINGS, **names)
    assert "\n" not in str(error.value)
    assert not store.exists()
    return str(error.value)


def model_of(nodes, initializers=(), functions=(), domains=("",)):
    shape = ["B", AGENTS]
    return helper.make_model(
        helper.make_graph(
            nodes,
            "policy",
            [helper.make_tensor_value_info("observation", 1, [*shape, LENGTH])],
            [helper.make_tensor_value_info("logits", 1, [*shape, ACTIONS])],
            list(initializers),
        ),
        opset_imports=[helper.make_opsetid(domain, 18) for domain in domains],
        functions=list(functions),
        ir_version=10,
    )


def weights():
    return onnx.numpy_helper.from_array(torch.randn(LENGTH, ACTIONS).numpy(), "w")


PRODUCT = helper.make_node("MatMul", ["observation", "w"], ["logits"])


def test_a_plain_file_is_taken(tmp_path):
    onnx.save(model_of([PRODUCT], [weights()]), tmp_path / "plain.onnx")
    import_onnx(tmp_path / "plain.onnx", SETTINGS, tmp_path / "expert")


@pytest.mark.parametrize("where", ["graph", "branch", "function"])
def test_custom_operators_are_refused_wherever_they_stand(tmp_path, own_store, where):
    evil = helper.make_node("Run", ["observation"], ["logits"], domain="evil")
    nodes, functions = [evil], []
    if where == "branch":
        output = helper.make_tensor_value_info("logits", 1, None)
        branch = helper.make_graph([evil], "branch", [], [output])
        yes = helper.make_node("Constant", [], ["yes"], value=helper.make_tensor("c", 9, [], [1]))
        nodes = [yes, helper.make_node("If", ["yes"], ["logits"], then_branch=branch,
                                       else_branch=branch)]  # fmt: skip
    elif where == "function":
        opset = [helper.make_opsetid("evil", 18)]
        functions = [helper.make_function("own", "Act", ["observation"], ["logits"], [evil], opset)]
        nodes = [helper.make_node("Act", ["observation"], ["logits"], domain="own")]
    model = model_of(nodes, functions=functions, domains=("", "evil", "own"))
    onnx.save(model, tmp_path / "evil.onnx")
    assert "it has a custom operator, evil.Run" in refusal(tmp_path / "evil.onnx", own_store)


@pytest.mark.parametrize("place", ["initializer", "attribute"])
def test_data_in_other_files_is_refused(tmp_path, own_store, place, monkeypatch):
    """Also where it would be found."""
    monkeypatch.chdir(tmp_path)
    nodes, tensors = [PRODUCT], [weights()]
    if place == "attribute":
        nodes = [helper.make_node("Constant", [], ["w"], value=weights()), PRODUCT]
        tensors = []
    onnx.save(
        model_of(nodes, tensors),
        "policy.onnx",
        save_as_external_data=True,
        location="data",
        size_threshold=0,
        convert_attribute=True,
    )
    assert (tmp_path / "data").stat().st_size == LENGTH * ACTIONS * 4
    assert "w lies in another file" in refusal("policy.onnx", own_store)


def test_what_does_not_fit_is_named_with_its_shapes(rows, own_store, tmp_path):
    file, _ = rows
    assert "say which is what" in refusal(file, own_store)
    assert "say which is what" in refusal(file, own_store, inputs={"observation": "obs"})
    assert "['obs'] are neither" in refusal(file, own_store, inputs={"obs": "observation"})
    other = RunSettings({"task": "vmas/balance"}, {"task": {}})
    with pytest.raises(ValueError, match=r"obs is \['\w+', 19\], but .* is \[B, 4, 16\], with"):
        import_onnx(file, other, **NAMED)
    module = nn.Sequential(nn.Linear(LENGTH, 3))
    given = ((torch.zeros(2, LENGTH),), ["obs"], ["pi"])
    few = write(tmp_path / "few.onnx", module, *given)
    assert "pi is [2, 3], but the task needs ['B', 5]" in refusal(few, own_store, **NAMED)
    assert not own_store.exists()


def test_what_is_not_installed_is_told(rows, cli, monkeypatch):
    there = onnx_expert.find_spec
    monkeypatch.setattr(
        onnx_expert, "find_spec", lambda name: None if name == "onnxruntime" else there(name)
    )
    status, _, error = cli("teachers", "import", str(rows[0]), f"task={PUSH}")
    assert status == 2
    assert "onnxruntime not installed; pip install 'benchmarl-mkt[onnx]'" in error


@pytest.mark.parametrize("payload", PAYLOADS)
def test_what_is_no_onnx_file_is_not_run(tmp_path, own_store, payload):
    mark = tmp_path / "mark"
    (tmp_path / "policy.onnx").write_bytes(payload(mark))
    refusal(tmp_path / "policy.onnx", own_store)
    assert not mark.exists()


def test_what_is_checked_is_what_is_run(tmp_path):
    """Bytes 4 to 8 are what onnxruntime knows its own format by, which nobody checks here."""
    model = model_of([PRODUCT], [weights()])
    model.producer_name = "ORTM"
    content = model.SerializeToString()
    assert content[4:8] == b"ORTM"
    onnx_expert.open_session(content)


def test_a_scalar_observation_is_told(tmp_path, own_store):
    model = model_of([helper.make_node("Gemm", ["observation", "w"], ["logits"])], [weights()])
    del model.graph.input[0].type.tensor_type.shape.dim[:]
    model.graph.node[0].CopyFrom(helper.make_node("Identity", ["observation"], ["logits"]))
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    (tmp_path / "policy.onnx").write_bytes(model.SerializeToString())
    assert "its input observation is []" in refusal(tmp_path / "policy.onnx", own_store)


def test_another_kind_of_output_is_another_expert(rows, own_store):
    names = {key: value for key, value in NAMED.items() if key != "outputs"}
    (out,) = NAMED["outputs"].values()
    both = {
        import_onnx(rows[0], SETTINGS, outputs={kind: out}, **names)
        for kind in ("logits", "action_value")
    }
    assert len(both) == 2


def test_a_stored_file_is_checked_again(rows, tmp_path):
    """Also under its right checksum."""
    from safetensors.torch import save_file

    path = import_onnx(rows[0], SETTINGS, tmp_path / "expert", **NAMED)
    evil = helper.make_node("Run", ["observation"], ["logits"], domain="evil")
    content = model_of([evil], domains=("", "evil")).SerializeToString()
    save_file({"content": torch.frombuffer(bytearray(content), dtype=torch.uint8)}, path / WEIGHTS)
    data = json.loads((path / METADATA).read_text())
    data["model"]["size"] = len(content)
    data["checksum"] = checksum(path / WEIGHTS, data)
    (path / METADATA).write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"is damaged or no teacher: .*custom operator, evil\.Run"):
        load_teacher(path)
