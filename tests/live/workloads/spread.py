"""One data set on three volumes and in two containers, captured as a stack: PostgreSQL with its write-ahead log on a volume of its
own, and an application that writes a file to the third and then its row. Each row has its file, and there is at most one file more."""

from engine import compose_labels
from workloads.base import ticks
from workloads.postgres import Postgres

FILES = "/files"
# psql answers before the next file is begun.
UPLOAD = """
number=$(psql -XAtqc 'SELECT coalesce(max(number), 0) FROM uploads') || exit 1
while :; do
    number=$((number + 1))
    folder=/files/$((number / 100))
    mkdir -p "$folder"
    yes "$number" | head -c 20000 >"$folder/part" && mv "$folder/part" "$folder/$number" || exit 1
    psql -XAtq -v ON_ERROR_STOP=1 -c "INSERT INTO uploads VALUES ($number) RETURNING number" || exit 1
done
"""


class Spread(Postgres):
    name = "spread"
    has_own_wal = True

    def __init__(self, engine, options):
        super().__init__(engine, options)
        self.scale = max(1, options.scale // 7)
        self.connections = max(1, options.clients // 2)
        self.stack = engine.name("spread")
        self.app = ""
        self.uploads = None
        self.examined = {}
        self.uploads_floor = 0

    def labels(self, role: str) -> dict:
        return {"com.docker.compose.project": self.stack, "com.docker.compose.volume": role}

    def container_labels(self, service: str) -> dict:
        return compose_labels(self.stack, service)

    def start(self) -> None:
        super().start()
        self.volumes["files"] = self.engine.volume("spread-files", self.labels("files"))
        self.sql(self.server, "CREATE TABLE uploads (number bigint PRIMARY KEY)")

    def start_load(self) -> None:
        super().start_load()
        self.app = self.engine.start(
            "spread-app",
            "postgres",
            "-c",
            UPLOAD,
            mounts={self.volumes["files"]: FILES},
            env=self.client_environment,
            labels=self.container_labels("app"),
            network=f"container:{self.server}",
            more=["--entrypoint", "sh", "--no-healthcheck", "--tmpfs", "/var/lib/postgresql/data"],
        )
        self.containers = [self.server, self.app]
        self.uploads = self.engine.follow(self.app)
        self.clients.append(self.uploads)

    def stop_load(self) -> list:
        problems = super().stop_load()
        self.containers = [self.server]
        return problems

    def floor(self, at: float) -> tuple:
        return super().floor(at), self.uploads.acked(at)

    def examine(self, volumes: dict, floor: tuple) -> tuple:
        self.examined, self.uploads_floor = volumes, floor[1]
        return super().examine(volumes, floor[0])

    def examine_more(self, server: str, problems: list, facts: dict) -> None:
        found = []
        last = ticks(self.sql(server, "SELECT count(*), coalesce(max(number), 0) FROM uploads"), self.uploads_floor, found)
        problems += [f"uploads: {problem}" for problem in found]
        folder = self.engine.folder(self.examined["files"])
        files = {int(path.name): path for path in folder.glob("*/*") if path.name != "part"}
        facts["files"] = len(files)
        missing = set(range(1, last + 1)) - set(files)
        beyond = [number for number in files if number > last]
        damaged = [number for number, path in files.items() if path.read_bytes() != content(number)]
        if missing:
            problems.append(f"{len(missing)} rows have no file, the first is {min(missing)}")
        if len(beyond) > 1:
            problems.append(f"{len(beyond)} files are newer than the last row")
        if damaged:
            problems.append(f"{len(damaged)} files are damaged, the first is {min(damaged)}")


def content(number: int) -> bytes:
    line = f"{number}\n".encode()
    return (line * (20000 // len(line) + 1))[:20000]
