// The time that the charts show: the newest seconds, or a part that stands still; and the cursor.

export const WINDOW_LIMITS = [1, 7 * 86400];

export const clamp = (x, low, high) => Math.min(Math.max(x, low), high);

export class View {
	// changed is called after each change.
	constructor(changed) {
		this.changed = changed;
		this.window = 60; // seconds
		this.right = 0; // the end of the newest seconds
		this.oldest = 0; // nothing was received before
		this.frozen = null;
		this.cursor = null; // null, or a time, and where a pointer is also {panel, y}
	}

	get range() { return this.frozen ?? { begin: this.right - 1000 * this.window, end: this.right }; }

	// show freezes the view, neither before the oldest sample nor in the future.
	show(begin, length) {
		const latest = this.right - length;
		begin = clamp(begin, Math.min(this.oldest, latest), latest);
		this.frozen = { begin, end: begin + length };
		this.changed();
	}

	pan(ms) {
		const { begin, end } = this.range;
		this.show(begin + ms, end - begin);
	}

	// zoom changes the length. The given time keeps its place.
	zoom(factor, time) {
		const { begin, end } = this.range;
		const length = 1000 * clamp((end - begin) * factor / 1000, ...WINDOW_LIMITS);
		this.show(time - (time - begin) * length / (end - begin), length);
	}

	point(cursor) {
		this.cursor = cursor;
		this.changed();
	}

	// reveal moves the view if a time is outside of it.
	reveal(time) {
		const { begin, end } = this.range;
		if (time < begin || time > end) this.pan(time < begin ? time - begin : time - end);
	}

	follow() {
		this.frozen = null;
		this.changed();
	}
}
