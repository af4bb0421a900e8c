// The geometry of a chart: where everything is, in CSS pixels.

import { clock, date } from './text.js';
import { clamp } from './view.js';

const MARGIN = { left: 40, top: 12, right: 28, bottom: 26 };

// formOf returns how columns are drawn: stacked on each other, each as a row of a heat map, or as lines.
export function formOf(word, columns) {
	if (word === 'modes' && columns === 8) return 'stack'; // they add up to 100
	return columns > (word === 'cores' ? 8 : 64) ? 'heat' : 'lines';
}

// layout returns a frame: the area of the curves, its axes, and the values of the samples at each step. size has
// width, height and the width of a pixel; axis has the limit of the values and the number of CPUs, if there is one.
export function layout(samples, range, size, form, axis) {
	const { left, top } = MARGIN;
	const { begin, end } = range, length = end - begin;
	const width = Math.max(1, size.width - left - MARGIN.right);
	const height = Math.max(1, size.height - top - MARGIN.bottom);
	const frame = {
		...size, form, samples, begin, end, left, top, width, height, right: left + width, bottom: top + height,
		first: samples.since(begin), last: samples.since(end + 0.001),
		x: time => left + (time - begin) / length * width,
		time: x => clamp(begin + (x - left) / width * length, begin, end),
	};
	Object.assign(frame, divide(frame));
	Object.assign(frame, summarize(frame));
	frame.spacing = spacing(frame);
	frame.dense = frame.spacing < 2 * size.pixel;
	frame.seconds = Math.round(frame.spacing / width * length / 100) / 10; // from one step to the next
	Object.assign(frame, form === 'heat' ? heatAxis(frame) : valueAxis(frame, axis));
	frame.timeTicks = timeTicks(frame);
	return frame;
}

// divide returns the steps of a frame and one sample beyond each side: step s is the samples in a column of pixels,
// from starts[s] to before starts[s+1]. Steps begin at multiples of their length, so that they do not change with
// time.
function divide(frame) {
	const { samples, begin, end, width, pixel } = frame;
	const from = Math.max(frame.first - 1, samples.begin), to = Math.min(frame.last + 1, samples.end);
	const length = (end - begin) / width * pixel;
	const starts = [], xs = [];
	let step = NaN;
	for (let i = from; i < to; i++) {
		const time = samples.time(i), next = Math.floor(time / length);
		if (next !== step || i === frame.first || i === frame.last) {
			starts.push(i);
			xs.push(frame.x(time));
		} else if (starts.at(-1) === i - 1) xs[xs.length - 1] = frame.x((step + 0.5) * length);
		step = next;
	}
	starts.push(to);
	return { starts, xs };
}

// summarize returns, for each column, low, high and mean of each step, and whether its line ends there; and min, max
// and avg of the samples in the frame.
function summarize({ samples, starts, xs, first, last }) {
	const columns = samples.names.length, steps = xs.length;
	const make = () => new Float32Array(columns * steps).fill(NaN);
	const low = make(), high = make(), mean = make(), ends = new Uint8Array(columns * steps);
	const min = new Float32Array(columns).fill(NaN), max = min.slice(), avg = new Float64Array(columns).fill(NaN);
	for (let c = 0; c < columns; c++) {
		let total = 0, known = 0, least = Infinity, most = -Infinity;
		for (let s = 0; s < steps; s++) {
			const from = starts[s], to = starts[s + 1];
			let sum = 0, count = 0, lowest = Infinity, highest = -Infinity, value = NaN;
			for (let i = from; i < to; i++) {
				value = samples.value(i, c);
				if (Number.isNaN(value)) continue;
				if (value < lowest) lowest = value;
				if (value > highest) highest = value;
				sum += value;
				count++;
			}
			const at = c * steps + s;
			ends[at] = Number.isNaN(value);
			if (count === 0) continue;
			low[at] = lowest;
			high[at] = highest;
			mean[at] = sum / count;
			if (from < first || to > last) continue;
			if (lowest < least) least = lowest;
			if (highest > most) most = highest;
			total += sum;
			known += count;
		}
		if (known === 0) continue;
		min[c] = least;
		max[c] = most;
		avg[c] = total / known;
	}
	return { low, high, mean, ends, min, max, avg };
}

// spacing returns the usual distance from one step to the next.
function spacing(frame) {
	const { xs, width } = frame;
	let sum = 0, count = 0;
	for (const [from, to] of pieces(frame, 0)) {
		sum += xs[to - 1] - xs[from];
		count += to - from - 1;
	}
	return count ? sum / count : width;
}

// valueAxis returns the scale and its ticks: from 0 to the limit, or, without one, between round numbers.
function valueAxis({ min, max, height, bottom }, { limit, cpus = 0 }) {
	const known = [0, cpus, ...max, ...min].filter(value => !Number.isNaN(value));
	const [least, most] = limit ? [0, limit] : [Math.min(...known), Math.max(...known)];
	const step = roundOver(Math.max(most - least, 0.5) / (height < 70 ? 1 : height < 170 ? 2 : 5));
	const from = Math.floor(least / step), to = Math.max(Math.ceil(+(most / step).toPrecision(9)), from + 1);
	const y = value => bottom - (value / step - from) / (to - from) * height;
	const valueTicks = [];
	for (let k = from; k <= to; k++) valueTicks.push({ y: y(k * step), label: `${+(k * step).toPrecision(6)}` });
	return { y, most: to * step, valueTicks, base: y(Math.max(from, 0) * step), cpus };
}

