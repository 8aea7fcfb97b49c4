"""What tests/soak and tests/faults share: the daemon's outputs, looked at closely."""

import contextlib
import json
import math
import pathlib
import random
import socket
import struct
import sys
import zlib

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "examples"))
import client as protocol  # noqa: E402

FIELDS = {
    "hello": {"protocol": int, "server": str, "model": dict, "classes": list, "camera": dict},
    "camera": {"running": bool, "reason": str},
    "heatmap": {
        "sequence": int, "captured": str, "captured_unix_ns": int, "picture": list,
        "covers": dict, "dtype": str, "shape": list, "classes": list, "views": list,
        "zones": list, "spent_ms": float, "model_sha256": str,
    },
    "event": {
        "change": str, "rule": str, "zone": str, "side": str, "sequence": int, "captured": str,
        "captured_unix_ns": int, "model_sha256": str,
    },
}  # fmt: skip


def check_message(header, payload):
    """None, or what is wrong with a message of the socket."""
    kind = header.get("kind")
    fields = FIELDS.get(kind)
    if fields is None:
        return f"a message of kind {kind}"
    for name, wanted in fields.items():
        value = header.get(name)
        if not isinstance(value, wanted) and not (wanted is float and isinstance(value, int)):
            return f"{kind}.{name} is {value!r}"
    if kind != "heatmap":
        return f"{len(payload)} bytes of payload" if payload else None
    height, width, classes = header["shape"]
    if len(payload) != 4 * height * width * classes or classes != len(header["classes"]):
        return f"{len(payload)} bytes for {header['shape']}, {len(header['classes'])} classes"
    values = struct.unpack(f"<{len(payload) // 4}f", payload)
    if not all(0 <= v <= 1 for v in values) or not classes:
        return f"values from {min(values)} to {max(values)}"
    weight = sum(view["weight"] for view in header["views"])
    return None if abs(weight - 1) < 1e-3 else f"the views' weights sum to {weight}"


def check_png(data):
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return "no PNG"
    at, pixels, size = 8, b"", None
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        if struct.unpack_from(">I", data, at + 8 + length)[0] != zlib.crc32(kind + body):
            return "a damaged chunk"
        if kind == b"IHDR":
            size = struct.unpack_from(">II", body)
        pixels += body if kind == b"IDAT" else b""
        at += 12 + length
    if kind != b"IEND" or len(zlib.decompress(pixels)) != (3 * size[0] + 1) * size[1]:
        return "it is not whole"


def check_jpeg(data):
    return None if data[:2] == b"\xff\xd8" and data[-2:] == b"\xff\xd9" else "it is not whole"


def check_npy(data):
    if data[:8] != b"\x93NUMPY\x01\x00":
        return "no NPY"
    (length,) = struct.unpack_from("<H", data, 8)
    header = eval(data[10 : 10 + length], {"__builtins__": {}})
    wanted = 4 * math.prod(header["shape"])
    return None if len(data) - 10 - length == wanted else "it is not whole"


def check_jsonl(data):
    if not data.endswith(b"\n"):
        return "it ends within a line"
    for line in data.splitlines():
        if "sequence" not in json.loads(line):
            return "a line of nothing"


def check_avi(data):
    whole = data[:4] == b"RIFF" and struct.unpack_from("<I", data, 4)[0] + 8 == len(data)
    return None if whole else "it is not whole"


CHECKS = {
    ".png": check_png, ".jpg": check_jpeg, ".npy": check_npy, ".jsonl": check_jsonl,
    ".avi": check_avi,
}  # fmt: skip


def check_file(path):
    """None, or what is wrong with a file under a final name."""
    return CHECKS[path.suffix](path.read_bytes())


def free_port():
    """Below those that the kernel gives away by itself, so that no connection comes to sit on
    it before a server does, or between its end and its next start."""
    for port in random.sample(range(20_000, 32_000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    sys.exit("no free port from 20000 on")
