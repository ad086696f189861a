// Resizes pictures to the pixels that the detector was trained with. Sizes are [height, width].

/** Return the size that a picture of size `old` is resized to, and the one that it is padded to. */
export function fit(old, data) {
  let scale = Math.min(data.long_side / Math.max(...old), data.short_side / Math.min(...old));
  const scaled = old.map((side) => Math.max(1, Math.floor(side * scale + 0.5)));
  if (data.pad || !data.shapes) {
    const multiple = data.pad || 32;
    return [scaled, scaled.map((side) => Math.ceil(side / multiple) * multiple)];
  }
  const cost = (shape) => [-Math.min(1, shape[0] / scaled[0], shape[1] / scaled[1]), shape[0] * shape[1]];
  const shape = data.shapes.reduce((best, each) => {
    const [a, b] = [cost(each), cost(best)];
    return a[0] < b[0] || (a[0] === b[0] && a[1] < b[1]) ? each : best;
  });
  if (scaled[0] <= shape[0] && scaled[1] <= shape[1]) return [scaled, shape];
  scale = Math.min(shape[0] / old[0], shape[1] / old[1]);
  return [old.map((side, i) => Math.min(shape[i], Math.max(1, Math.floor(side * scale + 0.5)))), shape];
}

/** Return RGB of size `to`, made of RGBA of size `from`. */
export function resize(rgba, from, to, antialias) {
  if (from[0] === to[0] && from[1] === to[1]) return rgba.filter((_, i) => i % 4 < 3);
  return antialias ? smooth(rgba, from, to) : linear(rgba, from, to);
}

/** Resize to the pixels of OpenCV's INTER_LINEAR, which computes with weights of 11 bits. */
function linear(rgba, [height, width], [rows, columns]) {
  const across = taps(columns, width, false);
  const wide = new Uint16Array(height * columns * 3);
  for (let y = 0, k = 0; y < height; y++)
    for (let x = 0; x < columns; x++)
      for (let c = 0; c < 3; c++, k++) {
        const [a, b, u, v] = across[x];
        wide[k] = (rgba[4 * (y * width + a) + c] * u + rgba[4 * (y * width + b) + c] * v) >> 4;
      }
  const down = taps(rows, height, true);
  const out = new Uint8Array(rows * columns * 3);
  for (let y = 0, k = 0; y < rows; y++) {
    const [a, b, u, v] = down[y];
    for (let i = 0; i < columns * 3; i++, k++)
      out[k] = (((wide[a * columns * 3 + i] * u) >> 16) + ((wide[b * columns * 3 + i] * v) >> 16) + 2) >> 2;
  }
  return out;
}

/** Return for each new place the two old ones and their weights, of 2048. */
function taps(count, old, isRow) {
  return Array.from({ length: count }, (_, i) => {
    const x = Math.fround((i + 0.5) * (old / count) - 0.5);
    const first = Math.floor(x);
    const part = !isRow && (first < 0 || first >= old - 1) ? 0 : Math.fround(x - first);
    const inside = (place) => Math.min(Math.max(place, 0), old - 1);
    return [inside(first), inside(first + 1), even(2048 * Math.fround(1 - part)), even(2048 * part)];
  });
}

/** Round, halves to even numbers. */
function even(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2) ? floor + 1 : floor;
}

/** Resize bilinearly with antialias: each new pixel is a weighted mean of all that it covers. */
function smooth(rgba, [height, width], [rows, columns]) {
  const wide = new Uint8Array(height * columns * 3);
  covered(columns, width).forEach(([start, weights], x) => {
    for (let y = 0; y < height; y++)
      for (let c = 0; c < 3; c++) {
        const sum = weights.reduce((total, w, i) => total + w * rgba[4 * (y * width + start + i) + c], 0);
        wide[3 * (y * columns + x) + c] = Math.floor(sum + 0.5);
      }
  });
  const out = new Uint8Array(rows * columns * 3);
  covered(rows, height).forEach(([start, weights], y) => {
    for (let i = 0; i < columns * 3; i++) {
      const sum = weights.reduce((total, w, k) => total + w * wide[(start + k) * columns * 3 + i], 0);
      out[y * columns * 3 + i] = Math.floor(sum + 0.5);
    }
  });
  return out;
}

function covered(count, old) {
  const scale = old / count;
  const reach = Math.max(1, scale);
  return Array.from({ length: count }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const start = Math.max(0, Math.floor(centre - reach + 0.5));
    const end = Math.min(old, Math.floor(centre + reach + 0.5));
    const weights = Array.from({ length: end - start }, (_, k) => Math.max(0, 1 - Math.abs(start + k + 0.5 - centre) / reach));
    const sum = weights.reduce((total, w) => total + w, 0);
    return [start, weights.map((w) => w / sum)];
  });
}
