#!/usr/bin/env python3
"""Mainstem and Apache Kafka under the same load of the same client, librdkafka, in one run: `make bench-kafka`.

Both are started here with fresh directories on the same disk, and are loaded in turn, ROUNDS times; the best round of each
counts, and the round with the median p99. Rows go to target/bench/kafka.json; docs/benchmarks.md says what they mean. Kafka's
half needs Java and Maven; without them it is left out, with its reason.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True  # nothing stays in the tree

import environment

environment.enter()

import confluent_kafka.admin as admin

import programs

VERSION = "4.3.1"
ROUNDS = int(os.environ.get("ROUNDS") or 3)
SECONDS = int(os.environ.get("SECONDS") or 6)
RATE_SECONDS = 2 * SECONDS
WARM_UP_SECONDS = 4
PARTITIONS = [1, 100]
READ = 400_000
START_S = 60


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Mainstem:
    name = "Mainstem"

    def __init__(self):
        self.server = environment.Server()
        self.server.start()
        self.address, self.pid = self.server.kafka, self.server.process.pid

    def stop(self):
        self.server.stop()


class Kafka:
    """One KRaft node, with the settings of `bin/kafka-server-start.sh` and the defaults of the broker."""

    name = "Kafka"

    def __init__(self):
        self.home = tempfile.TemporaryDirectory(prefix="kafka-bench-")
        home = Path(self.home.name)
        broker, controller = free_ports(2)
        self.address = f"127.0.0.1:{broker}"
        (home / "server.properties").write_text(f"""
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{broker}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={home}/data
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
""")
        path = programs.jars("tools.xml", VERSION, programs.BUILT / f"tools-{VERSION}")
        java = ["java", "-server", "-Xmx1G", "-Xms1G", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20",
                "-XX:InitiatingHeapOccupancyPercent=35", "-XX:+ExplicitGCInvokesConcurrent", "-cp", path]
        environment.run([*java, "kafka.tools.StorageTool", "format", "--cluster-id", "bWFpbnN0ZW1iZW5jaG1hcg", "--config",
                         home / "server.properties"])
        with open(home / "log", "wb") as log:
            self.process = subprocess.Popen([*java, "kafka.Kafka", home / "server.properties"], stdout=log, stderr=log,
                                            preexec_fn=environment.with_parent)
        self.pid = self.process.pid

    def stop(self):
        self.process.terminate()
        self.process.wait(START_S)
        self.home.cleanup()


def free_ports(count):
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def create(system, topic, partitions, **config):
    client = admin.AdminClient({"bootstrap.servers": system.address, "log_level": 0})
    end = time.monotonic() + START_S
    while True:
        try:
            return client.create_topics([admin.NewTopic(topic, partitions, 1, config=config)])[topic].result(START_S)
        except Exception:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


def delete(system, topic):
    client = admin.AdminClient({"bootstrap.servers": system.address, "log_level": 0})
    client.delete_topics([topic])[topic].result(START_S)


def load(system, verb, topic, partitions, much, kind=""):
    """What the client says of it, with the processor time of both sides for a record, in microseconds."""
    before = cpu_seconds(system.pid)
    program = programs.RdKafka.built().with_name("load")
    client = subprocess.Popen([program, verb, system.address, topic, str(partitions), str(much)], stdout=subprocess.PIPE,
                              preexec_fn=environment.with_parent)
    said = client.stdout.read()
    _, status, usage = os.wait4(client.pid, 0)
    client.stdout.close()
    assert status == 0, f"load {verb} against {system.name} failed"
    found = json.loads(said)
    found["rate"] = found["records"] / found["seconds"]
    found["client_us"] = (usage.ru_utime + usage.ru_stime) * 1e6 / found["records"]
    found["server_us"] = (cpu_seconds(system.pid) - before) * 1e6 / found["records"]
    print(f"  {system.name}{kind}: {verb} {topic}: " + ", ".join(f"{key} {value:,.1f}" for key, value in found.items()), file=sys.stderr)
    return found


def syncs(seconds=3):
    """4 KiB overwrites of a file that was written through, each followed by fdatasync: the median and p99, in microseconds."""
    with tempfile.NamedTemporaryFile(prefix="sync-") as file:
        size = 64 << 20
        os.pwrite(file.fileno(), bytes(size), 0)
        os.fsync(file.fileno())
        block, taken, at, end = b"\xa5" * 4096, [], 0, time.monotonic() + seconds
        while time.monotonic() < end:
            begun = time.perf_counter()
            os.pwrite(file.fileno(), block, at)
            os.fdatasync(file.fileno())
            taken.append(time.perf_counter() - begun)
            at = (at + 4096) % size
            # As many a second as there are records.
            time.sleep(max(0, 0.001 - taken[-1]))
    quantile = lambda part: sorted(taken)[int((len(taken) - 1) * part)] * 1e6
    return {"sync_p50_us": quantile(0.5), "sync_p99_us": quantile(0.99)}


def measure(system, flush=False):
    """One round: the figures of each load by its name."""
    config, kind = ({"flush.messages": "1"}, ", flush.messages=1") if flush else ({}, "")
    found = {}
    for partitions in PARTITIONS:
        topic = f"load-{partitions}"
        create(system, topic, partitions, **config)
        found[f"produce {partitions}"] = load(system, "produce", topic, partitions, SECONDS, kind)
        if not flush:
            there = found[f"produce {partitions}"]["records"]
            found[f"consume {partitions}"] = load(system, "consume", topic, partitions, min(there, READ))
        delete(system, topic)
    create(system, "rate", 1, **config)
    before = syncs()
    found["rate"] = load(system, "rate", "rate", 1, RATE_SECONDS, kind)
    after = syncs()
    found["rate"].update({name: max(before[name], after[name]) for name in before})
    delete(system, "rate")
    create(system, "tail", 1, **config)
    found["tail"] = load(system, "tail", "tail", 1, RATE_SECONDS, kind)
    delete(system, "tail")
    return found


def best(rounds, name):
    """The best round of a load; of latencies the middle one."""
    found = [one[name] for one in rounds]
    if name in ("rate", "tail"):
        return sorted(found, key=lambda one: one["p99_us"])[len(found) // 2]
    return max(found, key=lambda one: one["rate"])


def row(name, value, unit, limit=None, aim=None):
    """More is better, but for a latency: its ratio is limit by value."""
    ratio = None if limit is None else limit / value if unit == "ms" else value / limit
    return {"name": name, "layer": "kafka", "value": value, "unit": unit, "limit": limit, "ratio": ratio, "aim": aim}


def rows(ours, theirs, flushed):
    out = []
    for partitions in PARTITIONS:
        name = f"Kafka clients: produce, 1 KiB, acks=all, {partitions} partition{'s' if partitions > 1 else ''}"
        key, aim = f"produce {partitions}", 1.0 if partitions == 1 else 1.2
        mine = best(ours, key)
        against = lambda rounds: best(rounds, key)["rate"] if rounds else None
        out.append(row(f"{name}, against Kafka's default", mine["rate"], "records/s", against(theirs), aim))
        out.append(row(f"{name}, against Kafka's flush.messages=1", mine["rate"], "records/s", against(flushed),
                       4.0 if partitions > 1 else None))
        for quantile, label in [("p50_us", "p50"), ("p99_us", "p99"), ("p999_us", "p99.9")]:
            other = best(theirs, key)[quantile] / 1e3 if theirs else None
            out.append(row(f"{name}: {label}, against Kafka's default", mine[quantile] / 1e3, "ms", other))
        for side in ("client", "server"):
            out.append(row(f"{name}: processor time of the {side}", mine[f"{side}_us"], "µs/record"))
            if theirs:
                out.append(row(f"{name}: processor time of the {side}, Kafka", best(theirs, key)[f"{side}_us"], "µs/record"))
    for partitions in PARTITIONS:
        name = f"Kafka clients: consume, 1 KiB, {partitions} partition{'s' if partitions > 1 else ''}"
        mine = best(ours, f"consume {partitions}")
        other = best(theirs, f"consume {partitions}") if theirs else None
        out.append(row(f"{name}, against Kafka", mine["rate"], "records/s", other and other["rate"], 1.0))
        for side in ("client", "server"):
            out.append(row(f"{name}: processor time of the {side}", mine[f"{side}_us"], "µs/record"))
    name, mine = "Kafka clients: 1,000 records/s, linger 0", best(ours, "rate")
    for quantile, label in [("p50_us", "p50"), ("p99_us", "p99"), ("p999_us", "p99.9")]:
        sync = mine.get(f"sync_{quantile}")
        against = ", against a sync of the same minute" if sync else ""
        limit, aim = sync and sync / 1e3, 0.33 if label == "p99" else None
        out.append(row(f"{name}: {label}{against}", mine[quantile] / 1e3, "ms", limit, aim))
        for kind, rounds in [("Kafka's default", theirs), ("Kafka's flush.messages=1", flushed)]:
            if rounds:
                out.append(row(f"{name}: {label}, {kind}", best(rounds, "rate")[quantile] / 1e3, "ms"))
    name, mine = "Kafka clients: 1,000 records/s, followed by a consumer", best(ours, "tail")
    for quantile, label in [("p50_us", "p50"), ("p99_us", "p99"), ("p999_us", "p99.9")]:
        out.append(row(f"{name}: {label} until it is read", mine[quantile] / 1e3, "ms"))
        for kind, rounds in [("Kafka's default", theirs), ("Kafka's flush.messages=1", flushed)]:
            if rounds:
                out.append(row(f"{name}: {label} until it is read, {kind}", best(rounds, "tail")[quantile] / 1e3, "ms"))
    return out


def main():
    reason = programs.Java(VERSION).why_not() or programs.RdKafka("rdkafka").why_not()
    systems = [Mainstem()]
    if reason:
        print(f"bench-kafka: without Kafka's half: {reason}", file=sys.stderr)
    else:
        systems.append(Kafka())
    ours, theirs, flushed = [], [], []
    try:
        for system in systems:
            # A JVM compiles what it runs; both get the same.
            create(system, "warm-up", 1)
            load(system, "produce", "warm-up", 1, WARM_UP_SECONDS)
            delete(system, "warm-up")
        for number in range(ROUNDS):
            print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
            ours.append(measure(systems[0]))
            if len(systems) > 1:
                theirs.append(measure(systems[1]))
                flushed.append(measure(systems[1], flush=True))
    finally:
        for system in systems:
            system.stop()
    folder = environment.TARGET / "bench"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kafka.json").write_text(json.dumps(rows(ours, theirs, flushed), indent=1))


if __name__ == "__main__":
    main()
