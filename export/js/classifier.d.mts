// Types of classifier.mjs for TypeScript.

export class InputError extends Error {}

/** Pixels row by row: three bytes each (RGB), or four (RGBA) as in the `ImageData` of a canvas. */
export interface Picture {
  readonly data: Uint8Array | Uint8ClampedArray;
  readonly width: number;
  readonly height: number;
}

/** What the file says of itself, as `python -m cifar_onnx info --json` prints it. */
export interface Contract {
  readonly format: 1;
  readonly digest: string;
  /** Names, in the order of the outputs. */
  readonly classes: string[];
  readonly input: { readonly size: number; readonly resize: "stretch" | "crop" | "pad"; readonly [more: string]: unknown };
  readonly temperature: number;
  readonly sets: { readonly method: "lac" | "aps"; readonly alpha: number; readonly threshold: number };
  readonly unknown: { readonly score: string; readonly threshold: number; readonly [more: string]: unknown };
  readonly golden: {
    readonly name: string;
    /** A picture's file in base64. */
    readonly file: string;
    readonly fingerprint: string;
    readonly label: string;
    readonly logits: number[];
    readonly probabilities: number[];
    /** Older files do not have it. */
    readonly familiarity?: number;
  }[];
  readonly [more: string]: unknown;
}

export interface Prediction {
  label: string;
  probability: number;
  /** The most probable classes, the first of them `label`. */
  top: { label: string; probability: number }[];
  /** The prediction set, `label` first: the true class is missing at most as often as the contract's `alpha` says. */
  labels: string[];
  /** How like the pictures that the model learnt from it is. */
  familiarity: number;
  /** Whether that is below the contract's threshold: the picture is like none that the model learnt from. */
  unknown: boolean;
  /** Of all classes, in the order of the contract. */
  probabilities: number[];
  /** What supports `label`, from 0 to 1, row by row; only of files with class activation maps. */
  map?: { height: number; width: number; values: number[] };
}

/** What a golden sample gave; `difference` is the largest between its probabilities and those in the file, `stage` what
 * differs by too much. */
export interface Replay {
  name: string;
  label: string;
  expected: string;
  difference: number;
  stage: "" | "decode" | "probabilities" | "familiarity";
  ok: boolean;
}

/** The module `onnxruntime-web`, or another of ONNX Runtime's packages for JavaScript. */
export interface Runtime {
  InferenceSession: { create(model: Uint8Array, options?: object): Promise<unknown> };
  Tensor: new (type: "uint8", data: Uint8Array, dims: readonly number[]) => unknown;
}

/** The contract inside the bytes of an ONNX file, checked; an InputError says what is wrong with it. */
export function readContract(file: Uint8Array | ArrayBuffer): Promise<Contract>;

export class Classifier {
  private constructor();
  readonly contract: Contract;
  /** From the bytes of a model.onnx; `options` are those of an `InferenceSession`. Rejects with an InputError. */
  static load(file: Uint8Array | ArrayBuffer, ort: Runtime, options?: object): Promise<Classifier>;
  /** What the model says of a picture, with the `topK` most probable classes (5). */
  classify(picture: Picture, options?: { topK?: number }): Promise<Prediction>;
  /** Replay the golden samples; `decode` makes a picture of a file's bytes. Where it throws an InputError the sample's
   * `stage` is "decode"; any other error ends the replay. */
  verify(decode: (file: Uint8Array) => Picture | Promise<Picture>): Promise<Replay[]>;
  /** Free the net's memory, once what has been asked is answered; nothing can be classified afterwards. */
  release(): Promise<void>;
}

/** The bytes of a file, be they another frame's; an InputError for all else. */
export function bytesOf(file: Uint8Array | ArrayBuffer): Uint8Array;

/** Refuse, with an InputError, a picture that is too long for Python and for a canvas. */
export function checkSides(width: number, height: number): void;

/** What is said of a file without bytes. */
export const EMPTY: string;

/** The advice on a file that cannot be read, by its letters 4 to 11: phones write HEIC and AVIF. */
export function advice(brand: string): string;

/** RGB of RGBA, transparency laid over white. */
export function rgbOf(picture: Picture): { data: Uint8Array; width: number; height: number };
