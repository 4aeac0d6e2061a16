"""Numbers of things in messages."""


def number_of(count: int, one: str, several: str = "") -> str:
    """ "1 pair", "2 pairs"; `several`: where that is not `one` with an s, such as "images are" for "image is"."""
    return f"{count} {one if count == 1 else several or f'{one}s'}"
