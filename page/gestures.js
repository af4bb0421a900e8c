// Gestures on the chart of a panel, and its keys: they move the cursor, and the time in view.

import { clamp } from './view.js';

const SLOP = 5; // pixels that a press may move before it is a drag

export function listen(panel) {
	const { canvas, view } = panel, { classList } = canvas;
	const pressed = new Map(); // from the id of a pointer to its newest x
	let start = 0;
	const on = (type, act, options) => canvas.addEventListener(type, act, options);
	const point = ({ offsetX, offsetY }) => view.point({ panel, time: panel.frame.time(offsetX), y: offsetY });
	const leave = () => view.point(null);
	const zoom = (factor, x) => view.zoom(factor, panel.frame.time(x));
	const pan = pixels => {
		const { begin, end, width } = panel.frame;
		view.pan((begin - end) / width * pixels);
	};

	on('pointerdown', event => {
		if (event.button !== 0 || pressed.size === 2) return;
		pressed.set(event.pointerId, start = event.offsetX);
		point(event);
	});

	on('pointermove', event => {
		const x = event.offsetX, before = pressed.get(event.pointerId);
		if (before === undefined) {
			point(event);
			return;
		}
		if (pressed.size === 2) {
			const [other] = [...pressed].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
			zoom(Math.max(Math.abs(before - other), 8) / Math.max(Math.abs(x - other), 8), (x + other) / 2);
			pan((x - before) / 2);
		} else if (classList.contains('dragged')) pan(x - before);
		else if (Math.abs(x - start) > SLOP) {
			classList.add('dragged');
			canvas.setPointerCapture(event.pointerId);
			leave();
			pan(x - start);
		}
		pressed.set(event.pointerId, x);
	});

	for (const type of ['pointerup', 'pointercancel', 'pointerleave']) {
		on(type, event => {
			pressed.delete(event.pointerId);
			classList.remove('dragged');
			if (type === 'pointerleave' && event.pointerType === 'mouse') leave();
		});
	}

	// Where the page can scroll, the wheel does that, unless Ctrl is held, as in a pinch on a touchpad.
	on('wheel', event => {
		const { scrollHeight, clientHeight } = document.documentElement;
		const { deltaX, ctrlKey } = event, deltaY = event.deltaY * (event.deltaMode ? 33 : 1);
		if (Math.abs(deltaX) > Math.abs(deltaY)) pan(-deltaX);
		else if (ctrlKey || scrollHeight <= clientHeight) zoom(Math.exp(deltaY / (ctrlKey ? 100 : 500)), event.offsetX);
		else return;
		event.preventDefault();
	}, { passive: false });

	on('keydown', event => {
		const { samples, frame: { begin, end } } = panel;
		const at = samples.since(view.cursor?.time ?? end + 1), home = samples.since(begin);
		const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: home, End: samples.end - 1 }[event.key];
		const pages = { PageUp: -1, PageDown: 1 }[event.key];
		if (event.key === 'Escape') leave();
		else if (pages) view.pan(pages * (end - begin));
		else if (to !== undefined && samples.count) {
			const time = samples.time(clamp(to, samples.begin, samples.end - 1));
			view.point({ time });
			view.reveal(time);
		} else return;
		if (event.key === 'End') view.follow();
		event.preventDefault();
	});

	on('dblclick', () => view.follow());
	on('blur', leave);
}
