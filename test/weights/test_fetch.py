"""Fetching from a server on the loopback interface that truncates, corrupts, redirects and refuses."""

import contextlib
import dataclasses
import hashlib
import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from balaitous.errors import WeightsError
from balaitous.locks import Lock
from balaitous.severity import published as published_module
from balaitous.severity.published import PUBLISHED, STOIC, STOIC_CARD, pack_stoic
from balaitous.weights import download as download_module
from balaitous.weights import search as search_module
from balaitous.weights.bundle import open_bundle
from balaitous.weights.download import download
from balaitous.weights.fetch import default_folder, fetch
from balaitous.weights.inventory import verify
from balaitous.weights.pack import Facts
from balaitous.weights.registry import PublishedBundle, PublishedFile
from helpers.checkpoints import TINY_BLOCKS, vit_state, write_checkpoints
from helpers.waiting import PATIENCE_SECONDS, wait_until

UNET, CT, IMAGENET = "unet_r231-d5d2fc3d.pth", "vitl_16_ct.pth", "vitl_16_pt22k.pth"
RECORD = "/api/records/1"
MOST = 1 << 30  # bytes: more than any file here has


class Server(ThreadingHTTPServer):
    """Serves `content` by path; the next answers on a path can be spoilt by putting names of faults into `faults`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content: dict[str, bytes] = {}
        self.faults: dict[str, list[str]] = {}
        self.requests: list[tuple[str, str | None]] = []  # (path, its Range)
        self.sent: dict[str, int] = {}  # bytes of bodies by path
        self.ranges = self.etags = True
        self.go_on = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def asked(self, name: str) -> list[str | None]:
        """The Range of every request for a file."""
        return [given for path, given in self.requests if path.endswith(name)]

    def handle_error(self, request, client_address):
        pass  # a client that was killed


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self):
        faults = self.server.faults.get(self.path, [])
        fault = faults.pop(0) if faults else ""
        self.server.requests.append((self.path, self.headers.get("Range")))
        if fault.isdigit() or self.path not in self.server.content:
            return self.send_error(int(fault or 404))
        if fault == "hang up":
            return None
        if fault.startswith("redirect"):
            self.server.content[f"/elsewhere{self.path}"] = self.server.content[self.path]
            address = self.server.url.replace("http:", "https:") if fault == "redirect encrypted" else self.server.url
            self.send_response(302)
            self.send_header("Location", f"{address}/elsewhere{self.path}")
            return self.end_headers()
        body = self.server.content[self.path]
        if fault == "corrupt":
            body = body[:100] + bytes([body[100] ^ 1]) + body[101:]
        self.answer(body, fault)

    def answer(self, body: bytes, fault: str) -> None:
        etag = f'"{hashlib.sha256(body).hexdigest()}"'
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        start = int(asked[1]) if asked and self.server.ranges else 0
        if self.headers.get("If-Range", etag) != etag:
            start = 0
        if start and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            return self.end_headers()
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if self.server.etags:
            self.send_header("ETag", etag)
        rest = body[start:]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if fault in ("truncate", "stall"):
            rest = rest[: len(rest) // 2]
        self.server.sent[self.path] = self.server.sent.get(self.path, 0) + len(rest)
        self.wfile.write(rest)
        if fault == "stall":
            self.wfile.flush()
            self.server.go_on.wait(timeout=PATIENCE_SECONDS)
        return None

    def log_message(self, format, *args):
        pass


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    return write_checkpoints(tmp_path_factory.mktemp("originals"))


@pytest.fixture
def server(originals, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download_module, "PAUSE_S", 0.001)
    with Server() as server:
        entries = []
        for name in (UNET, CT, IMAGENET):
            body = (originals["heads"].parent / name).read_bytes()
            server.content[f"/files/{name}"] = body
            entries.append({"key": name, "size": len(body), "checksum": f"md5:{hashlib.md5(body).hexdigest()}"})
        server.content[RECORD] = json.dumps({"id": 1, "files": entries[1:]}).encode()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.go_on.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def published(server, originals, monkeypatch):
    """The registry's entry, with addresses on the loopback interface and the hash of the tiny U-Net."""
    digest = hashlib.sha256(originals["lung_unet"].read_bytes()).hexdigest()
    networks = {UNET: "lung_unet", CT: "encoder_full", IMAGENET: "encoder_lung"}
    files = tuple(
        PublishedFile(
            network=network,
            name=name,
            url=f"{server.url}/files/{name}",
            size_bytes=4_000_000,
            licence="MIT",
            citation="nobody",
            **({"sha256_prefix": digest[:8]} if name == UNET else {"record_api": f"{server.url}{RECORD}"}),
        )
        for name, network in networks.items()
    )

    monkeypatch.setattr(published_module, "STOIC_HEADS", originals["heads"])
    monkeypatch.setattr("balaitous.severity.pack.BLOCKS", TINY_BLOCKS)
    return PublishedBundle(facts=Facts("tiny", licence="MIT"), files=files, pack=pack_stoic)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "weights" / "tiny"


