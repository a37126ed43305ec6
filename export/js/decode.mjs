// Decodes pictures under Node by sharp, to the pixels that Pillow gives in Python.
import sharp from "sharp";

import { advice, bytesOf, checkSides, EMPTY, InputError, rgbOf } from "./classifier.mjs";

// As in Python, of those that sharp has. It can be told to refuse the others, but then refuses them to all its users.
const FORMATS = { GIF: /^GIF8/, JPEG: /^\xff\xd8\xff/, PNG: /^\x89PNG/, WEBP: /^RIFF[^]{4}WEBP/ };
const UNKNOWN = `not a picture in one of the formats ${Object.keys(FORMATS).join(", ")}`;
const MAX_PIXELS = 100_000_000;

/** Upright RGB, `{data, width, height}`, of a picture's bytes, a Uint8Array or ArrayBuffer; an InputError says why there
 * is none. */
export async function decode(file) {
  const bytes = bytesOf(file);
  if (bytes.length === 0) throw new InputError(EMPTY);
  const beginning = String.fromCharCode(...bytes.subarray(0, 12));
  if (!Object.values(FORMATS).some((format) => format.test(beginning))) {
    throw new InputError(UNKNOWN + advice(beginning.slice(4)));
  }
  try {
    const picture = sharp(bytes, { limitInputPixels: MAX_PIXELS, ignoreIcc: true, failOn: "error" }).autoOrient();
    const { space, channels, width, height } = await picture.metadata();
    checkSides(width, height);
    if (space === "cmyk") return rgbOfCmyk(await raw(as(picture, "cmyk")));
    if (space === "grey16" && channels === 1) return rgbOfGrey(await raw(as(picture, "grey16"), "ushort"));
    return rgbOf(await raw(picture.toColourspace("srgb").ensureAlpha()));
  } catch (error) {
    if (error instanceof InputError) throw error;
    throw new InputError(
      /unsupported image format/i.test(error.message)
        ? UNKNOWN
        : `cannot be decoded (${error.message.trim().replaceAll(/\s*\n\s*/g, "; ")})`,
    );
  }
}

const as = (picture, space) => picture.pipelineColourspace(space).toColourspace(space);

async function raw(picture, depth = "uchar") {
  const { data, info } = await picture.raw({ depth }).toBuffer({ resolveWithObject: true });
  return { data, width: info.width, height: info.height };
}

function rgbOfGrey({ data, width, height }) {
  const grey = new Uint16Array(data.buffer, data.byteOffset, width * height);
  const rgb = new Uint8Array(width * height * 3);
  grey.forEach((value, at) => rgb.fill((value + 128) / 257, 3 * at, 3 * at + 3));
  return { data: rgb, width, height };
}

/** By Pillow's arithmetic. */
function rgbOfCmyk({ data, width, height }) {
  const rgb = new Uint8Array(width * height * 3);
  for (let from = 0, to = 0; to < rgb.length; from += 4) {
    const light = 255 - data[from + 3];
    for (let channel = 0; channel < 3; channel++) {
      const product = data[from + channel] * light + 128;
      rgb[to++] = light - ((product + (product >> 8)) >> 8);
    }
  }
  return { data: rgb, width, height };
}
