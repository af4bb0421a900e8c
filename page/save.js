// Saving the charts as a picture and as lines, and reading saved lines.

import { drawMarker } from './drawing.js';
import { Recording } from './samples.js';
import { formatNumber } from './text.js';

function save(blob, name) {
	const link = document.createElement('a');
	link.href = URL.createObjectURL(blob);
	link.download = name.replace(/[^\w.-]/g, '-');
	link.click();
	setTimeout(URL.revokeObjectURL, 60_000, link.href);
}

// linesOf returns the samples of several series side by side, as cpunc prints them. Where one has no sample at a
// time, it is nan.
export function linesOf(all, { begin, end }) {
	const lines = [];
	const at = all.map(samples => samples.since(begin));
	for (;;) {
		const times = all.map((samples, k) => at[k] < samples.end ? samples.time(at[k]) : Infinity);
		const time = Math.min(...times);
		if (time > end || time === Infinity) break;
		const fields = all.flatMap((samples, k) => {
			const isHere = times[k] - time < 1; // the times of several lines at once differ a little
			const row = isHere ? samples.row(at[k]++) : samples.names.map(() => NaN);
			return row.map(value => formatNumber(value, samples.decimals));
		});
		// A gap of one series alone is not a line.
		if (fields.every(field => field === 'nan') && times.some(other => other - time >= 1)) continue;
		lines.push(`${new Date(time).toISOString()} ${fields.join(' ')}\n`);
	}
	const zeros = lines.every(line => line.includes('.000Z')) ? '.000Z' : 'Z';
	return [`# time ${all.flatMap(({ names }) => names).join(' ')}\n`, ...lines.map(line => line.replace(zeros, 'Z'))];
}

export function saveData(panels, range, name) {
	save(new Blob(linesOf(panels.map(({ samples }) => samples), range), { type: 'text/plain' }), `${name}.txt`);
}

// savePicture saves the charts, whose canvases have this size, with their legends.
export function savePicture(panels, { width, height, scale }, palette, heading, name) {
	const margin = 24, perRow = Math.max(1, Math.floor(width / 320)), cell = width / perRow;
	const heightOf = panel => height + 40 + 24 * Math.ceil(panel.samples.names.length / perRow);
	const canvas = document.createElement('canvas');
	canvas.width = (width + 2 * margin) * scale;
	canvas.height = (panels.reduce((sum, panel) => sum + heightOf(panel), 36) + 2 * margin) * scale;
	const ctx = canvas.getContext('2d');
	const text = (string, x, y, font, maxWidth) => {
		ctx.font = `${font} system-ui, sans-serif`;
		ctx.fillStyle = palette.text;
		ctx.fillText(string, x, y, maxWidth);
	};
	ctx.fillStyle = palette.ground;
	ctx.fillRect(0, 0, canvas.width, canvas.height);
	ctx.scale(scale, scale);
	ctx.translate(margin, margin);
	ctx.textBaseline = 'middle';
	text(heading, 0, 10, '600 18px');
	ctx.translate(0, 36);
	for (const panel of panels) {
		text(panel.title, 0, 14, '600 15px');
		ctx.drawImage(panel.canvas, 0, 28, width, height);
		panel.values().forEach(([now, min, avg, max], c) => {
			const x = c % perRow * cell, y = height + 40 + Math.floor(c / perRow) * 24;
			if (panel.form !== 'heat') drawMarker(ctx, palette, c, x + 6, y, 6);
			text(`${panel.samples.names[c]}  ${now}`, x + 18, y, '600 13px', cell - 230);
			text(`min ${min}  avg ${avg}  max ${max}`, x + cell - 200, y, '12px');
		});
		ctx.translate(0, heightOf(panel));
	}
	canvas.toBlob(blob => save(blob, `${name}.png`));
}

// readLog returns a recording of a file with lines as cpunc prints them. Lines without a time count as one a second,
// up to when the file was written.
export async function readLog(file) {
	const lines = (await file.text()).trimEnd().split('\n');
	const recording = new Recording();
	let readings = 0;
	lines.forEach((line, i) => {
		if (line.trim() === '') return;
		if (line.startsWith('#')) recording.gap(); // a new run
		try {
			if (recording.accept(line, file.lastModified - 1000 * (lines.length - 1 - i))) readings++;
		} catch (error) {
			if (!(error instanceof SyntaxError)) throw error;
			throw new SyntaxError(`line ${i + 1} is not a reading: ${error.message}`, { cause: error });
		}
	});
	if (readings === 0) throw new SyntaxError('no readings');
	return { recording, readings };
}
