// Drawing of a frame on a canvas.

import { layers, runs, spans } from './chart.js';

export const COLORS = 8;

// The shapes fit into a box of 12 by 12 around 0, 0.
const RING = 'M-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z';
const SHAPES = [
	{ d: RING }, { d: 'M-4-4h8v8h-8z' }, { d: 'M0-5L5 4H-5z' }, { d: 'M0-6L5 0L0 6L-5 0z' }, { d: 'M0 5L5-4H-5z' },
	{ d: 'M-5 0H5M0-5V5', open: true }, { d: 'M-4-4L4 4M-4 4L4-4', open: true }, { d: RING, open: true },
];
for (const shape of SHAPES) shape.path = new Path2D(shape.d);

// look returns the color and the shape of column c. Columns that share a color have different shapes.
export const look = c => ({ color: c % COLORS, shape: SHAPES[(c + Math.floor(c / COLORS)) % SHAPES.length] });

// readPalette returns the colors of the style sheet for a canvas.
export function readPalette() {
	const probe = document.body.appendChild(document.createElement('i'));
	probe.style.forcedColorAdjust = 'none';
	const resolve = name => {
		probe.style.color = `var(--${name})`;
		return getComputedStyle(probe).color;
	};
	const palette = { lines: Array.from({ length: COLORS }, (_, c) => resolve(`line${c}`)) };
	for (const name of ['ground', 'text', 'quiet', 'edge', 'grid']) palette[name] = resolve(name);
	palette.heat = ramp(['heat0', 'heat1', 'heat2', 'heat3', 'heat4'].map(resolve));
	probe.remove();
	return palette;
}

// ramp returns a pixel for each percentage.
function ramp(colors) {
	const ctx = new OffscreenCanvas(101, 1).getContext('2d');
	const gradient = ctx.createLinearGradient(0, 0, 101, 0);
	colors.forEach((color, i) => gradient.addColorStop(i / (colors.length - 1), color));
	ctx.fillStyle = gradient;
	ctx.fillRect(0, 0, 101, 1);
	return new Uint32Array(ctx.getImageData(0, 0, 101, 1).data.buffer);
}

// draw draws a frame. chosen is the column in focus, or -1; cursor is null or {time, index}.
export function draw(ctx, frame, palette, chosen, cursor) {
	const { left, top, width, height, form } = frame;
	if (form !== 'heat') drawGrid(ctx, frame, palette);
	ctx.save();
	ctx.beginPath();
	ctx.rect(left - 1, top - 2, width + 2, height + 4);
	ctx.clip();
	if (form === 'heat') drawHeat(ctx, frame, palette, chosen);
	else if (form === 'stack') drawStack(ctx, frame, palette, chosen);
	else forEachColumn(frame, chosen, (c, opacity) => drawLine(ctx, frame, palette, c, opacity));
	ctx.restore();
	if (form === 'lines') forEachColumn(frame, chosen, (c, opacity) => drawMarkers(ctx, frame, palette, c, opacity));
	if (cursor) drawCursor(ctx, frame, palette, chosen, cursor);
	drawLabels(ctx, frame, palette);
}

function rule(ctx, color, x, y, width, height) {
	ctx.fillStyle = color;
	ctx.fillRect(Math.round(x), Math.round(y), width, height);
}

function drawGrid(ctx, { left, top, width, height, bottom, base, timeTicks, valueTicks }, palette) {
	for (const { x } of timeTicks) rule(ctx, palette.grid, x, top, 1, height);
	for (const { y } of valueTicks) rule(ctx, palette.grid, left, y, width, 1);
	for (const y of [base, bottom]) rule(ctx, palette.edge, left, y, width, 1);
}

function drawLabels(ctx, { left, right, bottom, timeTicks, valueTicks, cpus, y, top }, palette) {
	ctx.font = '12px system-ui, sans-serif';
	ctx.textBaseline = 'middle';
	ctx.fillStyle = palette.quiet;
	ctx.textAlign = 'right';
	for (const { y: at, label } of valueTicks) ctx.fillText(label, left - 8, at + 0.5, left - 8);
	ctx.textAlign = 'center';
	for (const { x, label } of timeTicks) ctx.fillText(label, x, bottom + 15);
	if (!cpus) return;
	const at = y(cpus);
	for (let x = left; x < right; x += 10) rule(ctx, palette.quiet, x, at, Math.min(6, right - x), 1);
	ctx.textAlign = 'right';
	ctx.fillText(`CPUs: ${cpus}`, right, at - top < 14 ? at + 9 : at - 8);
}

function trace(xs, ys, path = new Path2D()) {
	xs.forEach((x, i) => path.lineTo(x, ys[i]));
	return path;
}

// fillBand fills what is between two lines. Where they have a corner in each pixel, bars are faster.
function fillBand(ctx, { dense, pixel }, xs, above, below) {
	if (dense || xs.length === 1) {
		const edges = [...xs, xs.at(-1) + 1].map(x => Math.round(x / pixel) * pixel);
		xs.forEach((_, i) => ctx.fillRect(edges[i], above[i], edges[i + 1] - edges[i], below[i] - above[i]));
	} else ctx.fill(trace(xs.toReversed(), below.toReversed(), trace(xs, above)));
}

