"""Percentiles of bench/tail.sh.

    python3 bench/tail.py sample LABEL ROUND LOG...                  one line: label, round, microseconds, with tabs between
    python3 bench/tail.py table SAMPLES ORDER HEADINGS FIRST         medians over rounds, and the ratios to the row FIRST

LOG is what `pgbench -l` writes: a transaction's latency in microseconds is the third column, when it ended the last two (seconds and
microseconds). What ends in a round's first or last EDGE_S is left out: behind everything but PgBouncer, which keeps its own, PostgreSQL's backends
are new then and their first statement takes milliseconds, or they exit while others wait for their last.
"""

import collections, math, sys

from rounds import in_order, median, over, ratio, split

PERCENTILES = (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("p99.99", 0.9999), ("max", 1.0))
COMPARED = ("p99", "p99.9")
EDGE_S = 0.5


def sample(label, turn, logs):
    ended = [(int(cells[4]) + int(cells[5]) / 1e6, int(cells[2])) for log in logs for cells in map(str.split, open(log))]
    times = [at for at, _ in ended] or [0]
    begins, ends = min(times) + EDGE_S, max(times) - EDGE_S
    latencies = sorted(latency for at, latency in ended if begins <= at <= ends)
    if not latencies:
        sys.exit(f"{label}: not one query was answered in round {turn}; is the machine free?")
    rank = lambda share: latencies[max(math.ceil(share * len(latencies)), 1) - 1]
    print(label, turn, *(rank(share) for _, share in PERCENTILES), sep="\t")


def table(samples, order, headings, first):
    rounds = collections.defaultdict(dict)
    for line in open(samples):
        label, turn, *latencies = line.rstrip("\n").split("\t")
        rounds[label][turn] = dict(zip((name for name, _ in PERCENTILES), map(int, latencies)))
    columns = [headings] + [f"{name} us" for name, _ in PERCENTILES] + [f"{name} over {first}" for name in COMPARED]
    print("|", " | ".join(columns), "|\n|" + "---|" * (headings.count("|") + len(columns)))
    for label in in_order(rounds, order):
        of, to = rounds[label], rounds[split(label)[0] + first]
        row = [label] + [median(taken[name] for taken in of.values()).split(".")[0] for name, _ in PERCENTILES]
        row += [ratio(over(of[turn][name], to[turn][name]) for turn in of if turn in to) for name in COMPARED]
        print("|", " | ".join(row), "|")


if sys.argv[1] == "sample":
    sample(sys.argv[2], sys.argv[3], sys.argv[4:])
else:
    table(*sys.argv[2:])
