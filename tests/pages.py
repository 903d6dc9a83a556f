"""The Markdown files of the repository, and their examples as somebody would paste them."""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from harness import ROOT, binary, environment
from markdown_it import MarkdownIt

README = ROOT / "README.md"
DOCS = ROOT / "docs"
# What an example prints may leave out what differs each time.
LEFT_OUT = "…"


def all_pages() -> list[Path]:
    """Every Markdown file of the repository."""
    found = []
    for directory, below, files in os.walk(ROOT):
        below[:] = [name for name in below if not name.startswith(".") and name not in ("target", "node_modules")]
        found += [Path(directory, name) for name in files if name.endswith(".md")]
    return sorted(found)


def tokens(page: Path) -> list:
    """The page as the parser sees it: block tokens, and the tokens within these."""
    parsed = MarkdownIt().enable("table").parse(page.read_text())
    return [token for block in parsed for token in (block, *(block.children or ()))]


def links(page: Path) -> list[str]:
    """Where the links and images of a page lead."""
    return [target for token in tokens(page) if (target := token.attrGet("href") or token.attrGet("src"))]


def anchors(page: Path) -> set[str]:
    """The names by which links reach the headings of a page."""
    found, parsed = [], tokens(page)
    for number, token in enumerate(parsed):
        if token.type == "heading_open":
            text = "".join(part.content for part in parsed[number + 1].children if part.type in ("text", "code_inline"))
            found.append(re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-"))
    return {name if found[:number].count(name) == 0 else f"{name}-{found[:number].count(name)}" for number, name in enumerate(found)}


@dataclass
class Block:
    """A fenced block: its language and its text."""

    language: str
    text: str


def fenced(page: Path) -> list[Block]:
    """All fenced blocks of a page, in order."""
    return [Block(token.info.strip(), token.content) for token in tokens(page) if token.type == "fence"]


def blocks(page: Path, language: str) -> list[str]:
    """The texts of the fenced blocks of one language, in order."""
    found = [block.text for block in fenced(page) if block.language == language]
    assert found, f"{page.name} has no {language} block"
    return found


def run_there(directory: Path, *command: str, **extra: str) -> str:
    """Runs a command in a directory, with csrd on PATH; it has to succeed."""
    programs = directory / "bin"
    programs.mkdir(exist_ok=True)
    if not (programs / "csrd").exists():
        (programs / "csrd").symlink_to(binary())
    # Not only root has nginx on PATH then.
    env = environment(PATH=f"{programs}:{os.environ['PATH']}:/usr/sbin", **extra)
    done = subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done
    return done.stdout


def run_shell(directory: Path, text: str, **extra: str) -> str:
    """Runs shell text as one script, which ends at the first command that fails."""
    return run_there(directory, "bash", "-euo", "pipefail", "-c", text, **extra)


def follow(page: Path, directory: Path, **extra: str) -> list[tuple[str, str]]:
    """
    Pastes the `sh` blocks of a page into one shell; returns what was shown and what was printed, for each that has a `text` block after it.

    They are one script, so that variables last from block to block.
    """
    mark, script, shown = "-- the next block --", [], []
    steps = fenced(page)
    for step, following in zip(steps, [*steps[1:], Block("", "")], strict=True):
        if step.language == "sh":
            script.append(f"{step.text}echo {mark!r}\n")
            shown.append(following.text if following.language == "text" else None)
    printed = run_shell(directory, "".join(script), **extra).split(f"{mark}\n")
    return [(expected, got) for expected, got in zip(shown, printed[:-1], strict=True) if expected is not None]


def is_as_shown(shown: str, printed: str) -> bool:
    """Whether output is what a page shows, but for what the page leaves out."""
    return re.fullmatch(".*".join(map(re.escape, shown.split(LEFT_OUT))), printed) is not None
