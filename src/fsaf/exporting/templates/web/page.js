// The page: takes a picture, lets the worker detect, and shows what it finds.
const $ = (id) => document.getElementById(id);
const state = { about: null, number: 0, name: "", bitmap: null, rows: [], marked: null, shown: 0 };

function tell(text, wrong = false) {
  $("told").textContent = text;
  $("told").classList.toggle("wrong", wrong);
}

function start() {
  if (typeof WebAssembly === "undefined" || typeof createImageBitmap === "undefined") {
    return tell("This browser cannot run the detector: it lacks WebAssembly or createImageBitmap.", true);
  }
  tell("Loading the detector …");
  // A worker made of a blob inherits the page's Content-Security-Policy; one loaded from a file has none.
  const code = `import ${JSON.stringify(new URL("worker.js", import.meta.url).href)};`;
  const place = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const worker = new Worker(place, { type: "module" });
  worker.onmessage = ({ data }) => receive(data);
  worker.onerror = (event) => tell(`The detector cannot be started (${event.message || "a file is missing"}).`, true);
  state.worker = worker;
}

function receive({ about, number, rows, seconds, error }) {
  if (about) {
    state.about = about;
    document.title = $("title").textContent = about.name;
    $("about").textContent += ` It finds: ${about.classes.join(", ")}.`.slice(0, 400);
    $("threshold").min = about.lowest_score;
    $("threshold").value = about.score;
    if (!state.number) tell("Ready.");
  } else if (error) {
    if (!number || number === state.number) tell(`Failed: ${error}`, true);
  } else if (number === state.number) {
    state.rows = rows;
    tell(`${state.name}: ${state.bitmap.width} x ${state.bitmap.height}, ${seconds.toFixed(2)} s`);
    show();
  }
}

/** Show a picture file and have it worked on. */
async function take(file) {
  if (!file || !state.worker) return;
  const number = ++state.number;
  $("found").hidden = $("view").hidden = true;
  try {
    const head = new Uint8Array(await file.slice(0, 26).arrayBuffer());
    if (head[0] === 0x89 && head[1] === 0x50 && head[24] === 16) {
      throw new Error("has more than 8 bits a channel; convert it first");
    }
    const options = { colorSpaceConversion: "none", premultiplyAlpha: "none", imageOrientation: "from-image" };
    const bitmap = await createImageBitmap(file, options).catch(() => {
      throw new Error("is not a picture that this browser can read");
    });
    if (number !== state.number) return;
    const most = state.about?.max_pixels ?? Infinity;
    if (bitmap.width * bitmap.height > most) {
      throw new Error(`is ${bitmap.width} x ${bitmap.height}, more than ${most.toLocaleString("en")} pixels`);
    }
    const picture = pixels(bitmap);
    Object.assign(state, { bitmap, name: file.name || "picture", rows: [], marked: null });
    tell(`${state.name}: detecting …`);
    $("view").hidden = false;
    draw();
    state.worker.postMessage({ number, picture }, [picture.data.buffer]);
  } catch (error) {
    if (number === state.number) tell(`${file.name || "The picture"}: ${error.message}`, true);
  }
}

function pixels(bitmap) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  if (!context) throw new Error("is too large for this browser");
  context.drawImage(bitmap, 0, 0);
  const { data, width, height } = context.getImageData(0, 0, bitmap.width, bitmap.height);
  return { data, width, height };
}

const chosen = () => state.rows.filter((row) => row.score > Number($("threshold").value));

function show() {
  const rows = chosen();
  $("score").textContent = Number($("threshold").value).toFixed(2);
  $("found").hidden = false;
  $("count").textContent = rows.length === 1 ? "1 object found" : `${rows.length || "No"} objects found`;
  state.marked = null;
  $("rows").replaceChildren(...rows.map(line));
  draw();
}

