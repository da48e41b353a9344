// Sends inference requests to models from inside a cell.
//
//     const { infer } = require("/usr/lib/sandhog/cell/sandhog.js");
//
//     const answer = await infer("smollm2", { prompt: "Once upon a time", max_tokens: 16 });
//     const vector = await infer("embed", "a job queue", { timeoutMs: 5000 });
//
// A job may call the images that its `infer` names, and no others. The requests use no network.
// Many requests may be open at the same time. Only the main thread of the process that the job
// started can call: the connection to the worker belongs to it.
//
// This module checks only that a request can be sent. The worker decides which images a job may
// call, and how often.

"use strict";

const net = require("net");
const { isMainThread } = require("worker_threads");

const VARIABLE = "SANDHOG_INFER_FD";
const MAX_REQUEST_BYTES = 1 << 20;
const LENGTH_BYTES = 4;

/** A model did not answer. `code` is the reason, such as `unknown_image` or `model_lost`. */
class InferError extends Error {
  constructor(message, code) {
    super(message);
    this.name = "InferError";
    this.code = code;
  }
}

/** The model rejected its input, or failed. `exception` has `type`, `message` and `traceback`. */
class ModelError extends InferError {
  constructor(message, code, exception) {
    super(message, code);
    this.name = "ModelError";
    this.exception = exception;
  }
}

/** The connection to the worker. */
class WorkerConnection {
  constructor(fd) {
    this.last = 0;
    this.open = new Map();
    this.pieces = [];
    this.held = 0;
    this.ended = null;
    this.socket = new net.Socket({ fd, readable: true, writable: true });
    this.socket.on("data", (piece) => this.receive(piece));
    this.socket.on("error", (error) => this.end(error.message));
    this.socket.on("close", () => this.end("the worker closed the connection"));
    this.unrefIfIdle();
  }

  request(question) {
    return new Promise((answer, fail) => {
      if (this.ended !== null) throw new InferError(this.ended, "hung_up");
      const id = this.last + 1;
      const body = Buffer.from(JSON.stringify({ id, ...question }));
      if (body.length > MAX_REQUEST_BYTES) {
        throw new InferError(
          `a request of ${body.length} bytes is above the cap of ${MAX_REQUEST_BYTES}`,
          "bad_question",
        );
      }
      this.last = id;
      const head = Buffer.alloc(LENGTH_BYTES);
      head.writeUInt32BE(body.length);
      this.open.set(id, { answer, fail });
      // Keeps the program alive while it waits for an answer.
      this.socket.ref();
      this.socket.write(Buffer.concat([head, body]));
    });
  }

  receive(piece) {
    this.pieces.push(piece);
    this.held += piece.length;
    for (let frame = this.takeFrame(); frame !== null; frame = this.takeFrame()) {
      this.settle(JSON.parse(frame));
    }
    this.unrefIfIdle();
  }

  /** Returns the next complete frame, or null. Its pieces are joined once all of them are there. */
  takeFrame() {
    if (this.held < LENGTH_BYTES) return null;
    if (this.pieces[0].length < LENGTH_BYTES) this.pieces = [Buffer.concat(this.pieces)];
    const length = this.pieces[0].readUInt32BE();
    if (this.held < LENGTH_BYTES + length) return null;
    const all = Buffer.concat(this.pieces);
    this.pieces = [all.subarray(LENGTH_BYTES + length)];
    this.held -= LENGTH_BYTES + length;
    return all.subarray(LENGTH_BYTES, LENGTH_BYTES + length);
  }

  settle({ id, value, error }) {
    const asked = this.open.get(id);
    if (asked === undefined) return;
    this.open.delete(id);
    if (error === undefined) asked.answer(value);
    else if (error.exception) {
      asked.fail(new ModelError(error.message, error.code, error.exception));
    } else asked.fail(new InferError(error.message, error.code));
  }

  end(why) {
    this.ended ??= why;
    for (const { fail } of this.open.values()) fail(new InferError(this.ended, "hung_up"));
    this.open.clear();
  }

  /** Lets the program end while no request is open. */
  unrefIfIdle() {
    if (this.open.size === 0) this.socket.unref();
  }
}

let connection = null;

function connected() {
  if (!isMainThread) {
    throw new InferError("only a program's main thread can call models", "wrong_process");
  }
  const fd = process.env[VARIABLE];
  if (fd === undefined) {
    throw new InferError("this job may ask no model: its `infer` names none", "not_allowed");
  }
  connection ??= new WorkerConnection(Number(fd));
  return connection;
}

/**
 * Calls the model of `image` with `input`. Resolves to the answer as plain data, or rejects with an
 * InferError.
 *
 * `method` or `path` selects the method or path of the model; without them, the image's default is
 * used. `timeoutMs` is the timeout in milliseconds and includes all waiting.
 */
async function infer(image, input = null, { method, path, timeoutMs } = {}) {
  return connected().request({ image, input, method, path, timeout_ms: timeoutMs });
}

module.exports = { infer, InferError, ModelError };
