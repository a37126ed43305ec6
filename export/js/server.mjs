// Has photos classified by the server that sent the page.

const TRIES = 4;
const LONGEST = 30; // seconds to wait before one

/** `changed` is called when another model has taken over. */
export async function connect(changed) {
  const contract = () => answerOf(() => fetch("contract"));
  const server = { place: "on the server", contract: await contract() };
  server.classify = async (photo) => {
    const { digest, ...prediction } = await classify(photo);
    if (digest !== server.contract.digest) {
      server.contract = await contract();
      changed();
    }
    return prediction;
  };
  return server;
}

async function classify(photo) {
  const bytes = await photo.arrayBuffer().catch(() => {
    throw new Error("the file cannot be read: it is a folder, or has changed since it was chosen");
  });
  const form = new FormData();
  form.append("files", new Blob([bytes]), photo.name);
  const address = "predict?top_k=5&map=true";
  const { model, predictions, milliseconds } = await answerOf(() => fetch(address, { method: "POST", body: form }));
  return { ...predictions[0], milliseconds, digest: model.digest };
}

async function answerOf(request) {
  for (let tried = 1; ; tried++) {
    let response;
    try {
      response = await request();
    } catch {
      throw new Error("the server cannot be reached: it may have been stopped");
    }
    const body = await response.json().catch(() => ({}));
    if (response.ok) return body;
    if (response.status !== 503 || tried === TRIES) {
      throw new Error(body.error ?? `the server answered with status ${response.status}`);
    }
    const seconds = Number(response.headers.get("retry-after")) || 1;
    await new Promise((resume) => setTimeout(resume, 1000 * Math.min(seconds, LONGEST)));
  }
}
