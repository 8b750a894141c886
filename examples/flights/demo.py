#!/usr/bin/env python3
"""The demo: the departures of New York's airports, exactly once through kill -9.

It streams the file into a topic, lets the handler of this folder process it, kills the server again and again while
records are unacknowledged and the handler lags, and then compares everything with the file and with a recount made
here, which shares no code with the handler. Any mismatch ends it with an error. Standard library only.
"""

import argparse
import csv
import ctypes
import gzip
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
from collections import defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SCHEMA = (
    "year:int, month:int, day:int, dep_time:int, sched_dep_time:int, dep_delay:int, arr_time:int, "
    "sched_arr_time:int, arr_delay:int, carrier:text, flight:int, tailnum:text, origin:text, dest:text, "
    "air_time:int, distance:int, hour:int, minute:int, time_hour:timestamp"
)
TEXT_COLUMNS = {"carrier", "tailnum", "origin", "dest", "time_hour"}
PARTITIONS = 4
STEPS = 10
FROM_STATE = """
    SELECT carrier, CAST(sum(departed) AS BIGINT) AS departures,
           CAST(sum(dep_delay_sum) AS DOUBLE) / CAST(sum(departed) AS DOUBLE) AS mean_delay
    FROM state.flights WHERE _table = 'days' AND departed > 0
    GROUP BY carrier ORDER BY mean_delay DESC, carrier LIMIT 10"""
FROM_TOPIC = """
    SELECT carrier, count(dep_delay) AS departures, avg(dep_delay) AS mean_delay
    FROM flights WHERE dep_delay IS NOT NULL
    GROUP BY carrier ORDER BY mean_delay DESC, carrier LIMIT 10"""


class Mismatch(Exception):
    """What was found is not what must be."""


def check(condition, message):
    if not condition:
        raise Mismatch(message)


class Story:
    """Says which step is under way, with the time so far."""

    def __init__(self):
        self.begun = time.monotonic()
        self.number = 0

    def step(self, text):
        self.number += 1
        print(f"\nstep {self.number} of {STEPS}, {self.elapsed()}: {text}", flush=True)

    def say(self, text):
        print(f"    {text}", flush=True)

    def elapsed(self):
        return f"{time.monotonic() - self.begun:.1f} s"


def with_parent():
    """Runs in a child: it dies with the demo, however that ends."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


class Server:
    """The server under test: started, killed, started again on the same directory and ports."""

    def __init__(self, binary, data_dir):
        self.binary, self.data_dir = binary, data_dir
        self.grpc = self.http = self.kafka = "127.0.0.1:0"
        self.process = None
        self.ready = None

    def start(self):
        log = open(self.data_dir.with_suffix(".log"), "ab")
        command = [self.binary, "serve", "--data-dir", self.data_dir, "--listen-grpc", self.grpc, "--listen-http", self.http,
                   "--listen-kafka", self.kafka]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, preexec_fn=with_parent)
        log.close()
        line = self.process.stdout.readline().decode()
        check(line.startswith("ready "), f"the server did not become ready; see {log.name}")
        self.ready = json.loads(line[len("ready "):])
        self.grpc, self.http, self.kafka = self.ready["grpc"], self.ready["http"], self.ready["kafka"]

    def freeze(self):
        self.process.send_signal(signal.SIGSTOP)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def stop(self):
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Mismatch("the server did not stop within 30 s of SIGTERM") from None
        check(self.process.returncode == 0, f"the server stopped with exit code {self.process.returncode}")

    def lag(self):
        """Events that the handler has yet to process, as the server's metrics have it; None while it has no say."""
        try:
            with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=2) as page:
                found = re.search(r'^mainstem_handler_lag_events\{[^}]*handler="flights"[^}]*\} (\d+)', page.read().decode(), re.M)
        except OSError:
            return None
        return int(found.group(1)) if found else None

    def run(self, *arguments, timeout=120):
        """One command against the server; its output."""
        command = [self.binary, *arguments, "--server", self.grpc, "--output", "json"]
        done = subprocess.run(command, capture_output=True, timeout=timeout, preexec_fn=with_parent)
        check(done.returncode == 0, f"`mainstem {' '.join(map(str, arguments))}` failed: {done.stderr.decode().strip()}")
        return done.stdout.decode()

    def rows(self, *arguments):
        """One command whose output is one JSON object a line."""
        return [json.loads(line) for line in self.run(*arguments).splitlines()]


