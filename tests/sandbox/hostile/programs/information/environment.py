# does: looks at its environment and its words
# expect: succeeded
# stdout: "['HOME', 'LANG', 'LOGNAME', 'PATH', 'TMPDIR', 'USER']\n{'1'}\n[]\n"

import os

# Libraries read from these variables how many threads match the job's share of CPU.
threads = {name for name in os.environ if "THREADS" in name}
threads |= {"GOMAXPROCS", "LOKY_MAX_CPU_COUNT", "PYTHON_CPU_COUNT"} & os.environ.keys()
print(sorted(os.environ.keys() - threads))
print({os.environ[name] for name in threads})
print([word for word in open("/proc/self/cmdline").read().split("\0") if "SANDHOG" in word or "redis" in word])
