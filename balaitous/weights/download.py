"""One file over HTTP, resumed where an earlier try broke off, tried again when the network fails.

Ranges and their validators: RFC 9110, sections 13.1.5 (If-Range), 14 (Range) and 15.5.17 (416).
"""

from __future__ import annotations

import contextlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from balaitous import __version__
from balaitous.errors import WeightsError

ATTEMPTS = 4  # in a row that bring no new byte
PAUSE_S = 1.0  # before the second attempt; doubles from there
TIMEOUT_S = 30.0  # without any byte
CHUNK_BYTES = 1 << 20
PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}  # the server may answer otherwise next time


class DownloadError(WeightsError):
    """The network or the server did not give the file."""


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if req.type == "https" and not newurl.startswith("https:"):
            raise DownloadError(f"{req.full_url} redirects to {newurl}, which is not encrypted; not followed.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


_opener = urllib.request.build_opener(_NoDowngrade)


def download(
    url: str, part: Path, on_bytes: Callable[[int, int | None], None] | None = None, attempts: int = ATTEMPTS
) -> None:
    """Download to `part`, going on after the bytes that are already there. The content is not verified here.

    Parameters
    ----------
    url : http or https; redirects are followed, but never from https to http
    part : unfinished file. Its validator (ETag or date) is kept beside it, so that two versions are never mixed
    on_bytes : called with (bytes so far, bytes in all or None)
    attempts : how many in a row may bring no new byte

    Raises
    ------
    DownloadError : the server refuses, cannot be reached or keeps breaking off
    WeightsError : the disk cannot be written
    """
    failures = 0
    while True:
        before = _size(part)
        try:
            return _transfer(url, part, on_bytes or (lambda done, total: None))
        except urllib.error.HTTPError as error:
            error.close()
            reason = f"HTTP status {error.code} {error.reason}"
            if error.code not in PASSING_STATUS:
                raise DownloadError(f"{url} was refused ({reason}).") from None
        except (OSError, http.client.HTTPException) as error:
            reason = str(getattr(error, "reason", "") or error) or type(error).__name__
        failures = 1 if _size(part) > before else failures + 1
        if failures >= attempts:
            kept = f"; {_size(part):,} bytes are kept" if part.exists() else ""
            raise DownloadError(f"{url} could not be downloaded ({reason}{kept}).") from None
        time.sleep(PAUSE_S * 2 ** (failures - 1))


def forget(part: Path) -> None:
    """Remove an unfinished download and its validator."""
    part.unlink(missing_ok=True)
    _validator(part).unlink(missing_ok=True)


def _transfer(url: str, part: Path, on_bytes: Callable[[int, int | None], None]) -> None:
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
        resumes = response.status == http.HTTPStatus.PARTIAL_CONTENT and content_range.startswith(f"bytes {done}-")
        if response.status != http.HTTPStatus.OK and not resumes:
            forget(part)
            raise ConnectionError(f"unexpected answer {response.status} {content_range}")
        if not resumes:
            done = 0
        length = response.headers.get("Content-Length")
        total = None if length is None else done + int(length)
        with _writing(part):
            file = part.open("ab" if resumes else "wb")
            if not resumes:  # after the old bytes are gone: killed in between, they must not pass for the new version's
                _keep_validator(part, response.headers)
        with file:
            on_bytes(done, total)
            while chunk := response.read(CHUNK_BYTES):
                with _writing(part):
                    file.write(chunk)
                    file.flush()
                done += len(chunk)
                on_bytes(done, total)
    if total is not None and done < total:
        raise ConnectionError(f"broke off after {done:,} of {total:,} bytes")


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
