"""Tables of words, written as text."""

__all__ = ["entries", "pairs"]


def pairs(text: str) -> dict[str, str]:
    """Parse lines of `name = name to use`, several per line separated by `;`, to a dict."""
    found = (pair.partition("=") for line in text.splitlines() for pair in line.split(";") if pair.strip())
    return {name.strip(): use.strip() for name, _, use in found}


def entries(text: str) -> frozenset[str]:
    """Return the entries of a comma-separated list over several lines."""
    return frozenset(entry.strip() for entry in text.split(",") if entry.strip())
