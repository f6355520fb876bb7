"""Proves icecore with real applications in real containers, under load.

    python3 tests/live consistency --icecore BIN    are snapshots whole, and how long is the freeze?
    python3 tests/live kill --icecore BIN           what does a killed icecore leave behind?
    python3 tests/live steady --icecore BIN         what do snapshots every few seconds cost the application?
    python3 tests/live discovery --icecore BIN      how fast are many containers and volumes found?
    python3 tests/live clean                        removes what killed runs of this left behind

Each prints a table, writes JSON and Markdown into --out, and exits 1 when a promise is broken. It needs root, a Docker engine on
this machine and the images of tests/images, which it makes. Containers, volumes and networks have names that begin with
icecore-live- and are removed at the end, also after Ctrl-C.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import consistency
import discovery
import kill
import steady
import workloads
from engine import PREFIX, Engine, Failed, Pauses

VERBS = {"consistency": consistency.run, "kill": kill.run, "steady": steady.run, "discovery": discovery.run}


def main() -> int:
    options = parse()
    engine = Engine()
    if options.verb == "clean":
        engine.clean(PREFIX)
        for folder in Path(options.work).glob(PREFIX + "*"):
            shutil.rmtree(folder, ignore_errors=True)
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work = Path(tempfile.mkdtemp(prefix=engine.prefix, dir=options.work))
    pauses = Pauses(engine)
    try:
        return VERBS[options.verb](engine, pauses, work, options)
    except Failed as error:
        print(f"live: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        # A second Ctrl-C would leave the rest behind.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        pauses.close()
        engine.clean()
        shutil.rmtree(work, ignore_errors=True)


def parse():
    parser = argparse.ArgumentParser(prog="live", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    verb = add(verbs, "consistency", "captures of applications under load, restored and checked")
    verb.add_argument(
        "--only", type=names, default=list(workloads.ALL), metavar="A,B", help=f"of {', '.join(workloads.ALL)} (default: all)"
    )
    verb.add_argument("--runs", type=int, default=20, help="captures of each (default %(default)s)")
    verb.add_argument("--method", choices=["icecore", "pause-copy", "live-copy"], default="icecore")
    verb.add_argument("--consistency", default="frozen", metavar="LEVEL", help="asked of icecore; '' asks for none (default %(default)s)")
    verb.add_argument("--every", type=float, default=5, metavar="SECONDS", help="between captures (default %(default)s)")
    verb.add_argument("--copies", type=int, default=5, metavar="N", help="pause-and-copies to compare with (default %(default)s)")
    verb.add_argument("--live-rate", type=float, default=15, metavar="MB/S", help="of --method live-copy (default %(default)s)")
    verb.add_argument("--warm-up", type=float, default=10, metavar="SECONDS", help="of load before the first (default %(default)s)")
    load(verb, 70)

    verb = add(verbs, "kill", "kill -9 at random moments of a capture")
    verb.add_argument("--runs", type=int, default=200, help="kills (default %(default)s)")
    verb.add_argument("--consistency", default="frozen", metavar="LEVEL")
    verb.add_argument("--seed", type=int, default=None, help="of the moments (default: another one each time; it is printed)")
    load(verb, 5)

    verb = add(verbs, "steady", "a snapshot every few seconds of a busy stack")
    verb.add_argument("--minutes", type=float, default=30, help="with snapshots (default %(default)s)")
    verb.add_argument("--every", type=float, default=10, metavar="SECONDS", help="(default %(default)s)")
    verb.add_argument("--rounds", type=int, default=3, help="each of them half as long without snapshots first (default %(default)s)")
    verb.add_argument("--rate", type=float, default=0, metavar="TPS", help="limit of the load (default: none)")
    verb.add_argument("--method", choices=["icecore", "pause-copy"], default="icecore")
    verb.add_argument("--consistency", default="frozen", metavar="LEVEL")
    verb.add_argument("--warm-up", type=float, default=30, metavar="SECONDS", help="(default %(default)s)")
    load(verb, 70)

    verb = add(verbs, "discovery", "many containers and volumes")
    verb.add_argument("--containers", type=int, default=200)
    verb.add_argument("--volumes", type=int, default=500)
    verb.add_argument("--running", type=int, default=20, help="containers that run; the others are created only (default %(default)s)")
    verb.add_argument("--runs", type=int, default=5, help="of each command (default %(default)s)")

    verb = verbs.add_parser("clean", help="remove what killed runs left behind")
    verb.add_argument("--work", default=default_work(), metavar="DIR")

    options = parser.parse_args()
    program = getattr(options, "icecore", None)
    if program is not None and getattr(options, "method", "icecore") == "icecore":
        options.icecore = shutil.which(program)
        if options.icecore is None:
            parser.error(f"there is no program {program}: give --icecore")
        options.icecore = os.path.abspath(options.icecore)
    return options


def add(verbs, name: str, text: str):
    verb = verbs.add_parser(name, help=text)
    verb.add_argument("--icecore", default="icecore", metavar="PROGRAM", help="the program to prove (default: from PATH)")
    verb.add_argument("--out", default="live-report", metavar="DIR", help="for the report (default %(default)s)")
    verb.add_argument("--work", default=default_work(), metavar="DIR", help="for the repository and copies (default %(default)s)")
    return verb


def load(verb, scale: int) -> None:
    verb.add_argument("--scale", type=int, default=scale, help="of pgbench, 15 MB each (default %(default)s)")
    verb.add_argument("--clients", type=int, default=8, help="of pgbench (default %(default)s)")
    verb.add_argument("--megabytes", type=int, default=64, help="of SQLite and Redis data (default %(default)s)")


def names(text: str) -> list:
    found = text.split(",")
    unknown = [name for name in found if name not in workloads.ALL]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no {', '.join(unknown)}")
    return found


def default_work() -> str:
    return os.environ.get("TMPDIR", "/var/tmp")


sys.exit(main())
