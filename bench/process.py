"""What a server's processes use: its own, and with all those it has started.

    python3 bench/process.py cpu PID       nanoseconds so far: its own, and its children's (those that ended and were waited for to the clock tick)
    python3 bench/process.py memory PID    KiB: its own, and with its children; what processes share counts in parts (Pss)
"""

import os, re, sys, time


def stat(pid):  # parent, and ticks of children that were waited for; a name may hold anything
    fields = open(f"/proc/{pid}/stat").read().rpartition(") ")[2].split()
    return int(fields[1]), int(fields[13]) + int(fields[14])


def family(root):  # every process below, root first
    parents, found = {}, [root]
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            parents.setdefault(stat(name)[0], []).append(int(name))
        except (FileNotFoundError, ProcessLookupError):
            pass
    for pid in found:
        found += parents.get(pid, [])
    return found


def cpu_ns(pid):  # all its threads, those that have ended too
    return time.clock_gettime_ns((~pid << 3) | 2)


def pss_kib(pid):
    return int(re.search(r"^Pss: +(\d+) kB", open(f"/proc/{pid}/smaps_rollup").read(), re.M).group(1))


def cpu(root):
    own, *children = family(root)
    ended = sum(stat(pid)[1] for pid in [own, *children]) * (10**9 // os.sysconf("SC_CLK_TCK"))
    return cpu_ns(own), sum(map(cpu_ns, children)) + ended


def memory(root):
    own, *children = map(pss_kib, family(root))
    return own, own + sum(children)


for left in reversed(range(5)):
    try:
        print(*{"cpu": cpu, "memory": memory}[sys.argv[1]](int(sys.argv[2])))
        break
    except OSError:  # one of them ended while it was looked at
        if left == 0:
            raise
