import numpy as np
import pytest
import torch
from PIL import Image

from benchmarl_mkt.algorithms import MktConfig
from benchmarl_mkt.environments.mpe import MpeEnv
from benchmarl_mkt.rendering import Scene, Shape, draw, picture, record, write_gif
from benchmarl_mkt.rendering.scenes import mpe_scene, vmas_scene
from benchmarl_mkt.teams import evaluate_team, export_team, load_team
from tests.helpers import PUSH, SPEAKER, make_experiment, task_set

RED, BLUE, WHITE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 1.0)
ALONE = {"start": 1.0, "end": 1.0, "fraction": 1.0}


def painted(scene, x, y, pixels=101):
    """The colour at a point of the world."""
    image = draw(scene, pixels)
    assert image.shape == (pixels, pixels, 3)
    assert image.dtype == np.uint8
    scale = pixels / (2 * scene.half_width)
    column = int(pixels / 2 + (x - scene.center[0]) * scale)
    row = int(pixels / 2 - (y - scene.center[1]) * scale)
    return tuple((image[row, column] / 255).round(1).tolist())


def test_a_disc_is_where_it_is_and_y_points_up():
    scene = Scene([Shape("disc", (0.5, 0.5), (0.2,), RED)], 1.0)
    assert painted(scene, 0.5, 0.5) == RED
    assert painted(scene, 0.5, 0.35) == RED
    for x, y in [(0.5, -0.5), (-0.5, 0.5), (0.5, 0.25)]:
        assert painted(scene, x, y) == WHITE


def test_a_box_turns_counter_clockwise():
    box = Shape("box", (0.0, 0.0), (1.6, 0.2), BLUE)
    assert painted(Scene([box], 1.0), 0.6, 0.0) == BLUE
    turned = Scene([box._replace(angle=torch.pi / 4)], 1.0)
    assert painted(turned, 0.6, 0.0) == WHITE
    assert painted(turned, 0.45, 0.45) == BLUE
    assert painted(turned, 0.45, -0.45) == WHITE


def test_a_line_and_a_moved_view():
    line = Shape("line", (5.0, 5.0), (1.0,), RED, angle=torch.pi / 2)
    scene = Scene([line], 1.0, (5.0, 5.0))
    assert painted(scene, 5.0, 5.3) == RED
    assert painted(scene, 5.3, 5.0) == WHITE


def test_later_shapes_lie_above():
    shapes = [Shape("disc", (0, 0), (0.5,), RED), Shape("disc", (0, 0), (0.2,), BLUE)]
    assert painted(Scene(shapes, 1.0), 0, 0) == BLUE
    assert painted(Scene(shapes, 1.0), 0.35, 0) == RED


@pytest.mark.parametrize("scenario", ["simple_speaker_listener", "simple_reference"])
def test_mpe_scenes_have_the_worlds_entities(scenario):
    """Both of the array games and of mpe2's own worlds; what is said is shown."""
    env = MpeEnv(scenario, 2, seed=0)
    env.rollout(3)
    scene, entities = mpe_scene(env), env.games.entities(0)
    assert [s.label for s in scene.shapes].count("") == sum(e.message is None for e in entities)
    assert any(entity.message is not None for entity in entities)
    centers = [tuple(map(float, entity.position)) for entity in reversed(entities)]
    assert [shape.center for shape in scene.shapes] == centers
    assert sum(shape.outlined for shape in scene.shapes) == 2
    other = [tuple(map(float, entity.position)) for entity in reversed(env.games.entities(1))]
    assert centers != other


def test_a_speakers_message_is_the_one_in_its_action():
    env = MpeEnv("simple_speaker_listener", 1, seed=0)
    data = env.reset()
    for word in range(3):
        data["speaker", "action"] = torch.tensor([[word]])
        data["listener", "action"] = torch.tensor([[0]])
        env.step(data)
        assert {shape.label for shape in mpe_scene(env).shapes} == {"", "ABC"[word]}


