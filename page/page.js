// The page: settings, controls, and what happens when.

import { hottest } from './chart.js';
import { readPalette } from './drawing.js';
import { Monitor } from './monitor.js';
import { Panel, clone } from './panel.js';
import { WORDS, describe } from './readings.js';
import { Recording } from './samples.js';
import { readLog, saveData, savePicture } from './save.js';
import { clock, date, formatDuration, parseDuration, shorten, zone } from './text.js';
import { View, WINDOW_LIMITS, clamp } from './view.js';

const INTERVALS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60];
const WINDOWS = [10, 30, 60, 120, 300, 900, 3600, 21600, 86400];
const LIMITS = { interval: [0.1, 3600], window: WINDOW_LIMITS };
const PAPER = { width: 720, height: 240, scale: 3 };

const page = Object.fromEntries([...document.querySelectorAll('[id]')].map(e => [e.id, e]));

// ---- Settings, which are stored in the address.

const settings = { read: ['cpu'], interval: 1, window: 60 };

// readAddress takes the settings from the address, and returns what is wrong with it.
function readAddress() {
	const complaints = [], query = new URLSearchParams(location.search);
	const words = [...new Set((query.get('read') ?? 'cpu').split(','))];
	const unknown = words.find(word => !WORDS.includes(word));
	if (unknown === undefined) settings.read = words;
	else complaints.push(`Unknown reading "${shorten(unknown)}" (choose from ${WORDS.join(', ')}).`);
	for (const [name, limits] of Object.entries(LIMITS)) {
		const text = query.get(name), seconds = parseDuration(text);
		if (seconds >= limits[0] && seconds <= limits[1]) settings[name] = seconds;
		else if (text !== null) {
			complaints.push(`Invalid ${name} "${shorten(text)}" (${limits.map(formatDuration).join(' to ')}).`);
		}
	}
	return complaints.join(' ');
}

function change(name, value) {
	settings[name] = value;
	history.replaceState(null, '', `?read=${settings.read}&interval=${settings.interval}&window=${settings.window}`);
	page.complaint.textContent = '';
	showSettings();
	if (name === 'window') {
		view.window = value;
		if (view.frozen) view.show(view.range.end - 1000 * value, 1000 * value);
	}
	if (name === 'read' && !log) showPanels();
	if (name !== 'window' && monitor.running) start();
	invalidate();
}

function zoom(factor) {
	if (view.frozen) view.zoom(factor, (view.range.begin + view.range.end) / 2);
	else change('window', clamp(settings.window * factor, ...WINDOW_LIMITS));
}

function showSettings() {
	page.chosen.textContent = settings.read.join(', ');
	for (const box of page.choices.querySelectorAll('input')) box.checked = settings.read.includes(box.value);
	fill(page.interval, INTERVALS, settings.interval);
	fill(page.window, WINDOWS, settings.window);
}

function fill(select, choices, value) {
	const all = [...new Set([...choices, value])].sort((a, b) => a - b);
	select.replaceChildren(...all.map(n => new Option(formatDuration(n), n, false, n === value)));
}

// ---- What is shown: the readings of the server, or a log.

export const live = new Recording();
export const view = new View(invalidate);
let log = null; // {recording, name}, while a log is shown
export let panels = [];
let offset = 0; // of the server's clock, ms
let cpus = 0; // of the server, once it is known

const shown = () => log?.recording ?? live;
const source = () => log?.name ?? location.host;

function showPanels() {
	const words = log ? [...log.recording.series.keys()] : settings.read;
	view.point(null);
	page.host.textContent = source();
	panels = words.map(word => new Panel(word, shown().of(word), view));
	sizes.disconnect();
	page.panels.replaceChildren(...panels.map(panel => panel.element));
	for (const { plot } of panels) sizes.observe(plot);
	drawPanels(); // before a pointer moves on them
}

function returnToLive() {
	if (log) {
		log = null;
		view.window = settings.window;
		showPanels();
		live.gap();
		start();
	}
	view.follow();
}

