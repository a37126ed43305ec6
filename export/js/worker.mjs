// Loads the model and onnxruntime-web, and classifies photos one after the other, away from the page's own thread.
import { advice, checkSides, Classifier, EMPTY, rgbOf } from "./classifier.mjs";

const MAX_PIXELS = 100_000_000;
const PART = 2 ** 20; // pixels that are read at a time

const classifier = load();
classifier.then(
  ({ contract: { golden, ...contract } }) => postMessage({ contract }),
  (error) => postMessage({ error: reason(error) }),
);

let turn = classifier;
onmessage = ({ data: { id, photo } }) => {
  turn = turn.then(() => classify(photo)).then(
    (prediction) => postMessage({ id, prediction }),
    (error) => postMessage({ id, error: reason(error) }),
  );
};

/** Of anything that is thrown: Firefox throws strings where memory ends. */
function reason(error) {
  return error?.message || String(error);
}

async function load() {
  const [model, wasmBinary] = await Promise.all(downloads(["model.onnx", "ort/ort-wasm-simd-threaded.wasm"]));
  const ort = await import("./ort/ort.wasm.bundle.min.mjs");
  Object.assign(ort.env.wasm, { wasmBinary });
  ort.env.logLevel = "error";
  return Classifier.load(model, ort);
}

/** Files as promises of bytes; on the way the page is told how much of them is there. */
function downloads(addresses) {
  const sizes = [];
  let received = 0;
  return addresses.map(async (address) => {
    const response = await fetch(address).catch(() => ({}));
    if (!response.ok) throw new Error(`${address} cannot be loaded: ${response.status ?? "no connection"}`);
    sizes.push(Number(response.headers.get("content-length") ?? NaN)); // which what is compressed may lack
    const counted = new TransformStream({
      transform(chunk, controller) {
        received += chunk.length;
        const total = sizes.length === addresses.length ? sizes.reduce((a, b) => a + b) : 0;
        if (total) postMessage({ loaded: Math.min(received / total, 1) }); // a total of compressed files is too small
        controller.enqueue(chunk);
      },
    });
    return new Uint8Array(await new Response(response.body.pipeThrough(counted)).arrayBuffer());
  });
}

async function classify(photo) {
  const start = performance.now();
  const prediction = await (await classifier).classify(await decode(photo));
  return { ...prediction, milliseconds: performance.now() - start };
}

async function decode(photo) {
  if (photo.size === 0) throw new Error(EMPTY);
  const bitmap = await createImageBitmap(photo, { colorSpaceConversion: "none" }).catch(async () => {
    throw new Error(`not a picture that this browser can read${advice(await photo.slice(4, 12).text())}`);
  });
  try {
    return pixels(bitmap);
  } finally {
    bitmap.close();
  }
}

/** RGB, read part by part: on iPhones a canvas must not be as large as their photos. */
function pixels(bitmap) {
  const { width, height } = bitmap;
  if (width * height > MAX_PIXELS) throw new Error(`${width} x ${height} pixels are too many`);
  checkSides(width, height);
  const data = new Uint8Array(width * height * 3);
  const lines = Math.min(height, Math.floor(PART / width));
  const context = new OffscreenCanvas(width, lines).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  for (let y = 0; y < height; y += lines) {
    context.fillRect(0, 0, width, lines);
    if (y === 0) checkReading(context);
    context.drawImage(bitmap, 0, -y);
    data.set(rgbOf(context.getImageData(0, 0, width, Math.min(lines, height - y))).data, 3 * width * y);
  }
  return { data, width, height };
}

/** Refuse to go on where white is not read as white: without an error Firefox hands out noise if told to resist
 * fingerprinting, as in Tor Browser. Brave changes single values by a little. */
function checkReading(context) {
  if (context.getImageData(0, 0, 1, 1).data.every((value) => value >= 250)) return;
  throw new Error("the browser does not let this page read a photo's pixels: it guards against fingerprinting");
}
