"""The programs that are compared: how each is asked to do the same thing."""

import os
import shutil
import subprocess
from pathlib import Path

PASSWORD = "a password for a benchmark"


class Tool:
    """One program with one repository. Commands are argument lists; `root` is where a restore puts the source's files."""

    name = ""
    program = ""
    # A snapshot store is a peer; the others are yardsticks.
    is_peer = True
    # Whether a restore in place removes what the snapshot does not have.
    removes = False

    def __init__(self, path: str, work: Path):
        self.path = path
        self.work = work
        self.repo = work / "repository"
        self.env = dict(
            os.environ,
            HOME=str(work / "home"),
            XDG_CACHE_HOME=str(work / "home/.cache"),
            XDG_CONFIG_HOME=str(work / "home/.config"),
            ICECORE_PASSWORD=PASSWORD,
            ICECORE_STATE_DIR=str(work / "state"),
            RESTIC_PASSWORD=PASSWORD,
            RUSTIC_PASSWORD=PASSWORD,
            BORG_PASSPHRASE=PASSWORD,
            BORG_BASE_DIR=str(work / "home"),
            LC_ALL="C.UTF-8",
        )

    def version(self) -> str:
        out = subprocess.run([self.path, "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
        return (out.strip().splitlines() or ["unknown"])[0].strip("* ")

    def fresh(self) -> None:
        """Forgets everything and makes an empty repository."""
        shutil.rmtree(self.work, ignore_errors=True)
        (self.work / "home").mkdir(parents=True)
        command = self.init()
        if command is None:
            self.repo.mkdir()
        else:
            subprocess.run(command, env=self.env, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def init(self):
        return None

    def snapshot(self, source: Path) -> list:
        raise NotImplementedError

    def restore(self, source: Path, out: Path, in_place: bool):
        raise NotImplementedError

    def root(self, source: Path, out: Path) -> Path:
        return out

    def checks(self) -> dict:
        """structure: what is there fits together; data: every byte is read; deep: every chunk is opened."""
        return {}


class Icecore(Tool):
    name = program = "icecore"
    removes = True

    def base(self) -> list:
        return [self.path, "--repo", str(self.repo), "--no-progress", "--quiet"]

    def init(self):
        return [*self.base(), "init"]

    def snapshot(self, source):
        return [*self.base(), "snapshot", str(source)]

    def restore(self, source, out, in_place):
        more = ["--delete", "--yes"] if in_place else []
        return [*self.base(), "restore", str(source), "--at", "latest", "--to", str(out), *more]

    def checks(self):
        checks = {"structure": [*self.base(), "verify"], "data": [*self.base(), "verify", "--data"]}
        options = subprocess.run([self.path, "verify", "--help"], stdout=subprocess.PIPE, text=True).stdout
        if "deep" in options:
            checks["deep"] = [*self.base(), "verify", "--data=deep"]
        return checks


class Restic(Tool):
    name = program = "restic"

    def version(self):
        return subprocess.run([self.path, "version"], stdout=subprocess.PIPE, text=True).stdout.strip()

    def init(self):
        return [self.path, "init", "-r", str(self.repo)]

    def snapshot(self, source):
        return [self.path, "-r", str(self.repo), "backup", "-q", str(source)]

    def restore(self, source, out, in_place):
        return [self.path, "-r", str(self.repo), "restore", "-q", "latest", "--target", str(out)]

    def root(self, source, out):
        return out / source.relative_to("/")

    def checks(self):
        check = [self.path, "-r", str(self.repo), "check", "-q"]
        # Reading the data opens every chunk.
        return {"structure": check, "data": [*check, "--read-data"], "deep": [*check, "--read-data"]}


class Rustic(Tool):
    name = program = "rustic"
    removes = True

    def base(self) -> list:
        return [self.path, "-r", str(self.repo), "--no-progress", "--log-level", "error"]

    def init(self):
        return [*self.base(), "init"]

    def snapshot(self, source):
        return [*self.base(), "backup", str(source)]

    def restore(self, source, out, in_place):
        more = ["--delete"] if in_place else []
        return [*self.base(), "restore", f"latest:{source}", str(out), *more]

    def checks(self):
        check = [*self.base(), "check"]
        return {"structure": check, "data": [*check, "--read-data"], "deep": [*check, "--read-data"]}


class Borg(Tool):
    name = program = "borg"

    def init(self):
        return [self.path, "init", "-e", "repokey-blake2", str(self.repo)]

    def snapshot(self, source):
        return [self.path, "create", "-C", "zstd,3", f"{self.repo}::{{now:%Y%m%d%H%M%S%f}}", str(source)]

    def restore(self, source, out, in_place):
        latest = f"$({self.path} list --last 1 --short {self.repo})"
        return ["bash", "-c", f"cd '{out}' && exec {self.path} extract {self.repo}::{latest}"]

    def root(self, source, out):
        return out / source.relative_to("/")

    def checks(self):
        check = [self.path, "check"]
        return {
            "structure": [*check, "--archives-only", str(self.repo)],
            "data": [*check, "--repository-only", str(self.repo)],
            "deep": [*check, "--verify-data", str(self.repo)],
        }


class Conserve(Tool):
    """Not encrypted."""

    name = program = "conserve"

    def init(self):
        return [self.path, "init", str(self.repo)]

    def snapshot(self, source):
        return [self.path, "backup", "--no-progress", "--no-stats", str(self.repo), str(source)]

    def restore(self, source, out, in_place):
        more = ["--force-overwrite"] if in_place else []
        return [self.path, "restore", "--no-progress", "--no-stats", *more, str(self.repo), str(out)]

    def checks(self):
        validate = [self.path, "validate", "--no-progress", "--no-stats", str(self.repo)]
        return {"structure": [*validate, "--quick"], "data": validate, "deep": validate}


class TarZstd(Tool):
    """Whole archives, not encrypted: what a stream costs."""

    name = "tar+zstd"
    program = "zstd"
    is_peer = False

    def snapshot(self, source):
        archive = f"{self.repo}/$(date +%s%N).tar.zst"
        return ["bash", "-c", f"set -o pipefail; tar -cf - -C '{source}' . | {self.path} -q -3 -T0 -o {archive}"]

    def restore(self, source, out, in_place):
        return ["bash", "-c", f"set -o pipefail; {self.path} -qdc $(ls {self.repo}/* | tail -n 1) | tar -xf - -C '{out}'"]

    def checks(self):
        return {"data": ["bash", "-c", f"{self.path} -qt $(ls {self.repo}/* | tail -n 1)"]}


class Copy(Tool):
    """Plain copies: what the file system costs."""

    name = "cp -a"
    program = "cp"
    is_peer = False

    def snapshot(self, source):
        return ["bash", "-c", f"{self.path} -a '{source}' {self.repo}/$(date +%s%N)"]

    def restore(self, source, out, in_place):
        return ["bash", "-c", f"{self.path} -a $(ls -d {self.repo}/* | tail -n 1)/. '{out}/'"]


ALL = [Icecore, Restic, Rustic, Borg, Conserve, TarZstd, Copy]


def present(wanted: list, icecore: str, work: Path) -> list:
    """The tools of `wanted` (all without any) that this machine has."""
    tools = []
    for kind in ALL:
        if wanted and kind.name not in wanted and kind.program not in wanted:
            continue
        path = shutil.which(icecore if kind is Icecore else kind.program)
        if path is not None:
            tools.append(kind(os.path.abspath(path), work / kind.program))
        elif kind is Icecore or kind.name in wanted:
            raise SystemExit(f"compare: {kind.name} is not on PATH")
    return tools
