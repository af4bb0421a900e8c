// The readings, as the server describes them.

import table from './table.js'; // written by the server

export const WORDS = table.map(({ word }) => word);

// describe returns the title and the limit of a reading. The word of other columns, in a log, is ''.
export const describe = word => table.find(reading => reading.word === word) ?? { title: 'Readings' };

// group returns a map from each reading to its columns. With several hosts, names are HOST/COLUMN.
export function group(names) {
	return Map.groupBy(names.keys(), i => {
		const name = names[i].slice(names[i].lastIndexOf('/') + 1);
		return table.find(({ columns }) => columns ? columns.includes(name) : /^cpu\d+$/.test(name))?.word ?? '';
	});
}
