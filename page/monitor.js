// The one connection of the page: a response that is an endless stream of lines.

import { shorten } from './text.js';

const FIRST_PAUSE = 500, LONGEST_PAUSE = 30_000, LONGEST_SILENCE = 10_000; // ms
const MAX_LINE = 1 << 16;

// Browsers open six connections to a host, before HTTP/2. The sixth is left for loading another page.
const [{ nextHopProtocol }] = performance.getEntriesByType('navigation');
const MAX_STREAMS = /^h\d/.test(nextHopProtocol) ? Infinity : 5;
const FULL = 'no connection is free (browsers open six to a host: close another page of it)';

// A Lost connection is tried again. The message may say why.
class Lost extends Error {}

export class Monitor {
	#run = null; // aborts the stream
	#wake = () => {}; // ends the pause between two attempts
	#others = new BroadcastChannel('cpunc'); // pages of the same server
	#connected = false;
	#asked = null;

	// on has the functions connecting(), line(text), lost(reason) and failed(error).
	constructor(on) {
		this.on = on;
		this.#others.onmessage = ({ data }) => this.#hear(data);
		addEventListener('pagehide', () => this.#leave());
	}

	get running() { return this.#run !== null; }

	start(url, interval) {
		this.stop();
		this.#run = new AbortController();
		this.on.connecting();
		this.#monitor(url, interval, this.#run.signal);
	}

	stop() {
		this.#run?.abort();
		this.#run = null;
		this.#leave();
		this.#wake();
	}

	// wake tries to reconnect now.
	wake() { this.#wake(); }

	async #monitor(url, interval, signal) {
		for (let pause = FIRST_PAUSE; !signal.aborted; pause = Math.min(2 * pause, LONGEST_PAUSE)) {
			try {
				await this.#receive(url, interval, signal, () => { pause = FIRST_PAUSE; });
			} catch (error) {
				if (signal.aborted) return;
				if (!(error instanceof Lost)) {
					this.stop();
					this.on.failed(error);
					throw error; // for the console
				}
				this.#leave();
				this.on.lost(error.message);
			}
			await new Promise(resolve => {
				const timer = setTimeout(resolve, pause * (1 + Math.random()) / 2);
				this.#wake = () => { clearTimeout(timer); resolve(); };
			});
		}
	}

	// receive reads lines until the connection ends or is silent for too long.
	async #receive(url, interval, signal, onLine) {
		const give = new AbortController(), giveUp = reason => give.abort(new Lost(reason));
		let timer;
		const expect = reason => {
			clearTimeout(timer);
			timer = setTimeout(giveUp, interval * 1000 + LONGEST_SILENCE, reason);
		};
		const network = promise => promise.catch(error => { throw error instanceof Lost ? error : new Lost(); });
		try {
			expect(FULL);
			this.#ask(() => giveUp(FULL));
			const either = AbortSignal.any([signal, give.signal]);
			const response = await network(fetch(url, { cache: 'no-store', signal: either }));
			expect('');
			if (!response.ok) {
				const sentence = /^error: (.+)/.exec(await network(response.text()))?.[1];
				throw new Lost(shorten(sentence ?? `HTTP status ${response.status}`));
			}
			this.#connected = true;
			const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
			for (let rest = ''; ;) {
				const { value, done } = await network(reader.read());
				if (done) throw new Lost();
				expect('');
				const lines = (rest + value).split('\n');
				rest = lines.pop();
				if (rest.length > MAX_LINE) throw new Lost('line too long');
				for (const line of lines) {
					if (signal.aborted) return;
					this.on.line(line);
					onLine();
				}
			}
		} finally {
			clearTimeout(timer);
			give.abort();
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
		} else if (left) this.#wake();
	}

	// leave tells the other pages that a connection is free.
	#leave() {
		if (this.#connected) this.#others.postMessage({ left: true });
		this.#connected = false;
		this.#asked = null;
	}
}

