"""salientd beside its peers on one int8 network, in turns within one run.

    python tools/bench_peers.py --salientd target/release/salientd --model xception-int8.onnx

Every engine runs in a process of its own, pinned to the same --threads cores. In each
round every engine has its turn; a ratio is taken within its round, and the table gives
the median over the rounds, so that a machine that slows down slows all of them. Peak
memory is VmHWM of the process, loading included. Peers are given with --python where
they live in an environment of their own, as `litert=/path/bin/python`. LiteRT needs its
own file of the same network (--tflite, made by tools/peers/make_tflite.py).
keras-explainable runs its own TTA-CAM, ten passes in float, where --python names an
interpreter that has it (TensorFlow 2.12). Stock tract and rten join as any program that
speaks the protocol of tools/peers/worker.py: --peer 'NAME=COMMAND' (tools/peers/rust has
both; tract with one thread alone). Below the table stand
the dot-product ceiling of the same minutes (`cargo bench --bench int8 -- ceiling` prints
it; --ceiling) and the time from exec to the first heatmap.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from PIL import Image

WORKER = Path(__file__).parent / "peers" / "worker.py"
TASKS = ("view", "frame")


def head_weights(path):
    """[channels, classes] of the last linear layer."""
    graph = onnx.load(path).graph
    constants = {i.name: i for i in graph.initializer}
    for node in reversed(graph.node):
        if node.op_type in ("Gemm", "MatMul") and node.input[1] in constants:
            weight = numpy_helper.to_array(constants[node.input[1]])
            transposed = any(a.name == "transB" and a.i for a in node.attribute)
            return weight.T if transposed else weight
    raise SystemExit(f"{path}: no linear layer with constant weights found")


class Peer:
    """A worker process that runs one task at a time."""

    def __init__(self, name, command, cores, timeout_s):
        self.name, self.timeout_s = name, timeout_s
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
        for line in self.process.stdout:
            if line.strip() == "ready":
                return
        error = self.process.stderr.read().strip().splitlines()
        raise SystemExit(f"{name}: did not start: {error[-1] if error else 'no output'}")

    def times(self, task, repeats):
        values = []
        for _ in range(repeats):
            self.process.stdin.write(task + "\n")
            self.process.stdin.flush()
            values.append(float(self.process.stdout.readline()))
        return statistics.median(values)

    def rss_mib(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(l.split()[1]) for l in status.splitlines() if l.startswith("VmHWM")) / 1024

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()


def salientd(binary, model, side, threads, cores, repeats):
    """One turn of `salientd bench`: its medians in ms, and its peak memory in MiB."""
    command = [binary, "bench", "--model", model, "--size", f"{side}x{side}", "--threads", str(threads)]
    command += ["--runs", str(repeats), "--json"]
    run = subprocess.run(command, capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, cores))
    if run.returncode != 0:
        raise SystemExit(f"salientd bench failed ({run.returncode}): {run.stderr.strip()}")
    report = json.loads(run.stdout)
    return {t: report["stages"][t]["p50_ms"] for t in TASKS}, report["rss_mib"], report


def measure(args, threads, image):
    cores = set(sorted(os.sched_getaffinity(0))[:threads])
    pythons = dict(p.split("=", 1) for p in args.python)
    commands = {}
    with tempfile.TemporaryDirectory() as folder:
        head, picture = Path(folder, "head.npy"), Path(folder, "image.npy")
        np.save(head, head_weights(args.model))
        np.save(picture, image)
        for name in args.engines:
            model = args.tflite if name == "litert" else args.model
            if model is None:
                continue
            python = pythons.get(name, sys.executable)
            commands[name] = [python, WORKER, name, model, head, picture, str(args.side), str(threads)]
        if "keras-explainable" in pythons:
            own = WORKER.with_name("keras_explainable.py")
            commands["keras-explainable"] = [pythons["keras-explainable"], own, picture, str(args.side), str(threads)]
        for extra in args.peer:
            name, command = extra.split("=", 1)
            commands[name] = [*shlex.split(command), str(args.side), str(threads)]
        peers = [Peer(n, list(map(str, c)), cores, 600) for n, c in commands.items()]
        times = {n: {t: [] for t in TASKS} for n in ["salientd", *commands]}
        memory, last = {}, None
        try:
            for round_ in range(args.rounds):
                print(f"\r{threads} thread(s), round {round_ + 1} of {args.rounds}", end="", file=sys.stderr, flush=True)
                if args.salientd:
                    ours, memory["salientd"], last = salientd(
                        args.salientd, args.model, args.side, threads, cores, args.repeats
                    )
                    for t in TASKS:
                        times["salientd"][t].append(ours[t])
                for peer in peers:
                    for t in TASKS:
                        times[peer.name][t].append(peer.times(t, args.repeats))
            memory.update({p.name: p.rss_mib() for p in peers})
        finally:
            for peer in peers:
                peer.close()
            print(file=sys.stderr)
    return rows(times, memory, threads), last


def rows(times, memory, threads):
    """Per engine: median ms and median ratio of salientd to it, per task."""
    table = []
    for name, tasks in times.items():
        if not tasks["view"]:
            continue
        row = {"engine": name, "threads": threads, "rss_mib": memory.get(name)}
        for task in TASKS:
            row[f"{task}_ms"] = statistics.median(tasks[task])
            ours = times["salientd"][task]
            if ours:
                row[f"{task}_ratio"] = statistics.median(a / b for a, b in zip(ours, tasks[task]))
        table.append(row)
    return table


def markdown(table):
    number = lambda v, digits: "-" if v is None else f"{v:.{digits}f}"
    lines = [
        "| engine | threads | one view, ms | salientd / it | eight views, ms | salientd / it | peak MiB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in table:
        lines.append(
            f"| {r['engine']} | {r['threads']} | {number(r['view_ms'], 1)} | {number(r.get('view_ratio'), 3)} "
            f"| {number(r['frame_ms'], 1)} | {number(r.get('frame_ratio'), 3)} | {number(r['rss_mib'], 0)} |"
        )
    return "\n".join(lines)


def first_heatmap(binary, model, side, cores, repeats):
    """Median ms from exec to the first heatmap: one view, the program's start and exit included."""
    times = []
    with tempfile.TemporaryDirectory() as folder:
        photo = Path(folder, "photo.png")
        Image.fromarray(np.full((480, 640, 3), 127, np.uint8)).save(photo)
        for i in range(repeats):
            command = [binary, "explain", "--model", model, "--size", f"{side}x{side}", "--threads", "1"]
            command += ["--scales", "1", "--hflip", "false", "--out", str(Path(folder, str(i))), str(photo)]
            start = time.perf_counter()
            run = subprocess.run(command, capture_output=True, text=True, preexec_fn=lambda: os.sched_setaffinity(0, cores))
            times.append((time.perf_counter() - start) * 1e3)
            if run.returncode != 0:
                raise SystemExit(f"salientd explain failed ({run.returncode}): {run.stderr.strip()}")
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", required=True, help="int8 ONNX file with outputs features (NCHW) and logits")
    add("--salientd", help="the salientd binary; without it the peers run alone")
    add("--engines", nargs="+", default=["onnxruntime", "openvino", "litert"], help="(%(default)s)")
    add("--tflite", help="the same network as int8 .tflite, for litert")
    add("--python", action="append", default=[], metavar="ENGINE=PATH", help="interpreter that has the engine")
    add("--peer", action="append", default=[], metavar="NAME=COMMAND", help="further peer; SIDE THREADS are appended")
    add("--image", help="photo for the frame (default: noise, 640x480)")
    add("--side", type=int, default=299, help="input side at scale 1 (%(default)s)")
    add("--threads", type=int, nargs="+", default=[1, 2], help="(%(default)s)")
    add("--rounds", type=int, default=7, help="turns of every engine (%(default)s)")
    add("--repeats", type=int, default=3, help="runs per turn, of which the median counts (%(default)s)")
    add("--ceiling", type=float, help="GMAC/s of nothing but dot products, measured in the same minutes")
    add("--gmacs", type=float, default=8.36, help="of one view (%(default)s: Xception at 299)")
    add("--json", help="file for the figures")
    args = parser.parse_args()
    if args.image:
        image = np.asarray(Image.open(args.image).convert("RGB"))
    else:
        image = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
    table, reports = [], {}
    for threads in args.threads:
        part, report = measure(args, threads, image)
        table += part
        reports[threads] = report
    print(markdown(table))
    if args.ceiling:
        report = next(iter(reports.values()), None)
        alone = next((r for r in table if r["engine"] == "salientd" and r["threads"] == 1), None)
        if report and alone:
            rate = args.gmacs * 1e3 / alone["view_ms"]
            print(f"\nsalientd, one view: {rate:.0f} GMAC/s of {args.ceiling:.0f}: {rate / args.ceiling:.0%}")
    if args.salientd:
        cores = set(sorted(os.sched_getaffinity(0))[:1])
        first = first_heatmap(args.salientd, args.model, args.side, cores, args.repeats)
        print(f"\nfrom exec to the first heatmap, written to files: {first:.0f} ms")
    if args.json:
        Path(args.json).write_text(json.dumps({"rows": table, "salientd": reports}, indent=1) + "\n")


if __name__ == "__main__":
    main()