@pytest.fixture
def by_hand(originals):
    """Folder with the published files, as somebody copied them."""
    return originals["heads"].parent


def downloads(out):
    return out.with_name(f"{out.name}.download")


def assert_whole(out):
    assert [check.problem for check in verify(out)] == [None] * 5
    assert not downloads(out).exists()


def assert_one_line(error):
    assert error.value.exit_code == 4
    assert "\n" not in str(error.value)


# When all goes well


def test_a_published_bundle_is_downloaded_verified_and_packed(published, server, out):
    progress = {}
    assert fetch(published, out, on_progress=lambda *now: progress.setdefault(now[0], []).append(now[1:])) == out
    assert_whole(out)
    made_from = {entry["file"]: entry for entry in open_bundle(out).training["made_from"]}
    assert "SHA-256" in made_from[UNET]["verified"]
    assert "MD5" in made_from[CT]["verified"]
    for name, steps in progress.items():
        body = server.content[f"/files/{name}"]
        assert made_from[name]["sha256"] == hashlib.sha256(body).hexdigest()
        assert steps[0] == (0, len(body))
        assert steps[-1] == (len(body), len(body))
    assert set(progress) == {UNET, CT, IMAGENET}


def test_the_published_bundle_s_card_is_written_beside_it_and_says_what_its_facts_say(published, out):
    fetch(published, out)
    card = (out / "CARD.md").read_text()
    assert card == STOIC_CARD.read_text()
    for words in (
        "`stoic`",
        "not for diagnosis",
        "MIT (balaitous 1.2)",
        "Apache-2.0 (lungmask)",
        "zenodo.org/records/6547999",
    ):
        assert words in card
    for measured in ("cross_validation", "qualification_leaderboard"):
        for output in ("covid", "severe"):
            assert f"{STOIC.facts.metrics[measured][f'auc_{output}']:.2f}" in card
    for view, blocks in {"full": 24, "lung": 16}.items():
        assert f"`encoder_{view}.safetensors` | ViT-L/16, {blocks} blocks" in card


def test_what_is_there_is_not_fetched_again(published, server, out):
    fetch(published, out)
    server.requests.clear()
    assert fetch(published, out) == out
    assert server.requests == []


def test_a_damaged_bundle_is_not_taken_for_the_published_one(published, server, out):
    fetch(published, out)
    (out / "heads.safetensors").write_bytes(b"other")
    with pytest.raises(WeightsError, match=r"heads.safetensors: expected SHA-256 .* first delete") as error:
        fetch(published, out)
    assert_one_line(error)


@pytest.mark.parametrize("fault", ["redirect", "500", "503", "429", "truncate", "hang up"])
def test_a_passing_fault_is_overcome(server, tmp_path, fault):
    path = f"/files/{UNET}"
    server.faults[path] = [fault] * (1 if fault == "redirect" else 2)
    download(server.url + path, tmp_path / "unet.part", maximum_bytes=MOST)
    assert (tmp_path / "unet.part").read_bytes() == server.content[path]


def test_passing_faults_on_every_address_are_overcome_in_one_fetch(published, server, out):
    server.faults = {RECORD: ["500", "redirect"], f"/files/{UNET}": ["truncate"], f"/files/{CT}": ["hang up", "503"]}
    fetch(published, out)
    assert_whole(out)


