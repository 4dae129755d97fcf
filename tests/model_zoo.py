"""What becomes of each layout of others' models.

python -m tests.model_zoo        writes docs/models.md
"""

import tempfile
from pathlib import Path

from e2eft.config import ModelConfig
from e2eft.model import backbones
from e2eft.model.card import ModelCard
from e2eft.model.hub import ModelError
from e2eft.model.others import TAKEN
from e2eft.model.pinned import pin_model, require_all_weights, require_task
from e2eft.model.pretrained import load_estimator
from e2eft.model.source import find_model, recognized_at
from tests.model_layouts import SECTIONS, Parts

PAGE = Path(__file__).parents[1] / "docs" / "models.md"


def labelled(name: str, scratch: Path) -> str:
    """What labelling, scoring and serving make of a model."""
    try:
        model = pin_model(name, name, name, scratch)
        require_task(model, model.card.task)
        load_estimator(model.source)
    except ModelError as error:
        return said(error, name)
    card = model.card
    task = card.task if card.task != "image" else "depth or normals"
    axes = f" ({card.axes})" if "normals" in task else ""
    steps = f"{card.steps} step" + "s" * (card.steps > 1)
    size = f"longest side {card.processing_size}" if card.processing_size else "own size"
    return f"**{task}**{axes}: from {card.initial_latent}, {steps}, {size}"


def trained(name: str) -> str:
    """What `train --base` makes of it."""
    try:
        found = recognized_at(name)
        backbones.layout(found.backbone).require_trainable(
            name, found, ModelConfig(), conditional=True
        )
        source = find_model(name)
        require_all_weights(source)
        load_estimator(source, ModelConfig())
    except ModelError as error:
        return said(error, name)
    return f"**taken**: {found.what}, {found.in_channels} channels"


def said(error: ModelError, name: str) -> str:
    """The message without the places of this machine."""
    text = str(error).replace(f"model '{name}'", "model").replace(name, "it")
    text = text.removesuffix(f"; {TAKEN}")
    return text.removeprefix("model: ").removeprefix("model ").replace("|", "\\|")


def outcomes(root: Path) -> dict[str, dict[str, tuple[str, str]]]:
    """For labels and as a base, by section and title."""
    zoo = Parts(root)
    found: dict[str, dict[str, tuple[str, str]]] = {}
    for section, layouts in SECTIONS.items():
        for number, layout in enumerate(layouts):
            place = root / f"{section.split()[-1]}-{number}" / "model"
            place.parent.mkdir()
            name = str(layout.make(zoo, place))
            pair = labelled(name, root), trained(name)
            found.setdefault(section, {})[layout.title] = pair
    return found


def page(found: dict[str, dict[str, tuple[str, str]]]) -> str:
    lines = [
        "# Models",
        "",
        "What becomes of a model that is given as `--model` (labelling, scoring), registered and",
        "served, or given as `--base` (training). Each row is a tiny folder of that layout, which",
        "the tests build; `python -m tests.model_zoo` writes this page.",
        "",
        "What a folder does not say by itself is in its card, `e2eft.json`; `--model-card FILE`",
        "counts instead: " + ", ".join(f"`{name}`" for name in ModelCard("depth").as_json()) + ".",
        "Steps, spacing and size are the model's own unless a flag says otherwise.",
        "",
        "FLUX.2 klein with a card and its embedded prompt is taken as `--model` and not as",
        "`--base`: see [extending/backbone.md](extending/backbone.md).",
        "",
        f"What is refused for what it is, is told what is taken: {TAKEN}.",
    ]
    for section, rows in found.items():
        lines += ["", f"## {section}", "", "| layout | `--model` | `--base` |", "|---|---|---|"]
        for title, (labels, base) in rows.items():
            lines.append(f"| {title} | {labels} | {'the same' if labels == base else base} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        PAGE.write_text(page(outcomes(Path(made))))
