// Runs one JavaScript program inside a cell, and reports its end on descriptor 3.
//
// Reads one request from descriptor 3, a JSON object {"source", "file", "args", "input_json"}, and
// writes the source to that file. When the program exits, writes one answer to descriptor 3, a JSON
// object {"value_json", "dropped", "exception", "completed"} of at most MAX_ANSWER bytes. Request
// and answer are messages: a byte for the kind, a big-endian length of four bytes, and a body
// (images/README.md). This image's README defines a value, and the time at which main is called.
//
// A program may change every object that it can reach. So the harness takes references to all that
// it uses after the program's start before it.

"use strict";

const fs = require("fs");
const path = require("path");
const vm = require("vm");
const { createRequire, syncBuiltinESMExports } = require("module");
const { pathToFileURL } = require("url");

const CHANNEL = 3;
const REQUEST = "R"; // kinds of messages
const ANSWER = "A";
const HEADER_BYTES = 5; // the kind and the length of a message
const READ_BYTES = 64 << 10; // bytes of a request, read at once
const MAX_ANSWER = 1 << 20;
const MAX_TEXT = 128 << 10; // characters of an exception's message, and of its stack
const MAX_DEPTH = 100;
const MAX_VALUE = 900 << 10; // characters of a value

const { readSync, writeFileSync, writeSync } = fs;
const { stringify, parse } = JSON;
const { isArray } = Array;
const { getPrototypeOf, keys } = Object;
const { isFinite: finite, isSafeInteger } = Number;
const { isView } = ArrayBuffer;
const text = String;
const objectPrototype = Object.prototype;
const functionText = Function.prototype.toString;

const answer = { value_json: null, dropped: null, exception: null, completed: false };

const NO_PLAIN_DATA =
  "it is not plain data: null, booleans, numbers, text, arrays and plain objects";
const TOO_LONG = `as JSON it is longer than ${MAX_VALUE >> 10} KiB`;

/** The reason why a value was dropped. */
class NotPlain extends Error {
  constructor(value, reason) {
    super(reason);
    this.reason = reason;
    this.type = typeName(value);
  }
}

/** Returns the name of a value's type. */
function typeName(value) {
  if (typeof value !== "object") return typeof value;
  try {
    const name = value.constructor.name;
    return typeof name === "string" && name !== "" ? clip(name).slice(0, 100) : "object";
  } catch {
    return "object";
  }
}

/** Returns a value as JSON text. Throws NotPlain if it is not plain data, or too large. */
function write(value, depth, room) {
  const put = (piece) => {
    room.left -= piece.length;
    if (room.left < 0) throw new NotPlain(value, TOO_LONG);
    return piece;
  };
  switch (typeof value) {
    case "string":
      if (value.length > room.left) throw new NotPlain(value, TOO_LONG);
      return put(stringify(value));
    case "boolean":
      return put(value ? "true" : "false");
    case "number":
      return put(finite(value) ? (value === 0 ? "0" : `${value}`) : "null");
    case "bigint":
      if (value < -(1n << 63n) || value >= 1n << 64n) {
        throw new NotPlain(value, "an integer is beyond 64 bits");
      }
      return put(`${value}`);
    case "object":
      break;
    default:
      throw new NotPlain(value, NO_PLAIN_DATA);
  }
  if (value === null) return put("null");
  if (depth === MAX_DEPTH) {
    throw new NotPlain(value, `it is nested deeper than ${MAX_DEPTH} levels`);
  }
  let out = "";
  if (isArray(value) || (isView(value) && typeof value.length === "number")) {
    for (let at = 0; at < value.length; at++) {
      out += put(at === 0 ? "[" : ",") + write(value[at], depth + 1, room);
    }
    return out === "" ? put("[]") : out + put("]");
  }
  const prototype = getPrototypeOf(value);
  // The script runs in the harness's own realm, so there is only one Object.prototype.
  if (prototype !== null && prototype !== objectPrototype) throw new NotPlain(value, NO_PLAIN_DATA);
  const names = keys(value);
  for (let at = 0; at < names.length; at++) {
    const each = value[names[at]];
    if (each === undefined) continue;
    out += put(out === "" ? "{" : ",") + put(stringify(names[at])) + put(":");
    out += write(each, depth + 1, room);
  }
  return out === "" ? put("{}") : out + put("}");
}

function keep(value) {
  if (value === undefined) return;
  try {
    answer.value_json = write(value, 0, { left: MAX_VALUE });
  } catch (error) {
    const isOurs = error instanceof NotPlain;
    const reason = isOurs ? error.reason : "reading it threw an error";
    answer.dropped = { type: isOurs ? error.type : typeName(value), reason };
  }
}

function clip(value) {
  let out;
  try {
    out = text(value);
  } catch {
    out = "";
  }
  return out.length > MAX_TEXT ? out.slice(0, MAX_TEXT) : out;
}

