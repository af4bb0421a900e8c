// The one connection of the page: a response that is an endless stream of lines.

import { shorten } from './text.js';

const FIRST_PAUSE = 500, LONGEST_PAUSE = 30_000, LONGEST_SILENCE = 10_000; // ms
const MAX_LINE = 1 << 16;

// Browsers open six connections per host, before HTTP/2. The sixth is left for loading another page.
const [{ nextHopProtocol }] = performance.getEntriesByType('navigation');
const MAX_STREAMS = /^h\d/.test(nextHopProtocol) ? Infinity : 5;
const FULL = 'no connection is free (browsers open six per host; close another tab of this page)';

export class Monitor {
	#run = null; // aborts the stream
	#pause = 0; // before the next attempt, ms
	#others = new BroadcastChannel('cpunc'); // pages of the same server
	#connected = false;
	#asked = null;

	wake = () => {}; // ends the pause

	// on has the functions line(text) and lost(reason).
	constructor(on) {
		this.on = on;
		this.#others.onmessage = ({ data }) => this.#hear(data);
		addEventListener('pagehide', () => this.#leave());
	}

	get running() { return this.#run !== null; }

	start(url, interval) {
		this.stop();
		this.#run = new AbortController();
		this.#monitor(url, interval, this.#run.signal);
	}

	stop() {
		this.#run?.abort();
		this.#run = null;
		this.#leave();
		this.wake();
	}

	async #monitor(url, interval, signal) {
		this.#pause = FIRST_PAUSE;
		while (!signal.aborted) {
			const reason = await this.#receive(url, interval, signal);
			if (signal.aborted) return;
			this.#leave();
			this.on.lost(reason);
			const pause = this.#pause * (1 + Math.random()) / 2;
			this.#pause = Math.min(2 * this.#pause, LONGEST_PAUSE);
			await new Promise(resolve => {
				this.wake = resolve;
				setTimeout(resolve, pause);
			});
		}
	}

	// receive reads lines until the connection ends or is silent for too long, and returns why, if that is known.
	async #receive(url, interval, signal) {
		const attempt = new AbortController();
		let timer, reason = '';
		const giveUp = why => {
			reason = why;
			attempt.abort();
		};
		const expect = (why = '') => {
			clearTimeout(timer);
			timer = setTimeout(giveUp, interval * 1000 + LONGEST_SILENCE, why);
		};
		try {
			expect(FULL);
			this.#ask(() => giveUp(FULL));
			const either = AbortSignal.any([signal, attempt.signal]);
			const response = await fetch(url, { cache: 'no-store', signal: either }).catch(() => null);
			if (!response) return reason;
			expect();
			if (!response.ok) {
				const text = await response.text().catch(() => '');
				return shorten(/^error: (.+)/.exec(text)?.[1] ?? `HTTP status ${response.status}`);
			}
			this.#connected = true;
			const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
			for (let rest = ''; rest.length <= MAX_LINE;) {
				const { value, done } = await reader.read().catch(() => ({ done: true }));
				if (done || signal.aborted) return reason;
				expect();
				this.#pause = FIRST_PAUSE;
				const lines = (rest + value).split('\n');
				rest = lines.pop();
				lines.forEach(line => this.on.line(line));
			}
			return 'line too long';
		} finally {
			clearTimeout(timer);
			attempt.abort();
		}
	}

	// ask makes the pages reply that came first, and calls full if they are too many.
	#ask(full) {
		this.#asked = { id: Date.now() + Math.random(), streams: 0, full };
		this.#others.postMessage({ ask: this.#asked.id });
	}

	#hear({ ask, reply, left }) {
		if (ask > this.#asked?.id) this.#others.postMessage({ reply: ask });
		else if (reply && reply === this.#asked?.id) {
			if (++this.#asked.streams === MAX_STREAMS) this.#asked.full();
		} else if (left) this.wake();
	}

	// leave tells the other pages that a connection is free.
	#leave() {
		if (this.#connected) this.#others.postMessage({ left: true });
		this.#connected = false;
		this.#asked = null;
	}
}

