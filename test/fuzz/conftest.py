"""Says at the end how many hostile inputs were thrown."""

from __future__ import annotations

from .cases import thrown


def pytest_terminal_summary(terminalreporter) -> None:
    if thrown:
        terminalreporter.write_sep('-', f'{thrown.total()} hostile inputs')
        for name, count in thrown.items():
            terminalreporter.write_line(f'{count:8} {name}')
