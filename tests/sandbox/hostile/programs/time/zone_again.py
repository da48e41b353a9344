# does: names a terminal as its time zone in the other way, and an empty pipe once it runs
# expect: timed_out
# limits: {"timeout_ms": 1000}
# env: {"TZ": ":/dev/pts/ptmx"}
# stdout: ""
import os, time

os.mkfifo("/tmp/zone")
os.environ["TZ"] = "/tmp/zone"
time.tzset()
print("ran")
