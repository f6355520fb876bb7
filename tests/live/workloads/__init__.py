"""Applications under load, and the checks of what became of their data.

A workload makes its volumes and containers (`start`), keeps clients busy (`start_load`, `stop_load`) and examines restored
volumes by running the application on them (`examine`). Each has clients that acknowledge growing numbers: what was acknowledged
before a capture began has to be in it.
"""

from workloads.mariadb import MariaDb
from workloads.pair import Pair
from workloads.postgres import Postgres
from workloads.redis import Redis
from workloads.spread import Spread
from workloads.sqlite import Sqlite

ALL = {
    "postgres": Postgres,
    "sqlite-wal": lambda engine, options: Sqlite(engine, options, "wal"),
    "sqlite-rollback": lambda engine, options: Sqlite(engine, options, "delete"),
    "mariadb": MariaDb,
    "redis": Redis,
    "pair": Pair,
    "spread": Spread,
}