class Producer:
    """`mainstem produce` in the background, paced; follows its progress."""

    LINE = re.compile(r"(\d+) sent, (\d+) acknowledged")

    def __init__(self, server, file, rate):
        command = [
            server.binary, "produce", "flights", file, "--key", "carrier", "--rate", str(rate),
            # Little may wait: while the server is away the producer is too, and the next kill finds both at work.
            "--buffer-bytes", str(512 << 10), "--progress-ms", "10", "--server", server.grpc, "--output", "json",
        ]
        self.changed = threading.Condition()
        self.sent = self.acknowledged = self.lines = 0
        self.errors = []
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=with_parent, text=True
        )
        self.reader = threading.Thread(target=self.follow, daemon=True)
        self.reader.start()

    def follow(self):
        for line in self.process.stderr:
            found = self.LINE.search(line)
            with self.changed:
                if found:
                    self.sent, self.acknowledged = map(int, found.groups())
                    self.lines += 1
                else:
                    self.errors.append(line.strip())
                self.changed.notify_all()
        with self.changed:
            self.changed.notify_all()

    def next_line(self):
        """Waits for the next line of progress: (sent, acknowledged)."""
        with self.changed:
            before = self.lines
            arrived = self.changed.wait_for(lambda: self.lines > before or self.process.poll() is not None, timeout=30)
            check(arrived, "the producer has said nothing for 30 s")
            return self.sent, self.acknowledged

    def running(self):
        return self.process.poll() is None

    def finish(self):
        """Waits for the end; what it says it did."""
        out = self.process.stdout.read()
        self.process.wait()
        self.reader.join()
        check(self.process.returncode == 0, f"the producer failed: {' '.join(self.errors)}")
        return json.loads(out)

    def stop(self):
        if self.running():
            self.process.kill()
            self.process.wait()


def read_rows(file):
    """The file as JSON values: numbers as numbers, `NA` and nothing as null."""
    if file.suffix == ".zip":
        with zipfile.ZipFile(file) as archive:
            text = archive.read(archive.namelist()[0]).decode()
    elif file.suffix == ".gz":
        text = gzip.decompress(file.read_bytes()).decode()
    else:
        text = file.read_text()

    def value(column, text):
        if text in ("", "NA"):
            return None
        return text if column in TEXT_COLUMNS else int(text)

    return [{column: value(column, text) for column, text in row.items()} for row in csv.DictReader(io.StringIO(text))]


def recount(rows):
    """What the handler must have made of the rows: alerts by carrier, running totals by carrier and day."""
    alerts, daily, totals = defaultdict(list), defaultdict(list), {}
    for row in rows:
        date = f"{row['year']:04}-{row['month']:02}-{row['day']:02}"
        carrier, delay = row["carrier"], row["dep_delay"]
        key = f"{carrier} {date}"
        flights, departed, delay_sum = totals.get(key, (0, 0, 0))
        flights += 1
        if delay is not None:
            departed += 1
            delay_sum += delay
            if delay > 120:
                alerts[carrier].append(
                    {
                        "carrier": carrier, "flight": row["flight"], "origin": row["origin"], "dest": row["dest"],
                        "date": date, "sched_dep_time": row["sched_dep_time"], "dep_delay": delay,
                    }
                )
        totals[key] = (flights, departed, delay_sum)
        daily[key].append(
            {
                "carrier": carrier, "date": date, "flights": flights, "departed": departed,
                "cancelled": flights - departed, "dep_delay_sum": delay_sum,
            }
        )
    return alerts, daily, totals


