// Loads the model and onnxruntime-web, and classifies photos one after the other, away from the page's own thread.
import { checkSides, Classifier, rgbOf } from "./classifier.mjs";

const MAX_PIXELS = 100_000_000;

const classifier = load();
classifier.then(
  ({ contract: { golden, ...contract } }) => postMessage({ contract }),
  (error) => postMessage({ error: error.message }),
);

let turn = classifier;
onmessage = ({ data: { id, photo } }) => {
  turn = turn.then(() => classify(photo)).then(
    (prediction) => postMessage({ id, prediction }),
    (error) => postMessage({ id, error: error.message }),
  );
};

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
    sizes.push(Number(response.headers.get("content-length")));
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
  let bitmap;
  try {
    bitmap = await createImageBitmap(photo, { colorSpaceConversion: "none" });
  } catch {
    throw new Error("not a picture that this browser can read");
  }
  const { width, height } = bitmap;
  if (width * height > MAX_PIXELS) throw new Error(`${width} x ${height} pixels are too many`);
  checkSides(width, height);
  const context = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  // Without an error Safari leaves a canvas blank that is too large, and Firefox hands out noise if told to resist
  // fingerprinting, as in Tor Browser; Brave changes single values by a little.
  if (context.getImageData(0, 0, 1, 1).data.some((value) => value < 250)) {
    const why = "they are too many, or it guards against fingerprinting";
    throw new Error(`the browser does not let this page read ${width} x ${height} pixels: ${why}`);
  }
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return rgbOf(context.getImageData(0, 0, width, height));
}
