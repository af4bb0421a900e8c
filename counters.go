package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
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

// The modes, in the order of the word modes. As in proc(5), user and nice
// include guest and guest_nice, so those two are not counted again.
const (
	modeUser = iota
	modeNice
	modeSystem
	modeIowait
	modeIRQ
	modeSoftirq
	modeSteal
	modeIdle

	modes
)

var modeNames = [modes]string{"user", "nice", "system", "iowait", "irq", "softirq", "steal", "idle"}

// counts are the counters of one CPU, or of all together, since boot, in units
// of countRate. They are integers because a float64 is inexact above 2⁵³.
type counts [modes]uint64

// countRate is the number of units of a counter in one second: on Linux
// USER_HZ, which is 100 on all architectures that Go supports. On other
// systems, the unit is 100 ns.
var countRate = 100.0

func init() {
	if !procfs {
		countRate = 1e7
	}
}

// procfs is true on systems whose kernel has the /proc files of Linux.
const procfs = runtime.GOOS == "linux" || runtime.GOOS == "android"

func (c counts) seconds(mode int) float64 { return float64(c[mode]) / countRate }

// maxCPUs is the largest plausible number of CPUs. Linux supports at most 8192.
const maxCPUs = 8192

// A row holds the counters of one CPU.
type row struct {
	cpu int
	counts
}

// A stat holds the CPU counters of the machine at one moment.
type stat struct {
	total counts
	cpus  int    // number of CPUs online; 0 if unknown
	set   uint64 // changes when other CPUs are online
	rows  []row  // in order of CPU number; nil if only the total was requested
}

// Environment variables can replace /proc and /sys, as in gopsutil.
func procFile(path string) string { return cmp.Or(os.Getenv("HOST_PROC"), "/proc") + "/" + path }

func sysFile(path string) string { return filepath.Join(cmp.Or(os.Getenv("HOST_SYS"), "/sys"), path) }

// readText returns the text of a kernel file without white space around it, and
// when it was read.
func readText(path string) (text string, at time.Time, err error) {
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	at, err = readInto(buf, path, "")
	return string(bytes.TrimSpace(*buf)), at, err
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 16<<10); return &b }}

// readInto replaces buf by the text of a kernel file. It stops reading once the
// text contains end, if that is not empty. The time is that of the first read,
// because that is when the kernel takes the numbers.
func readInto(buf *[]byte, path, end string) (at time.Time, err error) {
	*buf = (*buf)[:0]
	f, err := openKernelFile(path)
	if err != nil {
		return time.Now(), err
	}
	defer f.Close()
	return readFrom(buf, f, end)
}

func readFrom(buf *[]byte, f io.Reader, end string) (at time.Time, err error) {
	for at.IsZero() || end == "" || !bytes.Contains(*buf, []byte(end)) {
		*buf = slices.Grow(*buf, 4<<10)
		before := time.Now()
		n, err := f.Read((*buf)[len(*buf):cap(*buf)])
		if at.IsZero() {
			at = middle(before, time.Now())
		}
		*buf = (*buf)[:len(*buf)+n]
		if err == io.EOF {
			break
		}
		if err != nil {
			return at, err
		}
	}
	return at, nil
}

func middle(before, after time.Time) time.Time { return before.Add(after.Sub(before) / 2) }

// kept is /proc/stat, open as long as the process lives: to open it for each
// reading takes a tenth of the CPU time of a listener with 100 clients.
var kept = sync.OnceValue(func() *os.File { f, _ := openKernelFile("/proc/stat"); return f })

// readStat replaces buf by the rows of the CPUs and the total.
func readStat(buf *[]byte, path string) (at time.Time, err error) {
	const end = "\nintr "
	*buf = (*buf)[:0]
	if path == "/proc/stat" && kept() != nil {
		if at, err = readFrom(buf, io.NewSectionReader(kept(), 0, math.MaxInt64), end); err == nil {
			return at, nil
		} // else lxcfs, which provides the file in containers, may have been restarted
	}
	return readInto(buf, path, end)
}

