"""Pages that are written from the sources: settings, commands, Python reference, benchmarks."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import mkdocs_gen_files

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))
from benchmarl_mkt.cli import VERBS, make_parser, usage  # noqa: E402

REFERENCE = (
    "environments",
    "models",
    "models.entity",
    "models.layout",
    "objectives",
    "collectors",
    "replay",
    "algorithms",
    "teachers",
    "teams",
    "teams.evaluation",
    "teams.onnx",
    "training.best_policy",
    "training.resume",
    "rendering",
    "presets",
    "statistics",
)
_KEY = re.compile(r"^(\s*)([\w./@-]+):(?:\s+(.*?))?(?:\s+#\s+(.*))?$")


def write(path: str, text: str) -> None:
    """Write a page."""
    with mkdocs_gen_files.open(path, "w") as file:
        file.write(text)


def configuration() -> str:
    """Return the page of all YAML files: what they are for, keys, values, their comments."""
    parts = [
        "# Configuration",
        "Written from the files of `conf/`, the defaults of every key included. Any key can be "
        "set on the command line (`algorithm.mixer=vdn`); a file is chosen by its folder and "
        "name (`experiment=mkt_quick`, `+method=mkt_paper`). BenchMARL's own files are there, "
        "too.",
    ]
    for folder in sorted((REPOSITORY / "conf").iterdir()):
        parts.append(f"## {folder.name}")
        for path in sorted(folder.rglob("*.yaml")):
            name = path.relative_to(folder).with_suffix("").as_posix()
            rows, about = read_yaml(path.read_text())
            prefix = "+" if folder.name == "method" else ""
            parts.append(f"### `{prefix}{folder.name}={name}`")
            if about:
                parts.append(about)
            if rows:
                table = ["| key | value | meaning |", "|---|---|---|"]
                table += [f"| `{key}` | `{value}` | {cell(text)} |" for key, value, text in rows]
                parts.append("\n".join(table))
    return "\n\n".join(parts) + "\n"


def read_yaml(text: str) -> tuple[list[tuple[str, str, str]], str]:
    """Return (key, value, comment) of every key with a value, and what stands above the first.

    A comment belongs to the keys below it up to the next comment or empty line.
    """
    rows: list[tuple[str, str, str]] = []
    comment, fresh, about, parents = [], False, "", []
    lines = text.splitlines()
    for number, line in enumerate(lines):
        stripped = line.strip()
        if stripped.startswith("#"):
            if "@package" not in stripped:
                comment, fresh = [*(comment if fresh else []), stripped.lstrip("# ")], True
            continue
        fresh = False
        if not stripped:
            if not rows and comment and not about:
                about = " ".join(comment)
            comment = []
            continue
        match = _KEY.match(line)
        if match is None or stripped.startswith("-"):
            if rows and stripped.startswith("-"):  # an item of the list above
                key, value, meaning = rows[-1]
                item = stripped.split(" #")[0]
                rows[-1] = (key, f"{value} {item}".strip(), meaning)
            continue
        indent, key, value, trailing = len(match[1]), match[2], match[3] or "", match[4]
        parents = [(i, k) for i, k in parents if i < indent]
        if parents[:1] == [(0, "defaults")] or key == "defaults":
            parents = [(0, "defaults")] if key == "defaults" else parents
            if key == "defaults" and not about:
                about, comment = " ".join(comment), []
            continue
        full = ".".join([*(k for _, k in parents), key])
        following = lines[number + 1].strip() if number + 1 < len(lines) else ""
        is_list = following.startswith("-")
        if value or is_list:
            rows.append((full, value, trailing or " ".join(comment)))
        if not value:
            parents.append((indent, key))
    return [row for row in rows if not row[0].startswith("defaults")], about


def cell(text: str) -> str:
    """Escape what would end a table's cell."""
    return text.replace("|", "\\|")


def commands() -> str:
    """Return the page of the commands' own help texts."""
    parts = ["# Commands", f"```text\n{usage()}```"]
    for verb in VERBS:
        parts.append(f"## {verb}\n\n```text\n{make_parser(verb).format_help()}```")
    return "\n\n".join(parts) + "\n"


def reference() -> str:
    """Return the page of the public Python interface."""
    parts = ["# Python", "What is public, by module; `B` are batch dimensions, `N` agents."]
    for name in REFERENCE:
        parts.append(f"::: benchmarl_mkt.{name}")
    return "\n\n".join(parts) + "\n"


def benchmarks() -> None:
    """Copy the benchmarks' pages and results, and list the results' pages and pictures on one."""
    source = REPOSITORY / "benchmarks" / "results"
    kinds = (".md", ".png", ".svg", ".json", ".csv", ".yaml")
    paths = [path for path in sorted(source.rglob("*")) if path.suffix in kinds]
    pages = [path for path in sorted(source.parent.iterdir()) if path.suffix in (".md", ".yaml")]
    for path in [*pages, *paths]:
        with mkdocs_gen_files.open(str(path.relative_to(REPOSITORY)), "wb") as file:
            file.write(path.read_bytes())
    parts = [(REPOSITORY / "docs" / "results_head.md").read_text()]
    for folder in sorted({path.parent for path in paths}):
        shown = [p for p in paths if p.parent == folder and p.suffix in (".md", ".png", ".svg")]
        if not shown:
            continue
        name = folder.relative_to(source).as_posix()
        parts.append(f"## {'Single files' if name == '.' else name}")
        for path in shown:
            link = path.relative_to(source).as_posix()
            picture = "!" if path.suffix != ".md" else ""
            parts.append(f"{picture}[{path.stem.replace('_', ' ')}]({link})")
    write("benchmarks/results/index.md", "\n\n".join(parts) + "\n")


write("configuration.md", configuration())
write("commands.md", commands())
write("reference.md", reference())
benchmarks()
