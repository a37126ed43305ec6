// Classifies pictures with a model.onnx by onnxruntime-web, in Node and in browsers, as cifar_onnx does in Python.
// The caller decodes pictures and hands over the module `onnxruntime-web`.
import { resized } from "./resizing.mjs";

export class InputError extends Error {}

/** What is said of a file without bytes. */
export const EMPTY = "an empty file: was it copied or downloaded to its end?";

const KEY = "classifier";
const FORMAT = 1;
const BLANK = "0".repeat(64); // stands where the digest will be while the digest is computed
const TOLERANCE = new Map([["fp32", 1e-3], ["fp16", 1e-2], ["int8", 2e-2]]); // of samples, by precision, as in Python
const MAX_SIDE = 65_535; // pixels, as in Python
const MAX_SIZE = 2048; // pixels a side of what a net sees, likewise
const MAX_CONTRACT = 32_000_000; // bytes, likewise
const MAX_SAMPLE = 1_000_000; // pixels of a golden sample, likewise
const METADATA = 14; // ModelProto.metadata_props: StringStringEntryProto {key = 1, value = 2}

let last = Promise.resolve(); // of what `inTurn` has been given

/** The contract inside the bytes of an ONNX file, checked; an InputError says what is wrong with it. */
export async function readContract(file) {
  const bytes = bytesOf(file);
  if (bytes.length === 0) throw new InputError(EMPTY);
  const { place, text } = contractIn(bytes) ?? {};
  if (text === undefined) {
    throw new InputError(
      `an ONNX file without a contract (metadata key '${KEY}'): export it with python -m cifar_lightning export`,
    );
  }
  let contract;
  try {
    contract = JSON.parse(text);
    if (contract.format === undefined) throw new TypeError("no format");
  } catch (error) {
    throw new InputError(`its contract cannot be read (${error.message})`);
  }
  if (contract.format !== FORMAT) {
    const format = JSON.stringify(contract.format);
    throw new InputError(`contract format ${format} is unknown: this version reads format ${FORMAT}`);
  }
  const wrong = fault(contract);
  if (wrong) throw new InputError(`its contract cannot be read (${wrong})`);
  // Browsers have no digests where a page came over plain HTTP from another machine.
  if (globalThis.crypto?.subtle && (await digest(bytes, place, contract.digest)) !== contract.digest) {
    throw new InputError("damaged or changed since it was exported: its digest is not that of its bytes");
  }
  return contract;
}

export class Classifier {
  /** From the bytes of a model.onnx, a Uint8Array or ArrayBuffer; `options` are those of an InferenceSession. */
  static async load(file, ort, options = {}) {
    const contract = await readContract(file);
    const { size } = contract.input;
    const known = { freeDimensionOverrides: { height: size, width: size } }; // what depends on it is computed once
    const session = await ort.InferenceSession.create(bytesOf(file), { ...known, ...options }).catch(refuse);
    const missing = ["probabilities", "familiarity"].filter((name) => !session.outputNames.includes(name));
    if (missing.length) refuse(`it has no output ${missing.join(" and no ")}`);
    return new Classifier(contract, session, ort.Tensor);
  }

  constructor(contract, session, Tensor) {
    Object.assign(this, { contract, session, Tensor });
  }

  /** What the model says of a picture `{data, width, height}`, `data` being RGB row by row, or RGBA as on a canvas.
   * The fields are those of Python's `Prediction.as_dict`, with all `probabilities`, the `familiarity` and, where the
   * file has class activation maps, `map`: what supports the label, from 0 to 1, on the square that the net sees. */
  async classify(picture, { topK = 5 } = {}) {
    const { classes, input, unknown, sets } = this.contract;
    const square = resized(checked(picture), input.size, input.resize);
    const image = new this.Tensor("uint8", square, [1, input.size, input.size, 3]);
    const outputs = await inTurn(() => this.session.run({ image })).catch(refuse);
    const probabilities = Array.from(outputs.probabilities.data);
    if (probabilities.length !== classes.length) {
      refuse(`its contract names ${classes.length} classes, but it gives ${probabilities.length}`);
    }
    const ranked = [...probabilities.keys()].sort((a, b) => probabilities[b] - probabilities[a]);
    return {
      label: classes[ranked[0]],
      probability: probabilities[ranked[0]],
      top: ranked.slice(0, topK).map((k) => ({ label: classes[k], probability: probabilities[k] })),
      labels: predictionSet(probabilities, ranked, sets).map((k) => classes[k]),
      familiarity: outputs.familiarity.data[0],
      unknown: !(outputs.familiarity.data[0] >= Math.fround(unknown.threshold)), // as one that is NaN
      probabilities,
      ...(outputs.cam && { map: activationMap(outputs.cam, ranked[0]) }),
    };
  }

