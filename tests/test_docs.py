"""The documentation: pages, links, and that commands, options, names and targets in it exist."""

import os
import pkgutil
import re
import shlex
import tomllib
from pathlib import Path

import galip_bench
import galip_export
import galip_runtime
import pytest
import typer.main
from galip_runtime import errors
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import galip
from galip.cli.app import app
from galip.data.layouts import LAYOUTS
from galip.metrics.registry import METRICS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
FILES = [
    *ROOT.glob("*.md"),
    *PAGES,
    *(ROOT / folder / "README.md" for folder in ("benchmarks", "runtime", "runtime/kernels")),
]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
PROJECTS = {name: ROOT / name for name in ("./runtime", "./runtime/kernels", ".")}
LINK = re.compile(r"(?:\]\(|src=\")([^)\s\"]+)[)\"]")


def name_of(file):
    return str(file.relative_to(ROOT))


def prose(file):
    return BLOCK.sub("", file.read_text(encoding="utf-8"))


def anchors(file):
    """Return the anchors of a page's headings, as Python-Markdown and code hosts make them."""
    headings = re.findall(r"^#+ +(.+)$", prose(file), re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


def navigation(entry):
    """Return the pages of a navigation: a list of entries, each a title with a page or with a list."""
    if isinstance(entry, str):
        return [entry]
    below = entry.values() if isinstance(entry, dict) else entry
    return [page for part in below for page in navigation(part)]


def test_every_page_is_in_the_navigation_once():
    config = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))
    pages = [str(page.relative_to(DOCS)) for page in PAGES]
    assert sorted(navigation(config["project"]["nav"])) == sorted(pages)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_links_lead_somewhere(file):
    for target in LINK.findall(prose(file)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        page = Path(os.path.normpath(file.parent / path)) if path else file
        assert page.exists(), target
        if anchor and page.parent != DOCS / "api":  # those are made from docstrings: `make docs` checks them
            assert anchor in anchors(page), target
        if DOCS in file.parents:
            assert DOCS in page.parents, f"{target} is not on the site"


def test_a_wrong_anchor_is_noticed():
    assert "exit-codes" in anchors(DOCS / "troubleshooting.md")
    assert "exit-code" not in anchors(DOCS / "troubleshooting.md")


def commands():
    """Return the words after `galip` of every command line of the documentation, with the file's name."""
    cases = []
    for file in FILES:
        for language, block in BLOCK.findall(file.read_text(encoding="utf-8")):
            lines = block.replace("\\\n", " ").splitlines() if language == "sh" else []
            for line in lines:
                words = shlex.split(line, comments=True)
                programs = [index for index, word in enumerate(words) if Path(word).name == "galip"]
                if programs and "pip" not in words:
                    label = line.partition("#")[0].strip()
                    cases.append(pytest.param(name_of(file), words[programs[0] + 1 :], id=label))
    return cases


@pytest.mark.parametrize(("file", "words"), commands())
def test_commands_and_options_exist(file, words):
    group, words = typer.main.get_command(app), list(words)
    while hasattr(group, "commands"):
        assert words[0] in group.commands, file
        group = group.commands[words.pop(0)]
    known = {name for option in group.params for name in [*option.opts, *option.secondary_opts]}
    assert {word.partition("=")[0] for word in words if word.startswith("--")} <= {*known, "--help"}, file


def test_there_are_commands_to_check():
    assert len(commands()) > 40


def pip_commands():
    """Return what each `pip install` of the documentation installs, with the file's name."""
    cases = []
    for file in FILES:
        for line in file.read_text(encoding="utf-8").splitlines():
            for command in re.findall(r"pip install ([^`#]+)", line):
                without_settings = re.sub(r" -C \S+", "", command)
                words = [word for word in shlex.split(without_settings) if not word.startswith("-")]
                cases.append(pytest.param(words, id=f"{name_of(file)}: {command.strip()}"))
    return cases


@pytest.mark.parametrize("words", pip_commands())
def test_what_pip_installs_is_there(words):
    """A folder of the clone, a wheel of this version, or somebody else's package: galip has no release."""
    for word in words:
        place, _, extras = word.removesuffix("]").partition("[")
        if place in PROJECTS:
            project = PROJECTS[place]
        elif wheel := re.fullmatch(r"\./(?:dist/)?galip_runtime-(.+)-py3-none-any\.whl", place):
            project = PROJECTS["./runtime"]
            assert wheel[1] == galip_runtime.__version__
        else:
            assert canonicalize_name(Requirement(word).name) not in (
                "galip",
                "galip-runtime",
                "galip-kernels",
            )
            continue
        known = tomllib.loads((project / "pyproject.toml").read_text())["project"]
        known = known.get("optional-dependencies", {})
        assert set(filter(None, extras.split(","))) <= set(known)


def test_no_text_installs_galip_from_an_index():
    for package in (galip, galip_runtime, galip_export, galip_bench):
        for file in Path(package.__file__).parent.rglob("*.py"):
            assert not re.search(r"install\W+galip(-runtime)?\[", file.read_text(encoding="utf-8")), file


def test_make_targets_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for file in FILES:
        text = file.read_text(encoding="utf-8")
        assert set(re.findall(r"(?:`|^)make ([a-z][\w-]+)", text, re.MULTILINE)) <= targets, file


@pytest.mark.parametrize("package", [galip_runtime, galip_bench], ids=lambda package: package.__name__)
def test_public_names_are_in_the_reference(package):
    page = (DOCS / "api" / f"{package.__name__}.md").read_text(encoding="utf-8")
    for name in package.__all__:
        assert f"::: {package.__name__}.{name}\n" in page, name


def test_the_reference_of_the_exporter_is_the_whole_package():
    assert f"::: {galip_export.__name__}\n" in (DOCS / "api" / "galip_export.md").read_text(encoding="utf-8")


def test_names_in_the_reference_exist():
    text = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").iterdir())
    names = re.findall(r"^::: (\S+)$", text, re.MULTILINE)
    assert len(names) > 20
    for name in names:
        assert pkgutil.resolve_name(name) is not None


def test_exit_codes_are_the_errors_own():
    text = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    embed = (DOCS / "embed.md").read_text(encoding="utf-8")
    for name in errors.__all__:
        code = getattr(errors, name).exit_code
        assert f"\n| {code} | " in text
        assert code == 1 or re.search(rf"^\| `{name}`[^|]*\| {code} \|", embed, re.MULTILINE), name


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 100


@pytest.mark.parametrize(("page", "names"), [("train.md", LAYOUTS), ("evaluate.md", METRICS)])
def test_every_layout_and_metric_has_a_row(page, names):
    rows = re.findall(r"^\| `(\w+)` \|", (DOCS / page).read_text(encoding="utf-8"), re.MULTILINE)
    assert set(names) <= set(rows)
