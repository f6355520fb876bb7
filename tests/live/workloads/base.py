"""What all workloads have in common."""

import time
from pathlib import Path

from engine import Engine, Failed

CLIENTS = Path(__file__).resolve().parent.parent / "clients"


class Workload:
    name = ""
    # The Compose project of its containers, when it is captured as a stack.
    stack = None
    # Whether copying its files while it runs breaks them. A file that is only appended to may come through.
    tears = True
    # Seconds by which an acknowledgement may run ahead of what a crash leaves.
    slack = 0.0

    def __init__(self, engine: Engine, options):
        self.engine = engine
        self.options = options
        # Role to volume; every role is captured, in one run.
        self.volumes = {}
        # Those that write to the volumes.
        self.containers = []
        self.clients = []
        self.ticker = None

    def start(self) -> None:
        raise NotImplementedError

    def start_load(self) -> None:
        raise NotImplementedError

    def examine(self, volumes: dict, floor) -> tuple:
        """Runs the application on restored volumes (role to volume). Returns the problems, and facts about what was found.
        `floor` is what `floor` had said just before the capture."""
        raise NotImplementedError

    def stop_load(self) -> list:
        """Ends the clients and returns every error that one of them has seen."""
        problems = self.load_problems()
        for client in self.clients:
            client.stop()
        self.clients = []
        return problems

    def load_problems(self) -> list:
        problems = []
        for client in self.clients:
            if not client.is_alive():
                problems.append(f"{client.name} ended: {self.engine.logs(client.name).strip()[-300:]}")
            problems += [f"{client.name}: {line}" for _, line in client.errors if self.is_error(line)]
        return problems

    def is_error(self, line: str) -> bool:
        """Whether a line of a client's stderr is one. By default clients have nothing to say there."""
        return bool(line)

    def floor(self, at: float):
        """What has to be in a capture that begins `at` a monotonic time: the last number that had been acknowledged."""
        return self.ticker.acked(at - self.slack)

    def wait_for_load(self, numbers: int = 20) -> None:
        start = time.monotonic()
        while len(self.ticker.acks) < numbers:
            problems = self.load_problems()
            if problems or time.monotonic() - start > 60:
                raise Failed(f"{self.name}: the load does not start: {problems or 'nothing is acknowledged'}")
            time.sleep(0.1)

    def stop(self) -> None:
        for client in self.clients:
            client.stop()
        self.clients = []
        self.engine.remove(*self.containers)
        for volume in self.volumes.values():
            self.engine.remove_volume(volume)

    def checked(self, command: str, done, problems: list) -> str:
        if done.returncode != 0:
            problems.append(f"{command}: exit code {done.returncode}: {(done.stdout + done.stderr).strip()[:300]}")
        return done.stdout


def ticks(numbers: str, floor: int, problems: list) -> int:
    """Judges "count,max" of a table whose rows are numbered from 1 without gaps."""
    count, last = (int(field or 0) for field in numbers.strip().replace("\t", ",").replace("|", ",").split(","))
    if count != last:
        problems.append(f"of {last} acknowledged transactions {last - count} are missing")
    if last < floor:
        problems.append(f"transaction {floor} had been acknowledged before the capture, the last there is {last}")
    return last
