# does: lowers its limit on core dumps to zero, with which the kernel pipes them to the host
# expect: succeeded
# stdout: "contained\n"
# wall: "rlimits"

import os, resource, signal

for soft, hard in [(0, 1), (0, 0)]:
    child = os.fork()
    if child == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))
        except (OSError, ValueError):
            pass
        if resource.getrlimit(resource.RLIMIT_CORE) != (1, 1):
            print("got through:", resource.getrlimit(resource.RLIMIT_CORE), flush=True)
        os.abort()
    _, status = os.waitpid(child, 0)
    if os.WTERMSIG(status) != signal.SIGABRT or os.WCOREDUMP(status):
        print("got through:", status)
print("contained")
