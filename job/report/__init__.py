"""report.json, checked and rendered as Markdown, HTML and terminal tables."""
