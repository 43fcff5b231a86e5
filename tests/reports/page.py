"""A report as a browser reads it."""

from html.parser import HTMLParser

_VOID = {"meta", "img", "br"}
_SVG = {"line", "rect", "circle", "polyline", "polygon"}


class Page(HTMLParser):
    """A page that is read strictly: its elements are closed in their order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.attributes, self.words, self.data = [], [], [], [], ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_startendtag(self, tag, attrs):
        assert tag in _SVG
        self._note(tag, attrs)

    def handle_starttag(self, tag, attrs):
        self._note(tag, attrs)
        if tag not in _VOID:
            self.open.append((tag, dict(attrs)))

    def _note(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        tag, attrs = self.open[-1] if self.open else ("", {})
        if tag == "script" and attrs.get("type") == "application/json":
            self.data += data
        elif tag not in ("script", "style"):
            self.words.append(data)

    @property
    def text(self):
        return " ".join("".join(self.words).split())

    @property
    def keys(self):
        """The ids of its sections."""
        return {value for tag, name, value in self.attributes if (tag, name) == ("section", "id")}


def check_alone(page):
    """Nothing is fetched, and nothing runs but the page's own script."""
    for tag, name, value in page.attributes:
        assert not name.startswith("on"), (tag, name)
        if name in ("src", "href", "xlink:href", "action", "data"):
            assert value.startswith(("data:image/", "#")), value
    assert page.tags.count("script") == 2
    assert not {"link", "iframe", "object", "embed", "base", "form"} & set(page.tags)
