"""The container engine, through its command line. All that is made here has a name of this run's own and is removed at the end."""

import json
import secrets
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

PREFIX = "icecore-live-"
IMAGES = Path(__file__).resolve().parent.parent / "images" / "build"


class Failed(Exception):
    """A command that had to work did not."""


def run(command: list, check: bool = True, **options) -> subprocess.CompletedProcess:
    defaults = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
    if "input" not in options:
        defaults["stdin"] = subprocess.DEVNULL
    done = subprocess.run([str(word) for word in command], check=False, **{**defaults, **options})
    if check and done.returncode != 0:
        raise Failed(
            f"{' '.join(map(str, command))[:200]}: exit code {done.returncode}: {(done.stderr or done.stdout or '').strip()[-1500:]}"
        )
    return done


class Engine:
    def __init__(self):
        self.prefix = f"{PREFIX}{secrets.token_hex(3)}-"
        self.followers = []

    def docker(self, *words, check: bool = True, **options) -> subprocess.CompletedProcess:
        return run(["docker", *words], check, **options)

    def images(self, *names: str) -> None:
        """Makes those that are missing."""
        run([IMAGES, *names], stderr=None)

    def name(self, what: str) -> str:
        return self.prefix + what

    def volume(self, what: str, labels: dict | None = None) -> str:
        name = self.name(what)
        self.docker("volume", "create", *label_words(labels), name)
        return name

    def folder(self, volume: str) -> Path:
        return Path(self.docker("volume", "inspect", "--format", "{{.Mountpoint}}", volume).stdout.strip())

    def remove_volume(self, volume: str) -> None:
        self.docker("volume", "rm", "--force", volume, check=False)

    def start(
        self,
        what: str,
        image: str,
        *command,
        mounts: dict | None = None,
        env: dict | None = None,
        labels: dict | None = None,
        network: str = "none",
        more: tuple | list = (),
    ) -> str:
        """Runs a container in the background. It has only a loopback interface, which a client of it shares."""
        name = self.name(what)
        words = ["run", "--detach", "--name", name, "--network", network, *label_words(labels), *more]
        for volume, place in (mounts or {}).items():
            words += ["--volume", f"{volume}:{place}"]
        for key, value in (env or {}).items():
            words += ["--env", f"{key}={value}"]
        self.docker(*words, f"icecore-test/{image}", *command)
        return name

    def client(self, what: str, server: str, image: str, *command, env: dict | None = None) -> "Client":
        """Runs a container beside a server, in the server's network, and follows what it prints. It is not part of the
        data set: it mounts nothing and is never paused."""
        tmpfs = {"postgres": "/var/lib/postgresql/data", "mariadb": "/var/lib/mysql", "redis": "/data", "sqlite": "/data"}.get(image)
        more = ["--tmpfs", tmpfs] if tmpfs else []
        name = self.start(
            what, image, *command[1:], env=env, network=f"container:{server}", more=["--entrypoint", command[0], "--no-healthcheck", *more]
        )
        return self.follow(name)

    def follow(self, name: str) -> "Client":
        client = Client(self, name)
        self.followers.append(client)
        return client

    def exec(self, container: str, *command, user: str = "", check: bool = True, **options) -> subprocess.CompletedProcess:
        words = ["exec", *(["--interactive"] if "input" in options else []), *(["--user", user] if user else [])]
        return self.docker(*words, container, *command, check=check, **options)

    def state(self, container: str) -> dict:
        return json.loads(self.docker("inspect", "--format", "{{json .State}}", container).stdout)

    def logs(self, container: str) -> str:
        done = self.docker("logs", container, check=False)
        return done.stdout + done.stderr

    def wait(self, container: str, what: str, ready, seconds: float = 120) -> None:
        """Until `ready()`; fails when the container ends or the time is up."""
        end = time.monotonic() + seconds
        while not ready():
            if not self.state(container)["Running"]:
                raise Failed(f"{container} ended before {what}: {self.logs(container).strip()[-1500:]}")
            if time.monotonic() > end:
                raise Failed(f"{container}: no {what} within {seconds:.0f} s: {self.logs(container).strip()[-1500:]}")
            time.sleep(0.2)

    def remove(self, *containers: str) -> None:
        if containers:
            self.docker("rm", "--force", "--volumes", *containers, check=False)

    def clean(self, prefix: str = "") -> None:
        """Removes everything whose name begins with `prefix`, by default all that this run made."""
        prefix = prefix or self.prefix
        for client in self.followers:
            client.unfollow()
        self.followers = []
        ours = lambda listed: [name for name in listed.stdout.split() if name.startswith(prefix)]
        containers = ours(self.docker("ps", "--all", "--format", "{{.Names}}", "--filter", f"name={prefix}", check=False))
        paused = ours(self.docker("ps", "--format", "{{.Names}}", "--filter", f"name={prefix}", "--filter", "status=paused", check=False))
        if paused:
            self.docker("unpause", *paused, check=False)
        for some in groups(containers, 50):
            self.remove(*some)
        for some in groups(ours(self.docker("volume", "ls", "--quiet", "--filter", f"name={prefix}", check=False)), 50):
            self.docker("volume", "rm", "--force", *some, check=False)
        networks = ours(self.docker("network", "ls", "--format", "{{.Name}}", "--filter", f"name={prefix}", check=False))
        if networks:
            self.docker("network", "rm", *networks, check=False)


