// Runs a model by onnxruntime-web (WebAssembly) under Node: node runtime.mjs model.onnx PIXELS SHAPES
// PIXELS: uint8 pictures one after the other; SHAPES: JSON, [[height, width], ...]. Prints a JSON list of probabilities.
import { readFileSync } from "node:fs";
import * as ort from "onnxruntime-web";

ort.env.wasm.numThreads = 1;
ort.env.logLevel = "error";
const [model, pixels, shapes] = process.argv.slice(2);
const session = await ort.InferenceSession.create(readFileSync(model), { executionProviders: ["wasm"] });
const data = new Uint8Array(readFileSync(pixels));
const answers = [];
let at = 0;
for (const [height, width] of JSON.parse(readFileSync(shapes, "utf8"))) {
  const picture = data.subarray(at, (at += height * width * 3));
  const { probabilities } = await session.run({ image: new ort.Tensor("uint8", picture, [1, height, width, 3]) });
  answers.push(Array.from(probabilities.data));
}
process.stdout.write(JSON.stringify(answers) + "\n", () => process.exit(0)); // its workers would keep Node alive
