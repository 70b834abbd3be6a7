"""One file over HTTP, resumed where an earlier try broke off, tried again when the network fails.

What a server says is not believed: no more than was asked for is taken, and none that is too slow is waited for.

Ranges and their validators: RFC 9110, sections 13.1.5 (If-Range), 14 (Range) and 15.5.17 (416).
"""

from __future__ import annotations

import contextlib
import http.client
import io
import re
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from balaitous import __version__
from balaitous.errors import WeightsError, one_line

ATTEMPTS = 4  # in a row that bring no new byte, or are too slow
PAUSE_S = 1.0  # before the second attempt; doubles from there
TIMEOUT_S = 30.0  # without any byte
WINDOW_S, LEAST_BYTES_A_SECOND = 60.0, 1024  # in each of these windows: at this rate 1 GB takes 12 days
CHUNK_BYTES = 1 << 20
PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}  # the server may answer otherwise next time


class DownloadError(WeightsError):
    """The network or the server did not give the file."""


class _TooSlow(ConnectionError):
    """The server sends, but at a rate that would take for ever."""


class _Paced(io.RawIOBase):
    """What a server sends, headers included, as long as enough of it comes in time."""

    def __init__(self, raw: Any) -> None:
        self.raw, self.start, self.received = raw, time.monotonic(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        count = self.raw.readinto(buffer)
        self.received += count or 0
        seconds = time.monotonic() - self.start
        if count and seconds > WINDOW_S:
            if self.received < seconds * LEAST_BYTES_A_SECOND:
                raise _TooSlow(
                    f"{self.received:,} bytes in {seconds:.0f} s, at least {LEAST_BYTES_A_SECOND} a second are needed"
                )
            self.start, self.received = time.monotonic(), 0
        return count

    def close(self) -> None:
        self.raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, sock: socket.socket, *arguments: Any, **options: Any) -> None:
        super().__init__(sock, *arguments, **options)
        self.fp = io.BufferedReader(_Paced(self.fp.detach()))


class _Connection(http.client.HTTPConnection):
    response_class = _Response


class _EncryptedConnection(http.client.HTTPSConnection):
    response_class = _Response


class _Http(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, req)


