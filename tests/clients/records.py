"""The records that every client writes and reads: what is easily lost on the way."""

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]

# Key, value, headers; `None` and empty are different, names repeat, bytes are not text.
RECORDS = [
    (b"key", b"value", []),
    (None, b"no key", []),
    (b"", b"empty key", []),
    (b"tombstone", None, []),
    (b"empty value", b"", []),
    (b"headers", b"v", [("a", b"1"), ("b", b""), ("a", b"2"), ("n", None), ("", b"no name")]),
    (bytes(range(256)), bytes(reversed(range(256))), [("bytes", bytes(range(256)))]),
    ("schlüssel".encode(), "wert ✓".encode(), [("kopf", "ü".encode())]),
    (b"large", b"x" * 200_000, []),
]
