package main

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A usage holds the CPU use and the limits of a control group at one moment.
type usage struct {
	group  string        // its directory
	id     os.FileInfo   // of that directory
	used   time.Duration // CPU time since the group was created
	limit  float64       // number of CPUs that it may use
	quotas []quota       // of the group and its visible ancestors
}

// A quota is the number of CPUs that a group may use on average over a period.
type quota struct {
	group     string // its directory
	cpus      float64
	counted   bool   // whether the kernel tells the periods
	periods   uint64 // periods so far
	throttled uint64 // periods in which the quota was used up
}

// sameGroup reports whether both usages are of the same group. A service that
// was restarted has another one, in a new directory with the same name.
func (u *usage) sameGroup(old *usage) bool {
	return u.group == old.group && os.SameFile(u.id, old.id)
}

// comparable reports whether both usages are of the same group with the same
// limits.
func (u *usage) comparable(old *usage) bool {
	return u.sameGroup(old) && u.limit == old.limit &&
		slices.EqualFunc(u.quotas, old.quotas, func(a, b quota) bool { return a.group == b.group && a.cpus == b.cpus })
}

// readGroup reads the CPU use and the limits of the control group with this path
// below the mount point, or of that of this process if named is "". It finds the
// group each time, because processes can be moved, groups replaced and limits
// changed.
func readGroup(named string) (u *usage, at time.Time, err error) {
	at = time.Now()
	if !procfs {
		return nil, at, fmt.Errorf("no control groups on %s", runtime.GOOS)
	}
	h, err := findHierarchies()
	if err != nil {
		return nil, at, err
	}
	h.named = named
	accounts, err := h.group("cpuacct")
	if err == errNoController {
		err = fmt.Errorf("no CPU controller in %s", cgroupRoot())
	}
	if err != nil {
		return nil, at, err
	}
	u = &usage{group: accounts.dir, id: accounts.id}
	if err := u.setLimits(h, accounts); err != nil {
		return nil, at, err
	}
	u.used, at, err = accounts.used()
	return u, at, err
}

// setLimits sets the limits of a group whose CPU time is counted in accounts.
// The smallest one counts: a quota of the group or of an ancestor, its cpuset,
// or the CPUs online.
func (u *usage) setLimits(h hierarchies, accounts controlGroup) error {
	online, _, _ := readText(sysFile("devices/system/cpu/online"))
	u.limit = float64(cmp.Or(countList(online), runtime.NumCPU()))
	g, err := h.group("cpuset")
	switch {
	case err == nil:
		u.limit = min(u.limit, cmp.Or(g.cpuset(), u.limit))
	case err != errNoController:
		return err
	}
	g, err = h.group("cpu")
	switch {
	case err == errNoController:
		return nil
	case err != nil:
		return err
	case !isWithin(accounts.path, g.path): // as after cgexec -g cpu:GROUP
		return fmt.Errorf("CPU time is counted for group %q, but limited for group %q", accounts.path, g.path)
	}
	for g := range g.withParents {
		if q, limited := g.quota(); limited {
			u.quotas = append(u.quotas, q)
			u.limit = min(u.limit, q.cpus)
		}
	}
	return nil
}

// A controlGroup is one group in one hierarchy.
type controlGroup struct {
	path     string      // in the hierarchy, or below the mount point if it was named
	top, dir string      // the mount point, and the directory of the group in it
	id       os.FileInfo // of that directory
	v2       bool
}

// withParents yields the group and its ancestors up to the mount point.
func (g controlGroup) withParents(yield func(controlGroup) bool) {
	for yield(g) && len(g.dir) > len(g.top) {
		g.dir = filepath.Dir(g.dir)
	}
}

// file returns the text of a file of the group, without white space around it;
// "" if it cannot be read.
func (g controlGroup) file(name string) string {
	text, _, _ := readText(filepath.Join(g.dir, name))
	return text
}

