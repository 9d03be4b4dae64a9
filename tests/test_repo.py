"""The repository's outside: what README and the docs show exists, links resolve, the lock and the drawing hold."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCS = sorted((ROOT / "docs").glob("**/*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.M | re.S)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def shown_commands(page: Path) -> Iterator[list[str]]:
    """Commands in a page's shell blocks, as words. Lines of output are those without a known first word."""
    for language, block in FENCE.findall(page.read_text(encoding="utf-8")):
        if language not in {"", "bash", "sh", "shell", "console"}:
            continue
        for line in block.replace("\\\n", " ").splitlines():
            line = line.strip()
            prompted = line.startswith("$ ")
            if language == "console" and not prompted:
                continue
            match line.removeprefix("$ ").partition("#")[0].split(None, 1):
                case ["make" | "foretell", _]:
                    yield shlex.split(line.removeprefix("$ "), comments=True)


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M))


def training_commands() -> set[str]:
    from foretell.pipeline.launch import TRAINING

    return {name.split()[0] for name in TRAINING}


def check_foretell(words: list[str]) -> None:
    """Walk the command line's own tree: every group, command and option must be there."""
    import typer

    from foretell.cli.app import app

    command: Any = typer.main.get_command(app)
    rest = words[1:]
    while rest and hasattr(command, "commands") and not rest[0].startswith("-"):
        if rest[0] not in command.commands and hasattr(command, "default"):
            rest.insert(0, command.default)
        assert rest[0] in command.commands, f"{' '.join(words)}: no command {rest[0]!r}"
        command = command.commands[rest.pop(0)]
    # What follows the options of `launch` is a command, or a recipe to run.
    if not command.context_settings.get("allow_interspersed_args", True):
        inner = command.make_parser(typer.Context(command, **command.context_settings)).parse_args(list(rest))[0][
            "command"
        ]
        rest = rest[: len(rest) - len(inner)]
        check_foretell(["foretell", *([] if inner[0] in training_commands() else ["run"]), *inner])
    known = {name for parameter in command.params for name in [*parameter.opts, *parameter.secondary_opts]} | {"--help"}
    for word in rest:
        if word.startswith("--"):
            assert word.partition("=")[0] in known, f"{' '.join(words)}: no option {word}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_shown_commands_exist(page: Path) -> None:
    for words in shown_commands(page):
        if words[0] == "foretell":
            check_foretell(words)
        else:
            targets = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
            for target in targets:
                assert target in make_targets() or target.startswith("bench-"), f"{name_of(page)}: make {target}"
                benchmark = target.removeprefix("bench-")
                assert benchmark == target or benchmark.isupper() or (ROOT / f"benchmarks/{benchmark}.py").exists()


def test_readme_shows_the_two_commands() -> None:
    shown = list(shown_commands(ROOT / "README.md"))
    assert ["make", "quickstart"] in shown
    assert ["make", "test"] in shown


def anchors(page: Path) -> set[str]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    headings = re.findall(r"^#+ +(.*?) *$", text, re.M)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_internal_links_resolve(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    links = re.findall(r"\]\(([^)\s]+)[^)]*\)", text) + re.findall(r'(?:src|href|srcset)="([^"]+)"', text)
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name_of(page)} links to {link}, which is not there"
        assert not anchor or anchor in anchors(target), f"{name_of(page)} links to {link}: no such heading"


def test_every_docs_page_is_in_the_navigation() -> None:
    text = (ROOT / "mkdocs.yml").read_text()

    def leaves(node: Any) -> Iterator[str]:
        if isinstance(node, str):
            yield node
        else:
            for child in node.values() if isinstance(node, dict) else node:
                yield from leaves(child)

    assert sorted(leaves(yaml.safe_load(text)["nav"])) == [str(page.relative_to(ROOT / "docs")) for page in DOCS]


def test_results_page_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/report_results.py", "--check"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pins}


def test_lock_pins_what_the_two_commands_install() -> None:
    pins = locked()
    project = PROJECT["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for extra in ("torch", "dev", "docs") for line in extras[extra])]
    for requirement in map(Requirement, wanted):
        if requirement.name != "foretell":
            version = pins.get(canonicalize_name(requirement.name))
            assert version is not None, f"{requirement.name} is not in requirements.lock; run: make lock"
            assert requirement.specifier.contains(version), f"{requirement} but the lock says {version}; run: make lock"
    assert pins["torch"] == "2.13.0"


def test_no_package_index_or_local_path_is_named() -> None:
    files = [".ci/run", "Makefile", "Dockerfile", "pyproject.toml", "requirements.lock", "README.md", "docs/install.md"]
    for file in files:
        named = re.search(r"https?://\S*(simple|whl)|--(extra-)?index-url|file://", (ROOT / file).read_text())
        assert named is None, f"{file} names a package index: {named}"


def test_ci_script_runs_the_make_targets() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert {"test", "lint"} <= set(re.findall(r"^make (?:--\S+ )?([a-z]+)", script.read_text(), re.M))


def test_drawing_shows_the_import_contract() -> None:
    """Every room of the contract stands in the drawing, floor by floor; those it holds optional are dashed."""
    svg = "{http://www.w3.org/2000/svg}"
    heights, planned = {}, set()
    for group in ElementTree.parse(ROOT / "docs/house.svg").iter(f"{svg}g"):
        room = group.get("id", "").removeprefix("room-")
        if room != group.get("id", ""):
            heights[room] = float(next(group.iter(f"{svg}text")).get("y", "nan"))
            if any("planned" in box.get("class", "") for box in group.iter(f"{svg}rect")):
                planned.add(room)
    layers = PROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    floors = [re.findall(r"foretell\.(\w+)", layer) for layer in layers]
    assert sorted(heights) == sorted(room for floor in floors for room in floor)
    levels = [{heights[room] for room in floor} for floor in floors]
    assert all(len(level) == 1 for level in levels)
    assert [max(level) for level in levels] == sorted(max(level) for level in levels)
    assert planned == set(re.findall(r"\(foretell\.(\w+)\)", " ".join(layers)))


def test_readme_shows_what_the_forecast_prints(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    from foretell.cli.app import app

    monkeypatch.chdir(ROOT)
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"foretell (forecast fit [^\n]*)\n```\n\n```text\n(.*?)```", text, re.S)
    assert shown is not None
    app(shown.group(1).split(), standalone_mode=False)
    assert capsys.readouterr().out == shown.group(2)


def test_names_of_test_files_are_unique() -> None:
    """Of folders that are no packages pytest can collect only one module of a name."""
    files = [path for path in (ROOT / "tests").rglob("*.py") if not (path.parent / "__init__.py").exists()]
    names = [path.name for path in files if path.name != "conftest.py"]
    assert sorted({name for name in names if names.count(name) > 1}) == []