# Resuming


def test_a_truncated_download_goes_on_where_it_broke_off(published, server, out):
    server.faults[f"/files/{CT}"] = ["truncate"]
    fetch(published, out)
    body = server.content[f"/files/{CT}"]
    assert server.asked(CT) == [None, f"bytes={len(body) // 2}-"]
    assert server.sent[f"/files/{CT}"] == len(body)
    assert_whole(out)


def test_a_server_that_ignores_ranges_sends_the_file_again(published, server, out):
    server.ranges = False
    server.faults[f"/files/{CT}"] = ["truncate"]
    fetch(published, out)
    assert server.sent[f"/files/{CT}"] > len(server.content[f"/files/{CT}"])
    assert_whole(out)


@pytest.mark.slow
def test_a_killed_download_resumes_and_only_the_rest_is_sent(server, tmp_path):
    path, body = f"/files/{CT}", server.content[f"/files/{CT}"]
    server.faults[path] = ["stall"]
    part = tmp_path / "ct.part"
    call = f"download({server.url + path!r}, Path({str(part)!r}), maximum_bytes={MOST})"
    code = f"from balaitous.weights.download import *; {call}"
    process = subprocess.Popen([sys.executable, "-c", code])
    wait_until(lambda: part.exists() and part.stat().st_size >= 1 << 20, process)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = part.stat().st_size
    assert 0 < kept < len(body)
    server.sent.clear()
    download(server.url + path, part, maximum_bytes=MOST)
    assert part.read_bytes() == body
    assert server.asked(CT)[-1] == f"bytes={kept}-"
    assert server.sent[path] == len(body) - kept


def test_an_interrupted_fetch_goes_on_from_what_it_had(published, server, out):
    def interrupt(name, done, total):
        if name == CT and done > 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(published, out, on_progress=interrupt)
    assert not out.exists()
    server.requests.clear()
    fetch(published, out)
    assert server.asked(UNET) == []  # it was whole and verified
    assert server.asked(CT)[0].startswith("bytes=")
    assert_whole(out)


def test_a_file_that_changed_in_between_is_not_mixed(server, tmp_path):
    path, part = f"/files/{CT}", tmp_path / "ct.part"
    server.faults[path] = ["truncate", "404"]
    with pytest.raises(WeightsError, match="404"):
        download(server.url + path, part, maximum_bytes=MOST)
    server.content[path] = bytes(reversed(server.content[path]))
    download(server.url + path, part, maximum_bytes=MOST)
    assert part.read_bytes() == server.content[path]


@pytest.mark.parametrize("surplus", [0, 10])
def test_a_part_that_is_already_long_enough_is_settled(server, tmp_path, surplus):
    body, part = server.content[f"/files/{UNET}"], tmp_path / "unet.part"
    part.write_bytes(body + b"?" * surplus)
    download(f"{server.url}/files/{UNET}", part, maximum_bytes=MOST)
    assert part.read_bytes() == body


# When it cannot be had


def test_a_connection_that_keeps_breaking_is_given_up_and_what_came_is_kept(published, server, out):
    server.faults[f"/files/{CT}"] = ["truncate"] + ["hang up"] * 10
    with pytest.raises(WeightsError, match=r"vitl_16_ct.pth could not be downloaded .* bytes are kept") as error:
        fetch(published, out)
    assert_one_line(error)
    assert len(server.asked(CT)) == 1 + download_module.ATTEMPTS - 1
    assert (downloads(out) / f"{CT}.part").stat().st_size > 0
    assert not out.exists()


def test_a_silent_server_is_not_waited_for_without_end(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download_module, "TIMEOUT_S", 0.05)
    server.faults[f"/files/{UNET}"] = ["stall"] * 99  # each sends half of what is left, until that is nothing
    with pytest.raises(WeightsError, match="timed out"):
        download(f"{server.url}/files/{UNET}", tmp_path / "unet.part", maximum_bytes=MOST)


@pytest.mark.parametrize("status", ["401", "403", "404", "410"])
def test_a_refusal_is_not_asked_for_again_and_says_how_to_go_on(published, server, out, status):
    server.faults[f"/files/{CT}"] = [status] * 9
    with pytest.raises(WeightsError, match=f"was refused .HTTP status {status}") as error:
        fetch(published, out)
    assert_one_line(error)
    assert len(server.asked(CT)) == 1
    assert "--from DIR" in str(error.value)