async function openLog(file) {
	try {
		const { recording, readings } = await readLog(file);
		stop();
		log = { recording, name: file.name };
		view.window = Math.max((recording.last - recording.first) / 1000, 1);
		view.follow();
		showPanels();
		page.complaint.textContent = '';
		say('log', `A log of ${readings} reading${readings === 1 ? '' : 's'}.`);
	} catch (error) {
		if (!(error instanceof SyntaxError || error instanceof DOMException)) throw error;
		page.complaint.textContent = `${shorten(file.name)}: ${error.message}.`;
	}
}

// ---- Monitoring

const failures = []; // of readings, since the last line
let begun = 0; // when the stream began, by the server's clock; 0 before

const now = () => Date.now() + offset;

const monitor = new Monitor({
	line(text) {
		// Each reading that fails has a line, in front of the line of the others.
		if (text.startsWith('error: ')) {
			failures.push(`Server: ${shorten(text.slice(7))}.`);
			if (failures.length >= settings.read.length) lose(failures.splice(0).join(' '));
			return;
		}
		const before = live.last;
		try {
			if (!live.accept(text, now())) return;
		} catch (error) {
			if (!(error instanceof SyntaxError)) throw error;
			lose(`Server: unexpected reply ${error.message}.`);
			return;
		}
		const { last } = live;
		offset = last - Date.now();
		if (!begun) {
			begun = last;
			countCPUs();
		}
		const every = `A reading every ${formatDuration(settings.interval)} since ${clock(begun)}.`;
		say('live', [every, ...failures.splice(0)].join(' '));
		if (clock(last) !== clock(before)) showTitle(); // at most once a second
		setTimeout(invalidate, rest - performance.now());
	},

	lost(reason) { lose(reason ? `Retrying: ${reason}.` : 'Connection lost. Reconnecting.'); },
});

function lose(why) {
	begun = 0;
	live.gap();
	say('lost', why);
	invalidate();
}

async function countCPUs() {
	if (cpus || !settings.read.includes('load')) return;
	const text = await fetch('cores').then(reply => reply.ok ? reply.text() : '').catch(() => '');
	if (text) cpus = text.split(' ').length;
	invalidate();
}

function say(state, text) {
	if (isIn(state) && page.status.textContent === text) return;
	document.body.dataset.state = state;
	page.status.textContent = text;
	showTitle();
	showIcon();
}

// showTitle shows the newest number in the tab, which for many CPUs is that of the busiest.
function showTitle() {
	const [{ word, title, newest, samples, format }] = panels;
	const c = word === 'cores' && newest ? hottest(newest) : 0;
	const text = newest ? `${format(newest[c])} ${samples.names[c]}` : title;
	document.title = `${text} · ${source()}`;
}