// forEachColumn calls act with each column and its opacity; the one in focus is last.
function forEachColumn({ samples }, chosen, act) {
	for (let c = samples.names.length - 1; c >= 0; c--) if (c !== chosen) act(c, chosen < 0 ? 1 : 0.2);
	if (chosen >= 0) act(chosen, 1);
}

// drawLine draws a line through means. Where steps have several samples, a band from the lowest to the highest
// surrounds it, with an edge above, so that the peaks are seen.
function drawLine(ctx, frame, palette, c, opacity) {
	const all = runs(frame, c), alone = frame.samples.names.length === 1, { dense } = frame;
	ctx.lineJoin = ctx.lineCap = 'round';
	ctx.strokeStyle = ctx.fillStyle = palette.lines[look(c).color];
	if (alone) {
		ctx.globalAlpha = 0.15 * opacity;
		for (const { xs, highs } of all) fillBand(ctx, frame, xs, highs, xs.map(() => frame.base));
	}
	if (dense) {
		ctx.globalAlpha = (alone ? 0.4 : 0.25) * opacity;
		for (const { xs, highs, lows } of all) fillBand(ctx, frame, xs, highs, lows);
	}
	ctx.globalAlpha = opacity;
	ctx.lineWidth = dense ? frame.pixel : 2; // one pixel is fast
	for (const { xs, highs, means } of all) {
		if (dense) ctx.stroke(trace(xs, highs));
		ctx.stroke(trace([xs[0] - 0.5, ...xs], [means[0], ...means])); // shows a lone sample
	}
	ctx.globalAlpha = 1;
}

// drawMarkers draws a marker for each sample, or only for the newest if they would touch.
function drawMarkers(ctx, { samples, spacing, most, first, last, x, y }, palette, c, opacity) {
	ctx.globalAlpha = opacity;
	const crowded = spacing < 5;
	const size = crowded ? 5 : Math.min(5, 0.4 * spacing);
	for (let i = crowded ? last - 1 : first; i >= first && i < last; i++) {
		const value = samples.value(i, c);
		if (value <= most) drawMarker(ctx, palette, c, x(samples.time(i)), y(value), size);
	}
	ctx.globalAlpha = 1;
}

function drawStack(ctx, frame, palette, chosen) {
	const all = layers(frame);
	frame.samples.names.forEach((name, c) => {
		ctx.globalAlpha = (chosen < 0 || c === chosen ? 1 : 0.25) * (name.endsWith('idle') ? 0.05 : 1);
		ctx.fillStyle = palette.lines[look(c).color];
		for (const { xs, edges } of all) fillBand(ctx, frame, xs, edges[c + 1], edges[c]);
	});
	ctx.globalAlpha = 1;
	if (frame.spacing < 4) return;
	// Thin lines keep the layers apart without color.
	ctx.strokeStyle = palette.ground;
	ctx.lineWidth = 0.5;
	for (const { xs, edges } of all) for (const edge of edges) ctx.stroke(trace(xs, edge));
}

// drawHeat draws a row for each column, or for the hottest of so many neighbors.
function drawHeat(ctx, frame, palette, chosen) {
	const { left, top, width, height, pixel, y, rows, neighbors, samples, high, xs } = frame;
	const columns = samples.names.length, steps = xs.length, pixels = Math.max(1, Math.round(width / pixel));
	const image = new ImageData(pixels, rows);
	const data = new Uint32Array(image.data.buffer);
	const extents = spans(frame, pixels);
	for (let row = 0; row < rows; row++) {
		const from = row * neighbors, to = Math.min(from + neighbors, columns);
		extents.forEach(([begin, end], s) => {
			let hottest = -1;
			for (let c = from; c < to; c++) if (high[c * steps + s] > hottest) hottest = high[c * steps + s];
			const color = palette.heat[Math.min(Math.round(hottest), 100)]; // none if the values are unknown
			if (color) data.fill(color, row * pixels + begin, row * pixels + end);
		});
	}
	const heat = new OffscreenCanvas(pixels, rows);
	heat.getContext('2d').putImageData(image, 0, 0);
	ctx.imageSmoothingEnabled = false;
	ctx.drawImage(heat, left, top, width, height);
	rule(ctx, palette.edge, left, top + height, width, 1);
	if (chosen < 0) return;
	ctx.strokeStyle = palette.text;
	ctx.lineWidth = 1.5;
	ctx.strokeRect(left - 0.5, y(chosen) - height / rows / 2 - 1, width + 1, height / rows + 2);
}

export function drawMarker(ctx, palette, c, x, y, size) {
	const { color, shape } = look(c);
	ctx.save();
	ctx.translate(x, y);
	ctx.scale(size / 6, size / 6);
	ctx.lineWidth = 2;
	ctx.strokeStyle = ctx.fillStyle = palette.lines[color];
	if (shape.open) ctx.stroke(shape.path);
	else ctx.fill(shape.path);
	ctx.restore();
}

function drawCursor(ctx, frame, palette, chosen, { time, index }) {
	const { samples, form, top, height, x, y } = frame;
	rule(ctx, form === 'heat' ? palette.text : palette.quiet, x(time), top, 1, height);
	if (form !== 'lines') return;
	samples.row(index).forEach((value, c) => {
		if (!Number.isNaN(value) && (chosen < 0 || c === chosen)) drawMarker(ctx, palette, c, x(time), y(value), 8);
	});
}
