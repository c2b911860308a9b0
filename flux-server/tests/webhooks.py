"""The test that `flux-server/tests/webhooks` runs."""

import base64
import http.client
import json
import os
import secrets
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from standardwebhooks import Webhook, WebhookVerificationError

BINARY = sys.argv[1]
AWAY_SECONDS = float(os.environ.get("AWAY_SECONDS", "3"))
PATIENCE = 60 + 2 * AWAY_SECONDS
OPERATOR = "the-operators-token-of-the-tests"
SELLERS = 4
ORDERS_EACH = 60


def secret():
    return "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()


NEW, OLD, OTHER = secret(), secret(), secret()


def refuses(key, body, headers):
    try:
        Webhook(key).verify(body, headers)
    except WebhookVerificationError:
        return True
    return False


class Receiver:
    """Keeps what it took, by cursor, and whatever was wrong."""

    def __init__(self, certificate):
        self.lock = threading.Lock()
        self.taken, self.ids, self.last = {}, {}, {}
        self.wrong, self.asked, self.failed, self.strayed = [], 0, 0, 0
        self.away = False
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)
        self.port = 0
        self.open()

    def open(self):
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def do_POST(self):
                receiver.post(self)

            def do_GET(self):
                receiver.wrong.append(f"GET {self.path}")

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            # In the thread of the connection, as a handshake may hang.
            def finish_request(self, request, address):
                try:
                    request = receiver.context.wrap_socket(request, server_side=True)
                    super().finish_request(request, address)
                    request.close()
                except OSError:
                    pass

            def handle_error(self, *_):
                pass

        self.server = Server(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_port
        self.away = False
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def leave(self):
        self.away = True
        self.server.shutdown()
        self.server.server_close()

    def post(self, call):
        body = call.rfile.read(int(call.headers["content-length"]))
        if self.away:
            call.close_connection = True
            return
        headers = {name.lower(): value for name, value in call.headers.items()}
        with self.lock:
            self.asked += 1
            turn = self.asked % 25
        if call.path != "/hooks":
            self.strayed += 1
        try:
            for key in (NEW, OLD):
                Webhook(key).verify(body, headers)
        except WebhookVerificationError as error:
            self.wrong.append(f"{headers['webhook-id']}: {error}")
        if turn == 0:
            changed = body.replace(b'"type"', b'"Type"')
            later = {**headers, "webhook-timestamp": str(int(headers["webhook-timestamp"]) + 1)}
            if not (
                refuses(OTHER, body, headers)
                and refuses(NEW, changed, headers)
                and refuses(NEW, body, later)
            ):
                self.wrong.append("a signature is good for something else")
        faults = {
            1: b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n",
            6: f"HTTP/1.1 308 No\r\nLocation: https://localhost:{self.port}/stray\r\nContent-Length: 0\r\n\r\n".encode(),
            11: b"SSH-2.0-what\r\n\r\n\0\0",
            16: b"",
            21: b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
        }
        if turn in faults:
            with self.lock:
                self.failed += 1
            call.close_connection = turn != 1
            call.wfile.write(faults[turn])
            return
        if turn == 13:
            time.sleep(0.5)
        self.take(headers["webhook-id"], body)
        answer = b"x" * (100_000 if turn == 19 else 2)
        call.send_response(200)
        call.send_header("Content-Length", str(len(answer)))
        call.end_headers()
        call.wfile.write(answer)

    def take(self, message, body):
        body = json.loads(body)
        data = body["data"]
        cursor = int(data["cursor"])
        changed = data.get("order") or data["item"]
        name = data["order"]["order_id"] if "order" in data else data["item"]["item_id"]
        kind = f"order.{changed['status']}" if "order" in data else "item.changed"
        with self.lock:
            if body["type"] != kind or body["timestamp"] != data["at"]:
                self.wrong.append(f"{body}")
            if self.ids.setdefault(cursor, message) != message:
                self.wrong.append(f"{cursor} has two ids")
            if cursor not in self.taken and cursor < self.last.get(name, 0):
                self.wrong.append(f"{name}: {cursor} after {self.last[name]}")
            self.last[name] = max(cursor, self.last.get(name, 0))
            self.taken[cursor] = data


class Server:
    def __init__(self, home, webhook, environment):
        self.log = Path(home, "log")
        self.process = subprocess.Popen(
            [BINARY, "--listen", "127.0.0.1:0", "--item", "t=100000"]
            + ["--webhook-private", "--webhook", webhook],
            cwd=home,
            env={
                "FLUX_OPERATOR_TOKEN": OPERATOR,
                "FLUX_WEBHOOK_SECRET": f"{NEW} {OLD}",
                "PATH": os.environ["PATH"],
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=self.log.open("w"),
            text=True,
        )
        line = self.process.stdout.readline()
        if "http://" not in line:
            sys.exit(f"the server did not start:\n{self.log.read_text()}")
        self.address = line.split("http://")[1].strip()

    def call(self, method, path, body=None):
        connection = http.client.HTTPConnection(self.address, timeout=30)
        headers = {"Authorization": f"Bearer {OPERATOR}", "Prefer": "wait=20"}
        if body is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(body)
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status not in (200, 201):
            raise RuntimeError(f"{method} {path}: {answer.status} {text}")
        return json.loads(text)

    def sell(self, seller):
        for turn in range(ORDERS_EACH):
            order = {"buyer_id": f"b{seller}-{turn}", "item_id": "t"}
            path = f"/v1/orders/{self.call('POST', '/v1/orders', order)['order_id']}"
            if turn % 3 == 0:
                self.call("POST", f"{path}/release")
            elif turn % 3 == 1:
                self.call("POST", f"{path}/confirm", {"payment_ref": "p"})
                self.call("POST", f"{path}/cancel")

    def changes(self):
        found, after = [], ""
        while True:
            page = self.call("GET", f"/v1/changes?limit=1000{after}")
            if not page["changes"]:
                return found
            found += page["changes"]
            after = f"&after={page['next']}"

    def webhook(self):
        return self.call("GET", "/v1/webhooks")["webhooks"][0]

    def stop(self):
        self.process.terminate()
        return self.process.wait(30)


def until(what, look):
    end = time.monotonic() + PATIENCE
    while not look():
        if time.monotonic() > end:
            sys.exit(f"after {PATIENCE} s still not: {what}")
        time.sleep(0.05)


def certificate(home):
    """One for localhost, and the roots that vouch for it."""
    made = Path(home, "certificate.pem")
    key = Path(home, "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", key, "-out", made]
    command += ["-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=CA:FALSE"]
    subprocess.run(command, check=True, capture_output=True)
    both = Path(home, "both.pem")
    both.write_text(key.read_text() + made.read_text())
    return both, made


def main():
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryDirectory() as other:
        both, roots = certificate(home)
        receiver = Receiver(both)
        url = f"https://localhost:{receiver.port}/hooks"

        began = time.monotonic()
        server = Server(home, url, {"SSL_CERT_FILE": str(roots)})
        try:
            sellers = [threading.Thread(target=server.sell, args=[n]) for n in range(SELLERS)]
            for seller in sellers:
                seller.start()
            time.sleep(0.5)
            receiver.leave()
            time.sleep(AWAY_SECONDS)
            receiver.open()
            for seller in sellers:
                seller.join()
            changes = {int(change["cursor"]): change for change in server.changes()}
            until("all is taken", lambda: receiver.taken.keys() >= changes.keys())
            until("nothing waits", lambda: server.webhook()["waiting"] == 0)
            took = time.monotonic() - began
            shown = server.webhook()
        finally:
            status = server.stop()
        problems = list(receiver.wrong)
        if receiver.taken != changes:
            problems.append("what was taken is not what the feed has")
        if receiver.strayed:
            problems.append("a redirect was followed")
        if shown["given_up"] or status:
            problems.append(f"{shown}, ended with {status}")
        if receiver.failed < len(changes) / 10:
            problems.append(f"only {receiver.failed} were failed")

        # Nobody vouches for the receiver, so it is told nothing.
        asked = receiver.asked
        server = Server(other, url, {})
        try:
            until("it is refused", lambda: "certificate" in (server.webhook()["error"] or ""))
        finally:
            server.stop()
        if receiver.asked != asked:
            problems.append("a receiver was told that nobody vouches for")
    print(
        f"{len(changes)} changes, {asked} messages by TLS, each verified with both secrets, "
        f"{receiver.failed} failed on purpose, away for {AWAY_SECONDS:.0f} s: all taken, in order, "
        f"in {took:.1f} s; {len(problems)} wrong"
    )
    for problem in problems[:20]:
        print(f"  {problem}")
    sys.exit(1 if problems else 0)


main()
