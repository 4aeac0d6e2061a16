"""An SVG document as a part of an HTML page: no script, nothing fetched, names that no other picture has."""

from collections.abc import Mapping
from xml.etree import ElementTree

from ldm.errors import UserError

_DROPPED = {"metadata", "style", "script", "foreignObject", "title"}
_SPACE = "{http://www.w3.org/2000/svg}"


def inline(svg: str, prefix: str, alt: str, colours: Mapping[str, str]) -> str:
    """An `<svg>` element that is as wide as what it stands in, read aloud as `alt`.

    `prefix` keeps the names inside it apart from those of other pictures; `colours`: what stands for a colour of its
    own, by "#rrggbb", such as `var(--ink)`, so that it is dark where the page is. Raises `UserError` for no SVG.
    """
    try:
        root = ElementTree.fromstring(svg.encode())
    except ElementTree.ParseError as error:
        raise UserError(f"a chart is no SVG document ({error}); draw it again") from None
    if root.tag != f"{_SPACE}svg":
        raise UserError(f"a chart is a document of {root.tag}, not of svg; draw it again")
    _strip(root)
    # A name is needed only where something refers to it.
    text = " ".join(value for element in root.iter() for value in element.attrib.values())
    for element in root.iter():
        attributes = dict(element.attrib)
        element.attrib.clear()
        for key, value in attributes.items():
            name = key.rpartition("}")[2]
            if name == "id":
                if f"#{value}" in text:
                    element.set("id", prefix + value)
            elif name == "href":
                if value.startswith("#"):
                    element.set("href", f"#{prefix}{value[1:]}")
            elif not name.startswith("on"):
                element.set(name, _recoloured(value.replace("url(#", f"url(#{prefix}"), colours))
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", alt)
    return ElementTree.tostring(root, encoding="unicode", short_empty_elements=False)


def _strip(element: ElementTree.Element) -> None:
    element.tag = element.tag.removeprefix(_SPACE)
    element.text = element.tail = (element.text or "").strip() if element.tag in ("text", "tspan") else ""
    for child in list(element):
        if not isinstance(child.tag, str) or child.tag.removeprefix(_SPACE) in _DROPPED:
            element.remove(child)
        else:
            _strip(child)


def _recoloured(value: str, colours: Mapping[str, str]) -> str:
    for own, other in colours.items():
        value = value.replace(own, other)
    return value
