package main

import (
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/shirou/gopsutil/v3/cpu"
)

// The counters are the same as those that gopsutil reads.
func TestAsGopsutil(t *testing.T) {
	const near = 0.5 // seconds, because idle may step back and the machine may be slow
	var before, after stat
	if err := before.read(true); err != nil {
		t.Skip(err)
	}
	between, err := cpu.Times(true)
	if err != nil {
		t.Fatal(err)
	}
	if err := after.read(true); err != nil {
		t.Fatal(err)
	}
	if len(between) != before.cpus || before.set != after.set {
		t.Fatalf("%d CPUs, then %d, then %d", before.cpus, len(between), after.cpus)
	}
	for _, b := range between {
		i := cpuNumber([]byte(b.CPU))
		seconds := [modes]float64{b.User, b.Nice, b.System, b.Iowait, b.Irq, b.Softirq, b.Steal, b.Idle}
		for mode, x := range seconds {
			if least, most := before.rows[i].seconds(mode), after.rows[i].seconds(mode); x < least-near || x > most+near {
				t.Errorf("CPU %d: gopsutil reads %v for %s, want between %v and %v", i, x, modeNames[mode], least, most)
			}
		}
	}
}

// The set of CPUs depends on their names, even if only the total is parsed.
func TestSetOfCPUs(t *testing.T) {
	const row = " 1 2 3 4 5 6 7 8\n"
	sets := map[uint64]string{}
	for _, cpus := range []string{"0", "1", "0 1", "0 2", "1 2", "0 12", "0 1 2"} {
		text := "cpu" + row
		for _, n := range strings.Fields(cpus) {
			text += "cpu" + n + row
		}
		var s, each stat
		ok := s.parse([]byte(text), false)
		each.parse([]byte(text), true)
		var online []string
		for n, r := range each.rows {
			if r.online {
				online = append(online, strconv.Itoa(n))
			}
		}
		if !ok || s.set != each.set || s.cpus != each.cpus || s.rows != nil || strings.Join(online, " ") != cpus || len(online) != s.cpus {
			t.Errorf("CPUs %s: %+v, %+v", cpus, s, each)
		}
		if other, found := sets[s.set]; found {
			t.Errorf("CPUs %s are the same as %s", cpus, other)
		}
		sets[s.set] = cpus
	}
}

// Whatever is in the files, load averages and pressure are finite and not negative.
func FuzzLoadAndPressure(f *testing.F) {
	for _, text := range []string{
		"0.50 0.25 0.10 1/100 1000\n", "nan 0 0", "0x1p4 1 1", "1 2", "1e9 . -1",
		"some avg10=1.00 avg60=1.00 avg300=1.00 total=7000000\nfull avg10=0.00 total=0\n", "some total=-5", "some total=9223372036854775807",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		averages, err := parseLoad(text, "loadavg")
		for _, x := range averages {
			if err == nil && !(x >= 0 && x <= math.MaxFloat64) {
				t.Errorf("load averages %v of %q", averages, text)
			}
		}
		if waited, err := parsePressure(text, "pressure"); err == nil && waited < 0 {
			t.Errorf("pressure %v of %q", waited, text)
		}
	})
}
