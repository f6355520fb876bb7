"""Many snapshots of a database that is written to between them: does the hundredth cost what the tenth did?"""

import json
import subprocess
import time
from pathlib import Path
from statistics import median

import volume


def run(tool, work: Path, out: Path, snapshots: int, scale: int, transactions: int, limit: float) -> str:
    """Snapshots of a running cluster's folder, `transactions` apart. Ends early, with a note, after `limit` seconds."""
    if volume.postgres_bin() is None:
        return "No PostgreSQL is installed: no series of snapshots.\n"
    cluster = volume.Cluster(work / "busy")
    cluster.create()
    tool.fresh()
    rows = []
    started = time.monotonic()
    cluster.start()
    try:
        cluster.bench(["pgbench", "-q", "-i", "-s", str(scale), "postgres"])
        for number in range(1, snapshots + 1):
            if number > 1:
                cluster.bench(volume.transactions_command(transactions))
            rows.append(one(tool, cluster.data, number))
            if number % 50 == 0:
                print(f"snapshot {number}: {rows[-1]['wall']:.3f} s, {rows[-1]['new'] / 1e3:.0f} kB new", flush=True)
            if time.monotonic() - started > limit:
                break
    finally:
        cluster.stop()
    out.mkdir(parents=True, exist_ok=True)
    columns = list(rows[0])
    lines = ["\t".join(columns)] + ["\t".join(str(row[column]) for column in columns) for row in rows]
    (out / f"busy-{tool.program}.tsv").write_text("\n".join(lines) + "\n")
    return text(tool, rows, snapshots, transactions, volume.size(tool.repo))


def one(tool, data: Path, number: int) -> dict:
    before = parts(tool.repo)
    command = tool.snapshot(data)
    if tool.name == "icecore":
        command = [*command, "--json"]
    start = time.monotonic()
    child = subprocess.Popen(command, env=tool.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, errors = child.communicate()
    wall = time.monotonic() - start
    # 3: a file changed while it was read, as the server goes on.
    if child.returncode not in (0, 3):
        raise SystemExit(f"compare: snapshot {number} of {tool.name} failed:\n{errors.decode(errors='replace')[-2000:]}")
    after = parts(tool.repo)
    row = {"number": number, "wall": round(wall, 4), "new": after["all"] - before["all"], "journal": after["journal"] - before["journal"]}
    if tool.name == "icecore":
        report = json.loads(output)["snapshots"][0]
        row["stored"] = report.get("stored_bytes", 0)
        row["trees"] = report.get("tree_bytes", 0)
    return row


def parts(repo: Path) -> dict:
    journal = sum(volume.size(repo / part) for part in ("log", "idx", "gen") if (repo / part).is_dir())
    return {"all": volume.size(repo), "journal": journal}


def text(tool, rows: list, wanted: int, transactions: int, total: int) -> str:
    # Windows of ten: a single snapshot may meet a checkpoint of the database.
    window = lambda end, column: median(row[column] for row in rows[max(end - 10, 1) : end])
    lines = [f"\n## {len(rows)} snapshots of a busy database, {transactions} transactions apart: {tool.name}\n"]
    if len(rows) < wanted:
        lines.append(f"Ended after {len(rows)} of {wanted} snapshots: out of time.\n")
    lines += ["| snapshots | seconds | new bytes, kB | of that journal, kB |", "|---|---|---|---|"]
    ends = [end for end in (20, 100, 200, 500, 1000) if end < len(rows)] + [len(rows)]
    for end in ends:
        values = [window(end, column) for column in ("wall", "new", "journal")]
        lines.append(f"| {max(end - 10, 1) + 1} to {end} | {values[0]:.3f} | {values[1] / 1e3:.1f} | {values[2] / 1e3:.1f} |")
    first = rows[0]
    lines.append(f"\nThe first took {first['wall']:.2f} s and {first['new'] / 1e6:.1f} MB; all together {total / 1e6:.1f} MB.")
    if len(rows) > 20:
        early, late = window(20, "wall"), window(len(rows), "wall")
        lines.append(f"The last ten took {late / early:.2f} times as long as the 11th to the 20th.")
    if "trees" in first:
        trees = median(row["trees"] for row in rows[1:]) if len(rows) > 1 else 0
        journal = median(row["journal"] for row in rows[1:]) if len(rows) > 1 else 0
        lines.append(f"A snapshot's record, the median: {trees / 1e3:.1f} kB of trees and lists, {journal / 1e3:.1f} kB of journal.")
    return "\n".join(lines) + "\n"
