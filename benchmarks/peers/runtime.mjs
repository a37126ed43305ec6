// Runs a model by onnxruntime-web (WebAssembly) under Node: node runtime.mjs model.onnx PIXELS SHAPES
// PIXELS: uint8 pictures one after the other; SHAPES: JSON, [[height, width], ...]. Prints a JSON list of probabilities.
// What it imports, `make web` has put there.
import { readFileSync } from "node:fs";
import * as ort from "../../export/js/node_modules/onnxruntime-web/dist/ort.node.min.mjs";

ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";
const [model, pixels, shapes] = process.argv.slice(2);
const session = await ort.InferenceSession.create(readFileSync(model), { executionProviders: ["wasm"] });
const all = new Uint8Array(readFileSync(pixels));
const answers = [];
let at = 0;
for (const [height, width] of JSON.parse(readFileSync(shapes, "utf8"))) {
  const image = new ort.Tensor("uint8", all.subarray(at, (at += height * width * 3)), [1, height, width, 3]);
  answers.push(Array.from((await session.run({ image })).probabilities.data));
}
process.stdout.write(JSON.stringify(answers) + "\n", () => process.exit(0)); // its workers would keep Node alive
