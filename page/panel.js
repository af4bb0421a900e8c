// A Panel shows one reading: its title, its chart, the values at the cursor and its legend.

import { columnAt, formOf, hottest, layout, locate } from './chart.js';
import { COLORS, draw, look } from './drawing.js';
import { listen } from './gestures.js';
import { describe } from './readings.js';
import { clock, formatNumber } from './text.js';

// clone returns a copy of the element in a template of the page.
export const clone = id => document.getElementById(id).content.cloneNode(true).firstElementChild;

export class Panel {
	#entries = []; // of the legend
	#names = []; // that the legend has
	#pinned = -1; // the column chosen in the legend
	#hovered = -1; // the one pointed at in the legend

	constructor(word, samples, view) {
		const { title, limit } = describe(word);
		Object.assign(this, { word, title, limit, samples, view });
		this.#build();
	}

	get form() { return formOf(this.word, this.samples.names.length); }

	// wide reports whether there are too many columns for a color each.
	get wide() { return this.samples.names.length > COLORS; }

	#build() {
		this.element = clone('panel');
		for (const part of ['head', 'h2', 'note', 'scale', 'plot', 'canvas', 'readout', 'legend']) {
			this[part] = this.element.querySelector(`${part}, .${part}`);
		}
		this.h2.textContent = this.element.ariaLabel = this.title;
		this.canvas.ariaLabel = `${this.title}: arrow keys show the values at a time`;
		listen(this);
		for (const type of ['pointerover', 'pointerout', 'focusin', 'focusout', 'click']) {
			this.legend.addEventListener(type, event => {
				const c = this.#entries.findIndex(({ button }) => button.contains(event.target));
				if (type === 'click') this.#pin(c);
				else this.#hovered = type.endsWith('out') ? -1 : c;
				this.view.changed();
			});
		}
	}

	#pin(c) {
		this.#pinned = c === this.#pinned ? -1 : c;
		this.#entries.forEach(({ button }, i) => { button.ariaPressed = i === this.#pinned; });
	}

	#buildLegend() {
		this.#names = this.samples.names;
		this.#pinned = this.#hovered = -1;
		const few = this.#names.length <= 3;
		this.element.classList.toggle('wide', this.wide);
		this.element.classList.toggle('few', few);
		(few ? this.head : this.element).append(this.legend);
		this.#entries = this.#names.map((name, c) => {
			const item = clone('entry'), button = item.firstElementChild, { color, shape } = look(c);
			const marker = button.querySelector('svg'), path = marker.firstChild;
			path.setAttribute('d', shape.d);
			path.style[shape.open ? 'stroke' : 'fill'] = `var(--line${color})`;
			if (this.form === 'heat') marker.remove();
			button.querySelector('.name').textContent = name;
			const texts = ['now', 'min', 'avg', 'max']
				.map(key => button.querySelector(`.${key}`).appendChild(new Text()));
			return { item, button, texts, marker };
		});
		this.legend.replaceChildren(...this.#entries.map(({ item }) => item));
	}

	// newest returns the last row that was received, or null.
	get newest() { return this.samples.latest >= this.samples.begin ? this.samples.row(this.samples.latest) : null; }

	format = value => formatNumber(value, this.samples.decimals);

	// draw draws what is in view, and a line at the number of CPUs, if there is one. size has width, height, and scale,
	// the number of pixels in a CSS pixel.
	draw(palette, cpus, size = this.size) {
		if (this.#names !== this.samples.names) this.#buildLegend();
		const { width, height, scale } = size, pixel = 1 / scale;
		const axis = { limit: this.limit, cpus };
		this.frame = layout(this.samples, this.view.range, { width, height, pixel }, this.form, axis);
		const spot = this.#spot;
		const ctx = this.canvas.getContext('2d');
		this.canvas.width = Math.round(width * scale); // clears it
		this.canvas.height = Math.round(height * scale);
		ctx.scale(scale, scale);
		draw(ctx, this.frame, palette, spot?.chosen ?? this.#focused, spot);
		this.#showReadout(spot);
		this.#showLegend();
	}

	get size() { return { width: this.plot.clientWidth, height: this.plot.clientHeight, scale: devicePixelRatio }; }

	get #focused() { return this.#hovered >= 0 ? this.#hovered : this.#pinned; }

	// spot returns the sample at the cursor and the column in focus there, or null.
	get #spot() {
		const { frame, view: { cursor } } = this, index = cursor ? locate(frame, cursor.time) : -1;
		if (index < 0) return null;
		let chosen = this.#focused;
		if (chosen < 0 && cursor.panel === this && frame.form === 'heat') chosen = columnAt(frame, index, cursor.y);
		return { time: this.samples.time(index), index, chosen };
	}

	#showReadout(spot) {
		this.readout.hidden = !spot;
		if (!spot) {
			this.canvas.ariaValueText = 'no time selected';
			return;
		}
		const { frame } = this, time = clock(spot.time, frame.seconds), rows = this.#valuesAt(spot);
		this.readout.replaceChildren(time, ...rows.map(([name, value, marker = '']) => {
			const row = document.createElement('div'), number = document.createElement('b');
			number.textContent = this.format(value);
			row.append(marker, name, number);
			return row;
		}));
		const texts = rows.map(([name, value]) => `${name} ${this.format(value)}`);
		this.canvas.ariaValueText = `${time} ${texts.join(', ')}`;
		const x = frame.x(spot.time), box = this.readout.offsetWidth;
		this.canvas.ariaValueNow = Math.round(100 * (spot.time - frame.begin) / (frame.end - frame.begin));
		const left = x + 14 + box < this.plot.clientWidth ? x + 14 : Math.max(0, x - 14 - box);
		this.readout.style.transform = `translate(${left}px, ${frame.top + 8}px)`;
	}

	// valuesAt returns rows of [name, value, marker].
	#valuesAt({ index, chosen }) {
		const values = this.samples.row(index), rowOf = c => [this.#names[c], values[c]];
		if (!this.wide) return values.map((_, c) => [...rowOf(c), this.#entries[c].marker.cloneNode(true)]);
		const highest = hottest(values), highestRow = [`highest: ${this.#names[highest]}`, values[highest]];
		return chosen < 0 ? [highestRow] : [rowOf(chosen), highestRow];
	}

	// values returns the texts of the legend for each column: newest, minimum, average, maximum.
	values() {
		const { newest, frame: { min, avg, max } } = this, format = newest ? this.format : () => '';
		return this.samples.names.map((_, c) => [newest?.[c], min[c], avg[c], max[c]].map(format));
	}

	#showLegend() {
		const { newest, frame: { neighbors = 1, most = 100 } } = this;
		this.values().forEach((values, c) => {
			const { button, texts } = this.#entries[c];
			texts.forEach((text, i) => { if (text.data !== values[i]) text.data = values[i]; });
			if (this.wide) button.style.setProperty('--now', (newest?.[c] || 0) / most);
		});
		this.scale.hidden = this.form !== 'heat';
		this.note.textContent = neighbors > 1 ? `each row: the hottest of ${neighbors} CPUs` : '';
	}
}