def worst_ten(totals):
    """The answer to the question, from the recount."""
    by_carrier = defaultdict(lambda: [0, 0])
    for key, (_, departed, delay_sum) in totals.items():
        by_carrier[key.split()[0]][0] += departed
        by_carrier[key.split()[0]][1] += delay_sum
    means = [(carrier, departed, delay_sum / departed) for carrier, (departed, delay_sum) in by_carrier.items() if departed]
    return sorted(means, key=lambda row: (-row[2], row[0]))[:10]


# Events that the handler must be behind: it works off some between the look and the kill.
LEAST_LAG = 1_000


def kill_in_the_middle(story, server, producer, number, kills, threshold):
    """Kills the server while records are unacknowledged and the handler lags, and starts it again.

    Returns how many records were acknowledged.
    """
    deadline = time.monotonic() + 60
    while True:
        sent, acknowledged = producer.next_line()
        check(producer.running(), f"the producer ended before kill {number}: {' '.join(producer.errors) or 'the pace is too fast'}")
        check(time.monotonic() < deadline, f"kill {number} found no moment at which the server was busy")
        if acknowledged >= threshold and (server.lag() or 0) >= LEAST_LAG:
            # A frozen server answers nobody: once its last answers are in, what is sent is surely unacknowledged.
            server.freeze()
            for _ in range(3):
                sent, acknowledged = producer.next_line()
            while sent == acknowledged:
                sent, acknowledged = producer.next_line()
            server.kill()
            break
    killed = time.monotonic()
    # No answer can come from the dead: what stands after two more lines is what was acknowledged at the kill.
    producer.next_line()
    _, acknowledged = producer.next_line()
    unacknowledged = sent - acknowledged
    server.start()
    back = time.monotonic() - killed
    recovery = server.ready["recovery"]
    handler = next(handler for handler in recovery["handlers"] if handler["name"] == "flights")
    committed, lag = handler["committed_events"], handler["lag_events"]
    story.say(f"kill {number} of {kills}: {acknowledged:,} records acknowledged, {unacknowledged:,} under way")
    story.say(
        f"  back in {back:.2f} s, {recovery['replayed_frames']:,} frames replayed: the topic has {committed + lag:,}, "
        f"the handler committed {committed:,} and lags by {lag:,}"
    )
    check(unacknowledged > 0, f"kill {number} found nothing unacknowledged")
    check(lag > 0, f"kill {number} found the handler idle")
    check(recovery["replayed_frames"] > 0, f"kill {number}: nothing was replayed")
    check(committed + lag >= acknowledged, f"kill {number}: {acknowledged - committed - lag} acknowledged records are lost")
    return acknowledged


def compare_topic(server, rows):
    """The topic with the file, row for row: each partition holds its carriers' rows, once, in the file's order."""
    partitions = defaultdict(list)
    for record in server.rows("consume", "flights", "--from", "earliest"):
        partitions[record["partition"]].append(record)
    home = {}
    for partition, records in partitions.items():
        offsets = [record["offset"] for record in records]
        check(offsets == list(range(len(records))), f"flights/{partition}: offsets are not dense")
        for record in records:
            check(home.setdefault(record["key"], partition) == partition, f"carrier {record['key']} is in two partitions")
    expected = defaultdict(list)
    for row in rows:
        check(row["carrier"] in home, f"carrier {row['carrier']} is missing")
        expected[home[row["carrier"]]].append(row)
    for partition, records in partitions.items():
        found = [json.loads(record["value"]) for record in records]
        for index, (want, got) in enumerate(zip(expected[partition], found)):
            check(want == got, f"flights/{partition} at offset {index}: the file has {want}, the topic {got}")
        check(len(found) == len(expected[partition]), f"flights/{partition} has {len(found)} rows, the file {len(expected[partition])}")
    return sum(map(len, partitions.values()))


