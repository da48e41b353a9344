"""A client of Sandhog in plain Python, with only the redis and msgpack packages.

Usage: client.py REDIS_URL NAMESPACE
"""

import json
import sys

import msgpack
import redis

url, namespace = sys.argv[1:]
r = redis.Redis.from_url(url)
jobs = f"sandhog:{{{namespace}}}:jobs"


def result_key(job_id):
    return f"sandhog:{{{namespace}}}:result:{job_id}"


def one_json_job():
    job = {
        "image": "python",
        "code": "def main():\n    return input_data['a'] + 1\n",
        "input": {"a": 41},
    }
    job_id = r.xadd(jobs, {"job": json.dumps(job)}).decode()
    key = result_key(job_id)
    result = json.loads(r.blmove(key, key, 60, "LEFT", "LEFT"))
    assert result["id"] == job_id, result
    assert result["outcome"] == "succeeded", result
    assert result["value"] == 42, result


def one_msgpack_job():
    # A MessagePack bin may hold bytes that are not text. The result has the encoding of its job.
    job = {
        "image": "python",
        "code": "import sys\nsys.stdout.buffer.write(sys.stdin.buffer.read()[::-1])\n",
        "stdin": b"\x00\xff\x01",
    }
    job_id = r.xadd(jobs, {"job": msgpack.packb(job), "id": "mine:1"}).decode()
    assert job_id != "mine:1", "XADD answers the entry's id; the job answers to its own"
    key = result_key("mine:1")
    packed = r.blmove(key, key, 60, "LEFT", "LEFT")
    assert packed[0] in range(0x80, 0x90) or packed[0] in (0xDE, 0xDF), packed
    result = msgpack.unpackb(packed)
    assert result["id"] == "mine:1", result
    assert result["outcome"] == "succeeded", result
    assert result["stdout"] == {"base64": "Af8A"}, result


def many_jobs_one_reply_stream():
    reply = f"sandhog:{{{namespace}}}:reply:batch"
    wanted = {}
    for n in range(20):
        job = {"image": "python", "code": f"print({n} ** 2)"}
        pack = json.dumps if n % 2 else msgpack.packb
        wanted[r.xadd(jobs, {"job": pack(job), "reply": "batch"}).decode()] = f"{n ** 2}\n"
    seen, last = {}, "0"
    while len(seen) < len(wanted):
        streams = r.xread({reply: last}, block=60_000) or sys.exit("no reply within a minute")
        for _, entries in streams:
            for last, fields in entries:
                body = fields[b"result"]
                result = json.loads(body) if body.startswith(b"{") else msgpack.unpackb(body)
                assert result["id"] == fields[b"id"].decode(), fields
                assert result["outcome"] == fields[b"outcome"].decode() == "succeeded", fields
                assert result["id"] not in seen, f"{result['id']} came twice"
                seen[result["id"]] = result["stdout"]
    assert seen == wanted, (seen, wanted)


one_json_job()
one_msgpack_job()
many_jobs_one_reply_stream()
print("all as expected")
