// Runs the detector: the pixels of a picture come in, its detections go out.
import * as ort from "./ort.js";
import { fit, resize } from "./pixels.js";

ort.env.wasm.numThreads = 1; // more need headers that few servers send
ort.env.wasm.wasmPaths = { wasm: new URL("ort.wasm", import.meta.url).href };

const opened = open();

async function open() {
  const about = await (await get("detector.json")).json();
  const model = new Uint8Array(await (await get("model.onnx")).arrayBuffer());
  const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"] });
  return { about, session };
}

async function get(name) {
  const answer = await fetch(new URL(name, import.meta.url));
  if (!answer.ok) throw new Error(`${name}: the server answers ${answer.status}`);
  return answer;
}

/** Return the detections in a picture, best first, as arrays box, score, label; boxes in its pixels. */
async function detect({ data, width, height }) {
  const { about, session } = await opened;
  const [size, shape] = fit([height, width], about.data);
  const small = resize(data, [height, width], size, about.data.antialias);
  const sides = [1, 3, ...shape];
  const images = new (about.float_images ? Float32Array : Uint8Array)(3 * shape[0] * shape[1]);
  for (let c = 0; c < 3; c++) {
    const plane = images.subarray(c * shape[0] * shape[1], (c + 1) * shape[0] * shape[1]);
    plane.fill(about.padding[c]);
    for (let y = 0; y < size[0]; y++)
      for (let x = 0; x < size[1]; x++) plane[y * shape[1] + x] = small[3 * (y * size[1] + x) + c];
  }
  const feeds = { images: new ort.Tensor(about.float_images ? "float32" : "uint8", images, sides) };
  if (about.takes_sizes) feeds.sizes = new ort.Tensor("int64", BigInt64Array.from(size, BigInt), [1, 2]);
  const found = await session.run(feeds);
  const [boxes, scores, labels] = ["boxes", "scores", "labels"].map((name) => found[name].data);
  const limits = [size[1], size[0], size[1], size[0]];
  const factors = [width / size[1], height / size[0]].map(Math.fround);
  const rows = [];
  for (let i = 0; i < scores.length; i++) {
    if (labels[i] < 0n) continue;
    const box = limits.map((limit, k) => Math.min(Math.max(boxes[4 * i + k], 0), limit));
    if (!(box[2] > box[0] && box[3] > box[1])) continue;
    rows.push({ box: box.map((v, k) => Math.fround(v * factors[k % 2])), score: scores[i], label: Number(labels[i]) });
  }
  return rows;
}

self.onmessage = async ({ data: { number, picture } }) => {
  try {
    const start = performance.now();
    const rows = await detect(picture);
    self.postMessage({ number, rows, seconds: (performance.now() - start) / 1000 });
  } catch (error) {
    self.postMessage({ number, error: String(error?.message ?? error) });
  }
};
opened.then(
  ({ about }) => self.postMessage({ about }),
  (error) => self.postMessage({ error: `the detector cannot be opened (${error?.message ?? error})` }),
);
