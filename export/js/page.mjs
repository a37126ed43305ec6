// The page for people: photos come by drop, paste, picker or camera, and go to the server or to this browser.
import * as browser from "./browser.mjs";
import { camera } from "./camera.mjs";
import { card, sentence } from "./card.mjs";
import { describe } from "./facts.mjs";
import * as server from "./server.mjs";

const find = (id) => document.getElementById(id);
const { runs } = document.documentElement.dataset;

const TOGETHER = 4; // photos that are classified at a time
const start = { server: () => server.connect(renew), browser: load };
const first = runs === "browser" ? "browser" : "server";
const started = {}; // promises of what classifies: {place, contract, classify}
let chosen = first; // where the next photos go; if that fails they go nowhere, least of all to the server instead
const waiting = []; // cards whose photos are not yet classified
let running = 0; // photos that are being classified

/** What classifies photos there: where that failed before, it is tried again. */
function model(place) {
  return (started[place] ??= connect(place));
}

async function connect(place) {
  try {
    const ready = await start[place]();
    if (place === first) describe(ready.contract);
    return ready;
  } catch (error) {
    delete started[place];
    throw error;
  }
}

async function use(place) {
  chosen = place;
  try {
    return await model(place);
  } catch (error) {
    if (place === chosen) tell(error);
  }
}

async function load() {
  const bar = find("progress");
  bar.removeAttribute("value"); // of an earlier load: without one it shows that something is going on
  find("loading").hidden = false;
  try {
    return await browser.connect((share) => (bar.value = share), () => delete started.browser);
  } finally {
    find("loading").hidden = true;
  }
}

/** The server has another model now: the next photo that is classified in this browser is by that, too. */
function renew() {
  started.browser?.then(({ leave }) => leave(), () => {});
  delete started.browser;
}

async function change({ target }) {
  find("trouble").hidden = true; // of another choice
  const place = target.checked ? "browser" : "server";
  const ready = await use(place);
  if (ready && place === chosen) find("status").textContent = `Photos are now classified ${ready.place}.`;
}

function tell(error) {
  find("trouble").textContent = sentence(error);
  find("trouble").hidden = false;
}

function add(photos) {
  if (!photos.length) return;
  find("trouble").hidden = true;
  find("results").hidden = false;
  const cards = Array.from(photos, (photo) => ({ photo, chosen, ...card(photo) }));
  find("cards").prepend(...cards.map(({ element }) => element));
  waiting.push(...cards);
  cards.forEach(work);
}

/** Answer what waits, one after the other, unless enough do so already. */
async function work() {
  if (running === TOGETHER) return;
  running++;
  while (waiting.length) await answer(waiting.shift());
  running--;
}

async function answer({ element, photo, chosen, show, fail }) {
  if (!element.isConnected) return; // it has been cleared away while it waited
  try {
    const ready = await model(chosen);
    const prediction = await ready.classify(photo);
    describe(ready.contract);
    if (prediction.map) find("mapping").hidden = false;
    find("status").textContent = show(prediction, ready.contract.input.resize, ready.place);
  } catch (error) {
    find("status").textContent = fail(error);
  }
}

find("files").onchange = ({ target }) => {
  add(target.files);
  target.value = ""; // so that the same file can be picked again
};
find("switch").onchange = change;
find("clear").onclick = () => {
  for (const { src } of find("cards").querySelectorAll("img")) URL.revokeObjectURL(src); // some have never been in view
  find("cards").replaceChildren();
  find("results").hidden = true;
  find("files").focus();
};
camera(find("camera"), find("viewfinder"), (picture) => add([picture]), tell);

document.onpaste = ({ clipboardData }) => add(clipboardData.files);
document.ondragover = (event) => {
  event.preventDefault();
  document.body.classList.add("over");
};
document.ondragleave = ({ relatedTarget }) => {
  if (!relatedTarget) document.body.classList.remove("over");
};
document.ondrop = (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  add(event.dataTransfer.files);
};

// Where it is opened as a file Firefox runs this, but no worker.
if (location.protocol !== "file:") find("idle").remove();
use(first);
