"""What a model is, from the JSON files of its folder: one that is taken and how it is run, or what
else it is. Needs neither torch nor diffusers, and no weights.
"""

from e2eft.model.backbones import layout, name_in
from e2eft.model.backbones.base import Recognized
from e2eft.model.card import CARD_NAME, parse_card
from e2eft.model.components import INDEX, Folder, Reader
from e2eft.model.others import kind_of


def recognize(name: str, read: Reader, given: str = "") -> Recognized:
    """What a model is and how it is run.

    Args:
        name: for messages.
        given: the text of a card that counts instead of its own or what its layout implies.

    Raises:
        ModelError: for a model that is not taken, with what it is; for a file that is missing or
            broken, with its name.
    """
    folder = Folder(name, read)
    index = folder.json(INDEX)
    taken = layout(name_in(index))
    if other := kind_of(index, taken.denoiser, taken.pipelines):
        raise folder.is_other(other)
    pipeline = str(index.get("_class_name", ""))
    own = folder.text(CARD_NAME)
    card = None
    if given or own is not None:
        where = "--model-card" if given else f"model {name!r}: {CARD_NAME}"
        card = parse_card(given or own or "", where)
    elif pipeline not in taken.pipelines:
        raise folder.is_other(f"of a kind that is not known ({INDEX} says {pipeline or 'nothing'})")
    return taken.recognize(folder, index, card)