def closed_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def unreachable(published):
    def moved(address):
        return address and re.sub(r":\d+/", f":{port}/", address)

    port = closed_port()
    files = [dataclasses.replace(f, url=moved(f.url), record_api=moved(f.record_api)) for f in published.files]
    return dataclasses.replace(published, files=tuple(files))


def test_offline_says_in_one_line_what_to_do(published, out):
    offline = unreachable(published)
    with pytest.raises(WeightsError, match="Connection refused") as error:
        fetch(offline, out)
    assert_one_line(error)
    for file in offline.files:
        assert file.url in str(error.value)
    assert "balaitous weights fetch tiny --from DIR" in str(error.value)


def broken_records(entries):
    without_ct = [entry for entry in entries if entry["key"] != CT]
    return {
        "no JSON": b"<html>maintenance</html>",
        "no files": b'{"id": 1}',
        "another record": json.dumps({"files": without_ct}).encode(),
        "no checksum": json.dumps({"files": [{"key": CT, "size": 1}]}).encode(),
        "another algorithm": json.dumps({"files": [entry | {"checksum": "crc:0"} for entry in entries]}).encode(),
        "files as text": b'{"files": "none"}',
    }


@pytest.mark.parametrize("fault", broken_records([]))
def test_without_published_hashes_nothing_is_downloaded(published, server, out, fault):
    server.content[RECORD] = broken_records(json.loads(server.content[RECORD])["files"])[fault]
    with pytest.raises(WeightsError, match=r"the hashes to verify vitl_16_ct.pth, .* could not be had") as error:
        fetch(published, out)
    assert_one_line(error)
    assert [path for path, _ in server.requests] == [RECORD]


# When something else arrives


@pytest.mark.parametrize("name", [UNET, CT, IMAGENET])
def test_a_corrupt_file_is_deleted_and_the_next_fetch_mends_it(published, server, out, name):
    server.faults[f"/files/{name}"] = ["corrupt"]
    with pytest.raises(WeightsError, match=f"{name}.part: expected .* It was deleted; fetch again") as error:
        fetch(published, out)
    assert_one_line(error)
    assert "--from DIR" not in str(error.value)
    assert not out.exists()
    assert not list(downloads(out).glob(f"{name}*"))
    fetch(published, out)
    assert_whole(out)


def test_a_longer_file_is_refused(published, server, out):
    server.content[f"/files/{CT}"] += b"surplus"
    with pytest.raises(WeightsError, match=r"expected at most [\d,]+ bytes, found [\d,]+. It is not the published"):
        fetch(published, out)
    assert not (downloads(out) / f"{CT}.part").exists()


def test_an_encrypted_address_is_never_left_for_an_open_one(server, tmp_path, monkeypatch):
    # what is encrypted for the one who downloads is plain for our server
    monkeypatch.setattr("http.client.HTTPSConnection.connect", http.client.HTTPConnection.connect)
    path, part = f"/files/{UNET}", tmp_path / "unet.part"
    address = server.url.replace("http:", "https:") + path
    server.faults[path] = ["redirect"]
    with pytest.raises(WeightsError, match=r"https:\S+ redirects to http:\S+, which is not encrypted; not followed"):
        download(address, part, maximum_bytes=MOST)
    assert server.sent == {}
    assert not part.exists()
    server.faults[path] = ["redirect encrypted"]
    download(address, part, maximum_bytes=MOST)
    assert part.read_bytes() == server.content[path]
    assert [asked for asked, _ in server.requests][-1] == f"/elsewhere{path}"


# Files copied by hand


def test_files_copied_by_hand_are_verified_packed_and_left_alone(published, server, by_hand, out):
    before = {path: path.read_bytes() for path in by_hand.iterdir()}
    fetch(published, out, from_dir=by_hand)
    assert_whole(out)
    assert [path for path, _ in server.requests] == [RECORD]
    assert all("MD5" in e["verified"] for e in open_bundle(out).training["made_from"] if e["file"] != UNET)
    assert {path: path.read_bytes() for path in by_hand.iterdir()} == before