// used reads the CPU time that the group has used.
func (g controlGroup) used() (used time.Duration, at time.Time, err error) {
	name, unit := "cpuacct.usage", time.Nanosecond
	if g.v2 {
		name, unit = "cpu.stat", time.Microsecond
	}
	path := filepath.Join(g.dir, name)
	text, at, err := readText(path)
	if err != nil {
		return 0, at, err
	}
	if g.v2 {
		text = value(text, "usage_usec")
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/int64(unit) {
		return 0, at, fmt.Errorf("no CPU time in %s", path)
	}
	return time.Duration(n) * unit, at, nil
}

// quota returns the quota of the group itself, if it has one. The files are
// described in the kernel's documentation, in sched-bwc.rst for version 1 and in
// cgroup-v2.rst for version 2.
func (g controlGroup) quota() (q quota, limited bool) {
	var share, period string
	if g.v2 {
		share, period, _ = strings.Cut(g.file("cpu.max"), " ")
	} else {
		share, period = g.file("cpu.cfs_quota_us"), g.file("cpu.cfs_period_us")
	}
	m, err1 := strconv.ParseUint(share, 10, 64) // "max" or -1 means no limit
	p, err2 := strconv.ParseUint(period, 10, 64)
	if err1 != nil || err2 != nil || m == 0 || p == 0 {
		return q, false
	}
	q = quota{group: g.dir, cpus: float64(m) / float64(p)}
	text := g.file("cpu.stat")
	q.periods, err1 = strconv.ParseUint(value(text, "nr_periods"), 10, 64)
	q.throttled, err2 = strconv.ParseUint(value(text, "nr_throttled"), 10, 64)
	q.counted = err1 == nil && err2 == nil
	return q, true
}

// cpuset returns the number of CPUs in the cpuset of the group; 0 if unknown.
// Without a cpuset of its own, a group has that of its parent.
func (g controlGroup) cpuset() float64 {
	for g := range g.withParents {
		list := g.file("cpuset.cpus.effective")
		if !g.v2 {
			list = cmp.Or(g.file("cpuset.effective_cpus"), g.file("cpuset.cpus"))
		}
		if n := countList(list); n > 0 {
			return float64(n)
		}
	}
	return 0
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
	named  string            // a group that is meant instead, below the mount point
}

// A cgroupMount is a hierarchy that is mounted in the file system.
type cgroupMount struct {
	root        string // the group at the mount point
	point       string
	controllers []string // of v1; nil for v2
}

func cgroupRoot() string { return sysFile("fs/cgroup") }

// findHierarchies reads the hierarchies from /proc/self. In $HOST_PROC, self is
// also this process, even if the directory is the /proc of the host.
func findHierarchies() (h hierarchies, err error) {
	text, _, err := readText(procFile("self/cgroup"))
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("no control groups in %s", procFile("self/cgroup"))
	}
	if err != nil {
		return h, err
	}
	h.paths = map[string]string{}
	for line := range strings.Lines(text) {
		if f := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3); len(f) == 3 {
			for name := range strings.SplitSeq(f[1], ",") {
				h.paths[name] = f[2]
			}
		}
	}
	text, _, _ = readText(procFile("self/mountinfo"))
	for line := range strings.Lines(text) {
		if m, ok := parseMount(line); ok && (os.Getenv("HOST_SYS") == "" || isWithin(m.point, cgroupRoot())) {
			h.mounts = append(h.mounts, m)
		}
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
	m.root, m.point = unescape(f[3]), filepath.Clean(unescape(f[4]))
	if s[0] == "cgroup" {
		m.controllers = strings.Split(s[2], ",")
	}
	return m, filepath.IsAbs(m.point) && (s[0] == "cgroup" || s[0] == "cgroup2")
}

// unescape decodes the octal escapes of mountinfo.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace

// errNoController means that no hierarchy has a controller.
var errNoController = errors.New("no such controller")

// group returns the group in the hierarchy of a controller: the one of version 1
// that has it, or else that of version 2. If the group is not visible, that is
// an error, because what is visible belongs to others, too.
func (h hierarchies) group(controller string) (controlGroup, error) {
	path, exists := h.paths[controller]
	hidden := exists
	if !exists {
		controller = ""
		path, exists = h.paths[controller]
	}
	for _, m := range h.mounts {
		if exists && m.has(controller) {
			g, ok := m.at(path, m.dir(path))
			if h.named != "" {
				g, ok = m.named(h.named, controller)
			}
			if ok {
				return g, nil
			}
			hidden = true
		}
	}
	switch {
	case hidden && h.named != "":
		return controlGroup{}, fmt.Errorf("no group %q in %s (systemd-cgls lists them)", h.named, cgroupRoot())
	case hidden:
		return controlGroup{}, fmt.Errorf("the group of this process is not visible in %s", cgroupRoot())
	}
	return controlGroup{}, errNoController
}

// has reports whether a mount is the hierarchy of a controller of v1, or that
// of v2 if controller is "".
func (m cgroupMount) has(controller string) bool {
	if controller == "" {
		return m.controllers == nil
	}
	return slices.Contains(m.controllers, controller)
}

// dir returns the directory of the group with this path in a mount, or "" if the
// path is outside of it. The path and the root of the mount are relative to the
// cgroup namespace, and start with /.. if they are outside of that, as
// cgroup_namespaces(7) describes.
func (m cgroupMount) dir(path string) string {
	below := "." + strings.TrimPrefix(path, strings.TrimSuffix(m.root, "/"))
	if !isWithin(path, m.root) || !filepath.IsLocal(below) {
		return ""
	}
	return filepath.Join(m.point, below)
}

// named returns the group with this clean path below the mount point. Its CPU
// time must be counted, but it may lack a directory in other hierarchies of
// version 1: its processes are then in that of an ancestor, as in the cpuset
// hierarchy, which systemd does not manage.
func (m cgroupMount) named(path, controller string) (g controlGroup, ok bool) {
	for {
		g, ok = m.at(path, filepath.Join(m.point, path))
		if ok || controller == "" || controller == "cpuacct" || path == "/" {
			return g, ok
		}
		path = filepath.Dir(path)
	}
}

// at returns the group in a directory of the mount, if that exists.
func (m cgroupMount) at(path, dir string) (g controlGroup, ok bool) {
	id, err := os.Stat(dir)
	if err != nil || !id.IsDir() {
		return g, false
	}
	return controlGroup{path: path, top: m.point, dir: dir, id: id, v2: m.controllers == nil}, true
}

// isWithin reports whether path is dir or inside it.
func isWithin(path, dir string) bool {
	dir = strings.TrimSuffix(dir, "/")
	return path == dir || strings.HasPrefix(path, dir+"/")
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
