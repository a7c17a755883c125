"""Checks the output of the demonstration. Its feed is generated from a seed, so every count is known."""

import json
import sys

with open(sys.argv[1]) as output:
    demo = json.load(output)

# rows, new, changed, unchanged, gone; lots inserted, updated, unchanged; skipped rows of the whole file.
# They change only if the simulator generates other windows, or the rules read them in another way.
EXPECTED = [
    (5000, 5000, 0, 0, 0, 4978, 0, 0, 22),
    (5001, 21, 170, 4810, 20, 19, 161, 9, 24),
    (5000, 19, 170, 4811, 20, 19, 153, 17, 24),
]


def counts(window):
    lots = window["lots"]
    return (
        *(window[name] for name in ("rows", "new", "changed", "unchanged", "gone")),
        *(lots[name] for name in ("inserted", "updated", "unchanged")),
        sum(window["skipped"].values()),
    )


def check(holds, what, window):
    if not holds:
        sys.exit(f"the output of the demonstration is wrong: {what}\n{json.dumps(window, indent=2)}")


check(demo["ok"] is True, "ok is not true", demo)
windows = demo["windows"]
check(len(windows) == len(EXPECTED), f"{len(windows)} windows instead of {len(EXPECTED)}", demo)
for window, expected in zip(windows, EXPECTED):
    check(window["state"] == "applied" and not window["duplicate"], "a window is not applied", window)
    check(window["rows"] == window["new"] + window["changed"] + window["unchanged"], "rows do not add up", window)
    check(window["parse_errors"] == 0, "records could not be read", window)
    # Every new or changed row is a lot, or is skipped with a recorded reason.
    lots = window["lots"]
    applied = lots["inserted"] + lots["updated"] + lots["unchanged"]
    dropped = window["new"] + window["changed"] - applied
    check(0 <= dropped <= sum(window["skipped"].values()), f"{dropped} rows are neither lots nor skipped", window)
    # Every change has its entry in the log, which is the lots' history.
    check(window["conflicts"]["lot"] == lots["updated"], "lots changed without a log entry", window)
    check(window["conflicts"]["vehicle"] == window["vehicles"]["updated"], "vehicles changed without a log entry", window)
    check(0 < window["stored_bytes"] < window["bytes"], "the file is not stored compressed", window)
    check(window["seconds"]["total"] > 0 and window["peak_rss_mb"] > 0, "nothing was measured", window)
    check(counts(window) == expected, f"counts are {counts(window)} instead of {expected}", window)
print("the demonstration's windows are correct:", *(f"{window['rows']} rows" for window in windows))
