// Pixels: packed planes of the page -> HU -> views (sums of planes) -> colours. No element of the page is touched here
// except the <script> elements that hold the packed planes.

const NOT_FINITE = -32768; // as in packing.py
const NOT_FINITE_COLOUR = [255, 0, 255, 255];
const KEPT_SLICES = 3; // unpacked at once: a phone has little memory

// Base 85, the inverse of packed_text in packing.py: five characters are four bytes, the last group is as short as its bytes.
function bytesOfText(text) {
  const lacking = (5 - (text.length % 5)) % 5;
  const bytes = new Uint8Array(((text.length + lacking) / 5) * 4);
  const words = new DataView(bytes.buffer);
  for (let i = 0, at = 0; i < text.length; i += 5, at += 4) {
    let word = 0;
    for (let k = i; k < i + 5; k += 1) word = word * 85 + (k < text.length ? digitOf(text.charCodeAt(k)) : 84);
    words.setUint32(at, word);
  }
  return bytes.subarray(0, bytes.length - lacking);
}

function digitOf(code) {
  if (code === 33) return 25; // "!" stands for "<", "|" for "&": neither means anything in HTML
  return code === 124 ? 3 : code - 35;
}

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// The inverse of pack_plane in packing.py; values in steps, not HU.
function unfold(bytes, columns, rows) {
  const size = columns * rows;
  if (bytes.length !== 2 * size) throw new Error(`Expected ${2 * size} bytes but got ${bytes.length}.`);
  const stored = new Int16Array(size);
  for (let row = 0, i = 0; row < rows; row += 1) {
    for (let column = 0; column < columns; column += 1, i += 1) {
      const left = column ? stored[i - 1] : 0;
      const above = row ? stored[i - columns] : 0;
      const between = row && column ? stored[i - columns - 1] : 0;
      const expected = Math.min(Math.max(left + above - between, Math.min(left, above)), Math.max(left, above));
      const folded = bytes[i] | (bytes[size + i] << 8);
      stored[i] = expected + (folded & 1 ? -((folded + 1) >> 1) : folded >> 1); // wraps at 16 bits, as packed
    }
  }
  return stored;
}

// Slices by number: each a Map of plane name -> Float32Array in HU. The last few are kept.
class SliceStore {
  constructor(slices) {
    this.slices = slices;
    this.known = new Map();
  }

  load(number) {
    const found = this.known.get(number) ?? this.unpack(this.slices[number]);
    this.known.delete(number); // and in again: the latest is the last to be dropped
    this.known.set(number, found);
    if (this.known.size > KEPT_SLICES) this.known.delete(this.known.keys().next().value);
    return found;
  }

  async unpack(slice) {
    const planes = new Map();
    await Promise.all(Object.entries(slice.planes).map(async ([name, { id, step }]) => {
      const text = document.getElementById(id).textContent.trim();
      const stored = unfold(await inflate(bytesOfText(text)), slice.columns, slice.rows);
      planes.set(name, Float32Array.from(stored, (value) => (value === NOT_FINITE ? NaN : value * step)));
    }));
    return planes;
  }
}

// HU of a view, or null where the slice lacks one of its planes. A view is a sum of planes with signs.
function viewValues(view, planes) {
  const terms = view.terms.map(([name, sign]) => [planes.get(name), sign]);
  if (terms.some(([plane]) => plane === undefined)) return null;
  if (terms.length === 1 && terms[0][1] === 1 && !view.absolute) return terms[0][0];
  const values = new Float32Array(terms[0][0].length);
  for (const [plane, sign] of terms) {
    for (let i = 0; i < values.length; i += 1) values[i] += sign * plane[i];
  }
  return view.absolute ? values.map(Math.abs) : values;
}

// The window of a kind of view as the HU of the first and the last colour.
function rangeOfKind(kind, settings) {
  if (kind === "image") return [settings.centre - settings.width / 2, settings.centre + settings.width / 2];
  if (kind === "disagreement") return [0, settings.disagreement];
  return [-settings.difference, settings.difference];
}

function colourTable(hex) {
  const table = new Uint32Array(hex.length / 6);
  for (let i = 0; i < table.length; i += 1) {
    const [r, g, b] = [0, 2, 4].map((place) => parseInt(hex.substr(6 * i + place, 2), 16));
    table[i] = rgba(r, g, b, 255);
  }
  return table;
}

// One word of an ImageData in memory order.
function rgba(...parts) {
  return new Uint32Array(new Uint8Array(parts).buffer)[0];
}

// An image of the slice's own size.
function colourImage(values, columns, rows, [low, high], table) {
  const image = new ImageData(columns, rows);
  const pixels = new Uint32Array(image.data.buffer);
  const last = table.length - 1;
  const odd = rgba(...NOT_FINITE_COLOUR);
  for (let i = 0; i < pixels.length; i += 1) {
    const value = values[i];
    const place = ((value - low) / (high - low)) * last; // in this order: as apply_window, to the bit
    pixels[i] = table[place <= 0 ? 0 : place >= last ? last : (place + 0.5) | 0];
    if (value !== value) pixels[i] = odd;
  }
  return image;
}
