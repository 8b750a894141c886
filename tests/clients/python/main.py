"""Python's clients, driven by the tests: see programs.py for what each verb does and prints.

    main.py CLIENT VERB BOOTSTRAP TOPIC [ARGUMENT]

What they write and read of each other's is in pythons.py.
"""

import asyncio
import importlib
import os
import sys
import threading

MODULES = {"confluent-kafka": "confluent", "kafka-python": "kafka_python", "aiokafka": "aio"}


def input_ends():
    """Set when standard input ends."""
    ended = threading.Event()

    def wait():
        while os.read(sys.stdin.fileno(), 1 << 10):
            pass
        ended.set()
    threading.Thread(target=wait, daemon=True).start()
    return ended


def main(client, verb, bootstrap, topic, argument=""):
    sys.stdout.reconfigure(line_buffering=True)
    made = importlib.import_module(MODULES[client]).Client(bootstrap, topic)
    arguments = {"group": lambda: [argument, input_ends()], "offsets": lambda: [argument], "transactions": lambda: [argument],
                 "admin": list, "refused": list, "start": list}[verb]()
    running = getattr(made, verb)(*arguments)
    if asyncio.iscoroutine(running):
        asyncio.run(running)


if __name__ == "__main__":
    main(*sys.argv[1:])
