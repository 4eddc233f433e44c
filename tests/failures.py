"""Prints each failure when it happens."""

import pytest


class ImmediateFailures:
    """Prints failures at once; a run of all tests takes a quarter of an hour.

    Args:
        config: pytest's configuration.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Print the report of a test that failed."""
        self._print(report, report.when)

    @pytest.hookimpl(trylast=True)
    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Print the report of a file that cannot be imported."""
        self._print(report, "import")

    def pytest_sessionfinish(self) -> None:
        """Do not print the failures again at the end."""
        self._config.option.tbstyle = "no"

    def _print(self, report: pytest.TestReport | pytest.CollectReport, when: str) -> None:
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        # Processes of pytest-xdist have no terminal; they send their reports to the first process.
        if terminal is None or not report.failed:
            return
        terminal.write_line("")
        terminal.section(f"{report.nodeid} ({when})", "_", red=True)
        terminal.write_line(report.longreprtext)
        for name, content in report.sections:
            terminal.section(name, "-")
            terminal.write_line(content)
