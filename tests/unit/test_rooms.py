"""README's map of the rooms is that of the import contracts."""

import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent


def layers() -> list[set[str]]:
    """Rooms from the top down; those of one layer do not import each other."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    (contract,) = (
        contract
        for contract in project["tool"]["importlinter"]["contracts"]
        if contract["name"] == "layers"
    )
    return [
        {room.strip().removeprefix("e2eft.") for room in layer.split("|")}
        for layer in contract["layers"]
    ]


def mapped() -> list[set[str]]:
    """The rooms that each line of the map names first."""
    readme = (REPOSITORY / "README.md").read_text()
    block = readme.partition("Rooms, and who may import whom")[2].split("```")[1]
    known = set[str]().union(*layers())
    lines: list[set[str]] = []
    for line in block.strip().splitlines():
        words = [word.removeprefix("e2eft/").removesuffix(".py") for word in line.split()]
        words = [word.removesuffix("/") for word in words]
        named = next((i for i, word in enumerate(words) if word not in known), len(words))
        lines.append(set(words[:named]))
    return lines


def test_the_map_names_every_room_once_and_in_the_order_of_the_layers() -> None:
    numbers = {room: number for number, layer in enumerate(layers()) for room in layer}
    found = mapped()
    assert sorted(room for line in found for room in line) == sorted(numbers)
    at = [{numbers[room] for room in line} for line in found]
    assert all(len(numbers_of_line) == 1 for numbers_of_line in at), "a line is of one layer"
    order = [min(numbers_of_line) for numbers_of_line in at]
    assert order == sorted(order)


def test_every_room_is_in_a_layer() -> None:
    package = REPOSITORY / "e2eft"
    rooms = {path.stem for path in package.glob("*.py") if path.stem != "__init__"}
    rooms |= {path.parent.name for path in package.glob("*/__init__.py")}
    assert rooms | {"pipelines"} == set[str]().union(*layers())