class Client:
    """A container whose output is followed: numbers on stdout are acknowledgements, kept with the time of their arrival;
    everything else is kept as words."""

    def __init__(self, engine: Engine, name: str):
        self.engine = engine
        self.name = name
        self.acks = []
        self.output = []
        self.errors = []
        self.stopped = False
        self.process = subprocess.Popen(
            ["docker", "logs", "--follow", name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self.threads = [threading.Thread(target=target, daemon=True) for target in (self.read_output, self.read_errors)]
        for thread in self.threads:
            thread.start()

    def read_output(self) -> None:
        for line in self.process.stdout:
            line = line.strip()
            if line.isdigit():
                self.acks.append((time.monotonic(), int(line)))
            elif line:
                self.output.append((time.time(), line))

    def read_errors(self) -> None:
        for line in self.process.stderr:
            self.errors.append((time.time(), line.strip()))

    def acked(self, at: float) -> int:
        """The last number that had been acknowledged `at` a monotonic time."""
        for moment, number in reversed(self.acks):
            if moment <= at:
                return number
        return 0

    def gap(self, start: float, end: float) -> float:
        """The longest time without an acknowledgement that lies at least partly between two monotonic times."""
        longest, before = 0.0, None
        for moment, _ in self.acks:
            if before is not None and moment >= start and before <= end:
                longest = max(longest, moment - before)
            before = moment
        return longest

    def is_alive(self) -> bool:
        return self.engine.state(self.name)["Running"]

    def stop(self) -> None:
        """Ends the container. Whatever goes wrong afterwards is our own doing."""
        self.stopped = True
        self.unfollow()
        self.engine.remove(self.name)

    def unfollow(self) -> None:
        self.process.terminate()
        for thread in self.threads:
            thread.join(timeout=10)


class Pauses:
    """How long containers are really held, from the engine's own events."""

    def __init__(self, engine: Engine):
        self.open = {}
        self.intervals = []
        self.count = 0
        self.changed = threading.Condition()
        filters = [word for rule in ("type=container", "event=pause", "event=unpause") for word in ("--filter", rule)]
        words = ["docker", "events", "--format", "{{json .}}", *filters]
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.prefix = engine.prefix
        threading.Thread(target=self.read, daemon=True).start()

    def read(self) -> None:
        for line in self.process.stdout:
            event = json.loads(line)
            name = event["Actor"]["Attributes"].get("name", "")
            if not name.startswith(self.prefix):
                continue
            at = event["timeNano"] / 1e9
            with self.changed:
                if event["Action"] == "pause":
                    self.open[name] = at
                    self.count += 1
                elif name in self.open:
                    self.intervals.append((self.open.pop(name), at, name))
                self.changed.notify_all()

    def wait_for_pause(self, ended, seconds: float) -> None:
        """Until one more container is paused, or `ended()`."""
        end = time.monotonic() + seconds
        with self.changed:
            before = self.count
            while self.count == before and not ended() and time.monotonic() < end:
                self.changed.wait(timeout=0.05)

    def between(self, start: float, end: float) -> list:
        """The intervals (from, to, container) that begin between two times of day."""
        time.sleep(0.1)
        with self.changed:
            return [interval for interval in self.intervals if start <= interval[0] <= end]

    def close(self) -> None:
        self.process.terminate()


def held_ms(holds: list):
    """From the first pause to the last thaw; none when nothing was paused."""
    return round((max(hold[1] for hold in holds) - min(hold[0] for hold in holds)) * 1000) if holds else None


def label_words(labels: dict | None) -> list:
    return [word for key, value in (labels or {}).items() for word in ("--label", f"{key}={value}")]


def compose_labels(project: str, service: str) -> dict:
    return {"com.docker.compose.project": project, "com.docker.compose.service": service, "com.docker.compose.container-number": "1"}


def groups(items: list, size: int) -> list:
    return [items[at : at + size] for at in range(0, len(items), size)]


def in_parallel(work, items, threads: int = 8) -> list:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, items))
