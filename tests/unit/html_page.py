"""A parser for report pages, and text that attacks them."""

from html.parser import HTMLParser

ATTACK = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)> [red]x[/red] $x$ a|b `c`"


class Page(HTMLParser):
    """The elements of a page with attributes, and its visible text."""

    def __init__(self, text):
        super().__init__()
        self.elements = []
        self.texts = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.texts.append(data)


def objects(schema, where=""):
    """Yield every object schema with its path."""
    if isinstance(schema, dict):
        if "object" in schema.get("type", ()):
            yield where, schema
        for key, value in schema.items():
            yield from objects(value, f"{where}/{key}")
    elif isinstance(schema, list):
        for index, value in enumerate(schema):
            yield from objects(value, f"{where}/{index}")
