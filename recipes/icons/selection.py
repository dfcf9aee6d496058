"""Which pictures of the icons count for what: conditions of `--exclude`."""

__all__ = [
    "COMMONEST",
    "JUDGED_SEEN",
    "JUDGED_UNSEEN",
    "PEOPLE_AND_FLAGS",
    "TOWERS_LEAVE_OUT",
    "VARIANTS",
]

PEOPLE_AND_FLAGS = (
    "skin_tone",
    "group=people-body",
    "group=flags",
    "group=symbols",
    "group=component",
    "group=other",
)
TOWERS_LEAVE_OUT = ("skin_tone", "group=flags", "group=component")
COMMONEST = "rank>5771"
"""Leaves the 200 commonest things by `icons.commonness`: about as many as this training has time for."""
VARIANTS = "variant"
"""Drawings that `icons.variants` changed. Nothing is judged by them."""

JUDGED_SEEN = (*PEOPLE_AND_FLAGS, COMMONEST, VARIANTS)
"""Leaves the drawings of things that the shipped model was trained on."""
JUDGED_UNSEEN = (*PEOPLE_AND_FLAGS, VARIANTS)
"""Leaves, of the splits val and test, drawings of things that it was not."""
