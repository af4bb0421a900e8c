package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A usage holds the CPU use and the limit of the control group of this process
// at one moment.
type usage struct {
	group     string        // its directory
	used      time.Duration // CPU time since the group was created
	limit     float64       // number of CPUs that it may use
	periods   uint64        // enforcement periods so far
	throttled uint64        // periods in which the limit was reached
}

// readGroup reads the CPU use and the limit of the control group of this
// process. It finds the group each time, because processes can be moved and
// limits changed.
//
// The limit is the smallest one among the group and its visible ancestors, and
// the periods are those of the group with that limit. Without a limit, it is
// the number of CPUs that the group may use.
func readGroup() (u usage, when moment, err error) {
	when = within(time.Now(), time.Now())
	if !procfs {
		return u, when, fmt.Errorf("no control groups on %s", runtime.GOOS)
	}
	h, err := findHierarchies()
	if err != nil {
		return u, when, err
	}
	accounts, ok := h.group("cpuacct")
	if !ok {
		return u, when, h.missing()
	}
	u.group = accounts.dir
	if u.used, when, err = accounts.used(); err != nil {
		return u, when, err
	}
	u.setLimit(h)
	return u, when, nil
}

// setLimit sets the limit and the periods in which it was enforced.
func (u *usage) setLimit(h hierarchies) {
	own, ok := h.group("cpu")
	if ok {
		u.periods, u.throttled, _ = own.enforced()
		for g := range own.withParents {
			cpus, limited := g.limit()
			if !limited || u.limit > 0 && cpus >= u.limit {
				continue
			}
			u.limit = cpus
			if periods, throttled, ok := g.enforced(); ok {
				u.periods, u.throttled = periods, throttled
			}
		}
	}
	if u.limit == 0 {
		u.limit = float64(h.cpus())
	}
}

// A controlGroup is one group in one hierarchy.
type controlGroup struct {
	top, dir string // the mount point, and the directory of the group in it
	v2       bool
}

// withParents yields the group and its ancestors up to the mount point.
func (g controlGroup) withParents(yield func(controlGroup) bool) {
	for yield(g) && g.dir != g.top {
		g.dir = filepath.Dir(g.dir)
	}
}

// file returns the text of a file of the group, without white space around it;
// "" if it cannot be read.
func (g controlGroup) file(name string) string {
	text, _ := os.ReadFile(filepath.Join(g.dir, name))
	return strings.TrimSpace(string(text))
}

// used reads the CPU time that the group has used.
func (g controlGroup) used() (used time.Duration, when moment, err error) {
	name, key, unit := "cpuacct.usage", "", time.Nanosecond
	if g.v2 {
		name, key, unit = "cpu.stat", "usage_usec", time.Microsecond
	}
	path := filepath.Join(g.dir, name)
	when, err = readKernel(path, "", func(text []byte) error {
		number := string(text)
		if key != "" {
			number = value(number, key)
		}
		n, err := strconv.ParseInt(strings.TrimSpace(number), 10, 64)
		if err != nil || n < 0 || n > int64(1<<63-1)/int64(unit) {
			return fmt.Errorf("no CPU time in %s", path)
		}
		used = time.Duration(n) * unit
		return nil
	})
	return used, when, err
}

// limit returns the number of CPUs that the group itself may use, if that is
// limited: quota / period. The files are described in the kernel's
// documentation, in sched-bwc.rst for version 1 and in cgroup-v2.rst for
// version 2.
func (g controlGroup) limit() (cpus float64, limited bool) {
	quota, period := g.file("cpu.cfs_quota_us"), g.file("cpu.cfs_period_us")
	if g.v2 {
		quota, period, _ = strings.Cut(g.file("cpu.max"), " ")
	}
	q, err1 := strconv.ParseUint(quota, 10, 64) // "max" or -1 means no limit
	p, err2 := strconv.ParseUint(period, 10, 64)
	if err1 != nil || err2 != nil || q == 0 || p == 0 {
		return 0, false
	}
	return float64(q) / float64(p), true
}

// enforced reads the number of enforcement periods of the group, and of those
// in which it was throttled.
func (g controlGroup) enforced() (periods, throttled uint64, ok bool) {
	text := g.file("cpu.stat")
	periods, err1 := strconv.ParseUint(value(text, "nr_periods"), 10, 64)
	throttled, err2 := strconv.ParseUint(value(text, "nr_throttled"), 10, 64)
	return periods, throttled, err1 == nil && err2 == nil
}

// value returns the number after key in a text of lines like "key number", or
// "".
func value(text, key string) string {
	for line := range strings.Lines(text) {
		if name, number, _ := strings.Cut(strings.TrimSpace(line), " "); name == key {
			return number
		}
	}
	return ""
}

// hierarchies are the mounted hierarchies of control groups, and the groups of
// this process in them.
type hierarchies struct {
	mounts []cgroupMount
	paths  map[string]string // by v1 controller; "" is the key for v2
}

// A cgroupMount is a hierarchy that is mounted in the file system.
type cgroupMount struct {
	root        string // the group at the mount point
	point       string
	controllers []string // of v1; nil for v2
	guessed     bool     // from the names of directories
}

func cgroupRoot() string { return hostFile("HOST_SYS", "/sys", "fs", "cgroup") }

