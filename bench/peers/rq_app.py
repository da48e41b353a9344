"""RQ: the task that `rq worker` runs. As a program, the producer."""

import os
import sys
import time

import redis
import rq


def noop():
    return 1


def produce(connection, count):
    from rq_app import noop as task

    queue = rq.Queue(connection=connection)
    finished = queue.finished_job_registry.key
    before = connection.zcard(finished)
    for first in range(0, count, 256):
        some = range(min(256, count - first))
        queue.enqueue_many([rq.Queue.prepare_data(task, result_ttl=3600) for _ in some])
    while connection.zcard(finished) < before + count:
        time.sleep(0.02)


if __name__ == "__main__":
    connection = redis.Redis.from_url(os.environ["PEER_REDIS_URL"] + "/3")
    produce(connection, 1)
    print("ready", flush=True)
    for line in sys.stdin:
        produce(connection, int(line))
        print("done", flush=True)
