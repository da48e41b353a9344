"""Starts llama.cpp's own HTTP server with SmolLM2, on the loopback interface of a cell."""

import os
import signal

import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = "/srv/model/SmolLM2-135M-Instruct.Q4_1.gguf"
params.model_alias = {"smollm2"}
params.hostnames = ["127.0.0.1"]
params.port = 8080
params.n_ctx = 4096
params.n_parallel = 2
# No warm-up run: loaded weights stay in the page cache, which all cells of the image share.
params.warmup = False
# All tenants share this server: an earlier call must not change a later answer, nor be visible in
# it. A request may override these defaults, so image.toml lists the allowed paths and forces the
# relevant fields.
params.cache_prompt = False
params.cache_ram_mib = 0
params.cache_idle_slots = False
params.n_cache_reuse = 0
params.n_ctx_checkpoints = 0
params.slot_prompt_similarity = 0.0
params.endpoint_slots = False
params.endpoint_props = False
params.endpoint_metrics = False
params.ui = False
params.cpuparams.n_threads = int(os.environ["LLAMA_THREADS"])
params.cpuparams_batch.n_threads = params.cpuparams.n_threads
server = xllamacpp.Server(params)
print("listening on", server.listening_address, flush=True)
signal.pause()
