"""huey: the task that `huey_consumer` runs. As a program, the producer."""

import os
import sys
import time

from huey import RedisHuey

huey = RedisHuey("peer", url=os.environ["PEER_REDIS_URL"] + "/4")


@huey.task()
def noop():
    return 1


def produce(task, count):
    store = task.huey
    before = store.result_count()
    for _ in range(count):
        task()
    while store.result_count() < before + count:
        time.sleep(0.02)


if __name__ == "__main__":
    # Imported under the name that the consumer registers, not as __main__.noop.
    from huey_app import noop as task

    produce(task, 1)
    print("ready", flush=True)
    for line in sys.stdin:
        produce(task, int(line))
        print("done", flush=True)