def test_vmas_is_drawn_from_its_state():
    vmas = pytest.importorskip("vmas")
    env = vmas.make_env("balance", num_envs=2, continuous_actions=False, seed=0)
    scene = vmas_scene(env)
    assert len(scene.shapes) == len(env.world.entities)
    assert sum(shape.outlined for shape in scene.shapes) == len(env.agents)
    agent, shape = env.agents[0], scene.shapes[len(env.world.landmarks)]
    assert shape.center == pytest.approx(tuple(agent.state.pos[0].tolist()))
    assert {s.kind for s in scene.shapes} == {"disc", "line", "box"}


@pytest.mark.parametrize("name", ["vmas/balance", "mpe/simple_tag", "toy/serial"])
def test_pictures_of_tasks_in_a_set(name):
    """A vectorised one, one of mpe2's own worlds, and one that cannot be drawn."""
    task = task_set(name)
    env = task.get_env_fun(2, continuous_actions=False, seed=0, device="cpu")()
    env.reset()
    (team,) = env.teams.values()
    if name == "toy/serial":
        with pytest.raises(ValueError, match=r"^render: .* cannot be drawn .* uint8 \[H, W, 3\]"):
            picture(team.env)
    else:
        image = picture(team.env, 120)
        assert image.shape == (120, 120, 3)
        assert 0.5 < (image > 250).all(-1).mean() < 1.0  # something on white paper
    env.close()


@pytest.fixture(scope="module")
def team(tmp_path_factory):
    folder = tmp_path_factory.mktemp("team")
    sets = task_set(PUSH, {"task": SPEAKER, "config": {"max_cycles": 10}})
    experiment = make_experiment(folder, sets, MktConfig(annealing=ALONE))
    experiment.run()
    return export_team(experiment, folder / "team")


def test_an_episode_is_the_one_that_is_evaluated(team):
    agents = load_team(team)
    episodes, again = record(agents, seed=4), record(agents, seed=4)
    scores = evaluate_team(agents, 1, seed=4)
    for (name, episode), steps in zip(episodes.items(), (25, 10), strict=True):
        assert len(episode.frames) == len(episode.returns) == steps + 1
        assert episode.returns[0] == 0.0
        assert episode.returns[-1] == pytest.approx(scores[name]["team"].returns.mean, rel=1e-5)
        assert all(map(np.array_equal, episode.frames, again[name].frames))
        assert not np.array_equal(episode.frames[0], episode.frames[-1])
    short = record(agents, seed=4, steps=3)
    assert [len(episode.frames) for episode in short.values()] == [4, 4]
    assert short["simple_push"].returns == episodes["simple_push"].returns[:4]


def test_the_gif_has_a_panel_for_every_task(team, tmp_path):
    episodes = record(load_team(team), seed=4)
    path = write_gif(episodes, tmp_path / "deep" / "team.gif")
    with Image.open(path) as image:
        assert image.format == "GIF"
        assert image.n_frames == 26
        assert image.size == (2 * 300 + 3 * 6, 300 + 40 + 2 * 6)
        assert image.info["loop"] == 0
        first = np.asarray(image.convert("RGB"), dtype=int)
        image.seek(25)
        last = np.asarray(image.convert("RGB"), dtype=int)
    assert (abs(first - last)[:, :306] > 60).any()
    assert (abs(first - last)[:, 312:] > 60).any()


def test_the_command(team, cli, tmp_path):
    status, out, error = cli("render", str(team), "--out=x/team.gif", "--steps=2", "--seed=1")
    assert (status, error) == (0, "")
    assert "simple_push: return " in out
    assert "Picture: x/team.gif" in out
    with Image.open(tmp_path / "x" / "team.gif") as image:
        assert image.n_frames == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["x"], "render: the following arguments are required: --out"),
        (["x", "--out=team.png"], "out: 'team.png' must be a file that ends with .gif"),
        (
            ["x", "--out=t.gif", "--steps=0"],
            "render: argument --steps: '0' must be a whole number from 1",
        ),
        (["/nowhere", "--out=t.gif"], "checkpoint: no team in /nowhere"),
        (["x", "--out=/dev/null/t.gif"], "out: cannot write to /dev/null"),
    ],
)
def test_wrong_commands_are_refused_in_one_line(options, message, cli):
    status, _, error = cli("render", *options)
    assert status == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