function caught(error) {
  const known = error !== null && typeof error === "object";
  let name = "Error";
  let message = error;
  let stack = "";
  try {
    if (known) {
      name = error.name ?? error.constructor?.name ?? name;
      message = error.message ?? "";
      stack = error.stack ?? "";
    } else {
      name = "Uncaught";
    }
  } catch {
    message = "";
  }
  answer.completed = false;
  answer.exception = { name: clip(name), message: clip(message), traceback: clip(stack) };
}

/** Returns the message with the answer. */
function answerMessage() {
  const bytes = Buffer.from(`${ANSWER}\0\0\0\0${stringify(answer)}`);
  const length = bytes.length - HEADER_BYTES;
  for (let at = 1; at < HEADER_BYTES; at++) bytes[at] = length >>> (8 * (HEADER_BYTES - 1 - at));
  return bytes;
}

function send() {
  let bytes = answerMessage();
  if (bytes.length - HEADER_BYTES > MAX_ANSWER) {
    answer.value_json = null;
    answer.dropped = { type: "value", reason: TOO_LONG };
    bytes = answerMessage();
  }
  try {
    for (let at = 0; at < bytes.length; ) at += writeSync(CHANNEL, bytes, at);
  } catch {
    // The program closed the descriptor, so there is no answer.
  }
}

/**
 * Reads the body of the request as text. Skips messages of other kinds. Throws if the channel ends
 * without a request.
 */
function readRequest() {
  let held = Buffer.allocUnsafe(READ_BYTES);
  let filled = 0;
  const fill = (end) => {
    if (end > held.length) held = Buffer.concat([held.subarray(0, filled)], end);
    while (filled < end) {
      const count = readSync(CHANNEL, held, filled, held.length - filled);
      if (count === 0) throw new Error("the channel ended without a request");
      filled += count;
    }
  };
  for (;;) {
    fill(HEADER_BYTES);
    const end = HEADER_BYTES + held.readUInt32BE(1);
    fill(end);
    if (held.toString("latin1", 0, 1) === REQUEST) return held.toString("utf8", HEADER_BYTES, end);
    held.copyWithin(0, end, filled);
    filled -= end;
  }
}

/**
 * Parses JSON. Integers that a number cannot hold exactly become BigInts, so that the program
 * gets exactly the number that was sent. The text is valid JSON, so a regular expression can
 * distinguish its strings from its numbers.
 */
function parseExactly(json) {
  if (!/\d{16}/.test(json)) return parse(json);
  const mark = `\u0000${Math.random()}:`;
  const tokens = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
  const marked = json.replace(tokens, (token) => {
    const isLong = /^-?\d{16,}$/.test(token) && !isSafeInteger(Number(token));
    return isLong ? stringify(mark + token) : token;
  });
  const revive = (_key, value) =>
    typeof value === "string" && value.startsWith(mark) ? BigInt(value.slice(mark.length)) : value;
  return parse(marked, revive);
}

const request = parse(readRequest());
const { source } = request;
const input = parseExactly(request.input_json);
const name = request.file ?? "main.js";
const file = path.join(process.cwd(), name);
process.argv = [process.argv[0], file, ...request.args];
let shouldAnswer = false;
let hint = "";
process.on("exit", () => {
  // Write the hint here, because Node prints the exception after this event.
  if (hint !== "") {
    try {
      writeSync(2, hint);
    } catch {
      // Standard error is closed.
    }
  }
  // Send an answer only if the program ran to its end or failed. If it exits early, there is none.
  if (shouldAnswer) send();
});
process.on("uncaughtExceptionMonitor", (error) => {
  caught(error);
  hint = hintFor(error);
  shouldAnswer = true;
});

/** Returns a line about the sandbox that explains an exception, if there is one. */
function hintFor(error) {
  try {
    for (let depth = 0; depth < 16 && error !== null && typeof error === "object"; depth++) {
      const { code } = error;
      if (["EAI_AGAIN", "ENOTFOUND", "ENETUNREACH", "ENETDOWN", "EHOSTUNREACH"].includes(code)) {
        return "note: this sandbox has no network\n";
      }
      if (["MODULE_NOT_FOUND", "ERR_MODULE_NOT_FOUND"].includes(code)) {
        return (
          "note: this image has no such package, and there is no network to install it from; " +
          "`sandhog images list` shows the images\n"
        );
      }
      error = error.cause;
    }
  } catch {
    // The error's properties throw when they are read.
  }
  return "";
}

