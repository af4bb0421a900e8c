// Durations, times and numbers as text.

// parseDuration returns seconds, as -i does for 2, 500ms or 1m, or NaN.
export function parseDuration(text) {
	const [, number, unit = 's'] = /^(\d+\.?\d*|\.\d+)(ms|s|m|h)?$/.exec(text) ?? [];
	return number * { ms: 0.001, s: 1, m: 60, h: 3600 }[unit];
}

export function formatDuration(seconds) {
	if (seconds < 1) return `${+(seconds * 1000).toFixed(3)}ms`;
	if (seconds <= 120) return `${+seconds.toFixed(3)}s`;
	const [h, m, s] = [seconds / 3600, seconds / 60 % 60, seconds % 60].map(Math.floor);
	return `${h}h${m}m${s}s`.replace(/\b0h|(?<=\D)0[ms]/g, '');
}

// clock formats a time of day, with tenths of a second if the interval is below a second.
export function clock(time, interval = 1) {
	const text = new Date(time).toTimeString().slice(0, 8);
	return interval < 1 ? `${text}.${Math.floor(time % 1000 / 100)}` : text;
}

export const date = time => new Date(time).toDateString().slice(4);

export const zone = time => new Date(time).toString().slice(25, 33); // as in GMT+0100

export const formatNumber = (value, decimals) => Number.isNaN(value) ? 'nan' : value.toFixed(decimals);

export const shorten = text => text.length > 200 ? `${text.slice(0, 200)}…` : text;
