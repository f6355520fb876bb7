"""Compares icecore with other programs on two states of one volume, as whole processes, and writes a report.

    python3 benches/compare                    makes the volume itself (smaller or larger: --scale, --small, --noise)
    python3 benches/compare OLD NEW            two states of one folder; they are only read
    python3 benches/compare --snapshots 1000   and a series of snapshots of a busy database

Every step runs with every tool in turn, --runs times; medians count. Nothing but the Python standard library is needed;
tools and PostgreSQL are used where they are installed. All is made in one folder below --work and removed at the end.
"""

import argparse
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import busy
import report
import steps
import tools
import volume


def main() -> None:
    options = parse()
    reexec_where_mounts_are_private()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work = Path(tempfile.mkdtemp(prefix="icecore-compare.", dir=options.work))
    work.chmod(0o755)
    try:
        run(options, work)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def run(options, work: Path) -> None:
    programs = tools.present(options.tools, options.icecore, work / "tools")
    stage = volume.Stage(work, can_mount())
    bench = steps.Bench(programs, stage, work, options.runs, options.limit)
    out = Path(options.out)
    if options.states:
        old, new = (Path(state).resolve() for state in options.states)
        what = f"{old} and {new}"
    else:
        old, new = volume.make(work, options.scale, options.transactions, options.small, options.noise)
        what = f"made: PostgreSQL of pgbench scale {options.scale}, then {options.transactions} transactions; small files; noise"
    head = [
        time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        f"{processor()}, {os.cpu_count()} cores; Linux {platform.release()}; {options.runs} runs",
        f"the states: {what}; {volume.size(old) / 1e6:,.0f} MB",
        *[f"{tool.name}: {tool.version()}" for tool in programs if tool.name != "cp -a"],
    ]
    print("\n".join(head), flush=True)
    try:
        bench.states(old, new)
        if options.pairs:
            pairs(bench, old, new, work)
    finally:
        stage.clear()
    text = report.write(out, bench, head)
    if options.snapshots:
        for tool in [tool for tool in programs if tool.name in options.busy_tools]:
            text += busy.run(tool, work, out, options.snapshots, options.busy_scale, options.busy_transactions, options.busy_limit)
        (out / "compare.md").write_text(text)
    print(text)


def pairs(bench, old: Path, new: Path, work: Path) -> None:
    """What the database alone adds: without its write-ahead log, and with it a few transactions later."""
    clusters = [(state / "pg") for state in (old, new)]
    if not all((cluster / "PG_VERSION").exists() for cluster in clusters):
        return
    data = [volume.without_wal(cluster, work / f"data-{number}" / "pg").parent for number, cluster in enumerate(clusters)]
    bench.pair("PostgreSQL without WAL", *data)
    for folder in data:
        shutil.rmtree(folder)
    installed = volume.postgres_bin()
    if installed is None or (clusters[1] / "PG_VERSION").read_text().strip() != installed.parent.name:
        return
    before, after = work / "few-0", work / "few-1"
    volume.copy(clusters[1], before / "pg")
    server = volume.Cluster(work / "server")
    server.adopt(clusters[1])
    server.during(volume.transactions_command(200))
    volume.copy(server.data, after / "pg")
    shutil.rmtree(work / "server")
    bench.pair("PostgreSQL with WAL, 200 transactions", before, after)
    shutil.rmtree(before)
    shutil.rmtree(after)


def parse():
    parser = argparse.ArgumentParser(prog="compare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("states", nargs="*", metavar="OLD NEW", help="two states of one folder, instead of making some")
    parser.add_argument("--icecore", default="icecore", metavar="PROGRAM", help="the program to measure (default: from PATH)")
    parser.add_argument("--tools", type=lambda text: text.split(","), default=[], metavar="A,B", help="only these (default: all found)")
    parser.add_argument("--runs", type=int, default=3, help="of every step (default %(default)s)")
    parser.add_argument("--out", default="compare-report", metavar="DIR", help="for the report (default %(default)s)")
    parser.add_argument("--work", default=os.environ.get("TMPDIR", "/var/tmp"), metavar="DIR", help="for volumes, repositories, restores")
    parser.add_argument("--scale", type=int, default=10, help="of pgbench, 16 MB each; 0: no database (default %(default)s)")
    parser.add_argument("--transactions", type=int, default=10000, help="between the states (default %(default)s)")
    parser.add_argument("--small", type=int, default=150, metavar="MB", help="of small files of this host (default %(default)s)")
    parser.add_argument("--noise", type=int, default=100, metavar="MB", help="that do not compress (default %(default)s)")
    parser.add_argument("--no-pairs", dest="pairs", action="store_false", help="leave out the database alone")
    parser.add_argument("--limit", type=float, default=1800, metavar="SECONDS", help="for one command (default %(default)s)")
    parser.add_argument("--snapshots", type=int, default=0, metavar="N", help="of a busy database, after the comparison")
    parser.add_argument("--busy-transactions", type=int, default=300, metavar="N", help="between them (default %(default)s)")
    parser.add_argument("--busy-scale", type=int, default=20, metavar="N", help="of pgbench there (default %(default)s)")
    parser.add_argument("--busy-limit", type=float, default=3600, metavar="SECONDS", help="for the whole series (default %(default)s)")
    parser.add_argument("--busy-tools", type=lambda text: text.split(","), default=["icecore"], metavar="A,B")
    options = parser.parse_args()
    if len(options.states) not in (0, 2):
        parser.error("give two folders, OLD and NEW, or none")
    return options


def reexec_where_mounts_are_private() -> None:
    """Starts anew in a mount namespace of its own, so that no mount is left behind however this ends."""
    if os.getuid() != 0 or os.environ.get("ICECORE_COMPARE_PRIVATE") or shutil.which("unshare") is None:
        return
    if subprocess.run(["unshare", "-m", "true"], stderr=subprocess.DEVNULL).returncode == 0:
        os.environ["ICECORE_COMPARE_PRIVATE"] = "1"
        os.execvp("unshare", ["unshare", "-m", "--propagation", "private", sys.executable, *sys.argv])


def can_mount() -> bool:
    return bool(os.environ.get("ICECORE_COMPARE_PRIVATE"))


def processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.machine()


main()
