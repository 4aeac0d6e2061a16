"""The words that a prompt is made of."""


def prompt_text(category: str, anomaly: str) -> str:
    """The words of a prompt. A name that is only a number (BTAD) says nothing and is left out (paper, A.5)."""
    names = [name for name in (category, anomaly) if name and not name.isdigit()] or ["damaged"]
    words = " ".join(names).replace("_", " ").replace("+", " ").replace("-", " ")
    return " ".join(words.split()).lower()
