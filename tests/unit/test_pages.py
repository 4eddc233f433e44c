"""Every command and document on every page: commands, options, targets, files, manifests."""

import ast
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from job.cli.main import app
from job.manifest import parse

ROOT = Path(__file__).parents[2]
PAGES = (
    "README.md",
    "CONTRIBUTING.md",
    *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
)
# Programs that are not ours; every line of a shell block starts with one of these, job, make or
# python.
FOREIGN = {
    *("source", ".", "export", "cat", "cmake", "docker", "kubectl", "kill", "g++", "tar"),
    *("until", "sleep", "done", "grep", "build/native/tester"),
}
GROUP = typer.main.get_command(app)


def blocks(page: str, language: str) -> list[str]:
    """The code blocks of a page in a language, also inside lists."""
    text = (ROOT / page).read_text()
    found = re.findall(rf"^( *)```{language}\b[^\n]*\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return ["\n".join(line[len(pad) :] for line in code.splitlines()) for pad, code in found]


def lines(page: str) -> Iterator[list[str]]:
    """The words of each line of the page's shell blocks; each part of a pipe is a line."""
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while "|" in words:
                yield words[: words.index("|")]
                words = words[words.index("|") + 1 :]
            if words:
                yield words


def command(words: list[str]) -> tuple[Any, list[str]]:
    """The command of ``job`` that words name, and its arguments."""
    found: Any = GROUP
    while words and hasattr(found, "commands"):
        assert words[0] in found.commands, f"job {words[0]}: no such command"
        found, words = found.commands[words[0]], words[1:]
    return found, words


def options(found: Any) -> set[str]:
    names = {"--help", "-h"}
    return names | {name for each in found.params for name in (*each.opts, *each.secondary_opts)}


@pytest.mark.parametrize("page", PAGES)
def test_commands(page: str) -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for words in lines(page):
        program, *arguments = words
        if re.match("[A-Za-z_]+=", program):
            program, *arguments = arguments
        if program == "python" and arguments[:2] == ["-m", "paddle.distributed.launch"]:
            program, arguments = "job", arguments[arguments.index("job") + 1 :]
        if program == "job":
            found, arguments = command(arguments)
            given = {word.split("=")[0] for word in arguments if re.match("--?[a-z]", word)}
            assert given <= options(found), f"{page}: {shlex.join(words)}"
        elif program == "make":
            named = [word for word in arguments if re.fullmatch("[a-z-]+", word)]
            assert set(named) <= set(targets), f"{page}: {shlex.join(words)}"
        elif program in ("python", "taskset"):
            files = [word for word in arguments if word.endswith(".py") and "/" in word]
            assert all((ROOT / file).exists() for file in files), f"{page}: {shlex.join(words)}"
        else:
            assert program in FOREIGN, f"{page}: {shlex.join(words)}"


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_text_exist(page: str) -> None:
    """Also in tables and sentences: `job COMMAND --option`."""
    text = re.sub(r"^ *```.*?^ *```", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
    for shown in re.findall(r"`job ([a-z][^`]*)`", text):
        found, arguments = command(shown.replace("\\|", "|").partition("|")[0].split())
        given = {word.split("=")[0] for word in arguments if re.match("--?[a-z]", word)}
        assert given <= options(found), f"{page}: job {shown}"


@pytest.mark.parametrize("page", PAGES)
def test_documents(page: str) -> None:
    for text in blocks(page, "json"):
        document = json.loads(text)
        if isinstance(document, dict) and {"version", "model", "data"} <= document.keys():
            parse(document, page, ROOT)
    for text in blocks(page, "python"):
        ast.parse(text)


def test_every_page_is_in_the_index() -> None:
    index = (ROOT / "docs/README.md").read_text()
    listed = set(re.findall(r"^\| \[[^]]+\]\(([^)]+)\)", index, re.MULTILINE))
    others = {path.name for path in (ROOT / "docs").glob("*.md")} - {"README.md"}
    assert listed == {*others, "../CONTRIBUTING.md"}
    assert "docs/README.md" in (ROOT / "README.md").read_text()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200


def test_anchors_exist() -> None:
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", (ROOT / page).read_text()):
            path = (ROOT / page).parent / target if target else ROOT / page
            headings = re.findall(r"^#+ (.*)", path.read_text(), re.MULTILINE)
            known = {
                re.sub(r"[^a-z0-9 _-]", "", each.lower()).replace(" ", "-") for each in headings
            }
            assert anchor in known, f"{page}: {target}#{anchor}"
