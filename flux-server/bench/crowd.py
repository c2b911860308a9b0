"""A crowd that holds connections and buys nothing: some are idle after one
answered request, some send the head of a request one byte at a time. Who is
hung up on comes back."""

import errno
import heapq
import selectors
import socket
import threading
import time

IDLE = b"GET /healthz HTTP/1.1\r\nHost: flux\r\n\r\n"
SLOW = b"GET /healthz HTTP/1.1\r\nHost: flux\r\nX-Slow: " + b"z" * 100_000
# A port is one of some 28,000 for each pair of addresses.
ADDRESSES = 8
SLOW_EVERY = 1.0
OPENED_AT_ONCE = 500


def within(seconds, condition, complaint):
    """What `condition` returns, once that is something."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise SystemExit(complaint)


class Crowd:
    """Entered once everyone is connected; keeps them so until it is left."""

    def __init__(self, address, idle, slow):
        self.address, self.idle, self.slow = address, idle, slow
        self.selector = selectors.DefaultSelector()
        self.opened = self.slow_sent = self.hung_up = 0
        self.wanted = ["idle"] * idle + ["slow"] * slow
        self.present = {"idle": set(), "slow": set()}
        self.opening, self.due, self.leaving = 0, [], threading.Event()
        self.thread = threading.Thread(target=self.live)

    def __enter__(self):
        self.thread.start()
        within(60, self.complete, f"not all came in: {self.report()}")
        return self

    def __exit__(self, *_):
        self.leaving.set()
        self.thread.join()

    def complete(self):
        return len(self.present["idle"]) == self.idle and len(self.present["slow"]) == self.slow

    def report(self):
        return (
            f"{len(self.present['idle'])} idle and {len(self.present['slow'])} slow connections, "
            f"{self.hung_up} hung up on and come back"
        )

    def live(self):
        try:
            while not self.leaving.is_set():
                while self.wanted and self.opening < OPENED_AT_ONCE:
                    self.open(self.wanted.pop())
                for key, events in self.selector.select(0.05):
                    self.serve(key, events)
                now = time.monotonic()
                while self.due and self.due[0][0] <= now:
                    self.send_byte(heapq.heappop(self.due)[2])
        finally:
            for key in list(self.selector.get_map().values()):
                key.fileobj.close()
            self.selector.close()

    def open(self, kind):
        connection = socket.socket()
        connection.setblocking(False)
        self.opened += 1
        connection.bind((f"127.0.1.{1 + self.opened % ADDRESSES}", 0))
        begun = connection.connect_ex(self.address)
        if begun not in (0, errno.EINPROGRESS):
            raise OSError(begun, "the crowd can't connect")
        self.opening += 1
        self.selector.register(connection, selectors.EVENT_WRITE, kind)

    def serve(self, key, events):
        connection, kind = key.fileobj, key.data
        try:
            if events & selectors.EVENT_WRITE:
                self.opening -= 1
                self.selector.modify(connection, selectors.EVENT_READ, kind)
                if kind == "idle":
                    connection.send(IDLE)
                else:
                    connection.send(SLOW[:16])
                    self.present[kind].add(connection)
                    self.plan(connection, 16)
                return
            answer = connection.recv(4096)
        except OSError:
            answer = b""
        # A slow head that is given up may get its 408 first.
        if kind == "idle" and answer.startswith(b"HTTP/1.1 200"):
            self.present[kind].add(connection)
            return
        self.selector.unregister(connection)
        connection.close()
        self.present[kind].discard(connection)
        self.hung_up += 1
        self.wanted.append(kind)

    def plan(self, connection, sent):
        # Spread over the period, or a thousand would send in one burst.
        due = time.monotonic() + SLOW_EVERY
        self.slow_sent += 1
        heapq.heappush(self.due, (due, self.slow_sent, (connection, sent)))

    def send_byte(self, planned):
        connection, sent = planned
        if connection.fileno() < 0:
            return
        try:
            connection.send(SLOW[sent : sent + 1])
        except OSError:
            return  # The selector hears of it too.
        self.plan(connection, sent + 1)
