"""Maps a cheap program over many inputs and prints the peak memory of this process.

Usage: map_memory.py JOBS      (Redis and namespace as in the environment)
"""

import resource
import sys
import time

import sandhog


def main() -> None:
    count = int(sys.argv[1])
    started = time.monotonic()
    total = 0
    with sandhog.Sandhog() as client:
        for value in client.map("input_data + 1", range(count)):
            total += value
    assert total == count * (count + 1) // 2, total
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"jobs={count} peak_mib={peak:.1f} seconds={time.monotonic() - started:.1f}")


main()
