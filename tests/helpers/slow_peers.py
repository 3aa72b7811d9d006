"""Peers that are slow or silent: a proxy in front of a real one, and a server that answers byte by byte."""

import select
import socket
import threading
import time


class Listening:
    """A port of this machine that serves each connection in its own thread."""

    def __init__(self):
        self._ended = threading.Event()
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._server.settimeout(0.1)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while not self._ended.is_set():
            try:
                stream, _ = self._server.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            threading.Thread(target=self._served, args=(stream,), daemon=True).start()

    def _served(self, stream):
        try:
            self.serve(stream)
        except OSError:
            pass
        finally:
            stream.close()

    def serve(self, stream):
        raise NotImplementedError

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._server.close()


class Trickling(Listening):
    """Reads a little, then answers byte by byte, without end."""

    def __init__(self, text, pause=0.05):
        self.text, self.pause = text, pause
        super().__init__()

    def serve(self, stream):
        stream.settimeout(1.0)
        stream.recv(2**16)
        stream.settimeout(None)
        for byte in self.text + b" " * 100000:
            if self._ended.wait(self.pause):
                return
            stream.sendall(bytes([byte]))


class Proxy(Listening):
    """Forwards in both directions, as far as its limits allow.

    Args:
        port: of the peer behind it.
        forth: bytes to the peer before nothing is read from the caller any more; None for all.
        back: bytes to the caller before they are held back; None for all.
    """

    def __init__(self, port, *, forth=None, back=None):
        self.behind, self.left = port, {"forth": forth, "back": back}
        super().__init__()

    def serve(self, stream):
        left = dict(self.left)
        with socket.create_connection(("127.0.0.1", self.behind)) as peer:
            while not self._ended.is_set():
                watched = [stream] * (left["forth"] != 0) + [peer]
                ready, _, _ = select.select(watched, [], [], 0.05)
                if not watched[:-1]:
                    time.sleep(0.01)
                for source in ready:
                    way, target = ("forth", peer) if source is stream else ("back", stream)
                    content = source.recv(2**16)
                    if not content:
                        return
                    if left[way] is not None:
                        content = content[: left[way]]
                        left[way] -= len(content)
                    target.sendall(content)
