"""How a peer is driven by tools/bench_peers.py."""

import sys
import time


def serve(work):
    """Runs each task of `work` once, says so, then takes task names from standard input, a
    line each, and answers with the milliseconds that the task took."""
    for task in work.values():
        task()
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        work[line.strip()]()
        print(f"{(time.perf_counter() - start) * 1e3:.4f}", flush=True)
