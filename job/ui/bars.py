"""Progress bars with rates and time left, for a person at a terminal."""

import time
from datetime import timedelta
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
)
from rich.table import Column
from rich.text import Text

from job.errors import JobError
from job.text_format import duration
from job.ui.rate import Rate, speed, title


# The rates are those of the plain and the JSON lines: rich's own forgets each step of work that
# takes more than half a minute, and then knows of no time left.
class _Speed(ProgressColumn):
    """Units a second."""

    def render(self, task: Task) -> Text:
        """Show the rate once it is known."""
        rate = task.fields["rate"].per_second
        return Text(speed(rate, task.fields["unit"]) if rate else "", "cyan")


class _TimeLeft(ProgressColumn):
    """Time left, and time taken when all is done."""

    def render(self, task: Task) -> Text:
        """Show hours, minutes and seconds."""
        if task.finished_time is not None:
            return Text(_clock(task.finished_time), "yellow")
        rate = task.fields["rate"].per_second
        return Text(_clock(task.remaining / rate) if rate and task.remaining else "-:--:--", "cyan")


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


class BarUi:
    """One bar for each piece of work at hand, and a line for each stage that is done."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False)
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}"),
            _Speed(),
            # On a narrow terminal the note gives way, not the time.
            _TimeLeft(table_column=Column(min_width=7, no_wrap=True)),
            TextColumn("[dim]{task.fields[note]}"),
            console=self._console,
            transient=True,
        )
        self._tasks: dict[str, Task] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bars.stop()

    def model_started(self, model: str, number: int, count: int) -> None:
        """The run of one model of a matrix begins; a failed one may have left its bars."""
        self._clear()
        self._print(f"[bold cyan]{escape(model)}[/]  [dim]model {number} of {count}[/]")

    def stage_started(self, stage: str, reason: str) -> None:
        """A stage begins, and why it runs."""
        self._print(f"[bold]▸ {stage}[/]  [dim]{escape(reason)}[/]")

    def stage_reused(self, stage: str, reason: str) -> None:
        """A stage's earlier result is taken."""
        self._print(f"[green]✓[/] {stage}  [dim]reused: {escape(reason)}[/]")

    def stage_finished(self, stage: str, seconds: float) -> None:
        """A stage's result is published; its bars go."""
        self._clear()
        self._print(f"[green]✓[/] {stage}  {duration(seconds)}")

    def progress(
        self, stage: str, what: str, done: int, total: int, unit: str, note: str = ""
    ) -> None:
        """Work done so far."""
        name = title(stage, what)
        task = self._tasks.get(name)
        if task is not None and (unit != task.fields["unit"] or done < task.completed):
            # The same name, begun anew, as for the rounds of each row.
            self._bars.remove_task(task.id)
            task = None
        if task is None:
            added = self._bars.add_task(
                name, total=total, completed=done, unit=unit, note="", rate=Rate()
            )
            task = self._tasks[name] = next(one for one in self._bars.tasks if one.id == added)
        task.fields["rate"].add(time.monotonic(), done)
        self._bars.update(task.id, total=total, completed=done, note=escape(note))

    def message(self, stage: str, text: str, level: str = "info") -> None:
        """One line above the bars."""
        mark = "[yellow]![/]" if level == "warning" else "[dim]·[/]"
        self._print(f"{mark} {stage + ': ' if stage else ''}{escape(text)}")

    def failed(self, error: JobError) -> None:
        """The run ends with this error."""
        self._bars.stop()
        self._console.print(f"[bold red]error:[/] {escape(error.message)}", soft_wrap=True)
        if error.hint:
            self._console.print(escape(error.hint), soft_wrap=True)

    def _clear(self) -> None:
        for task in self._tasks.values():
            self._bars.remove_task(task.id)
        self._tasks.clear()

    def _print(self, text: str) -> None:
        self._bars.console.print(text, soft_wrap=True)
