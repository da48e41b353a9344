# does: leaves as many files as it may in every scratch space, for the kernel to free
# expect: succeeded
# stdout: "contained\n"
# limits: {"memory": "2GiB", "scratch_inodes": 262144}

import os

for space in ("/work", "/tmp", "/dev/shm"):
    for folder in range(62):
        os.mkdir(f"{space}/{folder}")
        os.chdir(f"{space}/{folder}")
        for number in range(4000):
            os.close(os.open(str(number), os.O_CREAT | os.O_WRONLY))
print("contained")
