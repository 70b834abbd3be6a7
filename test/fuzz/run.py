"""Fuzz the reader: `python test/fuzz/run.py --seconds 60 [TARGET…]`.

Coverage-guided by atheris where it is installed (`pip install atheris`), else with seeded mutations. Each target runs
in a process of its own with little memory; an input that ends the process, takes longer than ten seconds or more memory
than it should, or raises anything but an InputError is kept below --findings. To try one again: --again FILE TARGET.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import importlib.util
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent.parent)]

TARGETS = ("metaimage", "nrrd", "nifti", "dicom", "enhanced", "archive", "sidecar", "pictures")
SECONDS_AN_INPUT = 10
RESIDENT_MIB, DATA_BYTES = 1500, 4 * 2**30
MAXIMUM_FINDINGS = 20  # of a target, then something is wrong enough


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; all if none is given")
    parser.add_argument("--seconds", type=float, default=60, help="for each target")
    parser.add_argument(
        "--findings", type=Path, default=Path("fuzz_findings"), help="folder for inputs that were found"
    )
    parser.add_argument("--plain", action="store_true", help="seeded mutations even where atheris is installed")
    parser.add_argument("--again", type=Path, metavar="FILE", help="run one input")
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)  # the process that fuzzes; its first mutation
    options = parser.parse_args()
    targets = options.targets or list(TARGETS)
    if unknown := set(targets) - set(TARGETS):
        parser.error(f"target must be of {', '.join(TARGETS)}. Got {', '.join(unknown)} instead.")
    if options.again:
        with tempfile.TemporaryDirectory() as folder:
            importlib.import_module(f"fuzz.{targets[0]}").check(options.again.read_bytes(), Path(folder))
        return 0
    if options.first is not None:
        fuzz(targets[0], options.first, options.seconds, options.plain)
        return 0
    return 1 if sum(watch(target, options.seconds, options.findings, options.plain) for target in targets) else 0


def watch(target: str, seconds: float, findings: Path, plain: bool) -> int:
    """Run one target, again after each finding; returns how many there were."""
    end, first, count, inputs = time.monotonic() + seconds, 0, 0, 0
    while (left := end - time.monotonic()) > 1 and count < MAXIMUM_FINDINGS:
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, __file__, target, "--first", str(first), "--seconds", str(left)]
            done = subprocess.run(
                command + ["--plain"] * plain,
                cwd=folder,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
            )
            tried = Path(folder, "tried")
            last = int(tried.read_text()) if tried.exists() else 0
            inputs, first = inputs + last - first, last + 1
            if done.returncode:
                count += 1
                findings.mkdir(exist_ok=True)
                kept = findings / f"{target}-{time.time_ns()}"
                shutil.copyfile(Path(folder, "input"), kept)
                print(f"{target}: FOUND {kept} (exit {done.returncode})\n{done.stdout[-3000:]}", flush=True)
    print(f"{target}: {inputs:,} inputs in {seconds:g} s, {count} findings", flush=True)
    return count


def fuzz(target: str, first: int, seconds: float, plain: bool) -> None:
    """Run one target in this process and its working folder, until the time is over or something is found."""
    resource.setrlimit(resource.RLIMIT_DATA, (DATA_BYTES, DATA_BYTES))
    faulthandler.enable()
    if plain or importlib.util.find_spec("atheris") is None:
        mutate(importlib.import_module(f"fuzz.{target}"), first, seconds)
        return
    import atheris

    with atheris.instrument_imports(include=["balaitous", "pydicom", "zipfile", "fuzz"]):
        module = importlib.import_module(f"fuzz.{target}")
    guide(atheris, module, first, seconds)


def mutate(module: ModuleType, first: int, seconds: float) -> None:
    from fuzz.mutation import mutated

    seeds, end, number = module.seeds(), time.monotonic() + seconds, first
    while time.monotonic() < end:
        once(module, mutated(number, seeds, module.TOKENS), number)
        number += 1


def guide(atheris: ModuleType, module: ModuleType, first: int, seconds: float) -> None:
    corpus = Path("corpus")
    corpus.mkdir()
    for number, seed in enumerate(module.seeds()):
        (corpus / str(number)).write_bytes(seed)
    quoted = ("".join(f"\\x{byte:02x}" for byte in token[:60]) for token in module.TOKENS)
    Path("tokens").write_text("".join(f'"{token}"\n' for token in quoted))
    tried = first

    def one_input(data: bytes) -> None:
        nonlocal tried
        once(module, data, tried)
        tried += 1

    flags = [f"-max_total_time={int(seconds)}", f"-rss_limit_mb={RESIDENT_MIB}", "-dict=tokens", "-max_len=65536"]
    atheris.Setup([sys.argv[0], str(corpus), *flags, f"-seed={first + 1}"], one_input)
    atheris.Fuzz()


def once(module: ModuleType, data: bytes, number: int) -> None:
    """One input, kept in a file for the case that the process does not survive it."""
    Path("input").write_bytes(data)
    Path("tried").write_text(str(number))
    folder = Path("scan")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    faulthandler.dump_traceback_later(SECONDS_AN_INPUT, exit=True)
    module.check(data, folder)
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    sys.exit(main())
