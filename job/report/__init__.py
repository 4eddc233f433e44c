"""Rendering of report.json as Markdown, HTML and terminal tables."""
