// Has photos classified in a worker, on this machine.

/** `progress` is called with the share that is loaded, from 0 to 1, and `lost` when the worker has broken down. */
export function connect(progress, lost) {
  const worker = new Worker(new URL("worker.mjs", import.meta.url), { type: "module" });
  const waiting = new Map(); // promises of predictions by the number of their photo
  let last = 0;
  let left = false;
  const end = () => left && !waiting.size && worker.terminate();
  const leave = () => {
    left = true;
    setTimeout(end); // after photos that are on their way to it
  };
  const classify = (photo) =>
    new Promise((resolve, reject) => {
      waiting.set(++last, { resolve, reject });
      worker.postMessage({ id: last, photo });
    });
  return new Promise((resolve, reject) => {
    worker.onerror = () => {
      const error = new Error("the model cannot be run in this browser");
      reject(error);
      for (const photo of waiting.values()) photo.reject(error);
      worker.terminate();
      lost();
    };
    worker.onmessage = ({ data: { id, loaded, contract, error, prediction } }) => {
      const { resolve: give, reject: fail } = waiting.get(id) ?? { resolve, reject };
      waiting.delete(id);
      if (loaded !== undefined) progress(loaded);
      else if (error !== undefined) {
        if (id === undefined) worker.terminate(); // it has no model
        fail(new Error(error));
      } else give(prediction ?? { place: "in this browser", contract, classify, leave });
      end();
    };
  });
}