  /** Replay the golden samples; `decode` makes `{data, width, height}` of a file's bytes. Where it throws an InputError
   * the sample's `stage` is "decode"; any other error ends the replay. */
  async verify(decode) {
    const { classes, golden, precision } = this.contract;
    const tolerance = TOLERANCE.get(precision) ?? TOLERANCE.get("fp32");
    const replays = [];
    for (const { name, file, label: expected, probabilities, familiarity } of golden) {
      const bytes = Uint8Array.from(atob(file), (letter) => letter.charCodeAt(0));
      const picture = await Promise.resolve(bytes).then(decode).catch(unlessInput);
      if (!(picture?.width * picture?.height <= MAX_SAMPLE)) {
        replays.push({ name, label: "", expected, difference: 1, stage: "decode", ok: false });
        continue;
      }
      const found = await this.classify(picture);
      const difference = Math.max(...found.probabilities.map((p, k) => Math.abs(p - probabilities[k])));
      // Of two labels that are as probable as that, either will do.
      const gap = probabilities[classes.indexOf(found.label)] - probabilities[classes.indexOf(expected)];
      const off = Math.abs(found.familiarity - familiarity) / Math.max(1, Math.abs(familiarity));
      let stage = familiarity === undefined || off <= tolerance ? "" : "familiarity";
      if (!(Math.max(difference, Math.abs(gap)) <= tolerance)) stage = "probabilities";
      replays.push({ name, label: found.label, expected, difference, stage, ok: !stage });
    }
    return replays;
  }

  /** Free the net's memory, once what has been asked is answered; nothing can be classified afterwards. */
  release() {
    return inTurn(() => this.session.release());
  }
}

/** The bytes of a file, of a Uint8Array or an ArrayBuffer, be it another frame's; an InputError for all else. */
export function bytesOf(file) {
  const kind = file?.[Symbol.toStringTag];
  if (kind === "ArrayBuffer") return new Uint8Array(file);
  if (kind === "Uint8Array") return new Uint8Array(file.buffer, file.byteOffset, file.length); // a Buffer of Node's, too
  throw new InputError("give a file's bytes, as a Uint8Array or an ArrayBuffer (is an await missing?)");
}

/** Refuse a picture that is too long for Python, and for a canvas, which would be blank. */
export function checkSides(width, height) {
  if (Math.max(width, height) <= MAX_SIDE) return;
  throw new InputError(`${width} x ${height} pixels: no side may be longer than ${MAX_SIDE.toLocaleString("en")}`);
}

/** The advice on a file that cannot be read, by its letters 4 to 11: phones write HEIC and AVIF. */
export function advice(brand) {
  return /^ftyp(hei[cx]|mif1|avif)$/.test(brand) ? ": convert it to JPEG" : "";
}

/** RGB of RGBA, transparency laid over white by Pillow's arithmetic. */
export function rgbOf({ data, width, height }) {
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < rgb.length; from += 4) {
    const share = data[from + 3] * 128;
    for (let channel = 0; channel < 3; channel++) {
      const sum = data[from + channel] * share + 255 * (255 * 128 - share) + 0x4000;
      rgb[to++] = (sum + (sum >> 8)) >> 15;
    }
  }
  return { data: rgb, width, height };
}

/** For a reason, or for what was thrown: C++'s exceptions come as numbers. */
function refuse(reason) {
  throw new InputError(`onnxruntime-web cannot run it (${reason?.message || reason})`);
}

/** What `work` promises, begun when all before it has ended: the build of onnxruntime-web that can use GPUs fails where
 * runs overlap, of different sessions, too. */
function inTurn(work) {
  const turn = last.then(work);
  last = turn.catch(() => {});
  return turn;
}

/** The picture with its RGB bytes. */
function checked(picture) {
  const { data, width, height } = picture ?? {};
  const each = data?.length / (width * height);
  const isBytes = /^Uint8(Clamped)?Array$/.test(data?.[Symbol.toStringTag]);
  if (!(isBytes && isWhole(width) && isWhole(height) && (each === 3 || each === 4))) {
    throw new InputError("a picture is {data, width, height}, with the RGB or RGBA bytes of its pixels as data");
  }
  return each === 4 ? rgbOf(picture) : picture;
}

const unlessInput = (error) => (error instanceof InputError ? undefined : Promise.reject(error));
const isWhole = (number) => Number.isInteger(number) && number > 0;

/** Which classes are in the set, the most probable first, as `uncertainty.py` has it. */
function predictionSet(probabilities, ranked, { method, threshold }) {
  let sum = 0; // of the more probable ones
  return ranked.filter((k, rank) => {
    const nonconformity = method === "lac" ? 1 - probabilities[k] : Math.min(sum, 1);
    sum += probabilities[k];
    return rank === 0 || nonconformity <= threshold;
  });
}

