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
)

// A usage holds the CPU use and the limits of a control group at one moment.
type usage struct {
	group   controlGroup
	seconds float64 // of CPU time since the group was created
	limit   float64 // number of CPUs that it may use
	quotas  []quota // of the group and its visible ancestors
}

// A quota is the number of CPUs that a group may use on average over a period.
type quota struct {
	group     string // its directory
	cpus      float64
	periods   float64 // so far; NaN if the kernel does not count them
	throttled float64 // periods in which the quota was used up
}

// sameGroup reports whether both usages are of the same group. A service that
// was restarted has another one, in a new directory with the same name.
func (u *usage) sameGroup(old *usage) bool { return os.SameFile(u.group.id, old.group.id) }

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
func readGroup(named string) (u *usage, err error) {
	if !procfs {
		return nil, fmt.Errorf("no control groups on %s", runtime.GOOS)
	}
	h, err := findHierarchies()
	if err != nil {
		return nil, err
	}
	h.named = named
	g, exists, err := h.group("cpuacct")
	if err == nil && !exists {
		err = fmt.Errorf("no CPU controller in %s", cgroupRoot())
	}
	if err != nil {
		return nil, err
	}
	u = &usage{group: g}
	if err := u.setLimits(h); err != nil {
		return nil, err
	}
	u.seconds, err = g.seconds()
	return u, err
}

// setLimits sets the limits of the group. The smallest one counts: a quota of
// the group or of an ancestor, its cpuset, or the CPUs online.
func (u *usage) setLimits(h hierarchies) error {
	online, _ := readText(sysFile("devices/system/cpu/online"))
	cpus := cmp.Or(countList(online), runtime.NumCPU())
	g, exists, err := h.group("cpuset")
	if err != nil {
		return err
	}
	if exists {
		cpus = min(cpus, cmp.Or(g.cpuset(), cpus))
	}
	u.limit = float64(cpus)
	g, exists, err = h.group("cpu")
	if err != nil || !exists {
		return err
	}
	if !isWithin(u.group.path, g.path) { // as after cgexec -g cpu:GROUP
		return fmt.Errorf("CPU time is counted for group %q, but limited for group %q", u.group.path, g.path)
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
	text, _ := readText(filepath.Join(g.dir, name))
	return text
}

// seconds reads the CPU time that the group has used.
func (g controlGroup) seconds() (seconds float64, err error) {
	name, unit := "cpuacct.usage", 1e-9
	if g.v2 {
		name, unit = "cpu.stat", 1e-6
	}
	path := filepath.Join(g.dir, name)
	text, err := readText(path)
	if err != nil {
		return 0, err
	}
	n := countOf(text)
	if g.v2 {
		n = value(text, "usage_usec")
	}
	if math.IsNaN(n) {
		return 0, fmt.Errorf("no CPU time in %s", path)
	}
	return n * unit, nil
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
	q = quota{group: g.dir, cpus: countOf(share) / countOf(period)} // NaN if the share is max or -1
	if !(q.cpus > 0) {
		return q, false
	}
	text := g.file("cpu.stat")
	q.periods, q.throttled = value(text, "nr_periods"), value(text, "nr_throttled")
	return q, true
}

// cpuset returns the number of CPUs in the cpuset of the group; 0 if unknown.
// Without a cpuset of its own, a group has that of its parent.
func (g controlGroup) cpuset() int {
	files := []string{"cpuset.effective_cpus", "cpuset.cpus"} // Linux before 3.17 has only the second one
	if g.v2 {
		files = []string{"cpuset.cpus.effective"}
	}
	for g := range g.withParents {
		for _, name := range files {
			if n := countList(g.file(name)); n > 0 {
				return n
			}
		}
	}
	return 0
}

// value returns the number after key in a text of lines like "key number", or
// NaN if there is none.
func value(text, key string) float64 {
	for line := range strings.Lines(text) {
		if name, number, _ := strings.Cut(strings.TrimSpace(line), " "); name == key {
			return countOf(number)
		}
	}
	return math.NaN()
}

// countOf parses a non-negative integer. It returns NaN for any other text.
func countOf(text string) float64 {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return math.NaN()
	}
	return float64(n)
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
	text, err := readText(procFile("self/cgroup"))
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
	text, _ = readText(procFile("self/mountinfo"))
	for line := range strings.Lines(text) {
		m, ok := parseMount(line)
		if !ok || os.Getenv("HOST_SYS") != "" && !isWithin(m.point, cgroupRoot()) {
			continue
		}
		hidden := func(old cgroupMount) bool { return isWithin(old.point, m.point) } // below the new one
		h.mounts = append(slices.DeleteFunc(h.mounts, hidden), m)
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

// group returns the group in the hierarchy of a controller: the one of version 1
// that has it, or else that of version 2, if there is one. If the group is not
// visible, that is an error, because what is visible belongs to others, too.
//
// The CPU time of a named group must be counted, but it may lack a directory in
// other hierarchies of version 1. Its processes are then in that of an ancestor,
// as in the cpuset hierarchy, which systemd does not manage.
func (h hierarchies) group(controller string) (g controlGroup, exists bool, err error) {
	path, hidden := h.paths[controller]
	if !hidden {
		controller = ""
		path = h.paths[controller]
	}
	for _, m := range h.mounts {
		if path == "" || !m.has(controller) {
			continue
		}
		g = controlGroup{path: path, top: m.point, dir: m.dir(path), v2: m.controllers == nil}
		if h.named != "" {
			g.path, g.dir = h.named, filepath.Join(m.point, h.named)
		}
		g.id, err = os.Stat(g.dir)
		if err == nil && g.id.IsDir() || h.named != "" && (controller == "cpu" || controller == "cpuset") {
			return g, true, nil
		}
		hidden = true
	}
	switch {
	case !hidden:
		return g, false, nil
	case h.named != "":
		return g, false, fmt.Errorf("no group %q in %s (systemd-cgls lists them)", h.named, cgroupRoot())
	}
	return g, false, fmt.Errorf("the group of this process is not visible in %s", cgroupRoot())
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
