"""The report as one page: its numbers, and what a browser makes of it."""

import json
import re
import sys
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest

from benchmarl_mkt.reporting.comparison import compare
from benchmarl_mkt.reporting.labels import Labels
from benchmarl_mkt.reporting.page import write_page
from benchmarl_mkt.reporting.report import _CAPTIONS, write_report
from benchmarl_mkt.reporting.runs import read_runs
from benchmarl_mkt.reporting.tables import report_tables
from tests.reporting.browser import CHROMIUM, Browser
from tests.reporting.results import evaluations, row, summary, write_clock, write_results, write_run

pytest.importorskip("bokeh")
LIBRARY = re.compile(r"(?<=<script>\n).*(?=\n</script>\n<script type)", re.DOTALL)


LABELS = Labels(methods={"mkt": "MKT", "other": "Other"})


def page_alone(results, path):
    """The page without the report's other files."""
    comparisons, remarks = compare(read_runs([results])[0], LABELS)
    sections = [(c.set, c, report_tables(c, LABELS)) for c in comparisons]
    write_page(path, "some runs", remarks, sections, LABELS)
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page on six finished runs; those of MKT know their time, 30 to 90 s for 100 frames."""
    folder = tmp_path_factory.mktemp("page")
    results = write_results(folder / "results")
    for seed in range(3):
        run = results / "two" / "mkt" / f"seed_{seed}"
        content = json.loads((run / "summary.json").read_text())
        content |= {"seconds": 120.0 * (seed + 1), "machine": "A processor, 2 cores"}
        (run / "summary.json").write_text(json.dumps(content))
        write_clock(run, 30.0 * (seed + 1))
    (folder / "out").mkdir()
    write_report(*read_runs([results]), LABELS, folder / "out")
    return folder / "out" / "report.html"


class Elements(HTMLParser):
    """All elements of a page with their attributes, and the numbers of its tables' rows."""

    def __init__(self, text):
        super().__init__()
        self.found, self.tables, self.texts = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))
        match tag:
            case "table":
                self.rows = self.tables[dict(attrs)["data-name"]] = []
            case "tr":
                self.rows.append([])
            case "td":
                self.rows[-1].append(dict(attrs).get("data-value"))

    def handle_data(self, data):
        self.texts.append(data)


def drawn(page):
    (data,) = re.findall(r'<script type="application/json" id="curves">(.*)</script>', page)
    return json.loads(data)


def test_tables_have_the_numbers_of_the_json(page):
    """In the order of the report: uniform random play, the teachers, MKT, the other."""
    numbers = json.loads(page.with_name("report.json").read_text())["sets"]["multitask/two"]
    tables = Elements(page.read_text()).tables
    for name, measure in (("returns", "best"), ("final", "student")):
        for key, cells in zip(("mkt", "other"), tables[name][3:], strict=True):
            tasks = numbers["methods"][key]["tasks"]
            expected = [tasks[task][measure]["mean"] for task in ("push", "tag")]
            assert [float(cell) for cell in cells[1:3]] == expected
    for key, cells in zip(("mkt", "other"), tables["aggregate"][1:], strict=True):
        best = numbers["methods"][key]["best"]
        assert float(cells[1]) == best["iqm"]["value"]
        assert cells[4] == (None if key == "mkt" else str(best["improvement"]["value"]))


def test_curves_by_hand(page):
    """MKT's last returns of push are -10, -8, -12: sd 2, t of 2 degrees 4.302653."""
    ((picture),) = drawn(page.read_text())
    assert [line["label"] for line in picture["lines"]] == ["MKT", "Other"]
    assert [panel["title"] for panel in picture["panels"]] == ["All tasks", "push", "tag"]
    score, push, _ = picture["panels"]
    assert push["levels"] == {"random": -30.0, "teacher": -10.0}
    mkt, other = push["curves"]
    half = 4.302653 * 2 / 3**0.5
    ends = [mkt[part][-1] for part in ("y", "low", "high")]
    assert ends == pytest.approx([-10, -10 - half, -10 + half], abs=1e-5)
    assert mkt["x"] == {
        "own": [100, 200, 300, 400], "all": [400, 500, 600, 700], "time": [60, 120, 180, 240]
    }  # fmt: skip
    assert other["x"] == {"own": mkt["x"]["own"], "all": mkt["x"]["own"], "time": None}
    assert score["curves"][0]["y"][-1] == pytest.approx(1.05)


