"""What came of the mutants."""

import json
import sys

from listing import within

CAUGHT = ("caught", "timeout")
SURVIVED = ("missed", "unreached", "unfinished")


def keep(mutants, path):
    """Writes each to a file as soon as it is known."""
    with path.open("w") as out:
        for mutant in mutants:
            words = ("number", "name", "outcome", "by")
            line = json.dumps({word: getattr(mutant, word) for word in words})
            print(line, file=out, flush=True)
            if mutant.outcome in SURVIVED:
                print(f"{mutant.outcome}: #{mutant.number} {mutant.name}", file=sys.stderr, flush=True)


def table(samples, trials, seconds):
    heads = ("", "caught", "timeout", "missed", "no switch", "unviable", "score")
    rows = [heads]
    for sample in samples:
        for folder in sample.folders:
            inside = [one for one in sample.mutants if within(folder, one.file)]
            rows.append(row(folder, inside))
        if len(sample.folders) > 1:
            rows.append(row(sample.label, sample.mutants))
    every = list({one.number: one for sample in samples for one in sample.mutants}.values())
    widths = [max(len(line[column]) for line in rows) for column in range(len(heads))]
    lines = [
        "  ".join(cell.ljust(width) if at == 0 else cell.rjust(width)
                  for at, (cell, width) in enumerate(zip(line, widths)))
        for line in rows
    ]
    survivors = [one for one in every if one.outcome in SURVIVED]
    lines += ["", f"{len(survivors)} survivors:"]
    for one in sorted(survivors, key=place):
        how = "" if one.outcome == "missed" else f" ({one.outcome}{one.by and ': ' + one.by})"
        lines.append(f"  #{one.number} {one.name}{how}")
    unswitched = [one for one in every if one.unswitched]
    if unswitched:
        lines += ["", f"{len(unswitched)} without a switch, and so not tried:"]
        lines += [f"  {one.name} ({one.unswitched})" for one in sorted(unswitched, key=place)]
    if trials.broken:
        lines += ["", "Tests that fail without a mutant, and so were not used:"]
        lines += [f"  {test}" for test in trials.broken]
    if trials.slow:
        lines += ["", "Tests that take too long, and so were not used:"]
        lines += [f"  {test}" for test in trials.slow]
    lines += ["", f"{len(trials.tests)} tests, {seconds / 60:.0f} minutes"]
    return "\n".join(lines) + "\n"


def row(folder, mutants):
    counts = [sum(one.outcome == word for one in mutants) for word in CAUGHT]
    missed = sum(one.outcome in SURVIVED for one in mutants)
    tried = sum(counts) + missed
    score = f"{100 * sum(counts) / tried:.1f} %" if tried else "-"
    unswitched = sum(bool(one.unswitched) for one in mutants)
    unviable = sum(bool(one.unviable) for one in mutants)
    return (folder, *map(str, (*counts, missed, unswitched, unviable)), score)


def place(mutant):
    start = mutant.span["start"]
    return mutant.file, start["line"], start["column"]
