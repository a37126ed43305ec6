// Classifies pictures under Node: node node.mjs model.onnx photo.png ... [--json] [--top-k N] [--verify]
import { readFileSync } from "node:fs";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

import { Classifier, InputError } from "./classifier.mjs";

const USAGE = "node node.mjs model.onnx photo.png ... [--json] [--top-k N] [--verify]";
const HELP = `usage: ${USAGE}

  --json     a line of JSON for each photo, as python -m cifar_onnx classify --json
  --top-k N  how many classes, the most probable first (1)
  --verify   replay the golden samples in the model instead`;
const OPTIONS = {
  help: { type: "boolean", short: "h" },
  json: { type: "boolean" },
  "top-k": { type: "string", default: "1" },
  verify: { type: "boolean" },
};

const LOADERS = ["Jpeg", "Nsgif", "Png", "Webp"]; // of sharp
const NAMED = 4; // classes of a prediction set, as on the page

/** Returns the exit code, as Python's commands have it: 0 done, 1 a picture or a check failed. */
async function main(args) {
  const { values, positionals } = words(args);
  if (values.help) {
    console.log(HELP);
    return 0;
  }
  const [model, ...photos] = positionals;
  const topK = Number(values["top-k"]);
  if (!/^\d+$/.test(values["top-k"]) || topK < 1) {
    throw new InputError(`--top-k: '${values["top-k"]}' is not a whole number from 1 up`);
  }
  if (!model || !(photos.length || values.verify)) throw new InputError(`name a model and pictures: ${USAGE}`);
  const { decode, ort } = await libraries();
  const classifier = await load(model, ort);
  if (values.verify) return verify(classifier, decode);
  const show = values.json ? asJson : asText(Math.max(...photos.map((path) => path.length)));
  let code = 0;
  for (const path of photos) {
    let answer;
    try {
      answer = await classifier.classify(await decode(read(path)), { topK });
    } catch (error) {
      code = 1;
      answer = { error: explained(error) };
    }
    console.log(show(path, answer));
  }
  return code;
}

function words(args) {
  try {
    return parseArgs({ args, options: OPTIONS, allowPositionals: true });
  } catch (error) {
    throw new InputError(`${error.message.split(/\.\s/)[0]}: ${USAGE}`);
  }
}

async function libraries() {
  try {
    const names = ["./decode.mjs", "onnxruntime-web", "sharp"];
    const [{ decode }, ort, { default: sharp }] = await Promise.all(names.map((name) => import(name)));
    sharp.block({ operation: ["VipsForeignLoad"] }); // of the whole process, which is this command's own
    sharp.unblock({ operation: LOADERS.map((name) => `VipsForeignLoad${name}`) });
    ort.env.wasm.numThreads = 1; // the same bits on every machine
    ort.env.logLevel = "error";
    return { decode, ort };
  } catch (error) {
    const name = /Cannot find package '([^']+)'/.exec(error.message)?.[1];
    if (!name) throw error;
    throw new InputError(`${name} is not installed: npm install in ${dirname(fileURLToPath(import.meta.url))}`);
  }
}

async function load(path, ort) {
  try {
    return await Classifier.load(read(path), ort);
  } catch (error) {
    throw new InputError(`${path}: ${explained(error)}`);
  }
}

function read(path) {
  try {
    return readFileSync(path);
  } catch (error) {
    throw new InputError({ ENOENT: "no such file", EISDIR: "is a folder" }[error.code] ?? error.message);
  }
}

function explained(error) {
  if (error instanceof InputError) return error.message;
  throw error;
}

async function verify(classifier, decode) {
  const replays = await classifier.verify(decode);
  const width = Math.max(...replays.map(({ name }) => name.length));
  for (const { name, label, expected, difference, stage, ok } of replays) {
    const right = label === expected ? "" : `, expected ${expected}`;
    const verdict = ok ? "ok" : `WRONG${right}: the stage that differs is ${stage}`;
    const close = `probabilities within ${difference.toExponential(1)}`;
    console.log(plain(`${name.padEnd(width)}  ${label}, ${close}: ${verdict}`));
  }
  const passed = replays.filter(({ ok }) => ok).length;
  console.log(`${passed} of ${replays.length} golden samples give the expected answer`);
  return passed && passed === replays.length ? 0 : 1;
}

/** Without control characters: names from a file of anybody's do not steer a terminal. */
function plain(line) {
  return line.replaceAll(/\p{Cc}/gu, (letter) => `\\x${letter.charCodeAt(0).toString(16).padStart(2, "0")}`);
}

function asJson(path, { error, label, probability, top, labels, unknown }) {
  return JSON.stringify({ path, ...(error ? { error } : { label, probability, top, labels, unknown }) });
}

function asText(width) {
  return (path, { error, top, labels, unknown }) => {
    if (error) return plain(`${path.padEnd(width)}  error: ${error}`);
    const ranks = top.map((each) => `${each.label} ${`${(100 * each.probability).toFixed(1)}%`.padStart(6)}`);
    const words = [path.padEnd(width), ...ranks];
    if (unknown) words.push("unknown: unlike the pictures it was trained on");
    else if (labels.length > 1) {
      const more = labels.length > NAMED ? [`${labels.length - NAMED} more`] : [];
      words.push(`not sure: ${[...labels.slice(0, NAMED), ...more].join(" or ")}`);
    }
    return plain(words.join("  "));
  };
}

process.stdout.on("error", ({ code, message }) => {
  if (code === "EPIPE") process.exit(0); // the reader, `head` for one, has seen enough
  console.error(`error: what was to be written: ${message}`);
  process.exit(2);
});

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof InputError)) throw error;
  console.error(plain(`error: ${error.message}`));
  process.exitCode = 2;
}