def test_without_network_files_copied_by_hand_are_checked_as_far_as_can_be_and_it_is_said(
    published, by_hand, out, caplog
):
    fetch(unreachable(published), out, from_dir=by_hand)
    assert_whole(out)
    verified = {entry["file"]: entry["verified"] for entry in open_bundle(out).training["made_from"]}
    assert "SHA-256" in verified[UNET]
    assert verified[CT] == verified[IMAGENET] == "keys and shapes only"
    assert sum("keys and shapes only" in record.message for record in caplog.records) == 2


def test_a_download_and_a_copy_make_the_same_bundle(published, by_hand, out, tmp_path):
    first = fetch(published, out)
    second = fetch(published, tmp_path / "other" / "tiny", from_dir=by_hand)
    assert open_bundle(first).sha256 == open_bundle(second).sha256


def test_missing_copies_are_named_with_their_addresses(published, tmp_path, out):
    (tmp_path / UNET).touch()
    with pytest.raises(WeightsError, match=f"found no {CT}, {IMAGENET}") as error:
        fetch(published, out, from_dir=tmp_path)
    assert_one_line(error)
    assert published.files[1].url in str(error.value)


@pytest.mark.parametrize("online", [True, False])
def test_a_copy_of_another_file_is_refused_and_kept(published, by_hand, tmp_path, out, online):
    copies = tmp_path / "copies"
    copies.mkdir()
    for name in (UNET, CT, IMAGENET):
        (copies / name).write_bytes((by_hand / name).read_bytes())
    torch.save(vit_state(9), copies / (CT if online else UNET))
    with pytest.raises(WeightsError, match="expected") as error:
        fetch(published if online else unreachable(published), out, from_dir=copies)
    assert_one_line(error)
    assert (copies / CT).exists()
    assert not out.exists()


# Where it goes


def test_a_full_disk_is_foreseen(published, server, out):
    large = [dataclasses.replace(file, size_bytes=10**18) for file in published.files]
    with pytest.raises(WeightsError, match="GB of free disk, found") as error:
        fetch(dataclasses.replace(published, files=tuple(large)), out)
    assert_one_line(error)
    assert server.asked(UNET) == []


def test_a_second_process_is_turned_away(published, server, out):
    downloads(out).mkdir(parents=True)
    with Lock(downloads(out)):
        with pytest.raises(WeightsError, match="another process is fetching") as error:
            fetch(published, out)
        assert_one_line(error)
    fetch(published, out)
    assert_whole(out)


def test_what_a_user_put_beside_the_downloads_stays(published, out):
    downloads(out).mkdir(parents=True)
    (downloads(out) / "mine.txt").write_text("precious")
    fetch(published, out)
    assert [path.name for path in downloads(out).iterdir()] == ["mine.txt"]


def test_an_occupied_folder_is_refused_before_anything_is_downloaded(published, server, out):
    out.mkdir(parents=True)
    (out / "mine.txt").touch()
    with pytest.raises(ValueError, match="new or empty folder"):
        fetch(published, out)
    assert server.requests == []


def test_a_place_that_cannot_be_written_is_named(published, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WeightsError, match="cannot be written"):
        fetch(published, tmp_path / "file" / "tiny")


def test_the_default_place_is_the_repository_or_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("BALAITOUS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(search_module, "PACKAGE", tmp_path / "site-packages" / "balaitous")
    assert default_folder("stoic") == tmp_path / "cache" / "stoic"
    (tmp_path / "site-packages" / "resources").mkdir(parents=True)
    assert default_folder("stoic") == tmp_path / "site-packages" / "resources" / "stoic"


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"name must be one of stoic\. Got 'mini'"):
        fetch("mini")


def test_every_published_file_can_be_verified_and_travels_encrypted():
    for bundle in PUBLISHED.values():
        assert {file.network for file in bundle.files} == {"lung_unet", "encoder_full", "encoder_lung"}
        for file in bundle.files:
            assert (file.sha256_prefix is None) != (file.record_api is None)
            assert file.url.startswith("https://")
            assert file.name in file.url
            assert file.licence
            assert file.citation
