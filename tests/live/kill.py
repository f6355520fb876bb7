"""kill -9 at random moments of a capture: what is left, and what does the next command do about it?"""

import os
import random
import subprocess
import time
from pathlib import Path

import capture
import workloads
from engine import Failed, held_ms
from report import Report, middle, quantile

# Folders of the repository that commands may have to leave things in: prune and the next snapshot look after these.
OBJECTS = ("config", "keys", "lock", "probe", "packs", "log", "idx", "forget", "gc", "verified", "hb", "tmp")
HELPER = "icecore.helper"


class Stack:
    """A database and a writer to a volume in one project, and a container of it that somebody has paused."""

    def __init__(self, engine, options):
        options.megabytes = min(options.megabytes, 16)
        self.engine = engine
        self.stack = None
        self.parts = [workloads.Postgres(engine, options), workloads.Sqlite(engine, options, "wal")]
        self.volumes = {}
        self.idle = ""

    def start(self) -> None:
        for part in self.parts:
            part.start()
            part.start_load()
            self.volumes.update({f"{part.name}-{role}": volume for role, volume in part.volumes.items()})
        self.idle = self.engine.start("idle", "busy", mounts={self.parts[0].volumes["data"]: "/data"})
        self.engine.docker("pause", self.idle)

    def states(self) -> dict:
        names = [container for part in self.parts for container in part.containers] + [self.idle]
        text = self.engine.docker("inspect", "--format", "{{.Name}} {{.State.Status}} {{.State.StartedAt}}", *names).stdout
        return {line.split()[0].lstrip("/"): tuple(line.split()[1:]) for line in text.splitlines()}

    def stop_load(self) -> list:
        return [problem for part in self.parts for problem in part.stop_load()]

    def stop(self) -> None:
        for part in self.parts:
            part.stop()


def run(engine, pauses, work, options) -> int:
    report = Report("kill", options)
    engine.images("postgres", "sqlite", "busy")
    seed = random.randrange(1 << 32) if options.seed is None else options.seed
    print(f"seed {seed}", flush=True)
    chance = random.Random(seed)
    method = capture.Icecore(engine, pauses, work / "kill", options.icecore, options.consistency)
    stack = Stack(engine, options)
    try:
        stack.start()
        time.sleep(3)
        usual = [whole(method, stack) for _ in range(3)]
        expected, clean = stack.states(), leftovers(engine, method, stack)
        seconds = middle([taken["seconds"] for taken in usual[1:]])
        held = middle([taken["held_ms"] for taken in usual]) or 0
        print(f"a capture takes {seconds:.2f} s and holds for {held} ms", flush=True)
        rows = [one(method, stack, pauses, chance, number, seconds, held / 1000, expected, clean) for number in range(options.runs)]
        problems = verify(method, "--data")
        last = whole(method, stack)
        unfinished = sorted(path.name for path in (method.repo / "tmp").glob("*"))
        load = stack.stop_load()
        restored = examine(engine, method, stack, last)
    finally:
        stack.stop()
    summarise(report, rows, load, problems + [f"unfinished: {name}" for name in unfinished], restored, options)
    report.data = {"seed": seed, "kills": rows, "capture_seconds": seconds, "held_ms": held}
    return report.finish()


def whole(method, stack) -> dict:
    """A capture that nobody disturbs."""
    floors = [part.floor(time.monotonic()) for part in stack.parts]
    taken = method.capture(stack)
    taken["floors"] = floors
    return taken


