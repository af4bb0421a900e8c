package main

import (
	"cmp"
	"testing"
)

// Every column of every reading is found by its name.
func TestColumnOf(t *testing.T) {
	for _, host := range []string{"", "web1:5000", "ssh web1 nice cpunc -l -/x"} {
		for w := range word(readings) {
			for c := range cmp.Or(w.width(), 20) {
				name := w.column(c)
				if host != "" {
					name = host + "/" + name
				}
				if gotHost, gotWord, gotColumn := columnOf(name); gotHost != host || gotWord != w || gotColumn != c {
					t.Errorf("%q is column %d of %d of %q", name, gotColumn, gotWord, gotHost)
				}
			}
		}
	}
	for _, name := range []string{"", "5", "cpux", "cpu8192", "web1/", "load2", "bye"} {
		if _, w, _ := columnOf(name); w != noWord {
			t.Errorf("%q belongs to %s", name, w)
		}
	}
}
