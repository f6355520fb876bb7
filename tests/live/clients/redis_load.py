"""Keeps a Redis server on the loopback interface busy. Runs in a container: `python3 -c` this, MEGABYTES.

Three connections run transactions that move an amount from one key to another, count it, list it and rewrite a large value; the
fourth increments a number and prints it once it is acknowledged. Any answer that is an error ends all of it.
"""

import os
import random
import socket
import sys
import threading
import time


class Connection:
    def __init__(self):
        self.socket = socket.create_connection(("127.0.0.1", 6379))
        self.reader = self.socket.makefile("rb")

    def send(self, *commands) -> list:
        data = b""
        for command in commands:
            words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
            data += b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        self.socket.sendall(data)
        return [self.answer() for _ in commands]

    def answer(self):
        line = self.reader.readline()
        if not line:
            raise ConnectionError("the server closed the connection")
        kind, text = line[:1], line[1:].rstrip()
        if kind == b"-":
            raise ValueError(text.decode())
        if kind == b"*":
            if text == b"-1":
                raise ValueError("a transaction was aborted")
            return [self.answer() for _ in range(int(text))]
        if kind == b"$":
            return None if text == b"-1" else self.reader.read(int(text) + 2)[:-2]
        return int(text) if kind == b":" else text


def transfers(keys: int) -> None:
    connection = Connection()
    while True:
        amount = random.randrange(1, 100)
        value = random.randbytes(1000)
        connection.send(
            ["MULTI"],
            ["INCRBY", "left", -amount],
            ["INCR", "transfers"],
            ["SET", f"value:{random.randrange(keys)}", value],
            ["RPUSH", "ledger", amount],
            ["INCRBY", "right", amount],
            ["EXEC"],
        )
        time.sleep(0.002)


def ticks() -> None:
    connection = Connection()
    while True:
        print(connection.send(["INCR", "tick"])[0], flush=True)
        time.sleep(0.02)


def guarded(work, *arguments) -> None:
    try:
        work(*arguments)
    except Exception as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)


threads = [threading.Thread(target=guarded, args=(transfers, int(sys.argv[1]) * 1000)) for _ in range(3)]
threads.append(threading.Thread(target=guarded, args=(ticks,)))
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
