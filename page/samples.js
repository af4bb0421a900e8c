// What was received: the samples of a reading, and the recording of all.

import { group } from './readings.js';
import { shorten } from './text.js';

const SHIFT = 8, ROWS = 1 << SHIFT, MASK = ROWS - 1;
const MAX_BYTES = 24 << 20;
const MAX_COLUMNS = 1024;

// Samples are rows of numbers, oldest first. NaN is unknown; a row of NaN alone ends the lines of a chart. Rows keep
// their index when older ones go.
export class Samples {
	constructor(names) {
		this.names = names;
		this.chunks = []; // of ROWS rows, column by column
		this.begin = this.end = 0; // of the indexes
		this.latest = -1; // the newest row that was received, not made by gap
		this.decimals = 0;
	}

	get count() { return this.end - this.begin; }

	get first() { return this.count ? this.time(this.begin) : Infinity; }

	get last() { return this.count ? this.time(this.end - 1) : -Infinity; }

	chunk(i) { return this.chunks[(i - this.begin) >> SHIFT]; }

	time(i) { return this.chunk(i).times[i & MASK]; }

	value(i, c) { return this.chunk(i).values[(c << SHIFT) + (i & MASK)]; }

	row(i) { return this.names.map((_, c) => this.value(i, c)); }

	add(time, row) {
		// If the clock was set back, the samples after the new time are dropped.
		while (this.last > time + 1000) this.end--;
		if (this.count >> SHIFT === this.chunks.length) {
			this.chunks.push({ times: new Float64Array(ROWS), values: new Float32Array(ROWS * row.length).fill(NaN) });
		}
		const { times, values } = this.chunk(this.end);
		const at = this.end & MASK;
		times[at] = Math.max(time, this.last + 0.001); // several lines may have the same time
		for (let c = 0; c < row.length; c++) values[(c << SHIFT) + at] = row[c];
		this.latest = this.end++;
	}

	// gap ends the lines, unless they have already ended.
	gap() {
		const { latest } = this;
		if (!this.count || latest !== this.end - 1) return;
		this.add(this.last, this.names.map(() => NaN));
		this.latest = latest;
	}

	// extend adds columns that were unknown until now.
	extend(names) {
		this.names = [...this.names, ...names];
		for (const chunk of this.chunks) {
			const { values } = chunk;
			chunk.values = new Float32Array(ROWS * this.names.length).fill(NaN);
			chunk.values.set(values);
		}
	}

	// since returns the index of the first sample that is not before time.
	since(time) {
		let low = this.begin, high = this.end;
		while (low < high) {
			const middle = (low + high) >> 1;
			if (this.time(middle) < time) low = middle + 1;
			else high = middle;
		}
		return low;
	}
}

const NUMBER = /^(nan|-?\d+(\.\d+)?)$/;
const TIME = /^\d{4}-\d\d-\d\dT/;

export class Recording {
	constructor() {
		this.series = new Map(); // from a word to its samples
		this.width = 0; // columns of the lines to come
		this.columns = []; // where they belong: samples, and their columns in the lines
	}

	get all() { return [...this.series.values()]; }

	get first() { return Math.min(...this.all.map(({ first }) => first)); }

	get last() { return Math.max(...this.columns.map(({ samples }) => samples.last)); }

	// of returns the samples of a reading, which may be empty.
	of(word) {
		if (!this.series.has(word)) this.series.set(word, new Samples([]));
		return this.series.get(word);
	}

	// setColumns says what the next lines consist of. What is not among it has a gap.
	setColumns(names) {
		const groups = group(names.slice(0, MAX_COLUMNS));
		for (const [word, samples] of this.series) if (!groups.has(word)) samples.gap();
		this.width = names.length;
		this.columns = [...groups].map(([word, places]) => {
			const own = places.map(i => names[i]);
			const samples = this.of(word);
			const added = own.filter(name => !samples.names.includes(name));
			if (added.length) samples.extend(added);
			return { samples, places: samples.names.map(name => places[own.indexOf(name)]) };
		});
	}

	// accept takes a line, and reports whether it is a reading, and not only names of columns. A line without a time
	// has the time now.
	accept(line, now) {
		const fields = line.trim().split(/\s+/);
		if (fields[0] === '#') {
			this.setColumns(fields.slice(fields[1] === 'time' ? 2 : 1));
			return false;
		}
		const time = TIME.test(fields[0]) ? Date.parse(fields.shift()) : now;
		if (this.width === 0) this.setColumns(fields.map((_, i) => `column${i + 1}`));
		if (fields.length !== this.width || Number.isNaN(time) || !fields.every(field => NUMBER.test(field))) {
			throw new SyntaxError(shorten(JSON.stringify(line)));
		}
		for (const { samples, places } of this.columns) {
			samples.decimals = fields[places[0]]?.split('.')[1]?.length ?? samples.decimals;
			samples.add(time, places.map(i => Number(fields[i])));
		}
		this.limit();
		return true;
	}

	gap() {
		for (const samples of this.all) samples.gap();
	}

	// limit drops the oldest samples of all while there are too many.
	limit() {
		const bytes = ({ chunks, names }) => chunks.length * ROWS * (8 + 4 * names.length);
		while (this.all.reduce((sum, samples) => sum + bytes(samples), 0) > MAX_BYTES) {
			const long = this.all.filter(({ chunks }) => chunks.length > 1);
			const oldest = long.reduce((a, b) => a.first < b.first ? a : b);
			oldest.chunks.shift();
			oldest.begin += ROWS;
		}
	}
}
