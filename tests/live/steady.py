"""A snapshot every few seconds of a busy stack: what does the database lose between the freezes?"""

import time

import capture
import consistency
import workloads
from engine import Failed
from report import Report, middle, quantile

SHARE_MIN = 0.95


class Stack:
    """PostgreSQL, Redis and SQLite, all busy, captured together."""

    stack = None
    name = "steady"

    def __init__(self, engine, options):
        self.database = workloads.Postgres(engine, options)
        self.parts = [self.database, workloads.Redis(engine, options), workloads.Sqlite(engine, options, "wal")]

    def start(self) -> None:
        for part in self.parts:
            part.start()
        for part in self.parts:
            part.start_load()

    @property
    def volumes(self) -> dict:
        return {f"{part.name}-{role}": volume for part in self.parts for role, volume in part.volumes.items()}

    @property
    def containers(self) -> list:
        return [container for part in self.parts for container in part.containers]

    def stop_load(self) -> list:
        return [problem for part in self.parts for problem in part.stop_load()]

    def stop(self) -> None:
        for part in self.parts:
            part.stop()


def run(engine, pauses, work, options) -> int:
    report = Report("steady", options)
    engine.images("postgres", "redis", "sqlite")
    method = consistency.make_method(engine, pauses, work / "steady", options)
    stack = Stack(engine, options)
    taken, phases = [], []
    try:
        stack.start()
        time.sleep(options.warm_up)
        # The first one reads everything: it is not what is measured here.
        method.forget(method.capture(stack))
        for number in range(options.rounds):
            seconds = options.minutes * 60 / options.rounds
            phases.append(quiet(seconds / 2))
            phases.append(snapshots(method, stack, seconds, options.every, taken))
            print(f"round {number + 1}: {len(taken)} snapshots", flush=True)
        rates = stack.database.rates()
        load = stack.stop_load()
        verified = method.call("verify", "--data", codes=range(256)).returncode if method.name == "icecore" else 0
    finally:
        stack.stop()
    summarise(report, rates, phases, taken, load, verified, options)
    return report.finish()


def quiet(seconds: float) -> dict:
    start = time.time()
    time.sleep(seconds)
    return {"what": "without", "from": start, "to": time.time()}


def snapshots(method, stack, seconds: float, every: float, taken: list) -> dict:
    start = time.time()
    due = start
    while time.time() < start + seconds:
        time.sleep(max(0.0, due - time.time()))
        # One that takes longer than the interval is followed by the next at once, not by all that were missed.
        due = max(due + every, time.time())
        try:
            one = method.capture(stack)
            one["gap_ms"] = round(stack.database.ticker.gap(one["started"], one["ended"]) * 1000)
            method.forget(one)
        except Failed as error:
            print(f"a capture failed: {error}", flush=True)
            one = capture.Taken(problems=[str(error)[:500]])
        taken.append(one)
    return {"what": "with", "from": start, "to": time.time()}


def summarise(report: Report, rates: list, phases: list, taken: list, load: list, verified: int, options) -> None:
    held = [(one["began"], one["began"] + one["seconds"], one) for one in taken if "seconds" in one]
    frozen = [interval for one in taken for interval in one.get("holds", [])]
    # Each line of pgbench is about the second before it. The first seconds of a phase belong to the one before.
    during = lambda phase: [(at, rate) for at, rate in rates if phase["from"] + 2 < at < phase["to"]]
    touches = lambda at, intervals: any(start < at and end > at - 1 for start, end in intervals)
    base = [rate for phase in phases if phase["what"] == "without" for _, rate in during(phase)]
    with_all = [(at, rate) for phase in phases if phase["what"] == "with" for at, rate in during(phase)]
    between = [rate for at, rate in with_all if not touches(at, frozen)]
    beside = [rate for at, rate in with_all if touches(at, [(start, end) for start, end, _ in held]) and not touches(at, frozen)]
    mean = lambda values: sum(values) / len(values) if values else 0.0
    share = mean(between) / mean(base) if base else 0.0
    rows = [
        {"": "without snapshots", "seconds": len(base), "tps": mean(base), "share": 1.0},
        {"": "between freezes", "seconds": len(between), "tps": mean(between), "share": share},
        {"": "of these, beside a capture", "seconds": len(beside), "tps": mean(beside), "share": mean(beside) / mean(base) if base else 0.0},
        {"": "all seconds with snapshots", "seconds": len(with_all), "tps": mean([rate for _, rate in with_all]), "share": mean([r for _, r in with_all]) / mean(base) if base else 0.0},
    ]  # fmt: skip
    report.table("throughput of PostgreSQL", rows)
    freezes = [consistency.freeze(one) for one in taken if "seconds" in one]
    column = lambda name: [one.get(name) for one in taken]
    figures = [
        {"": name, "p50": middle(values), "p95": quantile(values, 0.95), "max": quantile(values, 1.0)}
        for name, values in [
            ("freeze, ms", freezes),
            ("the client waits, ms", column("gap_ms")),
            ("a capture, s", column("seconds")),
            ("stored by one, MB", [value / 1e6 if value is not None else None for value in column("stored_bytes")]),
            ("new in one, MB", [value / 1e6 if value is not None else None for value in column("new_bytes")]),
        ]
    ]
    report.table(f"{len(taken)} snapshots, one every {options.every:g} s", figures)
    problems = [problem for one in taken for problem in one["problems"]]
    report.promise(
        "every snapshot is taken and consistent", bool(taken) and not problems, f"{len(taken)} snapshots; {'; '.join(problems[:2])[:300]}"
    )
    report.promise(f"between freezes the database has at least {SHARE_MIN:.0%} of its throughput", share >= SHARE_MIN, f"{share:.1%}")
    report.promise("no client sees an error", not load, "; ".join(load[:2])[:300])
    report.promise("the repository verifies", verified == 0, "")
    report.data = {"throughput": rows, "figures": figures, "phases": phases, "snapshots": taken, "rates": rates}
