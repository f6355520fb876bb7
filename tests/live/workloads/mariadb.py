"""MariaDB (InnoDB) under transfers between accounts, with a client that acknowledges single rows."""

from engine import Failed
from workloads.base import Workload, ticks

PASSWORD = "my pass'word"
ACCOUNTS = 20000
SCHEMA = f"""
CREATE DATABASE bank; USE bank;
CREATE TABLE accounts (id INT PRIMARY KEY, balance BIGINT NOT NULL, pad VARBINARY(1000) NOT NULL) ENGINE=InnoDB;
CREATE TABLE ledger (number BIGINT AUTO_INCREMENT PRIMARY KEY, low INT NOT NULL, high INT NOT NULL, amount INT NOT NULL) ENGINE=InnoDB;
CREATE TABLE ticks (number BIGINT PRIMARY KEY) ENGINE=InnoDB;
INSERT INTO accounts SELECT seq, 0, RANDOM_BYTES(1000) FROM seq_1_to_{ACCOUNTS};
DELIMITER //
CREATE PROCEDURE transfer() MODIFIES SQL DATA BEGIN
    DECLARE one INT DEFAULT 1 + FLOOR(RAND() * {ACCOUNTS});
    DECLARE other INT DEFAULT 1 + FLOOR(RAND() * {ACCOUNTS});
    DECLARE sum INT DEFAULT 1 + FLOOR(RAND() * 100);
    START TRANSACTION;
    -- Always the lower one first: no deadlocks.
    UPDATE accounts SET balance = balance - sum, pad = RANDOM_BYTES(1000) WHERE id = LEAST(one, other);
    UPDATE accounts SET balance = balance + sum WHERE id = GREATEST(one, other);
    INSERT INTO ledger (low, high, amount) VALUES (LEAST(one, other), GREATEST(one, other), sum);
    COMMIT;
END//
"""
WRONG = """
SELECT count(*) FROM bank.accounts a
LEFT JOIN (SELECT id, SUM(amount) total FROM
    (SELECT low id, -amount amount FROM bank.ledger UNION ALL SELECT high, amount FROM bank.ledger) moves GROUP BY id) m ON m.id = a.id
WHERE a.balance != COALESCE(m.total, 0)
"""
LOAD = "yes 'CALL transfer();' | mariadb bank >/dev/null"
TICK = """
number=0
while :; do number=$((number + 1)); echo "INSERT INTO ticks VALUES ($number); SELECT $number;"; sleep 0.02; done | mariadb --unbuffered -N bank
"""


class MariaDb(Workload):
    name = "mariadb"

    def __init__(self, engine, options):
        super().__init__(engine, options)
        self.server = ""
        # The client programs read it too.
        self.environment = {"MYSQL_PWD": PASSWORD, "MYSQL_HOST": "127.0.0.1"}

    def start(self) -> None:
        self.volumes = {"data": self.engine.volume("mariadb-data")}
        self.server = self.run_server("server", self.volumes["data"])
        self.containers = [self.server]
        self.engine.exec(self.server, "mariadb", input=SCHEMA)

    def run_server(self, what: str, volume: str) -> str:
        server = self.engine.start(
            f"mariadb-{what}", "mariadb", "mariadbd", "--innodb-buffer-pool-size=256M", mounts={volume: "/var/lib/mysql"},
            env={"MARIADB_ROOT_PASSWORD": PASSWORD, **self.environment},
        )  # fmt: skip
        ping = ["mariadb-admin", "--silent", "ping"]
        try:
            self.engine.wait(server, "connections", lambda: self.engine.exec(server, *ping, check=False).returncode == 0)
        except Failed:
            self.engine.remove(server)
            raise
        return server

    def start_load(self) -> None:
        words = [(f"mariadb-load-{number}", LOAD) for number in range(4)] + [("mariadb-ticker", TICK)]
        self.clients = [
            self.engine.client(what, self.server, "mariadb", "sh", "-c", command, env=self.environment) for what, command in words
        ]
        self.ticker = self.clients[-1]
        self.wait_for_load()

    def sql(self, server: str, query: str) -> str:
        return self.engine.exec(server, "mariadb", "-N", "-e", query).stdout.strip()

    def examine(self, volumes: dict, floor: int) -> tuple:
        problems, facts = [], {}
        try:
            server = self.run_server("check", volumes["data"])
        except Failed as error:
            return [f"does not start: {error}"[:500]], facts
        try:
            self.examine_server(server, floor, problems, facts)
        except Failed as error:
            problems.append(str(error)[:500])
        finally:
            self.engine.remove(server)
        return problems, facts

    def examine_server(self, server: str, floor: int, problems: list, facts: dict) -> None:
        total = self.sql(server, "SELECT SUM(balance) FROM bank.accounts")
        if total != "0":
            problems.append(f"the balances add up to {total} instead of 0")
        wrong = self.sql(server, WRONG)
        if wrong != "0":
            problems.append(f"{wrong} balances are not what the ledger says")
        facts["ticks"] = ticks(self.sql(server, "SELECT COUNT(*), COALESCE(MAX(number), 0) FROM bank.ticks"), floor, problems)
        facts["ledger"] = int(self.sql(server, "SELECT COUNT(*) FROM bank.ledger"))
        done = self.engine.exec(server, "mariadb-check", "--all-databases", "--extended", check=False)
        text = self.checked("mariadb-check", done, problems)
        problems += [f"mariadb-check: {line}" for line in text.splitlines() if not line.rstrip().endswith("OK")][:3]
        bad = [line for line in self.engine.logs(server).splitlines() if "[ERROR]" in line]
        problems += [f"log: {line}"[:300] for line in bad[:3]]
