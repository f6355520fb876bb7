"""What was measured, for people (Markdown) and programs (JSON, TSV)."""

import json
from pathlib import Path
from statistics import median

COLUMNS = ["run", "step", "tool", "wall", "user", "sys", "memory", "code", "bytes", "new"]
# Steps whose new bytes matter.
SIZES = ("first", "changed", "PostgreSQL")


def write(out: Path, bench, head: list) -> str:
    out.mkdir(parents=True, exist_ok=True)
    (out / "compare.json").write_text(json.dumps({"head": head, "samples": bench.samples, "notes": bench.notes}, indent=1))
    lines = ["\t".join(COLUMNS)] + ["\t".join(str(sample[column]) for column in COLUMNS) for sample in bench.samples]
    (out / "compare.tsv").write_text("\n".join(lines) + "\n")
    text = markdown(bench, head)
    (out / "compare.md").write_text(text)
    return text


def markdown(bench, head: list) -> str:
    tools = [tool.name for tool in bench.tools]
    peers = [tool.name for tool in bench.tools if tool.is_peer and tool.name != "icecore"]
    steps = list(dict.fromkeys(sample["step"] for sample in bench.samples))
    parts = ["# Comparison\n", *[f"- {line}" for line in head], ""]
    value = lambda step, tool, column: middle(bench.samples, step, tool, column)

    parts += ["## Seconds (medians)\n", header(["step", *tools, "best peer : icecore"])]
    for step in steps:
        parts.append(row([step, *[number(value(step, tool, "wall"), 2) for tool in tools], ratio(value, step, peers, "wall")]))
    parts += ["\n## Processor seconds, user + system (medians)\n", header(["step", *tools, "best peer : icecore"])]
    for step in steps:
        cpu = lambda step, tool, _: plus(value(step, tool, "user"), value(step, tool, "sys"))
        parts.append(row([step, *[number(cpu(step, tool, None), 2) for tool in tools], ratio(cpu, step, peers, None)]))
    parts += ["\n## New bytes of the repository, MB\n", header(["step", *tools, "icecore : best peer"])]
    for step in [step for step in steps if step.startswith(SIZES)]:
        cells = [number(scaled(value(step, tool, "new"), 1e-6), 2) for tool in tools]
        parts.append(row([step, *cells, ratio(value, step, peers, "new", inverse=True)]))
    parts += ["\n## Peak memory, MiB (largest of the runs)\n", header(["step", *tools])]
    for step in steps:
        parts.append(row([step, *[number(scaled(largest(bench.samples, step, tool), 1 / 1024), 0) for tool in tools]]))
    if bench.notes:
        parts += ["\n## Notes\n", *[f"- {note}" for note in bench.notes]]
    return "\n".join(parts) + "\n"


def middle(samples: list, step: str, tool: str, column: str):
    # A step that failed was done in part at least (restic cannot overwrite a symbolic link, and goes on): the notes say so.
    values = [s[column] for s in samples if s["step"] == step and s["tool"] == tool]
    return median(values) if values else None


def largest(samples: list, step: str, tool: str):
    return max((s["memory"] for s in samples if s["step"] == step and s["tool"] == tool), default=None)


def ratio(value, step: str, peers: list, column, inverse: bool = False) -> str:
    ours = value(step, "icecore", column)
    theirs = [found for found in (value(step, peer, column) for peer in peers) if found is not None]
    if ours is None or not theirs or ours == 0 or min(theirs) == 0:
        return "-"
    return f"{ours / min(theirs):.3f}" if inverse else f"**{min(theirs) / ours:.2f}**"


def plus(a, b):
    return None if a is None or b is None else a + b


def scaled(value, by: float):
    return None if value is None else value * by


def number(value, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}".replace(",", " ")


def header(cells: list) -> str:
    return row(cells) + "\n" + "|" + "---|" * len(cells)


def row(cells: list) -> str:
    return "| " + " | ".join(cells) + " |"
