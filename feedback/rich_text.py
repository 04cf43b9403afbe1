"""The one place where untrusted text becomes HTML: managers' Markdown, cleaned to a short list of harmless elements.

Everything else is escaped by the templates. Model output and annotators' text never pass through here.
"""

from __future__ import annotations

import nh3
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt

ALLOWED = {"p", "br", "h2", "h3", "h4", "ul", "ol", "li", "strong", "em", "code", "pre", "blockquote", "hr"}
_markdown = MarkdownIt("commonmark", {"html": False, "linkify": False}).disable(["image", "html_block", "html_inline"])


def render_markdown(text: str) -> SafeString:
    """Markdown as HTML without links, images, raw HTML or attributes: reading it can fetch nothing and run nothing."""
    return mark_safe(nh3.clean(_markdown.render(text), tags=ALLOWED, attributes={}, link_rel=None))  # noqa: S308
