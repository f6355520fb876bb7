#!/usr/bin/env python3
"""Puts what the benchmarks left into words. Standard library only.

    report.py stages CRITERION_DIR    a table of the stages: medians, rates, cycles per byte
    report.py all REPORT_DIR          one document of the parts that are there
"""

import json
import sys
from pathlib import Path

# Cycles that the benchmark `clock` takes, by the latencies of its instructions.
CLOCK_CYCLES = 4 * 10_000
PARTS = ["stages.md", "index.md", "study.md", "compare.md"]


def main() -> None:
    match sys.argv[1:]:
        case ["stages", folder]:
            print(stages(Path(folder)))
        case ["all", folder]:
            print(report(Path(folder)))
        case _:
            raise SystemExit(__doc__)


def stages(folder: Path) -> str:
    found = []
    for path in folder.glob("**/new/benchmark.json"):
        about = json.loads(path.read_text())
        median = json.loads((path.parent / "estimates.json").read_text())["median"]
        found.append((about["full_id"], about["throughput"], median["point_estimate"], path.stat().st_mtime))
    # In the order in which they ran.
    found.sort(key=lambda each: each[3])
    hertz = next((CLOCK_CYCLES / nanos for name, _, nanos, _ in found if name == "clock"), None)
    lines = ["## Stages, one core (`rescan`: all cores)\n"]
    if hertz:
        lines.append(f"The clock ran at {hertz:.2f} GHz.\n")
    lines += ["| stage | median | rate | cycles per byte |", "|---|---|---|---|"]
    for name, throughput, nanos, _ in found:
        if name == "clock":
            continue
        rate = cycles = "-"
        if throughput and "Bytes" in throughput:
            size = throughput["Bytes"]
            rate = f"{size / nanos * 1000:,.0f} MB/s"
            cycles = f"{nanos * hertz / size:.2f}" if hertz else "-"
        elif throughput and "Elements" in throughput:
            rate = f"{nanos / throughput['Elements']:,.0f} ns each"
        lines.append(f"| {name.replace('/', ': ', 1)} | {time(nanos)} | {rate} | {cycles} |")
    return "\n".join(lines) + "\n"


def time(nanos: float) -> str:
    for unit, size in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if nanos >= size:
            return f"{nanos / size:.2f} {unit}"
    return f"{nanos:.0f} ns"


def report(folder: Path) -> str:
    parts = ["# Benchmarks\n"]
    for name in PARTS:
        if not (folder / name).exists():
            continue
        text = (folder / name).read_text()
        if name == "study.md":
            text = "## Parameters\n\n![the parameters](study.svg)\n" + text
        # Each part is one section of this document.
        parts.append(text.replace("\n## ", "\n### ").replace("# Comparison\n", "## Comparison\n", 1))
    return "\n".join(parts)


main()
