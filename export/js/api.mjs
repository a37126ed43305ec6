// What openapi.json says, to be read by people. All of it is put in as text.

const METHODS = ["get", "put", "post", "delete", "patch", "head"];
const BOUNDS = { default: "default", minimum: "from", maximum: "to" };

let components;

/** What a reference stands for, with what is said beside it. */
function resolved({ $ref, ...more }) {
  if (!$ref) return more;
  const [group, name] = $ref.split("/").slice(2); // of #/components/group/name
  return { ...resolved(components[group][name]), ...more };
}

function element(tag, ...content) {
  const made = document.createElement(tag);
  made.append(...content.flat(Infinity).filter(Boolean));
  return made;
}

function quiet(...words) {
  return Object.assign(element("span", words.filter(Boolean).join(", ")), { className: "quiet" });
}

function operation(path, method, { summary, description, parameters = [], requestBody, responses, ...more }) {
  const known = new Set(); // schemas that have been shown
  const parts = {
    Parameters: parameters.map(resolved).map(({ name, in: place, required, schema, ...said }) =>
      field(name, { ...schema, ...said }, required, known, place),
    ),
    Body: requestBody ? bodies(resolved(requestBody), known) : [],
    Answers: Object.entries(responses).map(([status, response]) => {
      const { description: meaning, ...body } = resolved(response);
      return element("li", element("strong", status), ` ${meaning}`, list(bodies(body, known)));
    }),
  };
  const example = more["x-example"];
  return element(
    "section",
    element("h2", element("code", `${method.toUpperCase()} ${path}`)),
    summary && element("p", summary),
    description && element("p", description),
    example && element("pre", element("code", example)),
    Object.entries(parts).flatMap(([name, items]) => items.length && [element("h3", name), list(items)]),
  );
}

function bodies({ content = {} }, known) {
  return Object.entries(content).map(([type, { schema = {} }]) =>
    element("li", element("code", type), " ", quiet(kind(schema)), fields(schema, known)),
  );
}

function list(items) {
  return items.length && element("ul", items);
}

/** The fields of what a schema describes, once. */
function fields(schema, known) {
  if (known.has(schema.$ref)) return [];
  if (schema.$ref) known.add(schema.$ref);
  const { properties = {}, required = [], items, anyOf = [] } = resolved(schema);
  const own = Object.entries(properties).map(([name, each]) => field(name, each, required.includes(name), known));
  return [list(own), ...[items ?? [], anyOf].flat().map((each) => fields(each, known))];
}

function field(name, schema, required, known, place) {
  const { description, ...facts } = resolved(schema);
  const bounds = Object.keys(BOUNDS).filter((key) => key in facts).map((key) => `${BOUNDS[key]} ${facts[key]}`);
  const note = quiet(kind(schema), place && `in the ${place}`, required && "required", ...bounds);
  const meaning = description && element("div", description);
  return element("li", element("code", name), " ", note, meaning, fields(schema, known));
}

function kind(schema) {
  const { type, format, items, anyOf, enum: words, const: only } = resolved(schema);
  if (anyOf) return anyOf.map(kind).join(" or ");
  if (items) return `list of ${kind(items) ?? "anything"}`;
  return format === "binary" ? "file" : (words?.join(" or ") ?? type ?? only);
}

const main = document.querySelector("main");
try {
  const { info, paths, ...more } = await (await fetch("openapi.json")).json();
  components = more.components;
  document.title = `API of ${info.title}`;
  document.querySelector("h1").textContent = `API of ${info.title} ${info.version}`;
  document.getElementById("lede").textContent = info.summary;
  for (const [path, operations] of Object.entries(paths)) {
    const known = METHODS.filter((method) => method in operations);
    main.append(...known.map((method) => operation(path, method, operations[method])));
  }
} catch (error) {
  main.append(element("p", `openapi.json cannot be shown: ${error.message}`));
}
