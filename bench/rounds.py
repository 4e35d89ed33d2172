"""Medians over rounds, and how sure they are: what the tables of these scripts are made with."""

import math, pathlib, statistics

COVERAGE_MIN = 0.95


def left_out(rounds):
    """So many of the lowest and of the highest values can be left out, and what is between covers the true median with 95 % (order
    statistics: the sign test turned round, as in `lockgate-loadgen compare`). None: fewer than six rounds cannot say that."""
    found = None
    for out in range(rounds // 2):
        if 1 - 2 * sum(math.comb(rounds, n) for n in range(out + 1)) / 2**rounds < COVERAGE_MIN:
            break
        found = out
    return found


def median(values):
    values = sorted(values)
    return f"{statistics.median(values):.2f}" if values else "-"


def ratio(values):
    """The median with its interval, `0.93 [0.90, 0.97]`."""
    values = sorted(values)
    out = left_out(len(values))
    interval = "" if out is None else f" [{values[out]:.2f}, {values[len(values) - 1 - out]:.2f}]"
    return median(values) + interval


def over(value, base):
    """Of nothing anything is infinitely much: a round in which the base was nothing must not go missing."""
    return value / base if base > 0 else math.inf


def split(label):
    """What is alike in a group of rows, and what is not: `64 | ` and `on`."""
    return label[: label.rfind("|") + 2] if "|" in label else "", label.split("| ")[-1]


def in_order(labels, order):
    """By group as they came, then as the file `order` has the last columns: rounds come in another order each."""
    order = pathlib.Path(order).read_text().splitlines() if pathlib.Path(order).exists() else []
    groups = list(dict.fromkeys(split(label)[0] for label in labels))
    place = lambda group, last: (groups.index(group), order.index(last) if last in order else len(order))
    return sorted(labels, key=lambda label: place(*split(label)))
