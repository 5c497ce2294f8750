"""A page as a browser reads it."""

import json
from html.parser import HTMLParser


class Parsed(HTMLParser):
    """Elements of a page and the text of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.text = self.style = self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.inside = tag
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            attributes, text = self.scripts[-1]
            self.scripts[-1] = (attributes, text + data)
        elif self.inside == "style":
            self.style += data
        else:
            self.text += data

    def data(self, name):
        """A JSON block."""
        return next(json.loads(text) for attributes, text in self.scripts if attributes.get("id") == name)
