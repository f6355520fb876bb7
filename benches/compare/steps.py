"""Runs the steps and measures them."""

import os
import shutil
import subprocess
import threading
import time
from pathlib import Path

import volume


class Sample(dict):
    """One measurement: run, step, tool, wall, user, sys (seconds), memory (KiB), code, bytes (of the repository), new."""


class Bench:
    def __init__(self, tools: list, stage: volume.Stage, work: Path, runs: int, limit: float):
        self.tools = tools
        self.stage = stage
        self.work = work
        self.runs = runs
        self.limit = limit
        self.samples = []
        self.notes = []
        self.failed = set()

    def states(self, old: Path, new: Path) -> None:
        """first, no change, changed, restores and checks; each step with every tool in turn, then the next."""
        for run in range(self.runs):
            for tool in self.tools:
                tool.fresh()
            self.stage.show(old)
            self.each(run, "first", lambda tool: tool.snapshot(self.stage.path))
            self.each(run, "no change", lambda tool: tool.snapshot(self.stage.path))
            self.stage.show(new)
            self.each(run, "changed", lambda tool: tool.snapshot(self.stage.path))
            self.restores(run, old)
            for depth in ("structure", "data", "deep"):
                self.each(run, f"verify {depth}", lambda tool: tool.checks().get(depth))
        self.stage.clear()

    def restores(self, run: int, old: Path) -> None:
        out = self.work / "restored"
        for in_place, step in ((False, "restore"), (True, "restore in place")):
            for tool in self.tools:
                root = tool.root(self.stage.path, out)
                command = tool.restore(self.stage.path, out, in_place)
                if in_place:
                    root.parent.mkdir(parents=True, exist_ok=True)
                    # With moved states the old one is where it was: only the new one is shown.
                    volume.copy(self.stage.copies.get(old, old), root)
                else:
                    out.mkdir()
                self.measure(run, step, tool, command)
                if run == 0:
                    self.compare(step, tool, root, not in_place or tool.removes)
                shutil.rmtree(out)

    def pair(self, step: str, old: Path, new: Path) -> None:
        """What the second of two states adds to a repository of the first."""
        for tool in self.tools:
            if tool.is_peer:
                tool.fresh()
        self.stage.show(old)
        for tool in self.tools:
            if tool.is_peer:
                self.measure(0, f"{step}: first", tool, tool.snapshot(self.stage.path))
        self.stage.show(new)
        for tool in self.tools:
            if tool.is_peer:
                self.measure(0, step, tool, tool.snapshot(self.stage.path))
        self.stage.clear()

    def each(self, run: int, step: str, command) -> None:
        # Who comes first changes from run to run.
        shift = run % len(self.tools)
        for tool in self.tools[shift:] + self.tools[:shift]:
            arguments = command(tool)
            if arguments is not None:
                self.measure(run, step, tool, arguments)

    def measure(self, run: int, step: str, tool, command: list) -> None:
        before = volume.size(tool.repo)
        os.sync()
        with open(tool.work / "log", "wb") as log:
            start = time.monotonic()
            child = subprocess.Popen(command, env=tool.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            timer = threading.Timer(self.limit, child.kill)
            timer.start()
            _, status, usage = os.wait4(child.pid, 0)
            wall = time.monotonic() - start
            timer.cancel()
            child.returncode = os.waitstatus_to_exitcode(status)
        after = volume.size(tool.repo)
        sample = Sample(
            run=run,
            step=step,
            tool=tool.name,
            wall=round(wall, 3),
            user=round(usage.ru_utime, 3),
            sys=round(usage.ru_stime, 3),
            memory=usage.ru_maxrss,
            code=child.returncode,
            bytes=after,
            new=after - before,
        )
        self.samples.append(sample)
        print(f"{step:<28} {tool.name:<9} {wall:8.2f} s {usage.ru_maxrss / 1024:7.0f} MiB {(after - before) / 1e6:10.2f} MB new", flush=True)
        if child.returncode != 0 and (step, tool.name) not in self.failed:
            self.failed.add((step, tool.name))
            text = (tool.work / "log").read_text(errors="replace").strip().splitlines()
            self.notes.append(f"{tool.name}, {step}: exit code {child.returncode}: {' '.join(text[-3:])[:300]}")

    def compare(self, step: str, tool, root: Path, removes: bool) -> None:
        if shutil.which("rsync") is None:
            return
        # Contents by checksum, owners, modes, times, hard links, ACLs, attributes.
        command = ["rsync", "-aHAXnci", *(["--delete"] if removes else []), f"{self.stage.path}/", f"{root}/"]
        found = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace").stdout.splitlines()
        if found:
            self.notes.append(f"{tool.name}, {step}: {len(found)} entries differ from the source, the first: {found[0][:200]}")
