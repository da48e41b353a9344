# does: finds the cgroups, to raise its caps or have a program called
# expect: succeeded
# stdout: "contained\n"
# wall: "masks"

import glob, os

found = glob.glob("/sys/fs/cgroup/*") + glob.glob("/cgroup/*")
for line in open("/proc/self/mountinfo"):
    if " cgroup" in line.split(" - ")[1]:
        place = line.split()[4]
        if os.path.isdir(place) and os.listdir(place):
            found.append(place)
print("got through: " + repr(found) if found else "contained")
