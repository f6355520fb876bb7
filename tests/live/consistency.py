"""Are snapshots of applications under load whole, and how long do they hold the application?"""

import time

import capture
import workloads
from engine import Failed
from report import Report, middle, quantile

IMAGES = {"postgres": ["postgres"], "spread": ["postgres"], "mariadb": ["mariadb"], "redis": ["redis", "sqlite"]}
FREEZE_MS_MAX = 1000
RATIO_MAX = 0.25


def run(engine, pauses, work, options) -> int:
    report = Report("consistency", options)
    engine.images(*sorted({image for name in options.only for image in IMAGES.get(name, ["sqlite"])}))
    rows, details = [], {}
    for name in options.only:
        workload = workloads.ALL[name](engine, options)
        try:
            found = one(engine, pauses, work / name, workload, options)
        except Failed as error:
            found = {"captures": [], "copies": [], "load": [], "failed": str(error)}
            print(f"{name}: {error}", flush=True)
        finally:
            workload.stop()
        details[name] = found
        rows.append(summary(name, found))
        judge(report, workload, found, options)
    report.table(f"{options.method}: {options.runs} captures of each under load", rows)
    report.data = {"summary": rows, "workloads": details}
    return report.finish()


def one(engine, pauses, work, workload, options) -> dict:
    work.mkdir()
    print(f"\n{workload.name}: starting", flush=True)
    workload.start()
    workload.start_load()
    method = make_method(engine, pauses, work, options)
    time.sleep(options.warm_up)
    captures = take(method, workload, options.runs, options.every)
    copies = []
    if method.name == "icecore" and options.copies:
        copies = compare(capture.PauseCopy(engine, pauses, work), workload, options)
    load = workload.stop_load()
    engine.docker("stop", *workload.containers, check=False)
    for number, taken in enumerate(captures):
        if "failed" not in taken:
            examine(engine, method, workload, taken, number)
    return {"captures": captures, "copies": copies, "load": load}


def make_method(engine, pauses, work, options):
    if options.method == "pause-copy":
        return capture.PauseCopy(engine, pauses, work)
    if options.method == "live-copy":
        return capture.LiveCopy(engine, pauses, work, options.live_rate)
    return capture.Icecore(engine, pauses, work, options.icecore, options.consistency)


def take(method, workload, runs: int, every: float) -> list:
    captures = []
    for number in range(runs):
        start = time.monotonic()
        floor = workload.floor(start)
        try:
            taken = method.capture(workload)
        except Failed as error:
            taken = capture.Taken(failed=str(error), problems=[f"no capture: {error}"[:500]])
            print(f"{workload.name} {number + 1}: {error}", flush=True)
        else:
            taken["floor"] = floor
            time.sleep(0.3)
            taken["gap_ms"] = round(workload.ticker.gap(taken["started"], taken["ended"]) * 1000)
            print(
                f"{workload.name} {number + 1}: {method.name} took {taken['seconds']:.2f} s, held {taken['held_ms']} ms,"
                f" the client waited {taken['gap_ms']} ms at most",
                flush=True,
            )
        captures.append(taken)
        time.sleep(max(0.0, every - (time.monotonic() - start)))
    return captures


def compare(copier, workload, options) -> list:
    """Pause-and-copy of the same volumes under the same load."""
    copies = take(copier, workload, options.copies, options.every)
    for taken in copies:
        if "failed" not in taken:
            copier.forget(taken)
    return copies


def examine(engine, method, workload, taken, number: int) -> None:
    names = {role: engine.name(f"{workload.name}-{number}-{role}") for role in workload.volumes}
    try:
        for role, volume in names.items():
            method.restore(taken, role, volume)
        problems, facts = workload.examine(names, taken.pop("floor"))
    except Failed as error:
        problems, facts = [f"no restore: {error}"[:500]], {}
    finally:
        for volume in names.values():
            engine.remove_volume(volume)
        method.forget(taken)
    taken["problems"] += problems
    taken["facts"] = facts
    print(f"{workload.name} {number + 1}: {'; '.join(taken['problems']) or 'whole'} {facts}", flush=True)


def summary(name: str, found: dict) -> dict:
    captures, copies = found["captures"], found["copies"]
    held = [freeze(taken) for taken in captures]
    copied = middle([taken.get("held_ms") for taken in copies])
    return {
        "application": name,
        "captures": len(captures),
        "whole": sum(not taken["problems"] for taken in captures),
        "consistency": ",".join(sorted({level for taken in captures for level in taken.get("consistency", [])})) or None,
        "frozen ms p50": middle([taken.get("frozen_ms") for taken in captures]),
        "held ms p50": middle([taken.get("held_ms") for taken in captures]),
        "held ms max": quantile(held, 1.0),
        "client waits ms p50": middle([taken.get("gap_ms") for taken in captures]),
        "seconds p50": middle([taken.get("seconds") for taken in captures]),
        "pause-copy ms p50": copied,
        "ratio": middle(held) / copied if copied and middle(held) is not None else None,
        "load errors": len(found["load"]),
    }


def freeze(taken):
    """The worse of what icecore says and what the engine's events say."""
    said = [taken.get("frozen_ms"), taken.get("held_ms")]
    return max((value for value in said if value is not None), default=None)


def judge(report: Report, workload, found: dict, options) -> None:
    name = workload.name
    captures = found["captures"]
    broken = [taken for taken in captures if taken["problems"]]
    first = (broken[0]["problems"][0][:200] if broken else found.get("failed", "")) or ""
    if options.method == "live-copy":
        share = f"{len(broken)} of {len(captures)}"
        report.promise(f"{name}: the checks find copies of a running application broken", bool(broken) or not workload.tears, share)
        return
    whole = bool(captures) and not broken and len(captures) == options.runs
    report.promise(
        f"{name}: every capture restores, starts and passes its checks", whole, f"{len(captures) - len(broken)} of {options.runs}; {first}"
    )
    report.promise(f"{name}: no client sees an error", not found["load"] and "failed" not in found, "; ".join(found["load"][:2])[:300])
    if options.method == "icecore" and name == "postgres":
        held = middle([freeze(taken) for taken in captures])
        report.promise(f"{name}: the median freeze is at most {FREEZE_MS_MAX} ms", held is not None and held <= FREEZE_MS_MAX, f"{held} ms")
        copied = middle([taken.get("held_ms") for taken in found["copies"]])
        if copied:
            ratio = held / copied if held is not None else None
            report.promise(
                f"{name}: it is at most {RATIO_MAX} of that of a pause-and-copy",
                ratio is not None and ratio <= RATIO_MAX,
                f"{held} / {copied} ms",
            )