def compare_outputs(server, topic, expected):
    """An output topic with the recount: each key's records, once, in order."""
    found = defaultdict(list)
    for record in server.rows("consume", topic, "--from", "earliest"):
        found[record["key"]].append(json.loads(record["value"]))
    for key in sorted(set(expected) | set(found)):
        want, got = expected.get(key, []), found.get(key, [])
        check(len(want) == len(got), f"{topic}, key {key}: {len(got)} records instead of {len(want)}")
        for index, (one, other) in enumerate(zip(want, got)):
            check(one == other, f"{topic}, key {key}, record {index}: {other} instead of {one}")
    return sum(map(len, found.values()))


def side_by_side(left, right):
    """Two answers as one table."""
    def cells(row):
        return f"{row['carrier']:<8}{row['departures']:>11,}{row['mean_delay']:>12.4f}" if row else " " * 31

    heading = f"{'carrier':<8}{'departures':>11}{'mean delay':>12}"
    lines = [f"{'from the handler’s state':<31}   from the raw topic", f"{heading}   {heading}"]
    for index in range(max(len(left), len(right))):
        one = left[index] if index < len(left) else None
        other = right[index] if index < len(right) else None
        lines.append(f"{cells(one)}   {cells(other)}   {'=' if one == other else 'DIFFERENT'}")
    return lines


