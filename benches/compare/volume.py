"""The two states of a volume: made here, or given; and how they are shown at one path in turn."""

import os
import re
import shutil
import subprocess
from pathlib import Path

# Where small files are taken from; what a host lacks is left out.
SMALL_FILES = ["/usr/share/doc", "/usr/include", "/usr/lib/python3", "/usr/share/man", "/etc"]
PORT = 54321


def make(work: Path, scale: int, transactions: int, small_mb: int, noise_mb: int) -> tuple:
    """Two states: `pg` (a PostgreSQL cluster, some transactions apart), `small` and `noise`."""
    old, new = work / "old", work / "new"
    for state in (old, new):
        state.mkdir(parents=True)
    if postgres_bin() is not None and scale > 0:
        cluster = Cluster(work / "server")
        cluster.create()
        cluster.during(["pgbench", "-q", "-i", "-s", str(scale), "postgres"], transactions_command(transactions))
        copy(cluster.data, old / "pg")
        cluster.during(transactions_command(transactions))
        copy(cluster.data, new / "pg")
        shutil.rmtree(work / "server")
    copy_small(old / "small", small_mb << 20)
    (old / "noise").mkdir()
    for number in range(4):
        write_noise(old / "noise" / f"{number}.bin", (noise_mb << 20) // 4)
    for part in ("small", "noise"):
        copy(old / part, new / part)
    change(new)
    return old, new


def change(state: Path) -> None:
    """One file edited in the middle, one in a hundred small files edited, as many removed, one added."""
    with open(state / "noise/0.bin", "r+b") as file:
        file.seek(file.seek(0, os.SEEK_END) // 2)
        file.write(os.urandom(4096))
    write_noise(state / "noise/new.bin", 1 << 20)
    files = sorted(path for path in (state / "small").rglob("*") if path.is_file() and not path.is_symlink())
    for path in files[::100]:
        with open(path, "ab") as file:
            file.write(b"edited\n")
    for path in files[50::100]:
        path.unlink()


def copy_small(into: Path, limit: int) -> None:
    total = 0
    for source in filter(os.path.isdir, SMALL_FILES):
        for folder, _, names in os.walk(source):
            for name in names:
                path = Path(folder, name)
                try:
                    size = path.lstat().st_size
                    if size > (1 << 20) or (path.exists() and not (path.is_file() or path.is_symlink())):
                        continue
                    target = into / path.relative_to("/")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(path, target, follow_symlinks=False)
                except OSError:
                    continue
                total += size
                if total >= limit:
                    return


def write_noise(path: Path, size: int) -> None:
    with open(path, "wb") as file:
        for _ in range(size >> 20):
            file.write(os.urandom(1 << 20))


def copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", "--reflink=auto", str(source), str(target)], check=True)


def without_wal(cluster: Path, target: Path) -> Path:
    """A copy of a cluster's files without its write-ahead log."""
    copy(cluster, target)
    shutil.rmtree(target / "pg_wal", ignore_errors=True)
    return target


def postgres_bin():
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pgbench"), key=lambda path: [int(n) for n in re.findall(r"\d+", str(path))])
    return found[-1].parent if found else None


def transactions_command(count: int) -> list:
    return ["pgbench", "-n", "-c", "2", "-t", str(max(count // 2, 1)), "postgres"]


class Cluster:
    """A PostgreSQL server of our own, on a socket in its folder."""

    def __init__(self, folder: Path, data: Path = None):
        self.folder = folder
        self.data = data or folder / "data"
        self.bin = postgres_bin()

    def create(self) -> None:
        self.folder.mkdir(parents=True)
        self.own(self.folder)
        self.run([str(self.bin / "initdb"), "-D", str(self.data), "-A", "trust", "-U", "postgres", "--no-sync"])

    def adopt(self, cluster: Path) -> None:
        """Takes a copy of a cluster that was shut down."""
        self.folder.mkdir(parents=True)
        copy(cluster, self.data)
        self.own(self.folder)

    def own(self, folder: Path) -> None:
        if os.getuid() == 0:
            subprocess.run(["chown", "-R", "postgres:", str(folder)], check=True)

    def start(self) -> None:
        options = f"-k {self.folder} -p {PORT} -c listen_addresses='' -c max_wal_size=512MB"
        self.run([str(self.bin / "pg_ctl"), "-D", str(self.data), "-w", "-o", options, "-l", str(self.folder / "log"), "start"])

    def stop(self) -> None:
        if (self.data / "postmaster.pid").exists():
            self.run([str(self.bin / "pg_ctl"), "-D", str(self.data), "-w", "-m", "fast", "stop"])

    def bench(self, command: list) -> None:
        self.run([str(self.bin / command[0]), "-h", str(self.folder), "-p", str(PORT), "-U", "postgres", *command[1:]])

    def during(self, *commands: list) -> None:
        self.start()
        try:
            for command in commands:
                self.bench(command)
        finally:
            self.stop()

    def run(self, command: list) -> None:
        if os.getuid() == 0:
            command = ["runuser", "-u", "postgres", "--", *command]
        done = subprocess.run(command, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
        if done.returncode != 0:
            raise SystemExit(f"compare: {command} failed:\n{done.stdout[-2000:]}")


class Stage:
    """Shows one state at a time at one path, so that a tool meets the same source again. The states' files are not touched:
    they are bind-mounted where this process may mount (in its own mount namespace, see `__main__`), else moved, and
    those that are not ours are copied before."""

    def __init__(self, work: Path, can_mount: bool):
        self.path = work / "source"
        self.work = work
        self.can_mount = can_mount
        self.shown = None
        self.copies = {}

    def show(self, state: Path) -> None:
        self.clear()
        if self.can_mount:
            self.path.mkdir(exist_ok=True)
            subprocess.run(["mount", "--bind", str(state), str(self.path)], check=True)
        else:
            if self.work not in state.parents:
                if state not in self.copies:
                    self.copies[state] = self.work / f"copy-{len(self.copies)}"
                    copy(state, self.copies[state])
                state = self.copies[state]
            os.rename(state, self.path)
        self.shown = state
        read_all(self.path)

    def clear(self) -> None:
        if self.shown is None:
            return
        if self.can_mount:
            subprocess.run(["umount", str(self.path)], check=True)
        else:
            os.rename(self.path, self.shown)
        self.shown = None


def read_all(folder: Path) -> None:
    """Brings a tree into the page cache."""
    subprocess.run(["find", str(folder), "-type", "f", "-exec", "cat", "{}", "+"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def size(folder: Path) -> int:
    """Bytes of all files below `folder`."""
    total, pending = 0, [folder]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    return total