class _Https(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_EncryptedConnection, req)


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        scheme = newurl.partition(":")[0].lower()
        if scheme not in ("http", "https"):
            raise DownloadError(one_line(f"{req.full_url} redirects to {newurl}, which is not http; not followed."))
        if req.type == "https" and scheme != "https":
            raise DownloadError(
                one_line(f"{req.full_url} redirects to {newurl}, which is not encrypted; not followed.")
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_opener = urllib.request.build_opener(_Http, _Https, _NoDowngrade)


def download(
    url: str,
    part: Path,
    on_bytes: Callable[[int, int | None], None] | None = None,
    attempts: int = ATTEMPTS,
    *,
    maximum_bytes: int,
) -> None:
    """Download to `part`, going on after the bytes that are already there. The content is not verified here.

    Parameters
    ----------
    url : http or https; redirects are followed, but never from https to http
    part : unfinished file. Its validator (ETag or date) is kept beside it, so that two versions are never mixed
    on_bytes : called with (bytes so far, bytes in all or None)
    attempts : how many in a row may bring no new byte, or be too slow
    maximum_bytes : that the file may have

    Raises
    ------
    DownloadError : the server refuses, cannot be reached, keeps breaking off, is too slow, or sends more than that
    WeightsError : the disk cannot be written
    """
    failures = 0
    while True:
        before, slow = _size(part), False
        try:
            return _transfer(url, part, on_bytes or (lambda done, total: None), maximum_bytes)
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"HTTP status {error.code} {error.reason}"
            if error.code not in PASSING_STATUS:
                raise DownloadError(f"{url} was refused ({one_line(reason)}).") from None
        except DownloadError:
            raise
        except (
            OSError,
            http.client.HTTPException,
            ValueError,
        ) as error:  # ValueError: an address or header that is none
            slow = isinstance(error, _TooSlow) or isinstance(getattr(error, "reason", None), _TooSlow)
            reason = str(getattr(error, "reason", "") or error) or type(error).__name__
        failures = 1 if _size(part) > before and not slow else failures + 1
        if failures >= attempts:
            kept = f"; {_size(part):,} bytes are kept" if part.exists() else ""
            raise DownloadError(f"{url} could not be downloaded ({one_line(reason)}{kept}).") from None
        time.sleep(PAUSE_S * 2 ** (failures - 1))


def forget(part: Path) -> None:
    """Remove an unfinished download and its validator."""
    part.unlink(missing_ok=True)
    _validator(part).unlink(missing_ok=True)


def _transfer(url: str, part: Path, on_bytes: Callable[[int, int | None], None], maximum_bytes: int) -> None:
    done = _size(part)
    headers = {"User-Agent": f"balaitous/{__version__}", "Accept-Encoding": "identity"}
    if done:
        headers["Range"] = f"bytes={done}-"
        if _validator(part).exists():
            headers["If-Range"] = _validator(part).read_text()
    try:
        response = _opener.open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise
        error.close()
        if error.headers.get("Content-Range") == f"bytes */{done}":
            return  # nothing is missing: only the renaming was interrupted
        forget(part)
        raise ConnectionError("the server's file is not the one that was begun") from None
    with response:
        content_range = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", content_range.strip())
        resumes = response.status == http.HTTPStatus.PARTIAL_CONTENT and match is not None and int(match[1]) == done
        if response.status != http.HTTPStatus.OK and not resumes:
            forget(part)
            raise ConnectionError(f"unexpected answer {response.status} {content_range}")
        if not resumes:
            done = 0
        end = total = _declared(response.headers.get("Content-Length"), done)
        if resumes and match and match[3] != "*":  # the range may be shorter than what was asked for
            total = int(match[3])
        if total is not None and total > maximum_bytes:
            raise _too_large(url, maximum_bytes, f"{total:,}")
        with _writing(part):
            file = part.open("ab" if resumes else "wb")
            if not resumes:  # after the old bytes are gone: killed in between, they must not pass for the new version's
                _keep_validator(part, response.headers)
        with file:
            on_bytes(done, total)
            while end is None or done < end:
                # what is there: `read` would wait for all of a chunk
                chunk = response.read1(CHUNK_BYTES if end is None else min(CHUNK_BYTES, end - done))
                if not chunk:
                    break
                done += len(chunk)
                if done > maximum_bytes:
                    file.close()
                    forget(part)
                    raise _too_large(url, maximum_bytes, "more")
                with _writing(part):
                    file.write(chunk)
                    file.flush()
                on_bytes(done, total)
    if total is not None and done < total:
        raise ConnectionError(f"broke off after {done:,} of {total:,} bytes")


def _declared(length: str | None, done: int) -> int | None:
    """Bytes in all, as far as the server tells."""
    if length is None:
        return None
    if not re.fullmatch(r"\d{1,18}", length.strip()):
        raise ConnectionError(f"expected a number of bytes as Content-Length, found {length[:40]!r}")
    return done + int(length)


def _too_large(url: str, maximum_bytes: int, found: str) -> DownloadError:
    return DownloadError(
        f"{url}: expected at most {maximum_bytes:,} bytes, found {found}. It is not the published file."
    )


@contextlib.contextmanager
def _writing(part: Path) -> Iterator[None]:
    """Tells a full disk from a broken line: the latter is worth another attempt."""
    try:
        yield
    except OSError as error:
        raise WeightsError(f"{part}: cannot be written ({error.strerror}). Is there room, and may you?") from None


def _keep_validator(part: Path, headers: http.client.HTTPMessage) -> None:
    etag = headers.get("ETag", "")
    strong = etag if etag.startswith('"') else headers.get("Last-Modified", "")  # W/"…" must not be used with If-Range
    if strong:
        _validator(part).write_text(strong)
    else:
        _validator(part).unlink(missing_ok=True)


def _validator(part: Path) -> Path:
    return part.with_name(f"{part.name}.validator")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
