// BullMQ: `worker CONCURRENCY` runs a worker, `produce` runs a producer.
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { createRequire } from 'node:module';

// Installed outside the checkout, so that the checkout holds no packages.
const { Queue, Worker } = createRequire(process.env.PEER_NODE_MODULES + '/')('bullmq');

const { hostname: host, port } = new URL(process.env.PEER_REDIS_URL);
const connection = { host, port: Number(port), db: 5, maxRetriesPerRequest: null };

if (process.argv[2] === 'worker') {
  new Worker('peer', async () => 1, { connection, concurrency: Number(process.argv[3]) });
} else {
  const queue = new Queue('peer', { connection });
  const produce = async (count) => {
    const before = await queue.getCompletedCount();
    for (let first = 0; first < count; first += 256) {
      const some = Math.min(256, count - first);
      await queue.addBulk(Array.from({ length: some }, () => ({ name: 'noop', data: {} })));
    }
    while ((await queue.getCompletedCount()) < before + count) await sleep(20);
  };
  await produce(1);
  console.log('ready');
  for await (const line of createInterface({ input: process.stdin })) {
    await produce(Number(line));
    console.log('done');
  }
  await queue.close();
}