// showIcon shows the dot of the button in the tab.
function showIcon() {
	const { backgroundColor, borderTopColor } = getComputedStyle(page.toggle, '::before');
	const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><circle cx="8" cy="8" r="6"
		fill="${backgroundColor}" stroke="${borderTopColor}" stroke-width="3"/></svg>`;
	page.icon.href = `data:image/svg+xml,${encodeURIComponent(svg)}`;
}

function start() {
	begun = 0;
	page.toggle.textContent = 'Monitoring on: press to stop';
	say('connecting', 'Connecting.');
	monitor.start(`${settings.read}?interval=${settings.interval}&time&header`, settings.interval);
}

function stop() {
	monitor.stop();
	page.toggle.textContent = 'Monitoring off: press to start';
}

function toggle() {
	page.complaint.textContent = '';
	if (log) returnToLive();
	else if (monitor.running) {
		stop();
		say('stopped', `Stopped at ${clock(now())}. No requests are sent.`);
	} else {
		live.gap();
		start();
	}
	invalidate();
}

function fail(error) {
	stop();
	say('failed', `This page failed: ${error}. Reload it.`);
}

// ---- Drawing, which a hidden tab never does.

let palette;
let pending = false;
let rest = 0; // a line waits until this time for its frame

function invalidate() {
	if (pending) return;
	pending = true;
	requestAnimationFrame(frame);
}

function frame() {
	const began = performance.now();
	pending = false;
	drawPanels();
	rest = performance.now() + 3 * (performance.now() - began); // drawing takes a quarter of the time
}

const isIn = state => document.body.dataset.state === state;
const isPrinted = () => document.documentElement.hasAttribute('data-print');

function drawPanels(size = isPrinted() ? PAPER : undefined) {
	const { first, last } = shown();
	view.right = isIn('lost') || last === -Infinity ? now() : last;
	view.oldest = Math.min(first, view.right);
	for (const panel of panels) panel.draw(palette, panel.word === 'load' && !log ? cpus : 0, size);
	// What changes too often to be read out.
	let text = '';
	if (isIn('lost') && last > 0) text = `Last reading ${formatDuration(Math.ceil((now() - last) / 1000))} ago. `;
	if (log || view.frozen || isPrinted()) text += `Showing ${spanText()}`;
	page.detail.textContent = text;
	page.live.hidden = !view.frozen && !log;
}

function spanText() {
	const { begin, end } = view.range, day = date(end) === date(begin) ? '' : `${date(end)}, `;
	return `${date(begin)}, ${clock(begin)} – ${day}${clock(end)} (${zone(end)}).`;
}

// ---- Events

const on = (target, type, act) => target.addEventListener(type, act);
const sizes = new ResizeObserver(invalidate);

function fileName() {
	const words = panels.map(({ word }) => word), end = new Date(view.range.end).toISOString().slice(0, 19);
	return `cpunc-${words}-${source()}-${end}`;
}

on(page.toggle, 'click', toggle);
on(page.live, 'click', returnToLive);
on(page.saveData, 'click', () => saveData(panels, view.range, fileName()));
on(page.savePicture, 'click', () => {
	const size = { ...panels[0].size, scale: 2 };
	drawPanels(size);
	savePicture(panels, size, palette, `${source()}  ${spanText()}`, fileName());
	drawPanels();
});
on(page.openLog, 'click', () => page.file.click());
on(page.file, 'change', () => [...page.file.files].forEach(openLog));
on(page.interval, 'change', () => change('interval', +page.interval.value));
on(page.window, 'change', () => change('window', +page.window.value));

on(page.choices, 'change', event => {
	const words = [...page.choices.querySelectorAll('input:checked')].map(box => box.value);
	if (words.length) change('read', words);
	else event.target.checked = true; // one remains
});
on(window, 'pointerdown', event => {
	if (event.target.tagName !== 'CANVAS') view.point(null);
});

on(window, 'keydown', event => {
	if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
	const isControl = event.target.closest('button, select, input');
	if ('+='.includes(event.key)) zoom(0.5);
	else if (event.key === '-') zoom(2);
	else if (event.key === 'End' && !isControl) view.follow();
	else if (event.key === ' ' && !isControl) {
		if (!event.repeat) toggle();
	} else return;
	event.preventDefault();
});

// A clicked button gives the space key back.
on(window, 'click', event => event.detail && event.target.closest('button')?.blur());

on(window, 'dragover', event => event.preventDefault());
on(window, 'drop', event => {
	event.preventDefault();
	[...event.dataTransfer.files].forEach(openLog);
});

function repaint() {
	palette = readPalette();
	invalidate();
}
on(matchMedia('(prefers-color-scheme: dark)'), 'change', repaint);
on(matchMedia('(forced-colors: active)'), 'change', repaint);
for (const type of ['beforeprint', 'afterprint']) {
	on(window, type, () => {
		document.documentElement.toggleAttribute('data-print', type === 'beforeprint');
		repaint();
		drawPanels();
	});
}
on(window, 'unhandledrejection', ({ reason }) => fail(reason));
on(window, 'error', ({ error }) => { if (error) fail(error); }); // without one, it is only a late layout
setInterval(() => { if (isIn('lost')) invalidate(); }, 1000); // the time goes on
on(document, 'visibilitychange', () => monitor.wake());

page.choices.append(...WORDS.map(word => {
	const choice = clone('choice'), [box, name, title] = choice.children;
	box.value = name.textContent = word;
	title.textContent = describe(word).title;
	return choice;
}));
page.complaint.textContent = readAddress();
view.window = settings.window;
repaint();
showSettings();
showPanels();
start();
