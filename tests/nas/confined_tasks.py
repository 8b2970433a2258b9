"""What test_confined.py runs in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np


def double(request: Any, images: np.ndarray) -> Any:
    return request, {"images": 2 * images}


def refuse(request: Any) -> Any:
    raise ValueError("not like this\nin two lines")


def crash(request: Any) -> Any:
    os.kill(os.getpid(), signal.SIGSEGV)


def leave(request: Any) -> Any:
    os._exit(0)


def eat(request: Any) -> Any:
    return np.ones(2**34).sum(), {}


def fill(request: Any) -> Any:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    Path("large").write_bytes(bytes(2**21))


def hang(request: Any) -> Any:
    time.sleep(600)


def lie(request: Any) -> Any:
    Path("answer.json").write_text("[1")
    os._exit(0)


def escape(request: Any) -> Any:
    arrays = {"../x": {"dtype": "<f4", "shape": [1]}}
    Path("answer.json").write_text(json.dumps({"document": None, "arrays": arrays}))
    os._exit(0)


def multiply(request: Any) -> Any:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    path = Path(request["path"])
    path.with_suffix(".part").write_text(str(child.pid))
    path.with_suffix(".part").rename(path)
    child.wait()
