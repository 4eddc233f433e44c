"""report.json and what people read of it, as text."""

import json
from collections.abc import Mapping
from typing import Any


def render_files(report: Mapping[str, Any]) -> Mapping[str, str]:
    """Return the content of ``report.json``, ``report.md`` and ``report.html``.

    Raises:
        OutputError: the report breaks its schema.
    """
    # Drawing the plots costs a second of imports, which a run that is done already need not pay.
    from job.report import matrix_document, matrix_page, run_page
    from job.report.render import html, markdown, schema_check

    matrix = "matrix" in report
    (matrix_document if matrix else schema_check).validate(report)
    page = (matrix_page if matrix else run_page).page_of(report)
    return {
        "report.json": f"{json.dumps(report, indent=2, allow_nan=False)}\n",
        "report.md": markdown.render_page(page),
        "report.html": html.render_page(page),
    }