// read reads the counters of the machine and, with each, also those of every
// CPU.
//
// On Linux it does not use gopsutil, which takes the first row for the total
// and the others for CPUs whatever their names are, skips rows that it cannot
// parse, and does not tell when the kernel was read.
func (s *stat) read(each bool) (at time.Time, err error) {
	if procfs {
		text := buffers.Get().(*[]byte)
		defer buffers.Put(text)
		path := procFile("stat")
		at, err = readStat(text, path)
		if err == nil && !s.parse(*text, each) {
			err = errors.New("no valid CPU lines in " + path)
		}
		return at, err
	}
	before := time.Now()
	err = s.readLibrary(each)
	return middle(before, time.Now()), err
}

// readLibrary is read for systems other than Linux. It uses gopsutil.
func (s *stat) readLibrary(each bool) error {
	times, err := cpu.Times(each)
	if err == nil && len(times) == 0 {
		err = errors.New("the system returned no values")
	}
	if err != nil {
		return err
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
			return nil
		}
		number, err := strconv.Atoi(strings.TrimPrefix(t.CPU, "cpu"))
		if err != nil || number < 0 || number >= maxCPUs {
			number = i
		}
		s.rows = append(s.rows, row{number, c})
	}
	s.rows = inOrder(s.rows)
	return nil
}

// inOrder sorts rows by CPU number. Of several rows with one number, it keeps
// the first.
func inOrder(rows []row) []row {
	slices.SortStableFunc(rows, func(a, b row) int { return cmp.Compare(a.cpu, b.cpu) })
	return slices.CompactFunc(rows, func(a, b row) bool { return a.cpu == b.cpu })
}

// parse parses the text of /proc/stat. It finds rows by name, in any order,
// and ignores invalid ones. The rows of the CPUs are parsed only with each, or
// if their sum replaces a total that is missing or all zero: LXCFS may write a
// total of zeros before the real one.
func (s *stat) parse(text []byte, each bool) (ok bool) {
	total := false
	for line := range bytes.Lines(text) {
		name, numbers, _ := bytes.Cut(line, []byte(" "))
		if string(name) == "cpu" && !total {
			s.total, total = parseCounts(numbers)
		} else if n := cpuNumber(name); n >= 0 {
			s.cpus++
			s.set = withCPU(s.set, n)
			if each || s.total == (counts{}) {
				s.addRow(n, numbers)
			}
		}
	}
	s.rows = inOrder(s.rows)
	summed := s.total == counts{}
	ok = total && !each || len(s.rows) > 0
	if summed {
		s.sum()
	}
	if !each {
		s.rows = nil
	}
	return ok
}

// addRow adds the row of a CPU, unless it is invalid.
func (s *stat) addRow(cpu int, numbers []byte) {
	if c, ok := parseCounts(numbers); ok {
		s.rows = append(s.rows, row{cpu, c})
	}
}

// sum makes the total the sum of the rows. Its set is never that of a total of
// the kernel, because the two are not comparable.
func (s *stat) sum() {
	s.cpus, s.set = len(s.rows), 0
	for _, r := range s.rows {
		s.set = withCPU(s.set, r.cpu)
		for mode, n := range r.counts {
			s.total[mode] += n
		}
	}
	s.set = ^s.set
}

// withCPU returns a hash of the numbers of CPUs in a set and of one more.
func withCPU(set uint64, cpu int) uint64 { return set*(maxCPUs+1) + uint64(cpu+1) }

// cpuNumber returns 7 for cpu7, and -1 for anything that is not the name of a
// CPU.
func cpuNumber(name []byte) int {
	digits, found := bytes.CutPrefix(name, []byte("cpu"))
	n, err := strconv.ParseUint(string(digits), 10, 16)
	if !found || err != nil || n >= maxCPUs {
		return -1
	}
	return int(n)
}

// fileOrder is the order of the modes in /proc/stat, as in proc(5). Kernels
// before 2.5.41 end with idle, those before 2.6.0 with iowait, and those before
// 2.6.11 with softirq. The guest and guest_nice of newer kernels are ignored.
var fileOrder = [modes]int{modeUser, modeNice, modeSystem, modeIdle, modeIowait, modeIRQ, modeSoftirq, modeSteal}

const minColumns = 4 // up to idle

// parseCounts parses the numbers of a row. Missing modes are 0. It reports
// false if there are too few numbers, or if one is not a non-negative integer.
func parseCounts(numbers []byte) (counts, bool) {
	var c counts
	n := 0
	for field := range bytes.FieldsSeq(numbers) {
		value, err := strconv.ParseUint(string(field), 10, 64)
		if err != nil {
			return counts{}, false
		}
		if n < len(fileOrder) {
			c[fileOrder[n]] = value
		}
		n++
	}
	if n < minColumns {
		return counts{}, false
	}
	return c, true
}

