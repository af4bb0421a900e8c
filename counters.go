package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shirou/gopsutil/v3/cpu"
	"github.com/shirou/gopsutil/v3/load"
)

// Modes as the word modes lists them. As in proc(5), user and nice include guest
// and guest_nice, so those two are not counted again.
const (
	user = iota
	nice
	system
	iowait
	irq
	softirq
	steal
	idle

	modes
)

var modeNames = [modes]string{"user", "nice", "system", "iowait", "irq", "softirq", "steal", "idle"}

// counts are the counters of one CPU, or of all together, since boot. They are
// integers, since a float64 loses ticks from 2⁵³ on.
type counts [modes]uint64

// countRate is how many units of a counter make one second: USER_HZ, which is 100
// on every Linux that Go runs on. The seconds of other systems are kept to 100 ns.
var countRate = 100.0

func init() {
	if !procfs {
		countRate = 1e7
	}
}

// procfs is set where the kernel describes itself in files, as on Linux.
const procfs = runtime.GOOS == "linux" || runtime.GOOS == "android"

func (c counts) seconds(mode int) float64 { return float64(c[mode]) / countRate }

// maxCPUs is the highest number of CPUs that is believed; Linux has at most 8192.
const maxCPUs = 8192

// A row is the counters of one CPU.
type row struct {
	cpu int
	counts
}

// A stat is what the kernel says about its CPUs at one moment.
type stat struct {
	total counts
	cpus  int    // that are online; 0 if that is not known
	set   uint64 // differs when other CPUs are online
	rows  []row  // in number order; nil where only the total was asked for
}

// A moment is when the kernel was read: at, give or take off.
type moment struct {
	at  time.Time
	off time.Duration
}

// within gives the moment between two times.
func within(before, after time.Time) moment {
	half := after.Sub(before) / 2
	return moment{before.Add(half), half}
}

// hostFile gives the path of a file of the kernel, below the folder that an
// environment variable may name, as in gopsutil.
func hostFile(variable, folder string, path ...string) string {
	return filepath.Join(append([]string{cmp.Or(os.Getenv(variable), folder)}, path...)...)
}

func procFile(path ...string) string { return hostFile("HOST_PROC", "/proc", path...) }

var buffers = sync.Pool{New: func() any { b := make([]byte, 16<<10); return &b }}

// readKernel passes the text of a file to use, which must not keep it. It stops
// reading where the text contains end. The kernel takes its numbers during the
// first read, so that is the moment.
func readKernel(path, end string, use func(text []byte) error) (moment, error) {
	f, err := os.Open(path)
	if err != nil {
		return within(time.Now(), time.Now()), err
	}
	defer f.Close()
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	before := time.Now()
	n, err := f.Read(*buf)
	when := within(before, time.Now())
	for err == nil && (end == "" || !bytes.Contains((*buf)[:n], []byte(end))) {
		if n == len(*buf) {
			*buf = append(*buf, make([]byte, n)...)
		}
		var more int
		more, err = f.Read((*buf)[n:])
		n += more
	}
	if err != nil && err != io.EOF {
		return when, err
	}
	return when, use((*buf)[:n])
}

// readStat reads the counters of the machine, and with each those of every CPU.
//
// On Linux it does so itself: gopsutil takes the first row for the total and the
// others for CPUs whatever their names are, skips rows that it cannot parse,
// cannot tell when it was that the kernel read the clock, and costs more.
func readStat(each bool) (s stat, when moment, err error) {
	if procfs {
		path := procFile("stat")
		when, err = readKernel(path, "\nintr ", func(text []byte) error {
			var ok bool
			if s, ok = parseStat(text, each); !ok {
				return errors.New("none in " + path)
			}
			return nil
		})
		return s, when, err
	}
	before := time.Now()
	s, err = librarysStat(each)
	return s, within(before, time.Now()), err
}