// findHierarchies reads the hierarchies from /proc/self. In $HOST_PROC, self is
// also this process, even if the directory is the /proc of the host.
func findHierarchies() (h hierarchies, err error) {
	text, err := os.ReadFile(procFile("self", "cgroup"))
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("no control groups in %s", procFile("self", "cgroup"))
	}
	if err != nil {
		return h, err
	}
	h.paths = map[string]string{}
	for line := range strings.Lines(string(text)) {
		if f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3); len(f) == 3 {
			for name := range strings.SplitSeq(f[1], ",") {
				h.paths[name] = f[2]
			}
		}
	}
	text, _ = os.ReadFile(procFile("self", "mountinfo"))
	for line := range strings.Lines(string(text)) {
		if m, ok := parseMount(line); ok && (os.Getenv("HOST_SYS") == "" || isBelow(m.point, cgroupRoot())) {
			h.mounts = append(h.mounts, m)
		}
	}
	if len(h.mounts) == 0 {
		h.mounts = guessMounts(cgroupRoot())
	}
	return h, nil
}

// parseMount parses a line of mountinfo, which proc(5) describes. It reports
// false for other file systems.
func parseMount(line string) (m cgroupMount, ok bool) {
	mount, system, _ := strings.Cut(line, " - ")
	f, s := strings.Fields(mount), strings.Fields(system)
	if len(f) < 5 || len(s) < 3 {
		return m, false
	}
	m.root, m.point = unescape(f[3]), unescape(f[4])
	if s[0] == "cgroup" {
		m.controllers = strings.Split(s[2], ",")
	}
	return m, s[0] == "cgroup" || s[0] == "cgroup2"
}

// unescape decodes the octal escapes of mountinfo.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace

// guessMounts returns the hierarchies below root by the names of their
// directories, if mountinfo lists none.
func guessMounts(root string) (mounts []cgroupMount) {
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		return []cgroupMount{{root: "/", point: root, guessed: true}}
	}
	dirs, _ := os.ReadDir(root)
	for _, f := range dirs {
		m := cgroupMount{root: "/", point: filepath.Join(root, f.Name()), guessed: true}
		if f.Name() != "unified" {
			m.controllers = strings.Split(f.Name(), ",")
		}
		mounts = append(mounts, m)
	}
	return mounts
}

// group returns the group of this process in the v1 hierarchy of controller, or
// else in that of v2.
func (h hierarchies) group(controller string) (g controlGroup, ok bool) {
	for _, m := range h.mounts {
		path, exists := h.paths[controller]
		if exists && slices.Contains(m.controllers, controller) {
			if g, ok = m.group(path); ok {
				return g, true
			}
		}
	}
	for _, m := range h.mounts {
		if path, exists := h.paths[""]; exists && m.controllers == nil {
			if g, ok = m.group(path); ok {
				return g, true
			}
		}
	}
	return g, false
}

// missing returns why the group of this process cannot be found.
func (h hierarchies) missing() error {
	for _, m := range h.mounts {
		if m.controllers == nil || slices.Contains(m.controllers, "cpuacct") {
			return fmt.Errorf("the group of this process is not visible in %s", cgroupRoot())
		}
	}
	return fmt.Errorf("no CPU controller in %s", cgroupRoot())
}

// group returns the group with this path in a mount. The path and the root of
// the mount are relative to the cgroup namespace, and start with /.. if they
// are outside of it, as cgroup_namespaces(7) describes. If the path cannot be
// found in a guessed mount, the group is the mount point.
func (m cgroupMount) group(path string) (g controlGroup, ok bool) {
	g = controlGroup{top: m.point, dir: m.point, v2: m.controllers == nil}
	if !isBelow(path, m.root) {
		return g, m.guessed
	}
	below := strings.TrimPrefix(path, strings.TrimSuffix(m.root, "/"))
	if below == "/.." || strings.HasPrefix(below, "/../") {
		return g, m.guessed
	}
	dir := filepath.Join(m.point, below)
	if _, err := os.Stat(dir); err != nil {
		return g, m.guessed
	}
	g.dir = dir
	return g, true
}

// isBelow reports whether a path is that of a directory or inside of it.
func isBelow(path, dir string) bool {
	dir = strings.TrimSuffix(dir, "/")
	return path == dir || strings.HasPrefix(path, dir+"/")
}

// cpus returns the number of CPUs in the cpuset of the group or, without one,
// in the affinity of this process.
func (h hierarchies) cpus() int {
	if g, ok := h.group("cpuset"); ok {
		for g := range g.withParents {
			list := g.file("cpuset.cpus.effective")
			if !g.v2 {
				list = cmp.Or(g.file("cpuset.effective_cpus"), g.file("cpuset.cpus"))
			}
			if n := countList(list); n > 0 {
				return n
			}
		}
	}
	return runtime.NumCPU()
}

// countList counts the CPUs in a list like 0-3,8. It returns 0 if the list is
// invalid.
func countList(list string) (n int) {
	for part := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, err1 := strconv.Atoi(first)
		b, err2 := strconv.Atoi(last)
		if err1 != nil || err2 != nil || a < 0 || b < a || b >= maxCPUs {
			return 0
		}
		n += b - a + 1
	}
	return n
}