function activationMap({ data, dims: [, , height, width] }, k) {
  const scores = data.subarray(k * height * width, (k + 1) * height * width);
  const values = Array.from(scores, (value) => (Number.isFinite(value) ? Math.max(value, 0) : 0));
  const highest = values.reduce((a, b) => Math.max(a, b)) || 1;
  return { height, width, values: values.map((value) => value / highest) };
}

/** What is wrong with a contract, and what would be right; nothing where it is. */
function fault({ classes, input, temperature, sets, unknown, digest, golden, cost = {}, metrics = {}, provenance = {} }) {
  const name = (word) => typeof word === "string" && /^\P{Cs}+$/u.test(word); // no half of a letter
  if (!Array.isArray(classes) || !classes.length || !classes.every(name) || new Set(classes).size < classes.length) {
    return "classes must be a list of one or more distinct, non-empty strings of whole letters";
  }
  if (!isWhole(input?.size) || input.size > MAX_SIZE) return "input.size must be an integer from 1 to 2,048";
  if (!["stretch", "crop", "pad"].includes(input.resize)) return "input.resize must be stretch, crop or pad";
  if (!Number.isFinite(temperature) || temperature <= 0) return "temperature must be a finite number above 0";
  if (!["lac", "aps"].includes(sets?.method)) return "sets.method must be lac or aps";
  if (!Number.isFinite(sets.alpha)) return "sets.alpha must be a finite number";
  if (!Number.isFinite(sets.threshold)) return "sets.threshold must be a finite number";
  if (typeof unknown?.score !== "string") return "unknown.score must be a string";
  if (!Number.isFinite(unknown.threshold)) return "unknown.threshold must be a finite number";
  if (!/^[0-9a-f]{64}$/.test(digest)) return "digest must be 64 hexadecimal digits";
  if (!Array.isArray(golden) || golden.length > 64 || !golden.every((sample) => isGolden(sample, classes.length))) {
    return (
      "golden must be a list of up to 64 samples, each with the strings name, file (base64), fingerprint and label, " +
      "and with a finite number for each class in logits and probabilities, and as familiarity, if it has one"
    );
  }
  for (const [key, value] of Object.entries({ cost, metrics, provenance })) {
    if (typeof value !== "object" || !value || Array.isArray(value)) return `${key} must be an object`;
  }
}

function isGolden(sample, count) {
  const { name, file, fingerprint, label, logits, probabilities, familiarity = 0 } = sample ?? {};
  return (
    [name, file, fingerprint, label].every((text) => typeof text === "string") &&
    file.length % 4 === 0 && /^[A-Za-z0-9+/]*={0,2}$/.test(file) && Number.isFinite(familiarity) &&
    [logits, probabilities].every((row) => Array.isArray(row) && row.length === count && row.every(Number.isFinite))
  );
}

/** The digest of a file whose contract, in the part `place` of its bytes, states this one. */
async function digest(bytes, place, stated) {
  const mark = '"digest": "';
  const at = new TextDecoder("latin1").decode(place).indexOf(`${mark}${stated}"`); // one letter for each byte
  const blank = new Uint8Array(bytes);
  if (at >= 0) blank.set(new TextEncoder().encode(BLANK), place.byteOffset - bytes.byteOffset + at + mark.length);
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", blank));
  return Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The JSON of a file's contract, and the part of the bytes that holds it; undefined where there is none. */
function contractIn(bytes) {
  let place;
  try {
    for (const [number, value] of fields(bytes)) {
      if (number !== METADATA || typeof value === "number") continue;
      const entry = new Map(fields(value));
      if (new TextDecoder("latin1").decode(entry.get(1)) === KEY) place = entry.get(2) ?? new Uint8Array();
    }
    if (!(place?.length > MAX_CONTRACT)) {
      return place && { place, text: new TextDecoder("utf-8", { fatal: true }).decode(place) };
    }
  } catch {
    throw new InputError("not an ONNX file, or a damaged one");
  }
  const [length, most] = [place.length, MAX_CONTRACT].map((number) => number.toLocaleString("en"));
  throw new InputError(`its contract is of ${length} bytes: more than ${most} are not taken`);
}

/** Fields of a protobuf message as [number, value]: https://protobuf.dev/programming-guides/encoding */
function* fields(message) {
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; scale < 2 ** 70 && at < message.length; scale *= 128) {
      const byte = message[at++];
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
    throw new RangeError("varint");
  };
  while (at < message.length) {
    const key = varint();
    if (key < 8 || key >= 2 ** 32) throw new RangeError("field number");
    if (key % 8 === 0) {
      yield [Math.floor(key / 8), varint()];
      continue;
    }
    const length = { 1: () => 8, 2: varint, 5: () => 4 }[key % 8]?.() ?? NaN;
    if (!(at + length <= message.length)) throw new RangeError("length");
    yield [Math.floor(key / 8), message.subarray(at, at + length)];
    at += length;
  }
}
