# does: has thousands of processes open files, to use up those of the machine
# expect: succeeded
# stdout: "contained\n"
# limits: {"pids": 4000, "memory": "1GiB"}

import os, resource, signal

read, write = os.pipe()
try:
    with open("/proc/sys/fs/file-max") as file:
        machine = int(file.read())
except FileNotFoundError:
    machine = 1 << 62
each = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
# Number of descriptors if the maximum number of processes each opened the maximum number.
most = 4000 * each
if most > max(machine // 8, 4000 * 64):
    print("got through:", most, "files of", machine)
opened = 0
for number in range(200):
    if os.fork() == 0:
        count = 0
        try:
            while True:
                os.open("/dev/null", os.O_RDONLY)
                count += 1
        except OSError:
            pass
        os.write(write, b"%8d" % count)
        signal.pause()
    opened += int(os.read(read, 8))
if opened > 200 * each:
    print("got through:", opened)
print("contained")
