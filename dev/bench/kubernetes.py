"""The API server, by what Python has itself: requests, and a watch whose events are timed as they come."""

import atexit
import base64
import http.client
import json
import os
import shutil
import ssl
import subprocess
import tempfile
import threading
import time
import urllib.parse

GROUP = "/apis/servicedb.dev/v1alpha1"


class ApiError(Exception):
    """What the API server refused."""

    def __init__(self, status, message):
        super().__init__(f"{status}: {message}")
        self.status = status


class Cluster:
    """The cluster of the current kubeconfig's current context."""

    def __init__(self):
        view = subprocess.run(
            ["kubectl", "config", "view", "--raw", "--minify", "--flatten", "-o", "json"], check=True, capture_output=True
        )
        config = json.loads(view.stdout)
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        server = urllib.parse.urlparse(cluster["server"])
        self.host, self.port, self.prefix = server.hostname, server.port or 443, server.path.rstrip("/")
        self.headers = {"Accept": "application/json"}
        authority = cluster.get("certificate-authority-data")
        self.tls = ssl.create_default_context(cadata=base64.b64decode(authority).decode() if authority else None)
        if "client-certificate-data" in user:
            # Python reads a client's key from a file only.
            folder = tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
            atexit.register(shutil.rmtree, folder, True)
            for name in ("client-certificate", "client-key"):
                with open(f"{folder}/{name}", "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                    file.write(base64.b64decode(user[f"{name}-data"]))
            self.tls.load_cert_chain(f"{folder}/client-certificate", f"{folder}/client-key")
        elif "token" in user:
            self.headers["Authorization"] = "Bearer " + user["token"]
        else:
            raise SystemExit("bench: this kubeconfig has neither a client certificate nor a token")

    def connect(self, timeout=30):
        """A connection of its own; http.client's cannot be shared by threads."""
        return http.client.HTTPSConnection(self.host, self.port, timeout=timeout, context=self.tls)

    def request(self, method, path, body=None, kind="application/json"):
        """One request; the answer as JSON."""
        connection = self.connect()
        try:
            data = None if body is None else json.dumps(body)
            connection.request(method, self.prefix + path, data, {**self.headers, "Content-Type": kind})
            response = connection.getresponse()
            text = response.read()
        finally:
            connection.close()
        if response.status >= 300:
            message = text.decode(errors="replace")
            try:
                message = json.loads(message)["message"]
            except (ValueError, KeyError, TypeError):
                pass
            raise ApiError(response.status, message)
        return json.loads(text) if text else None

    def get(self, path):
        return self.request("GET", path)

    def post(self, path, body):
        return self.request("POST", path, body)

    def delete(self, path):
        """Deletes; what is not there is gone already."""
        try:
            self.request("DELETE", path)
        except ApiError as error:
            if error.status != 404:
                raise

    def exists(self, path):
        try:
            self.get(path)
        except ApiError as error:
            if error.status == 404:
                return False
            raise
        return True


class Watch:
    """What happens to the objects of one path, from now on; each event with the time it came."""

    def __init__(self, cluster, path):
        self.events, self.changed, self.closed = [], threading.Condition(), False
        version = cluster.get(path)["metadata"]["resourceVersion"]
        self.connection = cluster.connect(timeout=None)
        query = f"{path}?watch=1&allowWatchBookmarks=false&resourceVersion={version}"
        self.connection.request("GET", cluster.prefix + query, headers=cluster.headers)
        self.response = self.connection.getresponse()
        if self.response.status != 200:
            raise ApiError(self.response.status, self.response.read().decode(errors="replace"))
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        try:
            while line := self.response.readline():
                event, now = json.loads(line), time.monotonic()
                with self.changed:
                    self.events.append((now, event["type"], event["object"]))
                    self.changed.notify_all()
        except (OSError, ValueError, http.client.HTTPException, AttributeError):
            pass
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def until(self, done, timeout, what):
        """The time of the first event after which `done(objects by name)` holds."""
        objects, seen, deadline = {}, 0, time.monotonic() + timeout
        with self.changed:
            while True:
                for came, kind, changed in self.events[seen:]:
                    seen += 1
                    name = changed["metadata"]["name"]
                    if kind == "DELETED":
                        objects.pop(name, None)
                    else:
                        objects[name] = changed
                    if done(objects):
                        return came
                remaining = deadline - time.monotonic()
                if self.closed or remaining <= 0:
                    raise TimeoutError(f"{what} did not come within {timeout} s")
                self.changed.wait(remaining)

    def close(self):
        """Ends the watch. The socket is shut first, or the reader would wait on."""
        try:
            self.connection.sock.shutdown(2)
        except (OSError, AttributeError):
            pass
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def condition(thing, kind):
    """A condition's status, or None."""
    for found in thing.get("status", {}).get("conditions") or []:
        if found["type"] == kind:
            return found["status"]
    return None
