"""The short-lived program beside the custodian: it loads pandas, runs the pipeline, prints its report and is gone.

Run as `python -m emlab.apps.job --run RUN_DIR --data DATABASE_DIR` while the cloud's mongod answers. Reads the request
and prints the report (exit 0) or a problem document (exit 1), all as JSON. `run_pipeline` is the custodian's end of it
and loads nothing more.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import subprocess
import sys
import uuid
from pathlib import Path

import msgspec

from emlab import provision as provisioning
from emlab.errors import EmlabError, StoreError
from emlab.intake.report import IntakeReport
from emlab.mongod import Mongod, die_with
from emlab.wire import problem
from emlab.wire.table import RunPipeline

log = logging.getLogger("emlab.apps.job")
MODULE = "emlab.apps.job"
TIMEOUT_S = 3_600.0
LOWER_PRIORITY = 5  # answers to asks come first


def run_pipeline(request: RunPipeline, run_dir: Path, data_dir: Path, *, timeout_s: float = TIMEOUT_S) -> IntakeReport:
    """The report of a job that has ended. It dies with this process.

    Raises:
        EmlabError: what the job says; StoreError if it died without a word or took longer than `timeout_s`.
    """
    options = sys.orig_argv[1 : sys.orig_argv.index("-m")] if "-m" in sys.orig_argv else []
    command = [sys.executable, *options, "-m", MODULE, "--run", str(run_dir), "--data", str(data_dir)]
    try:
        done = subprocess.run(
            command,
            input=msgspec.json.encode(request),
            stdout=subprocess.PIPE,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            timeout=timeout_s,
            check=False,
            preexec_fn=die_with(os.getpid()),  # one system call, no lock
        )
    except subprocess.TimeoutExpired as exc:
        raise StoreError(f"the pipeline did not end within {timeout_s:g} s; what it had finished is kept") from exc
    if done.returncode == 0:
        return msgspec.json.decode(done.stdout, type=IntakeReport)
    if done.returncode == 1 and done.stdout:
        raise problem.decode(500, done.stdout)
    raise StoreError(f"the pipeline died with status {done.returncode}; what it had finished is kept")


def main(argv: list[str] | None = None) -> int:
    """Run the pipeline once; returns the exit status."""
    parser = argparse.ArgumentParser(prog=MODULE, description="Turns a user cloud's raw entries into trips.")
    parser.add_argument("--run", type=Path, required=True, help="run directory: provision.json and the sockets")
    parser.add_argument("--data", type=Path, required=True, help="where mongod keeps its files")
    where = parser.parse_args(argv)
    os.nice(LOWER_PRIORITY)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        request = msgspec.json.decode(sys.stdin.buffer.read(), type=RunPipeline)
        reply, status = msgspec.json.encode(digest(request, where.run, where.data)), 0
    except EmlabError as exc:
        reply, status = problem.encode(exc)[1], 1
    except Exception as exc:
        log.error("the pipeline failed with %s", problem.anonymous(exc))
        failed = StoreError(f"the pipeline failed with {type(exc).__name__}; what it had finished is kept")
        reply, status = problem.encode(failed)[1], 1
    sys.stdout.buffer.write(reply)
    return status


def digest(request: RunPipeline, run_dir: Path, data_dir: Path) -> IntakeReport:
    """The pipeline has run on the cloud's own mongod. Raises EmlabError."""
    from emlab import pipeline
    from emlab.store import MongoStore

    gc.disable()  # the process is gone before what it would collect matters
    provision = provisioning.read(run_dir)
    mongod = Mongod(data_dir, run_dir)  # the custodian's child; here it only says where to find it
    with mongod.client() as client:
        return pipeline.digest(MongoStore(client, uuid.UUID(provision.cloud), data_dir=data_dir), request.lines)


if __name__ == "__main__":
    sys.exit(main())