def one(method, stack, pauses, chance, number: int, seconds: float, held: float, expected: dict, clean: set) -> dict:
    """One kill and what comes after it. Every other one waits for the freeze, which is short."""
    in_freeze = number % 2 == 1
    began = time.time()
    child = subprocess.Popen(
        method.words("--json", *method.snapshot_words(stack)),
        env=method.env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    if in_freeze:
        pauses.wait_for_pause(lambda: child.poll() is not None, seconds * 3 + 5)
        time.sleep(chance.uniform(0, held * 1.2))
    else:
        time.sleep(chance.uniform(0, seconds * 1.1))
    ended = child.poll() is not None
    child.kill()
    child.wait()
    moment = time.time() - began
    # The engine may still be at what it was asked for last: the next command comes after that, or into it.
    time.sleep(chance.choice([0.0, 0.3]))
    found = stack.states()
    paused = [name for name, state in found.items() if state[0] == "paused" and expected[name][0] != "paused"]
    start = time.monotonic()
    after = method.call("snapshots", codes=range(256))
    recovery = time.monotonic() - start
    time.sleep(0.3)
    problems = [] if after.returncode == 0 else [f"the next command: exit code {after.returncode}: {after.stderr.strip()[-300:]}"]
    for name, state in stack.states().items():
        if state != expected[name]:
            problems.append(f"{name} is {' '.join(state)} and was {' '.join(expected[name])}")
    left = leftovers(method.engine, method, stack) - clean
    problems += [f"left behind: {path}" for path in sorted(left)[:5]]
    problems += verify(method)
    if problems:
        print(f"kill {number + 1} after {moment:.2f} s: {'; '.join(problems)}"[:1000], flush=True)
        # One that is left frozen would spoil all that follows.
        for name in [name for name, state in stack.states().items() if state[0] == "paused" and expected[name][0] != "paused"]:
            method.engine.docker("unpause", name, check=False)
    elif (number + 1) % 20 == 0:
        print(f"{number + 1} kills", flush=True)
    return {
        "after_seconds": round(moment, 3),
        "ended_before": ended,
        "aimed_at_freeze": in_freeze,
        "left_paused": len(paused),
        "left_files": sorted(left),
        "recovery_seconds": round(recovery, 3),
        "held_ms": held_ms(pauses.between(began, time.time())),
        "problems": problems,
    }


def verify(method, *more) -> list:
    done = method.call("verify", *more, codes=range(256))
    if done.returncode == 0:
        return []
    return [f"verify {' '.join(more)}: exit code {done.returncode}: {(done.stdout + done.stderr).strip()[-300:]}"]


def leftovers(engine, method, stack) -> set:
    """Everything that a command which ended well would have removed, if anything like it is there: helpers, holds, copies taken
    under a freeze, restores that were not finished. Only the index and the repository's objects may come and go."""
    found = {f"container {name}" for name in engine.docker("ps", "--all", "--quiet", "--filter", f"label={HELPER}").stdout.split()}
    for folder, names, files in os.walk(method.state):
        names[:] = [name for name in names if name != "index"]
        found |= {str(Path(folder, name)) for name in names + files}
    found |= {str(path) for path in method.repo.iterdir() if path.name not in OBJECTS}
    found |= {str(path) for path in method.scratch.rglob("*")}
    for volume in stack.volumes.values():
        found |= {str(path) for path in engine.folder(volume).parent.iterdir()}
    return found


def examine(engine, method, stack, taken) -> list:
    """Whether the snapshot after all the kills is whole."""
    problems = []
    for part, floor in zip(stack.parts, taken["floors"]):
        volumes = {role: engine.name(f"after-{part.name}-{role}") for role in part.volumes}
        try:
            for role, volume in volumes.items():
                method.restore(taken, f"{part.name}-{role}", volume)
            problems += part.examine(volumes, floor)[0]
        except Failed as error:
            problems.append(str(error)[:500])
        finally:
            for volume in volumes.values():
                engine.remove_volume(volume)
    return problems


def summarise(report: Report, rows: list, load: list, verified: list, restored: list, options) -> None:
    bad = [row for row in rows if row["problems"]]
    reached = [row for row in rows if not row["ended_before"]]
    frozen = [row for row in rows if row["left_paused"]]
    report.table(
        "kill -9 during a capture",
        [
            {
                "kills": len(rows),
                "before its end": len(reached),
                "while containers were held": len(frozen),
                "bad afterwards": len(bad),
                "next command s p50": middle([row["recovery_seconds"] for row in rows]),
                "next command s max": quantile([row["recovery_seconds"] for row in rows], 1.0),
            }
        ],
    )
    first = bad[0]["problems"][0][:300] if bad else ""
    report.promise(
        "after each kill the next command leaves everything as it was",
        len(rows) == options.runs and not bad,
        f"{len(bad)} of {len(rows)}; {first}",
    )
    report.promise(
        "kills met a capture, and some met the freeze", len(reached) > len(rows) / 2 and bool(frozen), f"{len(reached)}, {len(frozen)}"
    )
    report.promise(
        "the repository verifies, and the next snapshot leaves nothing unfinished in it", not verified, "; ".join(verified)[:300]
    )
    report.promise("a snapshot afterwards is whole", not restored, "; ".join(restored)[:300])
    report.promise("no client saw an error", not load, "; ".join(load[:2])[:300])
