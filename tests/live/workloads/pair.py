"""One container that writes to two volumes: a file to the one, then its row to a SQLite database on the other."""

from workloads.sqlite import Sqlite


class Pair(Sqlite):
    def __init__(self, engine, options):
        super().__init__(engine, options, "wal")
        self.name = "pair"
        self.places = {"db": "/data", "files": "/files"}
        self.more = ["--files", "/files"]
