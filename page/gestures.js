// Gestures on a chart: a pointer that rests or moves, a drag, a wheel, two fingers.

const SLOP = 5; // pixels that a press may move before it is a drag

// listen calls point(x, y) where a pointer is, leave() when it has left, pan(pixels) for a drag to the right,
// zoom(factor, x) for a wheel or a pinch, follow() for a double click, and key(event).
export function listen(canvas, { point, leave, pan, zoom, follow, key }) {
	const pressed = new Map(); // from the id of a pointer to its newest x
	const { classList } = canvas;
	const on = (type, act, options) => canvas.addEventListener(type, act, options);
	let start = 0;

	on('pointerdown', event => {
		if (event.button !== 0 || pressed.size === 2) return;
		pressed.set(event.pointerId, start = event.offsetX);
		point(start, event.offsetY);
	});

	on('pointermove', event => {
		const x = event.offsetX, before = pressed.get(event.pointerId);
		if (before === undefined) {
			point(x, event.offsetY);
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

	on('dblclick', follow);
	on('keydown', key);
	on('blur', leave);
}