// roundOver returns 1, 2, 5 or 10 times a power of ten that is not below the number.
function roundOver(number) {
	const power = 10 ** Math.floor(Math.log10(number));
	return power * [1, 2, 5, 10].find(n => n * power >= number * (1 - 1e-9));
}

// heatAxis returns the rows of a heat map, at least two pixels high. If there are more columns, each row shows the
// hottest of so many neighbors.
function heatAxis({ samples, top, height, pixel }) {
	const columns = samples.names.length;
	const neighbors = Math.ceil(2 * pixel * columns / height), rows = Math.ceil(columns / neighbors);
	const row = height / rows, y = c => top + (Math.floor(c / neighbors) + 0.5) * row;
	const step = Math.max(1, roundOver(16 / row * neighbors)), valueTicks = [];
	for (let c = 0; c < columns; c += step) valueTicks.push({ y: y(c), label: samples.names[c].replace(/.*cpu/, '') });
	return { y, rows, neighbors, valueTicks };
}

const STEPS = [
	0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800,
	3600, 7200, 10800, 21600, 43200, 86400, 172800, 604800,
];

// timeTicks returns round local times, far enough apart for their labels. At midnight, a label is the date.
function timeTicks({ x, begin, end, width }) {
	const step = STEPS.find(seconds => seconds * width / (end - begin) * 1000 >= 84) ?? STEPS.at(-1);
	const zone = new Date(begin).getTimezoneOffset() * 60, ticks = [];
	for (let seconds = Math.ceil((begin / 1000 - zone) / step) * step + zone; seconds * 1000 <= end; seconds += step) {
		const time = seconds * 1000, text = clock(time, step);
		const label = text.startsWith('00:00:00') ? date(time).slice(0, 6) : step < 60 ? text : text.slice(0, 5);
		ticks.push({ x: x(time), label });
	}
	return ticks;
}

// pieces returns the ranges of steps in which a column has no gap, as [from, to].
function pieces({ xs, mean, ends }, c) {
	const all = [], first = c * xs.length;
	for (let s = 0, from = 0; s <= xs.length; s++) {
		const isGap = s === xs.length || Number.isNaN(mean[first + s]), to = isGap ? s : s + 1;
		if (!isGap && !ends[first + s]) continue;
		if (to > from) all.push([from, to]);
		from = s + 1;
	}
	return all;
}

// runs returns the positions of column c, piece by piece. highs, lows and means are equal where a step is one sample.
export function runs(frame, c) {
	const { xs, y, high, low, mean } = frame, first = c * xs.length;
	return pieces(frame, c).map(([from, to]) => {
		const positions = values => Array.from(values.subarray(first + from, first + to), y);
		return { xs: xs.slice(from, to), highs: positions(high), lows: positions(low), means: positions(mean) };
	});
}

// layers returns a stack, piece by piece: column c is between edges[c] and edges[c+1].
export function layers(frame) {
	const { y, mean, samples, xs } = frame;
	return pieces(frame, 0).map(([from, to]) => {
		const part = xs.slice(from, to), sums = part.map(() => 0);
		const edges = samples.names.map((_, c) => part.map((_, s) => y(sums[s] += mean[c * xs.length + from + s])));
		return { xs: part, edges: [part.map(() => y(0)), ...edges] };
	});
}

// spans returns the extent of each step of a heat map, in an image of so many pixels. A reading covers the time since
// the one before.
export function spans({ xs, ends, left, width, spacing }, pixels) {
	const pixelOf = x => clamp(Math.round((x - left) / width * pixels), 0, pixels);
	return xs.map((x, s) => [pixelOf(s > 0 && !ends[s - 1] ? xs[s - 1] : x - Math.max(spacing, 1)), pixelOf(x)]);
}

// locate returns the sample nearest to a time, or -1 if there is none near.
export function locate({ samples, begin, end, first, last, x, spacing }, time) {
	if (first === last || time < begin || time > end) return -1;
	let i = Math.min(samples.since(time), last - 1);
	if (i > first && time - samples.time(i - 1) < samples.time(i) - time) i--;
	return Math.abs(x(samples.time(i)) - x(time)) <= Math.max(spacing, 12) ? i : -1;
}

// hottest returns the index of the largest value that is known.
export function hottest(values) {
	const known = values.map(value => value || 0);
	return known.indexOf(Math.max(...known));
}

// columnAt returns the hottest column of the row of a heat map at y, at sample i.
export function columnAt({ samples, top, height, rows, neighbors }, i, y) {
	const from = clamp(Math.floor((y - top) / height * rows), 0, rows - 1) * neighbors;
	return from + hottest(samples.row(i).slice(from, from + neighbors));
}
