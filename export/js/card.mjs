// A photo and what the model says of it. All that a file or a model says is put in as text.

const MOST = 4; // labels of a set that are named

/** An empty card of a photo, and what fills it: `{element, show, fail}`. */
export function card(photo) {
  const element = document.getElementById("card").content.cloneNode(true).firstElementChild;
  const find = (selector) => element.querySelector(selector);
  const image = find("img");
  const loaded = new Promise((resolve) => (image.onload = resolve));
  image.onerror = () => {
    URL.revokeObjectURL(image.src);
    find(".photo").remove(); // a file that the browser cannot show, but the server may know
  };
  image.src = URL.createObjectURL(photo);
  loaded.then(() => {
    URL.revokeObjectURL(image.src);
    find(".photo").style.setProperty("--ratio", image.naturalWidth / image.naturalHeight);
  });
  find(".file").textContent = photo.name;

  const finish = (heading, doubt) => {
    element.removeAttribute("aria-busy");
    find("h3").textContent = heading;
    find(".doubt").textContent = doubt;
    find(".doubt").hidden = !doubt;
    return `${photo.name}: ${heading}`;
  };
  return {
    element,
    show({ top, milliseconds, map, ...prediction }, resize, place) {
      find(".bars").append(...top.map(bar));
      find(".time").textContent = `${duration(milliseconds)} ${place}`;
      element.classList.toggle("doubtful", prediction.unknown);
      if (map) loaded.then(() => draw(map, find("canvas"), image, resize));
      return finish(...inWords(prediction));
    },
    fail(error) {
      element.classList.add("failed");
      return finish(sentence(error), "");
    },
  };
}

/** A heading, and what more there is to say. */
function inWords({ label, labels, unknown }) {
  if (unknown) return ["Unknown", `Unlike the pictures it was trained on. Its best guess is ${label}.`];
  const [first, ...others] = labels.slice(0, MOST);
  if (!others.length) return [first, ""];
  const more = labels.length > MOST ? [`one of ${labels.length - MOST} more`] : [];
  return [`${first}, or maybe ${[...others, ...more].join(" or ")}`, "Not sure."];
}

function bar({ label, probability }) {
  const element = document.getElementById("bar").content.cloneNode(true).firstElementChild;
  element.querySelector(".label").textContent = label;
  element.querySelector(".share").textContent = `${(100 * probability).toFixed(1)} %`;
  element.querySelector(".bar").style.setProperty("--share", probability);
  return element;
}

/** The map in one colour, the clearer the more a place supports the label, on the square that the net sees. */
function draw({ height, width, values }, canvas, { naturalWidth, naturalHeight }, resize) {
  const pixels = new ImageData(width, height);
  values.forEach((value, at) => pixels.data.set([255, 90, 0, 175 * value], 4 * at));
  Object.assign(canvas, { width, height, hidden: false });
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  const side = { crop: Math.min(naturalWidth, naturalHeight), pad: Math.max(naturalWidth, naturalHeight) }[resize];
  canvas.style.setProperty("--across", (side ?? naturalWidth) / naturalWidth);
  canvas.style.setProperty("--down", (side ?? naturalHeight) / naturalHeight);
}

function duration(milliseconds) {
  return milliseconds < 1000 ? `${Math.round(milliseconds)} ms` : `${(milliseconds / 1000).toFixed(1)} s`;
}

export function sentence(error) {
  const text = error.message || String(error);
  return `${text[0].toUpperCase()}${text.slice(1)}${/[.?]$/.test(text) ? "" : "."}`; // browsers' own have their full stop
}