def tell(arguments, story, running):
    binary, file, data_dir = arguments.mainstem, arguments.file, arguments.data_dir
    if data_dir.exists():
        # Only what a demo left is thrown away.
        check((data_dir / "meta.json").exists() or not any(data_dir.iterdir()), f"{data_dir} holds something else")
        shutil.rmtree(data_dir)
    data_dir.parent.mkdir(parents=True, exist_ok=True)
    data_dir.with_suffix(".log").unlink(missing_ok=True)
    server = Server(binary, data_dir)
    running.append(server)

    story.step(f"start a server on a fresh data directory, {arguments.shown_dir}")
    server.start()
    story.say(f"it serves gRPC on {server.grpc}, health and metrics on {server.http}")

    story.step("create the topics flights, alerts and daily")
    server.run("topic", "create", "flights", "--partitions", str(PARTITIONS), "--schema", SCHEMA)
    for topic in ("alerts", "daily"):
        server.run("topic", "create", topic, "--partitions", str(PARTITIONS))
    story.say(f"{PARTITIONS} partitions each; flights has the {len(SCHEMA.split(','))} columns of the file")

    story.step("build the handler of examples/flights (Rust, as a WebAssembly component)")
    built = json.loads(server.run("handler", "build", HERE / "handler", timeout=1200))
    component = Path(built["component"])
    story.say(f"{component.name}, {component.stat().st_size:,} bytes")

    story.step("deploy it: from flights to alerts and daily")
    server.run("handler", "deploy", "flights", "--component", component, "--from", "flights", "--to", "alerts", "--to", "daily")

    rows = read_rows(file)
    rate = arguments.rate
    story.step(f"stream {len(rows):,} departures, {rate:,} a second, and kill -9 the server {arguments.kills} times on the way")
    producer = Producer(server, file, rate)
    running.append(producer)
    stretch, acknowledged = len(rows) // (arguments.kills + 2), 0
    for number in range(1, arguments.kills + 1):
        # At its turn, and never twice at the same place; the last stretch is room for a kill that comes late.
        threshold = max(stretch * number, acknowledged + stretch // 4)
        acknowledged = kill_in_the_middle(story, server, producer, number, arguments.kills, threshold)
    produced = producer.finish()
    check(produced["acknowledged"] == len(rows), f"{produced['acknowledged']} of {len(rows)} rows were acknowledged")
    story.say(f"all {produced['acknowledged']:,} rows are acknowledged")

    story.step("wait until the handler has caught up")
    waited = json.loads(server.run("handler", "wait", "flights", "--timeout", "120s"))
    check(waited["lag_events"] == 0, f"the handler lags by {waited['lag_events']}")
    check(waited["dead_letters"] == 0, f"{waited['dead_letters']} events were dead-lettered")
    story.say("it lags by 0 events, and none was dead-lettered")

    story.step("compare the topic with the file, row for row")
    story.say(f"{compare_topic(server, rows):,} records are the {len(rows):,} rows, once each, in order, offsets dense")

    story.step("compare alerts and daily with a recount that shares no code with the handler")
    alerts, daily, totals = recount(rows)
    story.say(f"{compare_outputs(server, 'alerts', alerts):,} alerts agree")
    story.say(f"{compare_outputs(server, 'daily', daily):,} running totals of {len(daily):,} carrier days agree")

    story.step("ask in SQL for the ten worst carriers, from the handler's state and from the raw topic")
    left, right = server.rows("sql", FROM_STATE), server.rows("sql", FROM_TOPIC)
    for line in side_by_side(left, right):
        story.say(line)
    check(left == right, "the two answers differ")
    own = [{"carrier": carrier, "departures": departed, "mean_delay": mean} for carrier, departed, mean in worst_ten(totals)]
    check(left == own, f"the recount has another answer: {own}")
    story.say(f"the two agree row for row, and with the recount: {len(left)} of {len(left)}")

    story.step("stop the server, keep the data")
    server.stop()
    story.say(f"exactly once, through {arguments.kills} kills; the demo took {story.elapsed()}")
    shown = os.path.relpath(binary)
    print(
        f"\nServe it again:\n  {shown} serve --data-dir {arguments.shown_dir}\n"
        "and ask, from another terminal:\n"
        f"  {shown} sql \"SELECT * FROM state.flights WHERE carrier = 'HA' ORDER BY date LIMIT 5\"\n"
        f"  {shown} sql \"SELECT origin, count(*) AS late FROM alerts GROUP BY origin ORDER BY late DESC\"\n"
        f"  {shown} sql \"SELECT f.carrier, f.flight, f.dest, f.dep_delay, f._partition, f._offset FROM flights f ORDER BY dep_delay DESC NULLS LAST LIMIT 5\""
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    parser.add_argument("--mainstem", type=Path, default=target / "release" / "mainstem", help="the binary")
    parser.add_argument("--file", type=Path, default=HERE / "flights.csv.gz", help="the departures: .csv, .csv.gz or .csv.zip")
    # More than the handler makes of it: it lags at every kill.
    parser.add_argument("--rate", type=int, default=250_000, help="records a second (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=5, help="how often the server is killed")
    parser.add_argument("--data-dir", type=Path, default=ROOT / "target" / "demo" / "data", help="made anew")
    arguments = parser.parse_args()
    arguments.mainstem, arguments.file = arguments.mainstem.resolve(), arguments.file.resolve()
    arguments.data_dir = arguments.data_dir.absolute()
    arguments.shown_dir = os.path.relpath(arguments.data_dir)
    if not arguments.mainstem.exists():
        sys.exit(f"error: {arguments.mainstem} is not there: run `make demo`, which builds it")
    story, running = Story(), []
    # A terminated demo cleans up like an interrupted one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        tell(arguments, story, running)
    except (Mismatch, subprocess.TimeoutExpired) as error:
        print(f"\nFAILED after {story.elapsed()}: {error}\nThe data is in {arguments.shown_dir}, the server's log beside it.", file=sys.stderr)
        sys.exit(1)
    finally:
        for process in reversed(running):
            if isinstance(process, Server) and process.process is not None and process.process.poll() is None:
                process.kill()
            elif isinstance(process, Producer):
                process.stop()


if __name__ == "__main__":
    main()
