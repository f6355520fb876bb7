"""Tables for people, JSON for programs, and the promises that decide on the exit code."""

import json
import math
import os
import platform
import time
from pathlib import Path


class Report:
    def __init__(self, what: str, options):
        self.what = what
        self.out = Path(options.out)
        self.options = {key: value for key, value in vars(options).items() if isinstance(value, (str, int, float, list))}
        self.head = [
            time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            f"{processor()}, {os.cpu_count()} cores; Linux {platform.release()}",
        ]
        self.tables = []
        self.promises = []
        self.data = {}

    def table(self, title: str, rows: list) -> None:
        """Rows are dictionaries with the same keys."""
        if rows:
            self.tables.append((title, rows))
            print("\n" + plain(title, rows), flush=True)

    def promise(self, text: str, kept: bool, found: str = "") -> None:
        self.promises.append({"promise": text, "kept": bool(kept), "found": found})

    def finish(self) -> int:
        """Prints what was promised and writes the files. Returns the exit code."""
        broken = [promise for promise in self.promises if not promise["kept"]]
        print()
        for promise in self.promises:
            found = f": {promise['found']}" if promise["found"] else ""
            print(f"{'kept  ' if promise['kept'] else 'BROKEN'}  {promise['promise']}{found}")
        self.out.mkdir(parents=True, exist_ok=True)
        document = {"what": self.what, "head": self.head, "options": self.options, "promises": self.promises, **self.data}
        (self.out / f"{self.what}.json").write_text(json.dumps(document, indent=1, default=str))
        parts = [f"# {self.what}\n", *[f"- {line}" for line in self.head], ""]
        parts += [f"## {title}\n\n{markdown(rows)}\n" for title, rows in self.tables]
        parts += [
            f"- {'kept' if promise['kept'] else '**broken**'}: {promise['promise']} ({promise['found']})" for promise in self.promises
        ]
        (self.out / f"{self.what}.md").write_text("\n".join(parts) + "\n")
        print(f"\nwritten: {self.out / self.what}.json and .md")
        return 1 if broken or not self.promises else 0


def plain(title: str, rows: list) -> str:
    columns = list(rows[0])
    cells = [[cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(column), *(len(line[at]) for line in cells)) for at, column in enumerate(columns)]
    lines = ["  ".join(column.ljust(widths[at]) for at, column in enumerate(columns))]
    lines += ["  ".join(text.ljust(widths[at]) for at, text in enumerate(line)) for line in cells]
    return title + "\n" + "\n".join(line.rstrip() for line in lines)


def markdown(rows: list) -> str:
    columns = list(rows[0])
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(cell(row.get(column)) for column in columns) + " |" for row in rows]
    return "\n".join(lines)


def cell(value) -> str:
    if value is None:
        return "-"
    return f"{value:,.2f}" if isinstance(value, float) else str(value)


def quantile(values: list, share: float):
    """The smallest value that at least `share` of them do not exceed; none of none."""
    values = sorted(value for value in values if value is not None)
    return values[max(0, math.ceil(share * len(values)) - 1)] if values else None


def middle(values: list):
    return quantile(values, 0.5)


def processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()