globalThis.input_data = input;
Object.defineProperty(globalThis, "input", {
  value: input,
  writable: true,
  configurable: true,
  enumerable: false,
});
globalThis.require = createRequire(file);
globalThis.module = {
  exports: {},
  id: ".",
  filename: file,
  loaded: false,
  children: [],
  paths: [],
};
globalThis.require.main = globalThis.module;
globalThis.exports = globalThis.module.exports;
globalThis.__filename = file;
globalThis.__dirname = path.dirname(file);

/**
 * Writes the source to its file. A file of this name that the job brought stays. If the disk is
 * full, there is no file.
 */
function keepSource(place) {
  try {
    writeFileSync(place, source, { flag: "wx" });
  } catch (error) {
    if (error.code !== "EEXIST") fs.rmSync(place, { force: true });
  }
}

/**
 * Set if the program's file was started in a thread or another process, where main may be called.
 */
let startedElsewhere = false;

/** Detects threads and processes that run the program's own file. */
function watchStarts() {
  const note = (started) => {
    startedElsewhere ||=
      started instanceof URL
        ? started.href === pathToFileURL(file).href
        : path.resolve(text(started)) === file;
  };
  if (source.includes("worker_threads")) {
    const threads = require("worker_threads");
    threads.Worker = class Worker extends threads.Worker {
      constructor(started, options) {
        super(started, options);
        if (!options?.eval) note(started);
      }
    };
  }
  if (source.includes("child_process")) {
    const processes = require("child_process");
    const { fork } = processes;
    processes.fork = function (started, ...rest) {
      note(started);
      return fork.call(this, started, ...rest);
    };
  }
  if (source.includes("cluster")) {
    const cluster = require("cluster");
    cluster.on("fork", () => note(cluster.settings.exec));
  }
  syncBuiltinESMExports();
}

/**
 * Number of times that the source contains the word main. If it is one, that is the definition,
 * and nothing calls it.
 */
const mentions = source.match(/\bmain\b/g)?.length ?? 0;
if (mentions > 1) {
  // These flags make V8 count calls from the first one on, and keep the count. By default it counts
  // only the calls of functions that are called often.
  const { setFlagsFromString } = require("v8");
  setFlagsFromString("--no-lazy-feedback-allocation");
  setFlagsFromString("--no-flush-bytecode");
  watchStarts();
}

/**
 * Returns whether the program has called this function, in any way. V8's coverage counts show
 * which functions have run.
 */
function wasCalled(main) {
  if (mentions === 1 && main.name === "main") return false;
  if (startedElsewhere) return true;
  const { Session } = require("inspector");
  const session = new Session();
  session.connect();
  let scripts = [];
  session.post("Profiler.enable");
  session.post("Profiler.getBestEffortCoverage", (_error, coverage) => {
    scripts = coverage?.result ?? [];
  });
  session.disconnect();
  const definition = functionText.call(main);
  for (const { url, functions } of scripts) {
    if (url !== name && !url.endsWith(`/${moduleName}`)) continue;
    for (const each of functions) {
      const [{ startOffset, endOffset, count }] = each.ranges;
      if (count > 0 && source.slice(startOffset, endOffset) === definition) return true;
    }
  }
  return false;
}

async function finish(findMain, last) {
  last = await last;
  let main = findMain();
  if (typeof main === "function" && !wasCalled(main)) {
    // A callback may still call it, unless the source contains the word only once.
    if (mentions > 1) {
      await new Promise((done) => process.once("beforeExit", done));
      main = findMain();
    }
    if (typeof main === "function" && !wasCalled(main)) last = await main(input);
  }
  keep(last);
  answer.completed = true;
  shouldAnswer = true;
}

/** The file name for a source that is a module: with the extension .mjs. */
const moduleName = name.endsWith(".mjs") ? name : `${path.basename(name, path.extname(name))}.mjs`;

async function runModule() {
  const place = path.join(process.cwd(), moduleName);
  process.argv[1] = place;
  writeFileSync(place, source, { flag: "wx" });
  const space = await import(pathToFileURL(place).href);
  await finish(() => space.main, space.default);
}

function rethrow(error) {
  queueMicrotask(() => {
    throw error;
  });
}

let script;
try {
  script = new vm.Script(source, {
    filename: name,
    importModuleDynamically: (name) =>
      import(name.startsWith(".") ? pathToFileURL(path.resolve(name)).href : name),
  });
} catch (error) {
  const wantsModule =
    error instanceof SyntaxError &&
    /import statement|import\.meta|token 'export'|await is only valid|export/.test(error.message);
  if (!wantsModule) throw error;
}
if (script === undefined) {
  runModule().catch(rethrow);
} else {
  keepSource(file);
  const last = script.runInThisContext();
  const findMain = () => {
    try {
      return vm.runInThisContext("typeof main === 'function' ? main : undefined");
    } catch {
      // main is declared but not initialised (in its temporal dead zone), so there is no main.
    }
  };
  finish(findMain, last).catch(rethrow);
}
