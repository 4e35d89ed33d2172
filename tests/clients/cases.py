"""Runs a client script's cases and prints what the harness reads: `plan N`, then `ok NAME` or `failed NAME: why`."""

import sys
import time
import traceback

LARGE = 64 * 1024 * 1024


def run(cases):
    chosen = [case for case in cases if not sys.argv[1:] or case.__name__ in sys.argv[1:]]
    print(f"plan {len(chosen)}", flush=True)
    for case in chosen:
        began = time.monotonic()
        try:
            case()
            print(f"ok {case.__name__} ({time.monotonic() - began:.1f} s)", flush=True)
        except BaseException:
            why = traceback.format_exc().strip().splitlines()
            print(f"failed {case.__name__}: {' | '.join(why[-6:])}", flush=True)
