"""Ways to capture the volumes of a running application: icecore's, and the two that everybody knows."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

from engine import Engine, Failed, held_ms, run

PASSWORD = "a password for a test"
CHUNK = 1 << 20
PAUSES_MAX = 5


class Taken(dict):
    """One capture: seconds, started and ended (monotonic), holds and held_ms as the engine's events say, and what the method itself
    says."""


class Icecore:
    """`icecore snapshot` and `icecore restore`, with a repository of its own."""

    name = "icecore"
    # Whether a captured state is promised to be whole.
    is_consistent = True

    def __init__(self, engine: Engine, pauses, work: Path, program: str, consistency: str):
        self.engine = engine
        self.pauses = pauses
        self.program = program
        self.consistency = consistency
        self.repo = work / "repository"
        self.state = work / "state"
        self.scratch = work / "tmp"
        self.scratch.mkdir(parents=True)
        self.env = dict(os.environ, ICECORE_PASSWORD=PASSWORD, HOME=str(work), TMPDIR=str(self.scratch))
        for name in [name for name in self.env if name.startswith(("ICECORE_", "XDG_")) and name != "ICECORE_PASSWORD"]:
            del self.env[name]
        self.call("init")

    def words(self, *words) -> list:
        return [self.program, "--repo", str(self.repo), "--state-dir", str(self.state), "--no-progress", *map(str, words)]

    def call(self, *words, codes=(0,)) -> subprocess.CompletedProcess:
        done = run(self.words(*words), check=False, env=self.env)
        if done.returncode not in codes:
            raise Failed(f"icecore {' '.join(map(str, words))}: exit code {done.returncode}: {done.stderr.strip()[-1500:]}")
        return done

    def json(self, *words, codes=(0,)):
        return json.loads(self.call("--json", *words, codes=codes).stdout)

    def snapshot_words(self, workload) -> list:
        source = ["--stack", workload.stack] if workload.stack else list(workload.volumes.values())
        return ["snapshot", *source, *(["--consistency", self.consistency] if self.consistency else [])]

    def capture(self, workload) -> Taken:
        taken = begin()
        # 3: done, but something was unreadable or changed. That is a problem, but the snapshot is there to be looked at.
        done = self.call("--json", *self.snapshot_words(workload), codes=(0, 3))
        end(taken, self.pauses)
        snapshots = {snapshot["source"]: snapshot for snapshot in json.loads(done.stdout)["snapshots"]}
        missing = [volume for volume in workload.volumes.values() if volume not in snapshots]
        if missing:
            raise Failed(f"there is no snapshot of {', '.join(missing)}")
        ours = [snapshots[volume] for volume in workload.volumes.values()]
        taken["ids"] = {role: snapshots[volume]["id"] for role, volume in workload.volumes.items()}
        taken["consistency"] = sorted({snapshot["consistency"] for snapshot in ours})
        taken["frozen_ms"] = max(snapshot.get("frozen_ms") or 0 for snapshot in ours)
        for field in ("files", "bytes", "new_bytes", "stored_bytes"):
            taken[field] = sum(snapshot.get(field) or 0 for snapshot in ours)
        taken["warnings"] = [warning for snapshot in ours for warning in snapshot["warnings"]]
        taken["problems"] = []
        if done.returncode != 0:
            taken["problems"].append(f"exit code {done.returncode}: {done.stderr.strip()[:300]}")
        if len({snapshot["run"] for snapshot in ours}) > 1:
            taken["problems"].append("the snapshots have different run ids")
        if "fuzzy" in taken["consistency"]:
            taken["problems"].append("a snapshot is fuzzy")
        return taken

    def restore(self, taken: Taken, role: str, volume: str) -> None:
        self.call("restore", taken["ids"][role], "--as", volume, codes=(0, 3))

    def forget(self, taken: Taken) -> None:
        """The repository keeps it."""


class PauseCopy:
    """`docker pause`, `cp -a`, `docker unpause`: what people do by hand."""

    name = "pause-copy"
    is_consistent = True

    def __init__(self, engine: Engine, pauses, work: Path):
        self.engine = engine
        self.pauses = pauses
        self.work = work / self.name
        self.work.mkdir(parents=True)
        self.number = 0
        self.refused = 0

    def capture(self, workload) -> Taken:
        self.number += 1
        place = self.work / str(self.number)
        place.mkdir()
        folders = {role: self.engine.folder(volume) for role, volume in workload.volumes.items()}
        taken = begin()
        self.refused = 0
        self.copy_all(workload, folders, place)
        end(taken, self.pauses)
        return Taken(taken, place=str(place), refused_pauses=self.refused, consistency=[self.name], frozen_ms=taken["held_ms"], problems=[])

    def copy_all(self, workload, folders: dict, place: Path) -> None:
        try:
            for container in workload.containers:
                self.pause(container)
            for role, folder in folders.items():
                copy(folder, place / role)
        finally:
            # One that could not be paused need not be thawed.
            self.engine.docker("unpause", *workload.containers, check=False)

    def pause(self, container: str) -> None:
        """An engine with the first version of control groups now and then cannot freeze a process that waits for the disk: it
        gives up and thaws the others."""
        for _ in range(PAUSES_MAX - 1):
            if self.engine.docker("pause", container, check=False).returncode == 0:
                return
            self.refused += 1
        self.engine.docker("pause", container)

    def restore(self, taken: Taken, role: str, volume: str) -> None:
        self.engine.docker("volume", "create", volume)
        target = self.engine.folder(volume)
        copy(Path(taken["place"]) / role, target)

    def forget(self, taken: Taken) -> None:
        shutil.rmtree(taken["place"], ignore_errors=True)


class LiveCopy(PauseCopy):
    """Copies while the application writes, at the pace of a modest disk. It has to be found broken: it shows that the checks
    can fail."""

    name = "live-copy"
    is_consistent = False

    def __init__(self, engine: Engine, pauses, work: Path, megabytes_per_second: float):
        super().__init__(engine, pauses, work)
        self.rate = megabytes_per_second * 1e6

    def copy_all(self, workload, folders: dict, place: Path) -> None:
        for role, folder in folders.items():
            self.copy_slowly(folder, place / role)

    def copy_slowly(self, source: Path, target: Path) -> None:
        started, copied = time.monotonic(), 0
        target.mkdir()
        for folder, names, files in os.walk(source):
            # In the order of names, as most programs that copy trees.
            names.sort()
            for name in list(names):
                path = Path(folder, name)
                if path.is_symlink():
                    names.remove(name)
                    files.append(name)
                else:
                    (target / path.relative_to(source)).mkdir()
            for name in sorted(files):
                path = Path(folder, name)
                into = target / path.relative_to(source)
                try:
                    if path.is_symlink():
                        into.symlink_to(os.readlink(path))
                    elif path.is_file():
                        for length in copy_file(path, into):
                            copied += length
                            time.sleep(max(0.0, copied / self.rate - (time.monotonic() - started)))
                        own(path, into)
                except FileNotFoundError:
                    continue
        for folder, _, _ in os.walk(target):
            try:
                own(source / Path(folder).relative_to(target), Path(folder))
            except FileNotFoundError:
                continue


def copy_file(source: Path, target: Path):
    with open(source, "rb") as reader, open(target, "wb") as writer:
        while chunk := reader.read(CHUNK):
            writer.write(chunk)
            yield len(chunk)


def own(source: Path, target: Path) -> None:
    stat = source.stat()
    os.chown(target, stat.st_uid, stat.st_gid)
    os.chmod(target, stat.st_mode & 0o7777)


def copy(source: Path, target: Path) -> None:
    run(["cp", "-a", "--reflink=never", *(["-T"] if target.exists() else []), source, target])


def begin() -> Taken:
    return Taken(started=time.monotonic(), began=time.time())


def end(taken: Taken, pauses) -> None:
    taken["ended"] = time.monotonic()
    taken["seconds"] = round(taken["ended"] - taken["started"], 3)
    holds = pauses.between(taken["began"] - 0.01, time.time())
    # As (from, to) times of day: what the engine's events say.
    taken["holds"] = [(start, end) for start, end, _ in holds]
    taken["held_ms"] = held_ms(holds)