// readLoad reads the load averages over 1, 5 and 15 minutes. On Linux it does
// not use gopsutil, which panics if there are too few numbers, accepts infinite
// ones, and ignores HOST_PROC if it cannot parse the file.
func readLoad() (averages [3]float64, at time.Time, err error) {
	if procfs {
		path := procFile("loadavg")
		text, at, err := readText(path)
		if err == nil {
			averages, err = parseLoad(text, path)
		}
		return averages, at, err
	}
	at = time.Now()
	if runtime.GOOS == "windows" || runtime.GOOS == "plan9" { // gopsutil only imitates them on Windows
		return averages, at, errors.ErrUnsupported
	}
	avg, err := load.Avg()
	if err != nil {
		return averages, at, err
	}
	averages = [...]float64{avg.Load1, avg.Load5, avg.Load15}
	for _, x := range averages {
		if !(x >= 0) || math.IsInf(x, 0) {
			return averages, at, fmt.Errorf("invalid value %v", x)
		}
	}
	return averages, at, nil
}

// parseLoad parses the text of /proc/loadavg.
func parseLoad(text, path string) (averages [3]float64, err error) {
	fields := strings.Fields(text)
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

// readPressure reads the total time since boot in which runnable tasks waited
// for a CPU: the some line in the file that psi.rst of the kernel's
// documentation describes, in microseconds.
func readPressure() (waited time.Duration, at time.Time, err error) {
	if !procfs {
		return 0, time.Now(), fmt.Errorf("no pressure stall information on %s", runtime.GOOS)
	}
	path := procFile("pressure/cpu")
	text, at, err := readText(path)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, errors.ErrUnsupported) { // not built in, or switched off
		err = fmt.Errorf("no pressure stall information in %s (boot with psi=1 if the kernel has it)", path)
	}
	if err == nil {
		waited, err = parsePressure(text, path)
	}
	return waited, at, err
}

// parsePressure parses the text of /proc/pressure/cpu.
func parsePressure(text, path string) (waited time.Duration, err error) {
	for line := range strings.Lines(text) {
		kind, rest, _ := strings.Cut(line, " ")
		_, total, found := strings.Cut(rest, "total=")
		if kind != "some" || !found {
			continue
		}
		total = strings.TrimSpace(total)
		µs, err := strconv.ParseInt(total, 10, 64)
		if err != nil || µs < 0 || µs > math.MaxInt64/1000 {
			return 0, fmt.Errorf("invalid total %q in %s", total, path)
		}
		return time.Duration(µs) * time.Microsecond, nil
	}
	return 0, fmt.Errorf(`no "some" total in %s`, path)
}

// A ratchet keeps counters from decreasing, because the rate function of
// Prometheus takes every decrease for a reset.
type ratchet struct {
	mu   sync.Mutex
	held []row // in order of CPU number
}

// hotplugged is the decrease of idle, in seconds, after which a CPU is taken
// for one that was offline, and whose counters start again. The rule is that of
// node_exporter.
const hotplugged = 3

// hold takes the newest counters. One that decreased keeps its value.
func (r *ratchet) hold(rows []row) {
	r.mu.Lock()
	defer r.mu.Unlock()
	old := r.held
	r.held = slices.Clone(rows)
	for i := range r.held {
		now := &r.held[i]
		for len(old) > 0 && old[0].cpu < now.cpu {
			old = old[1:]
		}
		if len(old) == 0 || old[0].cpu > now.cpu {
			continue
		}
		before := old[0].counts
		if before[modeIdle] > now.counts[modeIdle] && before.seconds(modeIdle)-now.seconds(modeIdle) >= hotplugged {
			before = counts{}
		}
		for mode := range before {
			now.counts[mode] = max(now.counts[mode], before[mode])
		}
	}
}

// next returns the counters of the first CPU whose number is at least cpu. A
// scrape gets one at a time, so that a client that does not read holds no copy
// of all.
func (r *ratchet) next(cpu int) (found row, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i, _ := slices.BinarySearchFunc(r.held, cpu, func(r row, cpu int) int { return r.cpu - cpu })
	if i == len(r.held) {
		return row{}, false
	}
	return r.held[i], true
}