function line(row) {
  const entry = document.createElement("tr");
  const cell = (text, kind) => {
    const made = entry.appendChild(document.createElement("td"));
    made.textContent = text;
    if (kind) made.className = kind;
    return made;
  };
  const chip = document.createElement("span");
  chip.className = "chip";
  chip.style.background = color(row.label);
  cell(state.about.classes[row.label]).prepend(chip);
  cell(row.score.toFixed(2), "num");
  cell(row.box.map(Math.round).join(", "), "num");
  entry.tabIndex = 0;
  const mark = (marked) => () => ((state.marked = marked), draw());
  entry.onmouseenter = entry.onfocus = mark(row);
  entry.onmouseleave = entry.onblur = mark(null);
  return entry;
}

const color = (label) => `rgb(${state.about.colors[label].join(" ")})`;

/** Return black or white, whichever is clearer on a colour. */
function ink(label) {
  const [r, g, b] = state.about.colors[label].map((value) => (value / 255) ** 2.2);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}

/** Draw the picture as large as the page shows it, so that captions can be read on any screen. */
function draw() {
  const { bitmap } = state;
  if (!bitmap || $("view").hidden) return;
  const canvas = $("view");
  const shown = canvas.clientWidth || 600;
  state.shown = canvas.clientWidth;
  const zoom = (shown * (window.devicePixelRatio || 1)) / bitmap.width;
  canvas.width = Math.max(1, Math.round(bitmap.width * zoom));
  canvas.height = Math.max(1, Math.round(bitmap.height * zoom));
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const unit = canvas.width / shown;
  pen.font = `600 ${13 * unit}px system-ui, sans-serif`;
  pen.textBaseline = "middle";
  const rows = state.marked ? [state.marked] : chosen().reverse();
  for (const row of rows) box(pen, row, row.box.map((v) => v * zoom), unit);
  for (const row of rows) caption(pen, row, row.box.map((v) => v * zoom), unit, canvas);
}

function box(pen, row, [x1, y1, x2, y2], unit) {
  for (const [style, width] of [["#101010", 4], [color(row.label), 2]]) {
    pen.strokeStyle = style;
    pen.lineWidth = width * unit;
    pen.strokeRect(x1, y1, x2 - x1, y2 - y1);
  }
}

function caption(pen, row, [x1, y1, , y2], unit, canvas) {
  const name = state.about.classes[row.label];
  const text = `${name.length > 40 ? `${name.slice(0, 39)}…` : name}  ${row.score.toFixed(2)}`;
  const [width, height] = [pen.measureText(text).width + 8 * unit, 18 * unit];
  const x = Math.max(0, Math.min(x1 - unit, canvas.width - width));
  let y = y1 - height;
  if (y < 0) y = y2 + height <= canvas.height ? y2 : Math.max(0, y1);
  pen.fillStyle = color(row.label);
  pen.fillRect(x, y, width, height);
  pen.fillStyle = ink(row.label);
  pen.fillText(text, x + 4 * unit, y + height / 2);
}

/** Return what `fsaf predict --format json` prints. */
function result() {
  const round = (value, digits) => Number(value.toFixed(digits));
  const detections = chosen().map(({ box, score, label }) => ({
    box: box.map((v) => round(v, 3)),
    score: round(score, 6),
    label,
    name: state.about.classes[label],
  }));
  return { image: state.name, size: [state.bitmap.height, state.bitmap.width], detections };
}

$("file").onchange = ({ target }) => {
  take(target.files[0]);
  target.value = ""; // so that the same file can be chosen again
};
$("threshold").oninput = show;
$("save").onclick = () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(result(), null, 1)], { type: "application/json" }));
  link.download = `${state.name.replace(/\.[^.]*$/, "")}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
};
document.addEventListener("paste", ({ clipboardData }) => take(clipboardData.files[0]));
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files[0]);
  });
}
new ResizeObserver(() => $("view").clientWidth !== state.shown && draw()).observe($("view"));
start();