def test_it_says_what_times_are_of(page):
    text = " ".join(Elements(page.read_text()).texts)
    for part in (
        "not of the teachers' training",
        "and so not drawn: Other.",
        "Minutes of training, mean of the runs: MKT 4.0.",
        "Machines: A processor, 2 cores. ",
    ):
        assert part in text + " "


def test_runs_without_times_have_no_such_curve(tmp_path):
    text = page_alone(write_results(tmp_path / "results"), tmp_path / "page.html").read_text()
    assert "Wall-clock time: not known" in text
    assert re.findall(r'value="time" (\w+)', text) == ["disabled"]
    assert "Machines" not in text


def test_captions_and_remarks_are_those_of_the_markdown(page):
    markdown, text = page.with_name("report.md").read_text(), page.read_text()
    headings = [*map(unescape, re.findall("<h3>(.*?)</h3>", text))]
    notes = [*map(unescape, re.findall('<p class="note">(.*?)</p>', text))]
    titles = re.findall(r"^### (.*)", markdown, re.MULTILINE)
    below = re.findall(r"^([A-Z].*?) *$", markdown.partition("\n## ")[2], re.MULTILINE)
    assert len(titles) == 7
    assert set(titles) <= set(headings)
    captions = {note.replace("\\", "") for note in below} - set(_CAPTIONS.values())
    assert len(captions) == 5
    assert captions <= set(notes)


def test_nothing_is_fetched(page):
    """The library of 1.4 MB is in it; the rest of the page knows no address."""
    text = page.read_text()
    (library,) = LIBRARY.findall(text)
    rest = text.replace(library, "")
    assert 1_000_000 < len(library) < len(text) < 1_600_000
    assert len(rest) < 40_000
    assert "//" not in re.sub(r"(?m) // .*$", "", rest)
    assert not re.search(r"url\(|@import|\bimport\b", rest)
    for tag, attributes in Elements(rest).found:
        assert not {"src", "srcset", "data", "action"} & set(attributes), tag
        assert attributes.get("href", "#").startswith("#")
    (policy,) = (a["content"] for _, a in Elements(rest).found if "http-equiv" in a)
    assert policy.startswith("default-src 'none';")


ODD = "</script><script>document.title='taken'</script><b>&amp;{{data}}$1\\1"


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """The page of a method, a task and a set with names that are markup."""
    folder = tmp_path_factory.mktemp("odd")
    curve = evaluations({"push": [0.0, 1.0]})
    for step in curve["multitask"]["two"]["mkt"]["seed_0"].values():
        step[f"{ODD}_return"] = step.pop("push_return")
    for method in ("mkt", ODD):
        content = summary(method, set=ODD, finished=True, tasks={ODD: row("push", 1.0)})
        write_run(folder / "results" / str(len(method)), content, curve)
    write_run(folder / "results" / "late", summary(ODD, 7, set=ODD), curve)
    return page_alone(folder / "results", folder / "page.html")


def test_names_are_text(odd):
    text = LIBRARY.sub("", odd.read_text())
    elements = Elements(text)
    assert [tag for tag, _ in elements.found].count("script") == 3
    assert ODD not in text
    texts = "".join(elements.texts)
    assert texts.count(ODD) >= 8  # sections, methods, tasks, remarks
    (picture,) = drawn(text)
    assert picture["lines"][1]["label"] == ODD


def test_without_the_library_all_else_is_written(tmp_path, monkeypatch, capsys):
    from benchmarl_mkt.cli import main

    results = write_results(tmp_path / "results")
    monkeypatch.setitem(sys.modules, "bokeh.resources", None)
    out = tmp_path / "out"
    out.mkdir()
    (out / "report.html").write_text("of other results")
    main(["report", str(results), "--out", str(out)])
    said = capsys.readouterr().out
    assert "No report.html: bokeh not installed; pip install 'benchmarl-mkt[report]'" in said
    assert not (out / "report.html").exists()
    assert {"report.md", "report.json", "multitask_two"} == {path.name for path in out.iterdir()}


needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def curves(browser):
    """Of each panel of what is drawn, band and line of MKT, then of the other."""
    renderers = "figures.map(figure => figure.renderers.map(r => {}))"
    x, visible = (browser.run(renderers.format(what)) for what in ("[...r.data_source.data.x]",
                                                                   "r.visible"))  # fmt: skip
    return x, visible, browser.run("figures.map(figure => Math.round(figure.x_range.end))")


def painted(browser):
    """How many pixels the lines of MKT and of the other have; those of bands are paler."""
    pixels = browser.picture(".panels").astype(int)
    colors = np.array([(0, 114, 178), (213, 94, 0)])
    return [int((abs(pixels - color).max(-1) < 40).sum()) for color in colors]


def press(browser, selector, index=0):
    browser.run(f"document.querySelectorAll({selector!r})[{index}].click()")


def assert_quiet(browser, page, width):
    """The page alone was asked for, nothing failed, and nothing is wider than the window."""
    sent = [e["params"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    addresses = [request["request"]["url"] for request in sent]
    assert [url for url in addresses if not url.startswith("data:")] == [page.as_uri()]
    assert not {"Runtime.exceptionThrown", "Log.entryAdded"} & set(browser.said())
    assert browser.run("[innerWidth, document.documentElement.scrollWidth]") == [width, width]


@needs_browser
@pytest.mark.parametrize("width", [1280, 390])
def test_a_reader_switches_axes_and_hides_methods(page, browser, width):
    browser.open(page, width)
    frames = [100, 200, 300, 400]
    own = curves(browser)
    assert own == ([[frames] * 4] * 3, [[True] * 4] * 3, [403] * 3)
    assert min(painted(browser)) > 500  # in three panels
    press(browser, "input[value=all]")
    later = [400, 500, 600, 700]
    assert curves(browser) == ([[later] * 2 + [frames] * 2] * 3, [[True] * 4] * 3, [706] * 3)
    press(browser, "input[value=time]")
    x, visible, ends = curves(browser)
    assert [panel[:2] for panel in x] == [[[1, 2, 3, 4]] * 2] * 3  # minutes
    assert (visible, ends) == ([[True, True, False, False]] * 3, [4] * 3)
    mkt, other = painted(browser)
    assert mkt > 500 > other == 0
    press(browser, "input[value=own]")
    assert curves(browser) == own
    press(browser, ".methods button")
    assert curves(browser)[1] == [[False, False, True, True]] * 3
    mkt, other = painted(browser)
    assert other > 500 > mkt == 0
    press(browser, ".every")
    assert curves(browser) == own
    press(browser, ".every")
    assert painted(browser) == [0, 0]
    assert_quiet(browser, page, width)


@needs_browser
def test_a_reader_sorts_tables(page, browser):
    browser.open(page, 1280)

    def pressed(table, column):
        press(browser, f"table[data-name={table}] th button", column)
        rows = browser.run(
            f"[...document.querySelector('table[data-name={table}]').tBodies[0].rows]"
            f".map(row => row.cells[{column}].textContent)"
        )
        return [cell.partition(" ")[0] for cell in rows]

    assert pressed("final", 2) == ["8.80", "8.00", "4.80", "0.00"]
    assert pressed("final", 2) == ["0.00", "4.80", "8.00", "8.80"]
    assert pressed("final", 0) == ["MKT", "Other", "teachers", "uniform"]
    assert pressed("final", 0) == ["uniform", "teachers", "Other", "MKT"]
    assert pressed("aggregate", 4)[1] == pressed("aggregate", 4)[1] == "-"  # lacking comes last


@needs_browser
def test_markup_in_names_is_only_seen(odd, browser):
    browser.open(odd, 390)
    assert browser.run("document.title") == "Results"
    assert browser.run("document.querySelector('.methods').textContent.trim()").count(ODD) == 1
    assert_quiet(browser, odd, 390)


@needs_browser
def test_it_is_light_or_dark_as_the_reader_wishes(page, browser):
    for dark in (False, True):
        browser.open(page, 390, dark)
        corner = browser.picture("body")[2, 2]
        assert (corner < 50).all() if dark else (corner > 200).all()
