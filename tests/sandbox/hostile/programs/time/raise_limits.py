# does: raises its own resource limits
# expect: succeeded
# stdout: "contained\n"

import resource

for name in ("CPU", "NOFILE", "FSIZE", "CORE", "MEMLOCK", "NICE", "RTPRIO"):
    kind = getattr(resource, "RLIMIT_" + name)
    for wish in ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), (resource.getrlimit(kind)[1] + 1,) * 2):
        try:
            before = resource.getrlimit(kind)
            resource.setrlimit(kind, wish)
            # Setting the limit on core dumps reports success, but has no effect.
            if name != "CORE" or resource.getrlimit(kind) != before:
                print("got through:", name, wish)
        except (OSError, ValueError):
            pass
print("contained")
