#!/usr/bin/env python3
"""Reads heatmaps from salientd's socket. Python's standard library is enough.

    examples/client.py /run/salientd/heatmaps.sock             one line per message
    examples/client.py --count 1 --save map.npy SOCKET         needs numpy

As a library:

    for header, maps in messages("/run/salientd/heatmaps.sock"):
        if header["kind"] == "heatmap":
            ...  # maps: array.array("f"), or with as_numpy(header, maps) an ndarray

The protocol is described in docs/protocol.md.
"""

import argparse
import array
import json
import socket
import struct
import sys

PREFIX = struct.Struct("<4sIII")
MAGIC = b"SALH"
VERSION = 1
MAX_HEADER_BYTES = 1 << 20
MAX_PAYLOAD_BYTES = 64 << 20


class ProtocolError(Exception):
    """What came is not what docs/protocol.md describes."""


def receive(connection, count):
    """Exactly `count` bytes, or None if the connection ends before the first."""
    data = bytearray(count)
    view = memoryview(data)
    while view:
        taken = connection.recv_into(view)
        if taken == 0:
            if len(view) == count:
                return None
            raise ProtocolError("the connection ended within a message")
        view = view[taken:]
    return bytes(data)


def read_message(connection):
    """(header, payload bytes) of the next message, or None at the end."""
    prefix = receive(connection, PREFIX.size)
    if prefix is None:
        return None
    magic, version, header_bytes, payload_bytes = PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise ProtocolError(f"this is not salientd: it begins with {magic!r}")
    if version != VERSION:
        raise ProtocolError(f"protocol version {version}, this client speaks {VERSION}")
    if header_bytes > MAX_HEADER_BYTES or payload_bytes > MAX_PAYLOAD_BYTES:
        raise ProtocolError(f"too large: {header_bytes} + {payload_bytes} bytes")
    header = receive(connection, header_bytes)
    payload = receive(connection, payload_bytes) if payload_bytes else b""
    if header is None or payload is None:
        raise ProtocolError("the connection ended within a message")
    return json.loads(header), payload


def messages(path):
    """Yields (header, maps) until the daemon closes the connection. `maps` is an
    array.array("f") in the order [height, width, classes], empty but for heatmaps."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.connect(path)
        while (message := read_message(connection)) is not None:
            header, payload = message
            maps = array.array("f")
            if header["kind"] == "heatmap":
                if header["dtype"] != "<f4":
                    raise ProtocolError(f"maps of type {header['dtype']}")
                maps.frombytes(payload)
                if sys.byteorder == "big":
                    maps.byteswap()
                height, width, classes = header["shape"]
                if len(maps) != height * width * classes:
                    raise ProtocolError(f"{len(maps)} values for shape {header['shape']}")
            yield header, maps


def as_numpy(header, maps):
    """The maps as an ndarray [height, width, classes]."""
    import numpy

    return numpy.frombuffer(maps, numpy.float32).reshape(header["shape"])


def number(value, places):
    """A number that is not finite stands as null in JSON."""
    return "?" if value is None else f"{value:.{places}f}"


def describe(header, maps):
    """One line for people."""
    kind = header["kind"]
    if kind == "heatmap":
        height, width, classes = header["shape"]
        best = header["classes"][0]
        first = maps[::classes]
        hottest = max(range(len(first)), key=first.__getitem__)
        covers = header["covers"]
        x = covers["x"] + (hottest % width + 0.5) * covers["width"] / width
        y = covers["y"] + (hottest // width + 0.5) * covers["height"] / height
        return (
            f"{header['captured']} #{header['sequence']} {best['label']} "
            f"p={number(best['probability'], 2)} hottest at {x:.0f},{y:.0f} "
            f"{len(header['views'])} views {number(header['spent_ms'], 0)} ms"
        )
    if kind == "hello":
        return f"{header['server']}, model {header['model']['name']}"
    if kind == "camera":
        return "camera running" if header["running"] else f"camera away: {header['reason']}"
    if kind == "event":
        return f"rule {header['rule']} {header['change']}: share {number(header['share'], 2)}"
    if kind == "refused":
        return f"refused: {header['reason']}"
    return None  # a kind of a later version


def main():
    parser = argparse.ArgumentParser(description="Reads heatmaps from salientd's socket.")
    parser.add_argument("socket")
    parser.add_argument("--count", type=int, help="stop after this many heatmaps")
    parser.add_argument("--save", help="write each heatmap to this .npy file (needs numpy)")
    options = parser.parse_args()
    heatmaps = 0
    try:
        for header, maps in messages(options.socket):
            if line := describe(header, maps):
                print(line, flush=True)
            if header["kind"] == "refused":
                return 1
            if header["kind"] == "heatmap":
                heatmaps += 1
                if options.save:
                    import numpy

                    numpy.save(options.save, as_numpy(header, maps))
            if heatmaps == options.count:
                return 0
    except (OSError, ProtocolError) as error:
        print(f"{options.socket}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