// librarysStat is readStat for systems other than Linux.
func librarysStat(each bool) (s stat, err error) {
	times, err := cpu.Times(each)
	if err == nil && len(times) == 0 {
		err = errors.New("the system returned none")
	}
	if err != nil {
		return s, err
	}
	s.cpus = runtime.NumCPU()
	for i, t := range times {
		var c counts
		for mode, seconds := range [modes]float64{t.User, t.Nice, t.System, t.Iowait, t.Irq, t.Softirq, t.Steal, t.Idle} {
			if seconds > 0 { // and not NaN
				c[mode] = uint64(min(seconds*countRate, math.MaxInt64))
			}
		}
		if !each {
			s.total = c
			return s, nil
		}
		number, err := strconv.Atoi(strings.TrimPrefix(t.CPU, "cpu"))
		if err != nil || number < 0 || number >= maxCPUs {
			number = i
		}
		s.rows = append(s.rows, row{number, c})
	}
	s.rows = inOrder(s.rows)
	return s, nil
}

// inOrder sorts rows by their numbers. Of two with the same number it keeps the first.
func inOrder(rows []row) []row {
	slices.SortStableFunc(rows, func(a, b row) int { return cmp.Compare(a.cpu, b.cpu) })
	return slices.CompactFunc(rows, func(a, b row) bool { return a.cpu == b.cpu })
}

var setSeed = maphash.MakeSeed()

// parseStat parses the text of /proc/stat. Rows count by their names, wherever
// they are; those that are garbled count as missing. A missing total is the sum of
// the CPUs. The rows of CPUs are parsed only for that, or with each.
func parseStat(text []byte, each bool) (s stat, ok bool) {
	var set maphash.Hash
	set.SetSeed(setSeed)
	total := false
	for line := range bytes.Lines(text) {
		name, numbers, _ := bytes.Cut(line, []byte(" "))
		switch {
		case string(name) == "cpu" && !total:
			s.total, total = parseCounts(numbers)
		case cpuNumber(name) >= 0:
			s.cpus++
			set.Write(name) // no name is the beginning of two: each begins with cpu
		}
	}
	if each || !total {
		s.rows = parseRows(text)
	}
	if !total {
		s.cpus = len(s.rows)
		set.Reset()
		set.WriteByte('+') // a sum of the CPUs cannot be compared with the kernel's total
		for _, r := range s.rows {
			set.WriteString(strconv.Itoa(r.cpu))
			set.WriteByte(' ')
			for mode, n := range r.counts {
				s.total[mode] += n
			}
		}
	}
	s.set = set.Sum64()
	ok = total && !each || len(s.rows) > 0
	if !each {
		s.rows = nil
	}
	return s, ok
}

// cpuNumber gives the 7 of cpu7, or -1 for what is not the name of a CPU.
func cpuNumber(name []byte) (n int) {
	digits, found := bytes.CutPrefix(name, []byte("cpu"))
	if !found || len(digits) == 0 || len(digits) > 4 {
		return -1
	}
	for _, d := range digits {
		if d < '0' || d > '9' {
			return -1
		}
		n = 10*n + int(d-'0')
	}
	if n >= maxCPUs {
		return -1
	}
	return n
}

// parseRows parses the rows of CPUs, without those that are garbled.
func parseRows(text []byte) (rows []row) {
	for line := range bytes.Lines(text) {
		name, numbers, _ := bytes.Cut(line, []byte(" "))
		number := cpuNumber(name)
		if number < 0 {
			continue
		}
		if c, ok := parseCounts(numbers); ok {
			rows = append(rows, row{number, c})
		}
	}
	return inOrder(rows)
}

// fileOrder is the order of the modes in /proc/stat. Kernels before 2.6.11 end
// with softirq; guest and guest_nice, in newer ones, are not needed.
var fileOrder = [modes]int{user, nice, system, idle, iowait, irq, softirq, steal}

// parseCounts parses the numbers of a row. It is not ok when they are too few or
// one is not a whole number.
func parseCounts(numbers []byte) (c counts, ok bool) {
	n := 0
	for field := range bytes.FieldsSeq(numbers) {
		value, err := strconv.ParseUint(string(field), 10, 64)
		if err != nil {
			return c, false
		}
		if n < len(fileOrder) {
			c[fileOrder[n]] = value
		}
		n++
	}
	return c, n > softirqField
}

