// Runs one JavaScript program inside a cell, and tells what became of it on descriptor 3.
//
// Reads one JSON object {"source", "args", "input_json"} from descriptor 3, to the end of the stream. Writes one JSON
// object {"value_json", "exception", "completed"} back, of at most MAX_ANSWER bytes, when the program exits. What is a value, and
// when main is called, stands in this image's README.
//
// Whatever it needs after the program has begun is taken before: a program may change every object it can reach.

"use strict";

const fs = require("fs");
const path = require("path");
const vm = require("vm");
const { createRequire } = require("module");
const { pathToFileURL } = require("url");

const CHANNEL = 3;
const MAX_ANSWER = 1 << 20;
const MAX_TEXT = 128 << 10; // characters of an exception's message, and of its stack
const MAX_DEPTH = 100;
const MAX_VALUE = 900 << 10; // characters of a value

const { readFileSync, writeFileSync, writeSync, closeSync } = fs;
const { stringify, parse } = JSON;
const { isArray } = Array;
const { getPrototypeOf, keys } = Object;
const { isFinite: finite } = Number;
const { isView } = ArrayBuffer;
const text = String;
const objectPrototype = Object.prototype;

const answer = { value_json: null, exception: null, completed: false };

class NotPlain extends Error {}

/** A value as JSON text; throws NotPlain where it is not plain data, or too much of it. */
function write(value, depth, room) {
  const put = (piece) => {
    room.left -= piece.length;
    if (room.left < 0) throw new NotPlain();
    return piece;
  };
  switch (typeof value) {
    case "string":
      if (value.length > room.left) throw new NotPlain();
      return put(stringify(value));
    case "boolean":
      return put(value ? "true" : "false");
    case "number":
      return put(finite(value) ? (value === 0 ? "0" : `${value}`) : "null");
    case "bigint":
      if (value < -(1n << 63n) || value >= 1n << 64n) throw new NotPlain();
      return put(`${value}`);
    case "object":
      break;
    default:
      throw new NotPlain();
  }
  if (value === null) return put("null");
  if (depth === MAX_DEPTH) throw new NotPlain();
  let out = "";
  if (isArray(value) || (isView(value) && typeof value.length === "number")) {
    for (let at = 0; at < value.length; at++) {
      out += put(at === 0 ? "[" : ",") + write(value[at], depth + 1, room);
    }
    return out === "" ? put("[]") : out + put("]");
  }
  const prototype = getPrototypeOf(value);
  // Objects of the program's own realm: the script runs in this one, so there is but one Object.
  if (prototype !== null && prototype !== objectPrototype) throw new NotPlain();
  const names = keys(value);
  for (let at = 0; at < names.length; at++) {
    const each = value[names[at]];
    if (each === undefined) continue;
    out += put(out === "" ? "{" : ",") + put(stringify(names[at])) + put(":") + write(each, depth + 1, room);
  }
  return out === "" ? put("{}") : out + put("}");
}

function keep(value) {
  if (value === undefined) return;
  try {
    answer.value_json = write(value, 0, { left: MAX_VALUE });
  } catch {
    // Not plain data, or it throws when it is looked at: no value.
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

function send() {
  let bytes = Buffer.from(stringify(answer));
  if (bytes.length > MAX_ANSWER) {
    answer.value_json = null;
    bytes = Buffer.from(stringify(answer));
  }
  try {
    for (let at = 0; at < bytes.length; ) at += writeSync(CHANNEL, bytes, at);
    closeSync(CHANNEL);
  } catch {
    // The program closed it: then there is no answer.
  }
}

const request = parse(readFileSync(CHANNEL, "utf8"));
const input = parse(request.input_json);
const file = path.join(process.cwd(), "main.js");
process.argv = [process.argv[0], file, ...request.args];
let told = false;
process.on("exit", () => {
  // Only once the program has come to its end or failed; leaving early is no answer.
  if (told) send();
});
process.on("uncaughtExceptionMonitor", (error) => {
  caught(error);
  answer.completed = false;
  told = true;
});

globalThis.input_data = input;
Object.defineProperty(globalThis, "input", { value: input, writable: true, configurable: true, enumerable: false });
globalThis.require = createRequire(file);
globalThis.module = { exports: {}, id: ".", filename: file, loaded: false, children: [], paths: [] };
globalThis.exports = globalThis.module.exports;
globalThis.__filename = file;
globalThis.__dirname = path.dirname(file);

/** Whether the source itself calls main at its top level, in which case it is not called again. */
const callsMain = /^(?:void\s+|await\s+|return\s+)?main\s*\(/m.test(request.source);

async function finish(main, last) {
  let value = last;
  if (typeof main === "function" && !callsMain) value = main(input);
  value = await value;
  keep(value);
  answer.completed = true;
  told = true;
}

async function runModule() {
  const place = path.join(process.cwd(), "main.mjs");
  writeFileSync(place, request.source, { flag: "wx" });
  const space = await import(pathToFileURL(place).href);
  await finish(space.main, space.default);
}

let script;
try {
  script = new vm.Script(request.source, {
    filename: "main.js",
    importModuleDynamically: (name) => import(name.startsWith(".") ? pathToFileURL(path.resolve(name)).href : name),
  });
} catch (error) {
  const wantsModule =
    error instanceof SyntaxError &&
    /import statement|import\.meta|token 'export'|await is only valid|export/.test(error.message);
  if (!wantsModule) throw error;
}
if (script === undefined) {
  runModule().catch((error) => {
    queueMicrotask(() => {
      throw error;
    });
  });
} else {
  const last = script.runInThisContext();
  let main;
  try {
    main = vm.runInThisContext("typeof main === 'function' ? main : undefined");
  } catch {
    // Declared, and in its dead zone: there is none.
  }
  finish(main, last).catch((error) => {
    queueMicrotask(() => {
      throw error;
    });
  });
}
