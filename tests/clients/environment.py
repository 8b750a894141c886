"""What the clients need: a virtual environment inside the checkout, and a server that ends with its test."""

import ctypes
import functools
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).absolute()
BINARY = TARGET / "release" / "mainstem"
START_TIMEOUT_S = 60
RUN_TIMEOUT_S = 90


def enter():
    """Goes on in the virtual environment, made anew where the requirements have changed."""
    requirements = HERE / "requirements.txt"
    digest = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:16]
    folder = ROOT / "target" / "clients" / digest
    python = folder / "bin" / "python"
    if Path(sys.prefix) == folder:
        return
    if not (folder / "ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        print(f"clients: making {folder.relative_to(ROOT)}", file=sys.stderr, flush=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"]
        subprocess.run([*install, "-r", requirements], check=True)
        (folder / "ready").touch()
    os.execv(python, [python, *sys.argv])


def run(command, text=""):
    """What a program prints; it gets `text`, and must succeed."""
    done = subprocess.run(command, input=text.encode(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=RUN_TIMEOUT_S)
    assert done.returncode == 0, f"{command[0]} ended with {done.returncode}: {done.stderr.decode()[-2000:]}"
    return done.stdout.decode()


@functools.cache
def go_program():
    """The program in `go`, built."""
    program = ROOT / "target" / "clients" / "go-clients"
    subprocess.run(["go", "build", "-o", program, "."], cwd=HERE / "go", check=True)
    return program


@functools.cache
def java_classes(version, program="Clients"):
    """The class path of a program in `java`, built with this version of Kafka's client."""
    folder = ROOT / "target" / "clients" / f"java-{version}"
    jars, classes = folder / "jars", folder / program
    subprocess.run(["mvn", "--quiet", "--batch-mode", "-f", HERE / "java" / "pom.xml", "dependency:copy-dependencies",
                    f"-Dkafka.version={version}", f"-DoutputDirectory={jars}"], check=True, stdout=sys.stderr)
    path = f"{classes}{os.pathsep}{jars}/*"
    subprocess.run(["javac", "-d", classes, "-cp", path, HERE / "java" / f"{program}.java"], check=True)
    return path


def with_parent():
    """Runs in a child: it dies with the test, however that ends."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class Server:
    """The real binary on free ports, in a directory of its own."""

    def __init__(self, *settings):
        self.home = tempfile.TemporaryDirectory(prefix="mainstem-clients-")
        self.settings = [word for setting in settings for word in ("--set", setting)]
        self.kafka = "127.0.0.1:0"
        self.start()

    def start(self):
        # As many connections as the machine allows.
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MAINSTEM_")}
        with open(Path(self.home.name) / "log", "ab") as log:
            self.process = subprocess.Popen(
                [BINARY, "serve", "--data-dir", Path(self.home.name) / "data", "--listen-grpc", "127.0.0.1:0",
                 "--listen-http", "127.0.0.1:0", "--listen-kafka", self.kafka, "--log", "info", *self.settings],
                stdout=subprocess.PIPE, stderr=log, env=environment, preexec_fn=with_parent)
            resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, (most, most))
        line = self.process.stdout.readline().decode()
        assert line.startswith("ready "), f"no ready line but {line!r}; {self.log()}"
        self.ready = json.loads(line[len("ready "):])
        self.kafka = self.ready["kafka"]

    def kill(self):
        """As a crash does it; `start` goes on in the same directory and at the same address."""
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def resident_bytes(self):
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def log(self):
        return (Path(self.home.name) / "log").read_text()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(START_TIMEOUT_S)
        self.process.stdout.close()
        self.home.cleanup()
