"""Connections that do not hold a server up: uvicorn's, with limits on what a client sends and how slowly it does."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

SECONDS = 10.0  # of silence while a request is sent, and between two looks at who takes an answer
RATE = 50_000  # bytes a second at least: of a request that takes longer than these seconds, and of a part of an answer
HEAD = 65_536  # bytes of a request before its body
PIPELINED = 100  # requests of a connection that wait for their turn: reads bring more than are answered between them


class DeadlineProtocol(HttpToolsProtocol):
    """Cuts off who sends a request, or takes an answer, too slowly, and whose headers do not end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._arriving: asyncio.TimerHandle | None = None
        self._leaving: asyncio.TimerHandle | None = None
        self._deadline, self._received, self._in_head, self._last, self._ended = 0.0, 0, True, False, False
        self._before = self.cycle  # of the request before the newest
        self._running = self.cycle  # of the request that is being served, behind which others may wait

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # whatever has not been taken is watched, after close, too
        self._wait()

    def data_received(self, data: bytes) -> None:
        if self._ended:
            return
        self._received += len(data)
        # What was sent before buys no silence later: bytes of unfinished requests take up the room of others.
        self._deadline = min(self._deadline + len(data) / RATE, self.loop.time() + SECONDS)
        super().data_received(data)
        if self._ended or self.transport.is_closing():
            return
        if self._in_head and self._received > HEAD:
            self._refuse(431, "Request Header Fields Too Large", f"the headers are larger than {HEAD:,} bytes")
        elif self._arriving is None and (self.cycle is None or self.cycle.response_complete):
            self._wait()  # an empty line before a request that may never come

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._received, self._in_head = 0, True
        self._wait()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # and not in trailers, which nobody reads
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        names = {name for name, _ in self.headers}
        if self.parser.should_upgrade() and names & {b"content-length", b"transfer-encoding"}:
            self._refuse(501, "Not Implemented", "ask without Upgrade: this server speaks HTTP/1.1 only")
        elif len(self.pipeline) == PIPELINED:
            self._end()
        if self._ended:
            raise ConnectionAbortedError  # stops the parser, which would go on to the end of what has been read
        self._before = self.cycle
        super().on_headers_complete()
        # uvicorn would close once it has answered: who still sends is then reset, and a proxy makes a 502 of that.
        self._last, self.cycle.keep_alive = not self.cycle.keep_alive, True

    def on_message_complete(self) -> None:
        self._in_head = False
        self._done()
        if not self.transport.is_closing():
            super().on_message_complete()
            if self._last:
                self.cycle.keep_alive = False
                if self.cycle.response_complete:
                    self.transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def connection_lost(self, exc: Exception | None) -> None:
        self._done()
        self.resume_writing()
        super().connection_lost(exc)  # which tells the newest request only
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    @property
    def answering(self) -> bool:
        """Whether an answer is on its way: begun, or not yet taken by the client."""
        begun = self._running is not None and self._running.response_started and not self._running.response_complete
        return begun or self.transport.get_write_buffer_size() > 0

    def pause_writing(self) -> None:
        super().pause_writing()
        # Anew for each part that the app writes: of a file 64 KB, and who takes them slowly has no more in memory.
        self._leaving = self.loop.call_later(SECONDS, self._stuck, self.transport.get_write_buffer_size())

    def _stuck(self, before: int) -> None:
        left = self.transport.get_write_buffer_size()
        if before - left < SECONDS * RATE:
            self.transport.abort()
        else:
            self._leaving = self.loop.call_later(SECONDS, self._stuck, left)

    def resume_writing(self) -> None:
        if self._leaving is not None:
            self._leaving.cancel()
            self._leaving = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "Bad Request", "this is not an HTTP request")

    def _wait(self) -> None:
        self._done()
        self._deadline = self.loop.time() + SECONDS
        self._arriving = self.loop.call_later(SECONDS, self._look)

    def _done(self) -> None:
        if self._arriving is not None:
            self._arriving.cancel()
            self._arriving = None

    def _look(self) -> None:
        left = self._deadline - self.loop.time()
        if self.flow.read_paused:  # by the server, until the requests before have been answered
            self._wait()
        elif left > 0:
            self._arriving = self.loop.call_later(left, self._look)
        else:
            sentence = f"the request came too slowly: send it within {SECONDS:.0f} seconds, or {RATE:,} bytes a second"
            self._refuse(408, "Request Timeout", sentence)

    def _refuse(self, status: int, reason: str, sentence: str) -> None:
        if self._end():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = f'{{"error": "{sentence}"}}'
            head = f"HTTP/1.1 {status} {reason}\r\ncontent-type: application/json\r\nconnection: close\r\n"
            self.transport.write(f"{head}content-length: {len(body)}\r\n\r\n{body}".encode())
        self.transport.close()
        self.loop.call_later(1, self.transport.abort)  # who does not take the answer either

    def _end(self) -> bool:
        """Read no further; whether this closes by itself, once the requests that have come whole are answered."""
        self._done()
        if self._ended or self.transport.is_closing():
            return True
        self._ended = True
        if self.pipeline and self.cycle.more_body:
            self.pipeline.popleft()
            self.cycle = self._before
        if self.cycle is None or self.cycle.more_body or self.cycle.response_complete:
            return False
        self.cycle.keep_alive = False
        return True
