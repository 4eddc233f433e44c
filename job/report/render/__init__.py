"""Rendering of a report as Markdown, HTML and SVG."""
