"""Stands for `dsonas_hw.study.job` in tests of the scheduler: what a job does is in its name.

Every start appends a line to `starts`; SIGTERM leaves a file `checkpoint`, as a real job does.
"""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path


def watch() -> None:
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)


def checkpoint(number: int, frame: object) -> None:
    (folder / "checkpoint").touch()
    sys.exit(130)


folder = Path(sys.argv[1])
signal.signal(signal.SIGTERM, checkpoint)
signal.signal(signal.SIGINT, lambda number, frame: (folder / "interrupted").touch())
threading.Thread(target=watch, daemon=True).start()
with open(folder / "starts", "a") as file:
    file.write(f"{os.getpid()}\n")
(folder / "place").write_text(f"{os.getcwd()} {os.environ['DSONAS_HW_HOME']} {os.environ['OMP_NUM_THREADS']}")
num_starts = len((folder / "starts").read_text().splitlines())
needs = json.loads((folder / "job.json").read_text())["needs"]
if needs and not (folder.parent / needs / "result.json").exists():
    sys.exit("started too early")
name = folder.name
if "wrong" in name:
    print("one line\nthe budget cannot be met", flush=True)
    sys.exit(2)
if "bug" in name:
    raise RuntimeError("a bug")
if "killed-always" in name or ("killed-once" in name and num_starts == 1):
    os.kill(os.getpid(), signal.SIGKILL)
if "orphaned-once" in name and num_starts == 1:
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
while "slow" in name and not (folder / "checkpoint").exists():
    time.sleep(0.02)
(folder / "result.json").write_text(json.dumps({"name": name}))
