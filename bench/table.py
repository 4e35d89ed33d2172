"""The table of a script's samples: by label, medians over rounds, with each round's ratio to the row FIRST.

    python3 bench/table.py SAMPLES ORDER HEADINGS FIRST [BARE]

A line of SAMPLES is `label round own_ns children_ns queries latency_us tps`, with tabs between. A label of several columns, `64 | on`, is
compared with the row that differs in the last one only; ORDER holds the last columns in the order of rows, which rounds do not keep. The row BARE
has nothing between, and no CPU here: what FIRST adds to its latency is what the others' addition is compared with.
"""

import collections, sys

from rounds import in_order, median, over, ratio, split

samples, order, headings, first, bare = sys.argv[1:5] + [(sys.argv[5:] or [None])[0]]
own, whole, slow, rate = (collections.defaultdict(dict) for _ in range(4))
for line in open(samples):
    label, turn, own_ns, children_ns, queries, latency_us, tps = line.rstrip("\n").split("\t")
    if int(queries) == 0:
        sys.exit(f"{label}: not one query was answered in round {turn}; is the machine free?")
    own[label][turn] = float(own_ns) / 1000 / int(queries)
    whole[label][turn] = own[label][turn] + float(children_ns) / 1000 / int(queries)
    slow[label][turn], rate[label][turn] = float(latency_us), float(tps)

bare = bare if any(split(label)[1] == bare for label in slow) else None
columns = [headings, "CPU us each", f"CPU over {first}", "with its children", f"with children over {first}", "latency us", f"latency over {first}"]
columns += [f"added over {first}", "a second"] if bare else ["a second"]
print("|", " | ".join(columns), "|\n|" + "---|" * (headings.count("|") + len(columns)))
for label in in_order(own, order):
    group, last = split(label)
    row = [label]
    for of in (own, whole, slow):
        to = of[group + first]
        row += [median(of[label].values()), ratio(over(of[label][turn], to[turn]) for turn in of[label] if turn in to)]
    if bare:
        nothing, to = slow[group + bare], slow[group + first]
        added = lambda of, turn: of[turn] - nothing[turn]
        # Rounds in which FIRST was no slower than nothing at all count against whoever is compared with it.
        row.append("1.00" if last == first else "0.00" if last == bare else
                   ratio(over(added(slow[label], turn), added(to, turn)) for turn in slow[label] if turn in to and turn in nothing))
        if last == bare:
            row[1:5] = ["-"] * 4
    print("|", " | ".join(row), "|", median(rate[label].values()).split(".")[0] + " |")
