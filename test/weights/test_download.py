"""Servers that lie, never end or hardly send, on the loopback interface."""

import re
import socket
import threading
from contextlib import contextmanager

import pytest

from balaitous.weights import download as download_module
from balaitous.weights.download import DownloadError, download
from helpers.waiting import PATIENCE_SECONDS

BODY = bytes(range(256)) * 40
MOST = len(BODY)


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download_module, "PAUSE_S", 0.001)


@contextmanager
def serving(*answers):
    """The address of a server that gives each answer to one request, the last one to all others.

    An answer is bytes, or a function of the connection that sends some; the requests are in the list that is told too.
    """
    listener = socket.create_server(("127.0.0.1", 0))
    todo, requests = list(answers), []

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(PATIENCE_SECONDS)
                try:
                    request = b""
                    while not request.endswith(b"\r\n\r\n"):
                        request += connection.recv(4096)
                    requests.append(request.decode())
                    answer = todo.pop(0) if len(todo) > 1 else todo[0]
                    connection.sendall(answer) if isinstance(answer, bytes) else answer(connection)
                except OSError:  # the client went away
                    pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/file", requests
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def answer(body=BODY, status="200 OK", length=True, **headers):
    lines = [f"HTTP/1.1 {status}", *[f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def endless(head, piece):
    def send(connection):
        connection.sendall(head)
        while True:
            connection.sendall(piece)

    return send


def dripping(head):
    def send(connection):
        connection.sendall(head)
        while not pause.wait(0.01):
            connection.sendall(b"x")

    pause = threading.Event()
    return send


def refusal(url, part, **options):
    with pytest.raises(DownloadError) as raised:
        download(url, part, **{"maximum_bytes": MOST} | options)
    message = str(raised.value)
    assert message.isprintable()
    assert raised.value.exit_code == 4
    return message


@pytest.mark.parametrize("chunked", [True, False])
def test_a_server_that_sends_for_ever_is_left_when_there_is_more_than_the_file_can_have(tmp_path, chunked):
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" if chunked else b"HTTP/1.1 200 OK\r\n\r\n"
    with serving(endless(head, b"400\r\n" + bytes(1024) + b"\r\n" if chunked else bytes(1024))) as (url, requests):
        assert "expected at most 10,240 bytes, found more" in refusal(url, tmp_path / "part")
    assert [*tmp_path.iterdir()] == []
    assert len(requests) == 1


def test_a_file_that_is_declared_too_large_is_not_begun(tmp_path):
    with serving(endless(answer(b"", length=False, Content_Length=10**15), bytes(1024))) as (url, _):
        assert "at most 10,240 bytes, found 1,000,000,000,000,000." in refusal(url, tmp_path / "part")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("length", ["abc", "-1", "1e3", "", "١٢", "9" * 400])
def test_a_length_that_is_none_is_not_believed(tmp_path, length):
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode()
    with serving(head + BODY) as (url, requests):
        assert "could not be downloaded (expected a number of bytes as Content-Length" in refusal(
            url, tmp_path / "part"
        )
    assert len(requests) == download_module.ATTEMPTS


def test_what_comes_after_the_declared_bytes_is_not_taken(tmp_path):
    with serving(answer() + b"more") as (url, _):
        download(url, tmp_path / "part", maximum_bytes=2 * MOST)
    assert (tmp_path / "part").read_bytes() == BODY


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\nX-Header: ", answer(b"", length=False)])
def test_a_server_that_hardly_sends_is_given_up(tmp_path, monkeypatch, head):
    monkeypatch.setattr(download_module, "WINDOW_S", 0.05)
    with serving(dripping(head)) as (url, requests):
        assert "at least 1024 a second are needed" in refusal(url, tmp_path / "part", maximum_bytes=2**40)
    assert len(requests) == download_module.ATTEMPTS


@pytest.mark.parametrize(
    "place", ["file:///etc/passwd", "ftp://127.0.0.1/file", "data:,x", "gopher://x/", "javascript:1"]
)
def test_a_redirect_to_something_else_than_http_is_not_followed(tmp_path, place):
    with serving(answer(b"", "302 Found", Location=place)) as (url, requests):
        assert re.search("which is not http; not followed|HTTP status 302", refusal(url, tmp_path / "part"))
    assert len(requests) == 1
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("place", ["http://[", "http://127.0.0.1:port/", "http://\x7f/", "/file"])
def test_a_redirect_to_nowhere_or_to_itself_is_refused_in_one_line(tmp_path, place):
    with serving(answer(b"", "302 Found", Location=place)) as (url, _):
        refusal(url, tmp_path / "part")


@pytest.mark.parametrize(
    "content_range", ["bytes 0-99/10240", "bytes 200-299/10240", "bytes x", "items 100-10239/10240", ""]
)
def test_another_range_than_was_asked_for_is_not_joined_to_what_is_there(tmp_path, content_range):
    part = tmp_path / "part"
    part.write_bytes(BODY[:100])
    wrong = answer(BODY[:100], "206 Partial Content", Content_Range=content_range)
    with serving(wrong, answer()) as (url, requests):
        download(url, part, maximum_bytes=MOST)
    assert part.read_bytes() == BODY
    assert "Range: bytes=100-\r\n" in requests[0]
    assert "Range: " not in requests[1]


def test_a_range_that_is_shorter_than_asked_for_is_gone_on_from(tmp_path):
    part = tmp_path / "part"
    part.write_bytes(BODY[:100])
    short = answer(BODY[100:200], "206 Partial Content", Content_Range=f"bytes 100-199/{len(BODY)}")
    rest = answer(BODY[200:], "206 Partial Content", Content_Range=f"bytes 200-{len(BODY) - 1}/{len(BODY)}")
    with serving(short, rest) as (url, requests):
        download(url, part, maximum_bytes=MOST)
    assert part.read_bytes() == BODY
    assert "Range: bytes=200-\r\n" in requests[1]


def test_what_a_server_says_of_its_refusal_cannot_steer_a_terminal(tmp_path):
    with serving(answer(b"", "404 \x1b[2J\x07gone")) as (url, _):
        assert "HTTP status 404 \\x1b[2J\\x07gone" in refusal(url, tmp_path / "part")


@pytest.mark.parametrize("noise", [b"", b"\0" * 100, b"HTTP/1.1 200\r\n" + b"A" * 70_000, b"HTTP/1.1 99999 x\r\n\r\n"])
def test_what_is_no_http_is_refused_in_one_line(tmp_path, noise):
    with serving(noise) as (url, _):
        assert "could not be downloaded" in refusal(url, tmp_path / "part")
