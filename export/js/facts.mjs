// What the model says of itself, and what its shares mean, in words.

const RESIZE = { stretch: "stretched", crop: "the central square", pad: "padded to a square" };
const MOST = 100; // classes that are named
let title = document.documentElement.dataset.name; // which a server's contract has, too
let described; // digest of the model

export function describe({ name, classes, input, sets, digest }) {
  if (digest === described) return;
  described = digest;
  title = name ?? title;
  const more = classes.length > MOST ? `, and ${classes.length - MOST} more` : "";
  const facts = {
    Model: title,
    Classes: `${classes.length}: ${classes.slice(0, MOST).join(", ")}${more}`,
    Sees: `photos as ${input.size} × ${input.size} pixels, ${RESIZE[input.resize]}`,
    Digest: digest.slice(0, 12),
  };
  document.querySelector("#facts dl").replaceChildren(
    ...Object.entries(facts).flatMap(([term, words]) => [element("dt", term), element("dd", words)]),
  );
  document.getElementById("name").textContent = `Classify photos with ${title}`;
  document.title = `Classify photos with ${title}`;
  document.getElementById("meaning").textContent =
    "A percentage says how probable the model thinks a class is. " +
    `For ${percent(1 - sets.alpha)} or more of photos like those it was validated on, the right class is among those ` +
    "named; for other photos nothing is promised, and those least like them are called unknown.";
  document.getElementById("facts").hidden = false;
}

const percent = (share) => `${Number((100 * share).toFixed(1))} %`;

function element(tag, text) {
  return Object.assign(document.createElement(tag), { textContent: text, dir: "auto" });
}
