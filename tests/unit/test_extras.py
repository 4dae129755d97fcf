"""What is installed with which part of the package."""

import ast
import re
import sys
import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

from e2eft import extras
from e2eft.extras import EXTRAS, ExtraError, require_extra

REPOSITORY = Path(__file__).parent.parent.parent
ROOMS = {
    "train": {"train"},
    "scenes": {"render"},
    "datasets": {"datasets", "render"},
    "prepare": {"datasets", "render"},
    "evaluate": {"datasets"},
}
"""What each room may import besides what is always there."""
INDIRECT = {
    "alembic", "botocore", "drjit", "grpc", "huggingface_hub", "requests", "sqlalchemy", "urllib3",
}  # fmt: skip
"""Of packages that are declared: boto3, diffusers, mitsuba, mlflow and ray."""


@cache
def declared() -> dict[str, set[str]]:
    """Names of distributions by extra; "": always."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lists = {"": project["dependencies"], **project["optional-dependencies"]}
    return {
        extra: {re.split(r"[\[=<>]", line)[0].strip() for line in lines}
        for extra, lines in lists.items()
    }


@cache
def distributions_of(root: str) -> set[str]:
    """Which distributions a module is of, besides one of its own name."""
    return {name.lower() for name in metadata.packages_distributions().get(root, (root,))}


def imported(file: Path) -> set[str]:
    """Roots of what a module imports, wherever in it, that is neither Python's nor ours."""
    roots: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            roots |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            roots.add(node.module.partition(".")[0])
    return roots - sys.stdlib_module_names - {"e2eft"}


def test_every_room_imports_what_its_extra_declares() -> None:
    lists = declared()
    package = REPOSITORY / "e2eft"
    undeclared: dict[str, set[str]] = {}
    for file in package.rglob("*.py"):
        room = file.relative_to(package).parts[0]
        allowed = lists[""].union(*(lists[extra] for extra in ROOMS.get(room, ())))
        for root in imported(file) - INDIRECT:
            if not distributions_of(root) & allowed:
                undeclared.setdefault(str(file.relative_to(package)), set()).add(root)
    assert not undeclared


def test_the_modules_of_an_extra_are_of_its_distributions_and_of_no_other() -> None:
    lists = declared()
    for extra, modules in EXTRAS.items():
        for module in modules:
            names = distributions_of(module)
            assert names & lists[extra] and not names & lists[""]


def test_a_stage_that_lacks_its_packages_says_how_to_install_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for extra in EXTRAS:
        require_extra(extra, "this")
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == "h5py" else object())
    require_extra("train", "training")
    with pytest.raises(ExtraError, match=r"^scoring needs h5py: pip install 'e2eft\[datasets\]'$"):
        require_extra("datasets", "scoring")
