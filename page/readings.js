// The readings, and how the page shows them. The names of the columns come from the server; `first` is the one that a
// reading begins with, if it isn't the word.

export const READINGS = {
	cpu: { about: 'whole machine', title: 'CPU utilization (%)' },
	cores: { about: 'each CPU', title: 'Utilization of each CPU (%)', first: 'cpu0', many: true, most: 8 },
	modes: { about: 'time in each mode', title: 'CPU time by mode (%)', first: 'user', many: true, stacked: 8 },
	load: { about: 'load average', title: 'Load average', first: 'load1', many: true, open: true },
	mean: { about: 'mean of 1, 5, 15 minutes', title: 'Mean CPU utilization (%)', first: 'mean1', many: true },
	busy: { about: 'time not idle', title: 'CPU time not idle (%)' },
	peak: { about: 'busiest 200 ms', title: 'CPU time not idle, busiest 200 ms (%)' },
	pressure: { about: 'time waiting for a CPU', title: 'CPU pressure (%)' },
	cgroup: { about: 'use of the CPU limit', title: 'CPU use of the control group (%)', many: true },
};

const wordOf = Object.fromEntries(Object.entries(READINGS).map(([word, { first = word }]) => [first, word]));

// The word of other columns, in a log, is ''.
export const describe = word => READINGS[word] ?? { title: 'Readings', open: true };

// group returns a map from each reading to its columns. With several hosts, names are HOST/COLUMN.
export function group(names) {
	let word = '';
	return Map.groupBy(names.keys(), i => {
		const begun = wordOf[names[i].slice(names[i].lastIndexOf('/') + 1)];
		return word = begun ?? (READINGS[word]?.many ? word : '');
	});
}