const softirqField = 6

// readLoad reads the load averages over 1, 5 and 15 minutes. On Linux it does so
// itself: gopsutil panics when there are too few numbers, accepts those that are
// not finite, and takes this kernel's own when the file cannot be parsed.
func readLoad() (averages [3]float64, when moment, err error) {
	if procfs {
		path := procFile("loadavg")
		when, err = readKernel(path, "", func(text []byte) (err error) {
			averages, err = parseLoad(text, path)
			return err
		})
		return averages, when, err
	}
	when = within(time.Now(), time.Now())
	if runtime.GOOS == "windows" || runtime.GOOS == "plan9" { // gopsutil makes some up on Windows
		return averages, when, errors.ErrUnsupported
	}
	avg, err := load.Avg()
	if err != nil {
		return averages, when, err
	}
	averages = [...]float64{avg.Load1, avg.Load5, avg.Load15}
	for _, x := range averages {
		if !(x >= 0) || math.IsInf(x, 0) {
			return averages, when, fmt.Errorf("invalid value %v", x)
		}
	}
	return averages, when, nil
}

// parseLoad parses the text of /proc/loadavg.
func parseLoad(text []byte, path string) (averages [3]float64, err error) {
	fields := strings.Fields(string(text))
	if len(fields) < len(averages) {
		return averages, fmt.Errorf("expected 3 values in %s, found %q", path, fields)
	}
	for i := range averages {
		x, err := strconv.ParseFloat(fields[i], 64)
		if err != nil || math.IsInf(x, 0) || strings.Trim(fields[i], "0123456789.") != "" {
			return averages, fmt.Errorf("invalid value %q in %s", fields[i], path)
		}
		averages[i] = x
	}
	return averages, nil
}

// readPressure reads for how long some task has waited for a CPU since boot.
func readPressure() (waited time.Duration, when moment, err error) {
	if !procfs {
		return 0, within(time.Now(), time.Now()), fmt.Errorf("no pressure stall information on %s", runtime.GOOS)
	}
	path := procFile("pressure", "cpu")
	when, err = readKernel(path, "", func(text []byte) error {
		for line := range strings.Lines(string(text)) {
			kind, rest, _ := strings.Cut(line, " ")
			_, total, found := strings.Cut(rest, "total=")
			if kind != "some" || !found {
				continue
			}
			µs, err := strconv.ParseInt(strings.TrimSpace(total), 10, 64)
			if err != nil || µs < 0 || µs > math.MaxInt64/1000 {
				return fmt.Errorf("invalid total %q in %s", strings.TrimSpace(total), path)
			}
			waited = time.Duration(µs) * time.Microsecond
			return nil
		}
		return fmt.Errorf("no total for some tasks in %s", path)
	})
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errors.ErrUnsupported) { // or it is switched off
		err = fmt.Errorf("no pressure stall information in %s", path)
	}
	return waited, when, err
}

// A ratchet makes counters fit for Prometheus, whose rate takes each step back
// for a reset.
type ratchet struct {
	mu   sync.Mutex
	held map[int]counts
}

// hotplugged is how many seconds idle must fall for a CPU to start again, as it
// does when it was offline. The rule is that of node_exporter.
const hotplugged = 3

// hold gives rows with the counters that stepped back held at what they were.
func (r *ratchet) hold(rows []row) []row {
	r.mu.Lock()
	defer r.mu.Unlock()
	held := make(map[int]counts, len(rows))
	whole := make([]row, 0, len(rows))
	for _, now := range rows {
		before := r.held[now.cpu]
		if before[idle] > now.counts[idle] && before.seconds(idle)-now.seconds(idle) >= hotplugged {
			before = counts{}
		}
		for mode := range before {
			now.counts[mode] = max(now.counts[mode], before[mode])
		}
		held[now.cpu] = now.counts
		whole = append(whole, now)
	}
	r.held = held
	return whole
}
