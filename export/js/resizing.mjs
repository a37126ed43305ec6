// Makes of pictures the squares that the net sees, pixel by pixel those of resizing.py and of the graph.
// The graph would take several times as long for a photo, and 27 bytes for each of its pixels.

const TRIANGLE_STEPS = 2048; // these as in Python
const WEIGHT_BITS = 13;
const PAD_VALUE = 128;
const HALF = 2 ** (WEIGHT_BITS - 1);

/** The RGB bytes of `size` x `size` pixels, of a picture `{data, width, height}` of RGB; `mode` is the contract's. */
export function resized({ data, width, height }, size, mode) {
  if (width === size && height === size) return data;
  const [rows, columns] = [height, width].map((length) => weights(length, width + height - length, size, mode));
  const square = ofRows(ofColumns(data, width, height, columns), 3 * size, rows);
  for (const [y, row] of rows.entries()) {
    for (const [x, column] of columns.entries()) {
      const at = (y * size + x) * 3;
      if (!row.inside || !column.inside) square.fill(PAD_VALUE, at, at + 3);
    }
  }
  return square;
}

/** Of RGB `(height, width)` the columns' weighted sums: 256 where rounded weights add up to more than 1. */
function ofColumns(data, width, height, columns) {
  const made = new Uint16Array(height * columns.length * 3);
  for (let y = 0, to = 0; y < height; y++) {
    for (const { begin, shares } of columns) {
      let [from, r, g, b] = [(y * width + begin) * 3, HALF, HALF, HALF];
      for (let k = 0; k < shares.length; k++, from += 3) {
        r += shares[k] * data[from];
        g += shares[k] * data[from + 1];
        b += shares[k] * data[from + 2];
      }
      made[to++] = r >> WEIGHT_BITS;
      made[to++] = g >> WEIGHT_BITS;
      made[to++] = b >> WEIGHT_BITS;
    }
  }
  return made;
}

/** The rows' weighted sums, of lines of so many numbers. */
function ofRows(data, line, rows) {
  const made = new Uint8ClampedArray(rows.length * line);
  const sums = new Int32Array(line);
  for (const [y, { begin, shares }] of rows.entries()) {
    sums.fill(HALF);
    let from = begin * line;
    for (const share of shares) for (let x = 0; x < line; x++) sums[x] += share * data[from++];
    made.set(sums.map((sum) => sum >> WEIGHT_BITS), y * line);
  }
  return new Uint8Array(made.buffer);
}

/** Of each output pixel whether it is no padding, and the weights, in steps, of the input pixels from `begin` on. */
function weights(length, other, size, mode) {
  const { abs, floor, fround, max, min } = Math;
  const box = mode === "crop" ? min(length, other) : length;
  const share = fround(fround(length * size) / max(length, other));
  const extent = mode === "pad" ? max(1, floor(fround(share + 0.5))) : size;
  const margin = floor((size - extent) / 2);
  const found = [];
  for (let i = 0, begin = 0; i < size; i++) {
    const at = 2 * (i - margin) + 1;
    const inside = at > 0 && at < 2 * extent;
    const steps = [];
    for (let j = begin; inside && j < length; j++) {
      const distance = abs(fround(fround((2 * j + 1 - (length - box)) * extent) - fround(at * box)));
      const triangle = max(0, fround(1 - fround(distance / (2 * max(box, extent)))));
      const step = floor(fround(triangle * TRIANGLE_STEPS + 0.5));
      if (step) steps.push(step);
      else if (steps.length) break;
      else begin = j + 1;
    }
    const total = steps.reduce((a, b) => a + b, 0);
    const shares = steps.map((step) => floor((4 * HALF * step + total) / (2 * total)));
    found.push({ inside, begin, shares });
  }
  return found;
}
