"""Progress bars with rate and remaining time, for a terminal."""

import time
from datetime import timedelta
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
from job.ui.protocol import Ui
from job.ui.rate import Rate, speed, title


# rich's own columns show no remaining time if a step takes more than 30 s, so these columns use
# the rates of the text and JSON lines.
class _Speed(ProgressColumn):
    """Units per second."""

    def render(self, task: Task) -> Text:
        """Show the rate; nothing before two samples."""
        rate = task.fields["rate"].per_second
        return Text(speed(rate, task.fields["unit"]) if rate else "", "cyan")


class _TimeLeft(ProgressColumn):
    """Remaining time; elapsed time when the work is finished."""

    def render(self, task: Task) -> Text:
        """Show hours, minutes and seconds."""
        if task.finished_time is not None:
            return Text(_clock(task.finished_time), "yellow")
        rate = task.fields["rate"].per_second
        return Text(_clock(task.remaining / rate) if rate and task.remaining else "-:--:--", "cyan")


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))


class BarUi(Ui):
    """A bar for each piece of current work, and a line for each finished stage."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, highlight=False)
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.completed:,.0f}/{task.total:,.0f} {task.fields[unit]}"),
            _Speed(),
            # On a narrow terminal, the note is truncated before the time.
            _TimeLeft(table_column=Column(min_width=7, no_wrap=True)),
            TextColumn("[dim]{task.fields[note]}"),
            console=self._console,
            transient=True,
        )
        self._tasks: dict[str, Task] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def model_started(self, model: str, number: int, count: int) -> None:
        """Print the name of the model, and remove the bars of a model that failed before."""
        self._clear()
        self._print(f"[bold cyan]{escape(model)}[/]  [dim]model {number} of {count}[/]")

    def stage_started(self, stage: str, reason: str) -> None:
        """Print that a stage starts, and why."""
        self._print(f"[bold]▸ {stage}[/]  [dim]{escape(reason)}[/]")

    def stage_reused(self, stage: str, reason: str) -> None:
        """Print that the earlier result of a stage is reused."""
        self._print(f"[green]✓[/] {stage}  [dim]reused: {escape(reason)}[/]")

    def stage_finished(self, stage: str, seconds: float) -> None:
        """Remove the bars of the stage, and print its duration."""
        self._clear()
        self._print(f"[green]✓[/] {stage}  {duration(seconds)}")

    def progress(
        self, stage: str, what: str, done: int, total: int, unit: str, note: str = ""
    ) -> None:
        """Update the bar of this work."""
        name = title(stage, what)
        task = self._tasks.get(name)
        if task is not None and (unit != task.fields["unit"] or done < task.completed):
            # Other work with the same name, such as the rounds of the next row.
            self._bars.remove_task(task.id)
            task = None
        if task is None:
            added = self._bars.add_task(
                name, total=total, completed=done, unit=unit, note="", rate=Rate()
            )
            task = self._tasks[name] = next(each for each in self._bars.tasks if each.id == added)
        task.fields["rate"].add(time.monotonic(), done)
        self._bars.update(task.id, total=total, completed=done, note=escape(note))

    def message(self, stage: str, text: str, level: str = "info") -> None:
        """Print one line above the bars."""
        mark = "[yellow]![/]" if level == "warning" else "[dim]·[/]"
        self._print(f"{mark} {stage + ': ' if stage else ''}{escape(text)}")

    def failed(self, error: JobError) -> None:
        """Remove the bars, and print the error."""
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
