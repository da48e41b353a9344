"""Celery: the app that `celery worker` runs. As a program, the producer."""

import os
import sys
import time

import redis
from celery import Celery

url = os.environ["PEER_REDIS_URL"]
app = Celery("celery_app", broker=f"{url}/1", backend=f"{url}/2")
app.conf.broker_connection_retry_on_startup = True


@app.task
def noop():
    return 1


def produce(count):
    store = redis.Redis.from_url(f"{url}/2")
    before = store.dbsize()
    with app.producer_or_acquire() as producer:
        for _ in range(count):
            noop.apply_async(producer=producer)
    while store.dbsize() < before + count:
        time.sleep(0.02)


if __name__ == "__main__":
    produce(1)
    print("ready", flush=True)
    for line in sys.stdin:
        produce(int(line))
        print("done", flush=True)
