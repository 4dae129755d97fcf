"""The one walk over local folders: links are followed, and nothing is left out in silence."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from e2eft.errors import DamagedError, DeniedError, MissingError, StorageError
from e2eft.walk import walk_files


def names(folder: Path, prefix: str = "", problems: list[StorageError] | None = None) -> list[str]:
    return sorted(file.name for file in walk_files(folder, prefix, problems))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    top = tmp_path / "top"
    for name in ("a.txt", "unet/config.json", "unet/deep/er/x.bin", "unet2/y.bin"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(name)
    (top / "empty").mkdir()
    return top


def test_links_to_files_and_folders_are_followed(tree: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "inner").mkdir(parents=True)
    (elsewhere / "inner" / "weights").write_bytes(b"12345")
    (tree / "vae").symlink_to(elsewhere)
    (tree / "b.txt").symlink_to("a.txt")
    (tree / "again").symlink_to("unet2")
    found = {file.name: file for file in walk_files(tree)}
    assert sorted(found) == [
        "a.txt", "again/y.bin", "b.txt", "unet/config.json", "unet/deep/er/x.bin", "unet2/y.bin",
        "vae/inner/weights",
    ]  # fmt: skip
    assert found["vae/inner/weights"].size == 5
    assert found["vae/inner/weights"].path == tree / "vae/inner/weights"


def test_a_prefix_is_of_names_and_other_folders_are_not_entered(tree: Path) -> None:
    assert names(tree, "unet") == ["unet/config.json", "unet/deep/er/x.bin", "unet2/y.bin"]
    assert names(tree, "unet/") == ["unet/config.json", "unet/deep/er/x.bin"]
    assert names(tree, "unet/de") == ["unet/deep/er/x.bin"]
    assert names(tree, "unet/deep/er/x.bin") == ["unet/deep/er/x.bin"]
    assert names(tree, "unet/deep/er/x.bin/") == names(tree, "nothing/here") == []
    (tree / "unet2" / "broken").symlink_to("nowhere")
    assert names(tree, "unet/") == ["unet/config.json", "unet/deep/er/x.bin"]
    with pytest.raises(DamagedError, match="unet2/broken is a link to nowhere, which is not there"):
        names(tree, "unet2/")


def test_what_cannot_be_followed_is_raised_or_collected(tree: Path) -> None:
    for link, target in {"self": "self", "unet/up": "..", "gone": "../nowhere"}.items():
        (tree / link).symlink_to(target)
    os.mkfifo(tree / "pipe")
    problems: list[StorageError] = []
    assert names(tree, problems=problems) == [
        "a.txt", "unet/config.json", "unet/deep/er/x.bin", "unet2/y.bin",
    ]  # fmt: skip
    assert {type(problem) for problem in problems} == {DamagedError}
    said = sorted(str(problem).removeprefix(f"{tree}/") for problem in problems)
    assert said == [
        "gone is a link to ../nowhere, which is not there",
        "pipe is neither a file nor a folder",
        "self is a link that leads back to itself",
        "unet/up is a link to a folder that it lies in",
    ]
    for problem in problems:
        assert "\n" not in str(problem)
    with pytest.raises(DamagedError):
        names(tree)


def test_folders_that_may_not_be_read_are_named(tree: Path) -> None:
    """In a process of another user where this one is root, who may read everything."""
    program = (
        "import os, sys; from pathlib import Path; from e2eft.walk import walk_files\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "problems = []\n"
        "print(sorted(f.name for f in walk_files(Path(sys.argv[1]), problems=problems)))\n"
        "print([f'{type(p).__name__}: {p}' for p in problems])\n"
    )
    for folder in [tree, *tree.parents]:
        if folder.stat().st_uid == os.geteuid() and not folder.stat().st_mode & 0o001:
            folder.chmod(0o755)
    (tree / "unet").chmod(0)
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, str(tree)], capture_output=True, text=True, check=True
        )
    finally:
        (tree / "unet").chmod(0o755)
    found, problems = done.stdout.splitlines()
    assert found == "['a.txt', 'unet2/y.bin']"
    assert DeniedError.__name__ in problems and f"{tree}/unet may not be read" in problems


def test_a_folder_that_is_not_there_is_no_empty_one(tree: Path) -> None:
    with pytest.raises(MissingError, match="nowhere is not there, or no folder"):
        names(tree / "nowhere")
    with pytest.raises(MissingError, match=r"a\.txt is not there, or no folder"):
        names(tree / "a.txt")
