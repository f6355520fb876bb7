"""Many containers and volumes: how long do `icecore volumes` and `icecore stacks` take?"""

import json
import time

import capture
from engine import compose_labels, in_parallel
from report import Report, middle, quantile

SECONDS_MAX = 2.0
PROJECT_SIZE = 8


def run(engine, pauses, work, options) -> int:
    report = Report("discovery", options)
    engine.images("busy")
    start = time.monotonic()
    make(engine, options)
    print(f"made {options.volumes} volumes and {options.containers} containers in {time.monotonic() - start:.0f} s", flush=True)
    method = capture.Icecore(engine, pauses, work / "discovery", options.icecore, "")
    stacks = (options.containers + PROJECT_SIZE - 1) // PROJECT_SIZE
    rows = [
        measure(engine, method, ["volumes"], options.runs, options.volumes),
        measure(engine, method, ["stacks"], options.runs, stacks),
    ]
    report.table(f"{options.containers} containers ({options.running} running), {options.volumes} volumes", rows)
    for row in rows:
        works = row["exit code"] == 0
        report.promise(
            f"`{row['command']}` takes less than {SECONDS_MAX:g} s",
            works and row["seconds p50"] < SECONDS_MAX,
            f"{row['seconds p50']:.2f} s",
        )
        report.promise(
            f"`{row['command']}` lists all", works and row["listed"] == row["there"], f"{row['listed']} of {row['there']} {row['error']}"
        )
    report.data = {"rows": rows}
    return report.finish()


def make(engine, options) -> None:
    """Each container writes to two volumes or three; eight are a project. Every volume holds a small file or two."""
    project = lambda number: engine.name(f"project{number // PROJECT_SIZE}")
    owner = lambda volume: volume * options.containers // options.volumes
    label = lambda volume: {"com.docker.compose.project": project(owner(volume)), "com.docker.compose.volume": f"v{volume}"}
    volumes = in_parallel(lambda number: engine.volume(f"v{number}", label(number)), range(options.volumes))
    root = engine.folder(volumes[0]).parent.parent
    for number, volume in enumerate(volumes):
        (root / volume / "_data" / "data").write_bytes(b"x" * (number * 17 % 5000))

    def container(number: int) -> None:
        mine = [volume for at, volume in enumerate(volumes) if owner(at) == number]
        words = [word for at, volume in enumerate(mine) for word in ("--volume", f"{volume}:/data{at}")]
        labels = [word for key, value in compose_labels(project(number), f"s{number}").items() for word in ("--label", f"{key}={value}")]
        verb = ["run", "--detach"] if number < options.running else ["create"]
        engine.docker(*verb, "--network", "none", "--name", engine.name(f"c{number}"), *words, *labels, "icecore-test/busy")

    in_parallel(container, range(options.containers), threads=4)


def measure(engine, method, command: list, runs: int, there: int) -> dict:
    seconds, listed, code, error = [], 0, 0, ""
    for _ in range(runs):
        start = time.monotonic()
        done = method.call("--json", *command, codes=range(256))
        seconds.append(time.monotonic() - start)
        code, error = done.returncode, done.stderr.strip()[-200:] if done.returncode else ""
        if code == 0:
            found = json.loads(done.stdout)
            found = found if isinstance(found, list) else found[command[0]]
            listed = sum(str(entry.get("name", "")).startswith(engine.prefix) for entry in found)
    return {
        "command": "icecore " + " ".join(command),
        "seconds p50": middle(seconds),
        "seconds max": quantile(seconds, 1.0),
        "listed": listed,
        "there": there,
        "exit code": code,
        "error": error,
    }
