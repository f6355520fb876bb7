"""SQLite under a steady writer (tests/images/sqlite), with a write-ahead log or a rollback journal."""

import json

from engine import Failed
from workloads.base import Workload


class Sqlite(Workload):
    def __init__(self, engine, options, mode: str):
        super().__init__(engine, options)
        self.mode = mode
        self.name = {"wal": "sqlite-wal", "delete": "sqlite-rollback"}[mode]
        self.places = {"db": "/data"}
        self.more = []

    def start(self) -> None:
        self.volumes = {role: self.engine.volume(f"{self.name}-{role}") for role in self.places}

    def start_load(self) -> None:
        words = ["write", self.mode, "/data/app.db", "--megabytes", self.options.megabytes, *self.more]
        mounts = {self.volumes[role]: place for role, place in self.places.items()}
        self.containers = [self.engine.start(self.name, "sqlite", *words, mounts=mounts)]
        self.ticker = self.engine.follow(self.containers[0])
        self.clients = [self.ticker]
        self.wait_for_load()

    def examine(self, volumes: dict, floor: int) -> tuple:
        mounts = {volumes[role]: place for role, place in self.places.items()}
        checker = self.engine.start(f"{self.name}-check", "sqlite", "check", "/data/app.db", *self.more, mounts=mounts)
        try:
            self.engine.docker("wait", checker, timeout=300)
            text = self.engine.logs(checker)
            found = json.loads(text.strip().splitlines()[-1])
        except (Failed, ValueError, IndexError) as error:
            return [f"the check fails: {error}: {self.engine.logs(checker)[-300:]}"], {}
        finally:
            self.engine.remove(checker)
        problems = found.pop("problems")
        if found["last"] < floor:
            problems.append(f"transaction {floor} had been acknowledged before the capture, the last there is {found['last']}")
        return problems, found
