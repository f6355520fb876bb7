"""Redis with an append-only file under MULTI transactions that keep two keys in balance."""

from engine import Failed
from workloads.base import CLIENTS, Workload

ARGUMENTS = ["--appendonly", "yes", "--save", "60 1000", "--auto-aof-rewrite-min-size", "16mb"]


class Redis(Workload):
    name = "redis"
    tears = False
    # With appendfsync everysec the server puts off a write for up to two seconds while a sync is under way.
    slack = 2.5

    def start(self) -> None:
        self.volumes = {"data": self.engine.volume("redis-data")}
        self.containers = [self.run_server("server", self.volumes["data"])]

    def run_server(self, what: str, volume: str) -> str:
        server = self.engine.start(f"redis-{what}", "redis", *ARGUMENTS, mounts={volume: "/data"})
        ready = lambda: self.engine.exec(server, "redis-cli", "ping", check=False).stdout.strip() == "PONG"
        try:
            self.engine.wait(server, "connections", ready)
        except Failed:
            self.engine.remove(server)
            raise
        return server

    def start_load(self) -> None:
        script = (CLIENTS / "redis_load.py").read_text()
        self.ticker = self.engine.client("redis-load", self.containers[0], "sqlite", "python3", "-c", script, self.options.megabytes)
        self.clients = [self.ticker]
        self.wait_for_load()

    def examine(self, volumes: dict, floor: int) -> tuple:
        problems, facts = [], {}
        folder = self.engine.folder(volumes["data"])
        if not (folder / "appendonlydir/appendonly.aof.manifest").exists():
            problems.append("there is no append-only file")
        image = ["run", "--rm", "--network", "none", "--name", self.engine.name("redis-check-aof"), "--volume", f"{volumes['data']}:/data"]
        command = ["--entrypoint", "redis-check-aof", "icecore-test/redis", "/data/appendonlydir/appendonly.aof.manifest"]
        self.checked("redis-check-aof", self.engine.docker(*image, *command, check=False), problems)
        try:
            server = self.run_server("check", volumes["data"])
        except Failed as error:
            return [*problems, f"does not start: {error}"[:500]], facts
        try:
            self.examine_server(server, floor, problems, facts)
        except (Failed, ValueError) as error:
            problems.append(str(error)[:500])
        finally:
            self.engine.remove(server)
        return problems, facts

    def examine_server(self, server: str, floor: int, problems: list, facts: dict) -> None:
        answer = self.engine.exec(server, "redis-cli", "MGET", "left", "right", "transfers", "tick").stdout.split()
        left, right, transfers, tick = (int(number or 0) for number in answer)
        if left + right != 0:
            problems.append(f"left {left} and right {right} do not balance")
        count = int(self.engine.exec(server, "redis-cli", "LLEN", "ledger").stdout)
        if count != transfers:
            problems.append(f"there were {transfers} transfers, the ledger has {count}")
        if tick < floor:
            problems.append(f"tick {floor} had been acknowledged {self.slack} s before the capture, the last there is {tick}")
        facts.update(ticks=tick, transfers=transfers)
