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
	online bool
	counts
}

// A stat holds the CPU counters of the machine at one moment.
type stat struct {
	total counts
	cpus  int    // number of CPUs online; 0 if unknown
	set   uint64 // changes when other CPUs are online
	rows  []row  // by CPU number; nil if only the total was requested
}

// Environment variables can replace /proc and /sys, as in gopsutil.
func procFile(path string) string { return cmp.Or(os.Getenv("HOST_PROC"), "/proc") + "/" + path }

func sysFile(path string) string { return filepath.Join(cmp.Or(os.Getenv("HOST_SYS"), "/sys"), path) }

// readText returns the text of a kernel file without white space around it.
func readText(path string) (string, error) {
	text := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(text)
	err := readInto(text, path)
	return string(bytes.TrimSpace(text.Bytes())), err
}

var buffers = sync.Pool{New: func() any { return bytes.NewBuffer(make([]byte, 0, 16<<10)) }}

// kept is /proc/stat, open as long as the process lives: to open it for each
// reading takes a tenth of the CPU time of a listener with 100 clients.
var kept = sync.OnceValue(func() *os.File { f, _ := openKernelFile("/proc/stat"); return f })

// readInto replaces the contents of buf with the text of a kernel file.
func readInto(buf *bytes.Buffer, path string) error {
	buf.Reset()
	if path == "/proc/stat" {
		if _, err := buf.ReadFrom(io.NewSectionReader(kept(), 0, math.MaxInt64)); err == nil {
			return nil
		}
		buf.Reset() // LXCFS, which provides the file in containers, may have been restarted
	}
	f, err := openKernelFile(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = buf.ReadFrom(f)
	return err
}

// read reads the counters of the machine and, with each, also those of every
// CPU.
//
// On Linux it does not use gopsutil, which takes the first row for the total
// and the others for CPUs whatever their names are, and skips rows that it
// cannot parse.
func (s *stat) read(each bool) error {
	if !procfs {
		return s.readLibrary(each)
	}
	text := buffers.Get().(*bytes.Buffer)
	defer buffers.Put(text)
	path := procFile("stat")
	err := readInto(text, path)
	if err == nil && !s.parse(text.Bytes(), each) {
		err = errors.New("no valid CPU lines in " + path)
	}
	return err
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
	for _, t := range times {
		var c counts
		for mode, seconds := range [modes]float64{t.User, t.Nice, t.System, t.Iowait, t.Irq, t.Softirq, t.Steal, t.Idle} {
			if seconds > 0 { // and not NaN
				c[mode] = uint64(min(seconds*countRate, math.MaxInt64))
			}
		}
		if each {
			s.rows = append(s.rows, row{true, c})
		} else {
			s.total = c
		}
	}
	return nil
}

// parse parses the text of /proc/stat. It finds rows by name, in any order,
// and ignores invalid ones. The rows of the CPUs are parsed only with each, or
// if their sum replaces a total that is missing or all zero: LXCFS may write a
// total of zeros before the real one.
func (s *stat) parse(text []byte, each bool) (ok bool) {
	for line := range bytes.Lines(text) {
		name, numbers, _ := bytes.Cut(line, []byte(" "))
		if string(name) == "cpu" && !ok {
			s.total, ok = parseCounts(numbers)
		} else if n := cpuNumber(name); n >= 0 {
			s.cpus++
			s.set = withCPU(s.set, n)
			if each || s.total == (counts{}) {
				s.addRow(n, numbers)
			}
		}
	}
	if s.total == (counts{}) {
		s.sum()
	}
	ok = ok && !each || len(s.rows) > 0
	if !each {
		s.rows = nil
	}
	return ok
}

// addRow adds the row of a CPU, unless it is invalid.
func (s *stat) addRow(cpu int, numbers []byte) {
	c, ok := parseCounts(numbers)
	if missing := cpu + 1 - len(s.rows); ok && missing > 0 {
		s.rows = append(s.rows, make([]row, missing)...)
	}
	if ok {
		s.rows[cpu] = row{true, c}
	}
}

// sum makes the total the sum of the rows. Its set is never that of a total of
// the kernel, because the two are not comparable.
func (s *stat) sum() {
	s.set = ^s.set
	for _, r := range s.rows {
		for mode, n := range r.counts {
			s.total[mode] += n
		}
	}
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
func readLoad() (averages [3]float64, err error) {
	switch {
	case procfs:
		path := procFile("loadavg")
		text, err := readText(path)
		if err == nil {
			averages, err = parseLoad(text, path)
		}
		return averages, err
	case runtime.GOOS == "windows", runtime.GOOS == "plan9": // gopsutil only imitates them on Windows
		return averages, errors.ErrUnsupported
	}
	avg, err := load.Avg()
	if err == nil {
		averages = [...]float64{avg.Load1, avg.Load5, avg.Load15}
	}
	return averages, err
}

// parseLoad parses the text of /proc/loadavg.
func parseLoad(text, path string) (averages [3]float64, err error) {
	_, err = fmt.Sscan(text, &averages[0], &averages[1], &averages[2])
	for _, x := range averages {
		if err != nil || !(x >= 0) || math.IsInf(x, 0) {
			return averages, fmt.Errorf("expected 3 values in %s, found %.40q", path, text)
		}
	}
	return averages, nil
}

// readPressure reads the total time since boot in which runnable tasks waited
// for a CPU: the some line in the file that psi.rst of the kernel's
// documentation describes, in microseconds.
func readPressure() (waited time.Duration, err error) {
	if !procfs {
		return 0, fmt.Errorf("no pressure stall information on %s", runtime.GOOS)
	}
	path := procFile("pressure/cpu")
	text, err := readText(path)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, errors.ErrUnsupported): // not built in, or switched off
		return 0, fmt.Errorf("no pressure stall information in %s (boot with psi=1 if the kernel has it)", path)
	case err != nil:
		return 0, err
	}
	return parsePressure(text, path)
}

// parsePressure parses the text of /proc/pressure/cpu.
func parsePressure(text, path string) (waited time.Duration, err error) {
	line, _, _ := strings.Cut(text, "\n")
	_, total, _ := strings.Cut(line, "total=")
	µs, err := strconv.ParseUint(total, 10, 53) // so that it fits in a time.Duration
	if err != nil || !strings.HasPrefix(line, "some ") {
		return 0, fmt.Errorf(`no valid "some" total in %s`, path)
	}
	return time.Duration(µs) * time.Microsecond, nil
}
