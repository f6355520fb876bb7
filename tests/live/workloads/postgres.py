"""PostgreSQL under pgbench, with a second client that acknowledges single rows."""

import subprocess

from engine import Failed
from workloads.base import Workload, ticks

PASSWORD = "pg pass'word"
DATA = "/var/lib/postgresql/data"
WAL = "/var/lib/postgresql/wal"
SERVER = ["postgres", "-c", "shared_buffers=256MB", "-c", "max_wal_size=1GB", "-c", "checkpoint_timeout=30s", "-c", "jit=off"]
BAD = ("PANIC", "could not read block", "invalid page")
SUMS = (
    "SELECT (SELECT coalesce(sum(abalance), 0) FROM pgbench_accounts), (SELECT coalesce(sum(bbalance), 0) FROM pgbench_branches),"
    " (SELECT coalesce(sum(tbalance), 0) FROM pgbench_tellers), (SELECT coalesce(sum(delta), 0) FROM pgbench_history)"
)
# One row a moment, each acknowledged before the next.
TICK = "while :; do echo 'INSERT INTO ticks VALUES (DEFAULT) RETURNING number;'; sleep 0.02; done | psql -XAtq -v ON_ERROR_STOP=1"


class Postgres(Workload):
    name = "postgres"
    has_own_wal = False

    def __init__(self, engine, options):
        super().__init__(engine, options)
        self.scale = options.scale
        self.connections = options.clients
        self.rate = getattr(options, "rate", 0)
        self.environment = {"POSTGRES_PASSWORD": PASSWORD, "POSTGRES_INITDB_ARGS": "--data-checksums"}
        self.client_environment = {"PGHOST": "127.0.0.1", "PGUSER": "postgres", "PGPASSWORD": PASSWORD, "PGDATABASE": "postgres"}
        self.server = ""
        self.bench = None

    def start(self) -> None:
        self.volumes = {"data": self.engine.volume(f"{self.name}-data", self.labels("data"))}
        if self.has_own_wal:
            self.volumes["wal"] = self.engine.volume(f"{self.name}-wal", self.labels("wal"))
        self.server = self.run_server("server", self.volumes, self.container_labels("db"))
        self.containers = [self.server]
        self.sql(self.server, "CREATE EXTENSION amcheck; CREATE TABLE ticks (number bigserial PRIMARY KEY)")
        words = ["pgbench", "-i", "-q", "-s", self.scale]
        filler = self.engine.client(f"{self.name}-fill", self.server, "postgres", *words, env=self.client_environment)
        if self.engine.docker("wait", filler.name).stdout.strip() != "0":
            raise Failed(f"pgbench cannot fill the database: {self.engine.logs(filler.name)[-500:]}")
        filler.stop()

    def labels(self, role: str) -> dict:
        return {}

    def container_labels(self, service: str) -> dict:
        return {}

    def run_server(self, what: str, volumes: dict, labels: dict | None = None) -> str:
        places = {"data": DATA, "wal": WAL}
        environment = dict(self.environment, **({"POSTGRES_INITDB_WALDIR": f"{WAL}/pg_wal"} if self.has_own_wal else {}))
        server = self.engine.start(
            f"{self.name}-{what}",
            "postgres",
            *SERVER,
            mounts={volumes[role]: place for role, place in places.items() if role in volumes},
            env=environment,
            labels=labels,
            more=["--shm-size", "256m"],
        )
        ready = ["pg_isready", "-q", "-h", "127.0.0.1"]
        try:
            self.engine.wait(server, "connections", lambda: self.engine.exec(server, *ready, check=False).returncode == 0)
        except Failed:
            self.engine.remove(server)
            raise
        return server

    def sql(self, server: str, query: str) -> str:
        return self.engine.exec(server, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", query, user="postgres").stdout

    def start_load(self) -> None:
        rate = ["-R", self.rate] if self.rate else []
        words = ["pgbench", "-n", "-c", self.connections, "-j", "2", "-T", "1000000", "-P", "1", "--progress-timestamp", *rate]
        self.bench = self.engine.client(f"{self.name}-pgbench", self.server, "postgres", *words, env=self.client_environment)
        self.ticker = self.engine.client(f"{self.name}-ticker", self.server, "postgres", "sh", "-c", TICK, env=self.client_environment)
        self.clients = [self.bench, self.ticker]
        self.wait_for_load()

    def is_error(self, line: str) -> bool:
        if line.startswith("progress:"):
            return not line.rstrip().endswith(" 0 failed")
        return "error" in line.lower() or "fatal" in line.lower()

    def rates(self) -> list:
        """(time of day, transactions per second) of each second of pgbench."""
        words = [line.split() for _, line in self.bench.errors if line.startswith("progress:")]
        return [(float(line[1]), float(line[3])) for line in words]

    def examine(self, volumes: dict, floor: int) -> tuple:
        problems, facts = [], {}
        try:
            server = self.run_server("check", volumes)
        except Failed as error:
            return [f"does not start: {error}"[:500]], facts
        try:
            self.examine_server(server, floor, problems, facts)
        except (Failed, subprocess.TimeoutExpired) as error:
            problems.append(str(error)[:500])
        finally:
            self.engine.remove(server)
        return problems, facts

    def examine_server(self, server: str, floor: int, problems: list, facts: dict) -> None:
        sums = self.sql(server, SUMS).strip().split("|")
        if len(set(sums)) != 1:
            problems.append(f"accounts, branches, tellers and history do not balance: {', '.join(sums)}")
        facts["ticks"] = ticks(self.sql(server, "SELECT count(*), max(number) FROM ticks"), floor, problems)
        facts["history"] = int(self.sql(server, "SELECT count(*) FROM pgbench_history"))
        check = ["pg_amcheck", "--all", "--install-missing", "--heapallindexed", "--parent-check", "--jobs=2"]
        self.checked("pg_amcheck", self.engine.exec(server, *check, user="postgres", check=False), problems)
        bad = [line for line in self.engine.logs(server).splitlines() if any(word in line for word in BAD)]
        problems += [f"log: {line}" for line in bad[:3]]
        self.examine_more(server, problems, facts)

    def examine_more(self, server: str, problems: list, facts: dict) -> None:
        """For what is stored beside the database."""
