package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

// TestControlGroups reads the control groups of many kinds of machines and
// containers, from testdata/cgroup, which have four CPUs unless they say otherwise.
// It checks the group that is found at the end, and the reply. The file named in an
// archive is the path for --cgroup.
func TestControlGroups(t *testing.T) {
	eachFixture(t, "testdata/cgroup/*.txtar", 44, func(t *testing.T, dir string, before, after func()) string {
		t.Setenv("HOST_PROC", filepath.Join(dir, "proc"))
		t.Setenv("HOST_SYS", filepath.Join(dir, "sys"))
		layFiles(t, dir, txtar.Parse([]byte("-- from/sys/devices/system/cpu/online --\n0-3\n")), "from")
		before()
		text, _ := os.ReadFile(filepath.Join(dir, "named"))
		named := strings.TrimSpace(string(text))
		smp := newSampler(named)
		smp.sampleAll()
		c := connect(t, smp)
		c.ask("cgroup")
		after()
		found := ""
		if u, err := readGroup(named); err == nil {
			found = fmt.Sprintf("%s has %g CPUs\n", u.group.dir, u.limit)
		}
		return found + c.ask("cgroup") + "\n"
	})
}

// A service that is restarted has a new group with the same name. While it is down, the
// reply is an error; then it is a first one, also if no client has seen it down.
func TestRestartedGroup(t *testing.T) {
	if !procfs {
		t.Skip("requires the /proc of Linux")
	}
	dir := t.TempDir()
	t.Setenv("HOST_PROC", filepath.Join(dir, "proc"))
	t.Setenv("HOST_SYS", filepath.Join(dir, "sys"))
	group := filepath.Join(dir, "sys/fs/cgroup/x.service")
	lay := func(text string) {
		layFiles(t, dir, txtar.Parse([]byte(text)), "")
	}
	use := func(usec int) {
		lay(fmt.Sprintf("-- /sys/fs/cgroup/x.service/cpu.stat --\nusage_usec %d\n", usec))
	}
	stops := 0
	stop := func() { // removing it could give its inode to the next one
		stops++
		if err := os.Rename(group, group+strconv.Itoa(stops)); err != nil {
			t.Fatal(err)
		}
	}
	lay(`-- /proc/self/cgroup --
0::/
-- /proc/self/mountinfo --
30 25 0:27 / $DIR/sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw
-- /sys/devices/system/cpu/online --
0-3
`)
	use(1e6)
	synctest.Test(t, func(t *testing.T) {
		smp := newSampler("/x.service")
		smp.minFirst = time.Minute // as with -i 60 on this machine
		c := connect(t, smp)
		ask := func(want string, took time.Duration) {
			t.Helper()
			begin := time.Now()
			if got := c.ask("cgroup"); got != want || time.Since(begin) != took {
				t.Errorf("got %q after %v, want %q after %v", got, time.Since(begin), want, took)
			}
		}
		ask("0.0 0.0", time.Minute)
		time.Sleep(time.Second)
		use(3e6)
		ask("50.0 0.0", 0)

		stop()
		time.Sleep(time.Second)
		ask(`error: cgroup: no group "/x.service" in `+dir+"/sys/fs/cgroup (systemd-cgls lists them)", 0)
		use(9e6)
		time.Sleep(time.Second)
		ask("0.0 0.0", firstWindow)
		use(10e6)
		time.Sleep(time.Second)
		ask("25.0 0.0", 0)

		stop()
		time.Sleep(time.Second)
		use(11e6)
		smp.sampleAll()
		time.Sleep(2 * time.Second)
		use(15e6)
		ask("50.0 0.0", 0)
	})
}

// eachFixture runs test in a bubble for each archive that matches pattern, and fails if
// there are fewer than least. An archive states how much time passes. It contains the
// files that before and after write, and, as its last file, what test must return.
// $DIR stands for the directory of the files.
func eachFixture(t *testing.T, pattern string, least int, test func(t *testing.T, dir string, before, after func()) string) {
	if !procfs {
		t.Skip("requires the /proc of Linux")
	}
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) < least {
		t.Fatal(len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, text, _ := strings.Cut(string(archive.Comment), "\nelapsed ")
			elapsed, err := time.ParseDuration(strings.TrimSpace(text))
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			var got string
			t.Setenv("HOST_PROC", dir)
			t.Setenv("HOST_SYS", "")
			synctest.Test(t, func(t *testing.T) {
				got = test(t, dir, func() { layFiles(t, dir, archive, "from") }, func() {
					time.Sleep(elapsed)
					layFiles(t, dir, archive, "to")
				})
			})
			got = strings.ReplaceAll(got, dir, "$DIR")
			want := &archive.Files[len(archive.Files)-1]
			if *update {
				want.Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(archive), 0o666); err != nil {
					t.Fatal(err)
				}
			} else if got != string(want.Data) {
				t.Errorf("%s\ngot:\n%s\nwant:\n%s", archive.Comment, got, want.Data)
			}
		})
	}
}

// layFiles writes the files of an archive that are in the directory side, with
// $DIR replaced.
func layFiles(t *testing.T, dir string, archive *txtar.Archive, side string) {
	for _, f := range archive.Files {
		name, ok := strings.CutPrefix(f.Name, side+"/")
		if !ok {
			continue
		}
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, bytes.ReplaceAll(f.Data, []byte("$DIR"), []byte(dir)), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

// Whatever mountinfo says, a group is inside of its mount, and has a finite number of
// ancestors there.
func FuzzMounts(f *testing.F) {
	const options = " rw,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate"
	for _, mount := range []struct{ root, point, path string }{
		{"/", "/sys/fs/cgroup", "/a/b"}, {"/docker/abc", "/sys/fs/cgroup/a\\040b", "/docker/abc"},
		{"/..", "/sys/fs/cgroup", "/"}, {"/../..", "/sys/fs/cgroup", "/../../other/deep"}, {"/", "/sys/fs/cgroup", "/../x"},
		{"/", "/a/../b//", "/c/../../d"}, {"/", "x", "/"}, {"/", ".", "/..0"},
	} {
		f.Add("30 25 0:27 "+mount.root+" "+mount.point+options, mount.path)
	}
	f.Fuzz(func(t *testing.T, line, path string) {
		m, ok := parseMount(line)
		if !ok {
			return
		}
		if dir := m.dir(path); dir != "" {
			groups := 0
			for g := range (controlGroup{top: m.point, dir: dir}).withParents {
				if groups++; groups > len(dir)+1 || !isWithin(g.dir, m.point) {
					t.Fatalf("%q has %q as a group of %q", line, g.dir, path)
				}
			}
		}
	})
}

func TestCountList(t *testing.T) {
	for list, want := range map[string]int{
		"0": 1, "0-3": 4, "0-3,8,10-11": 7, "8191": 1, "0-8191": 8192,
		"": 0, "3-0": 0, "-1": 0, "a": 0, "0-": 0, "0,": 0, "0-99999999999": 0, "1-2-3": 0,
	} {
		if got := countList(list); got != want {
			t.Errorf("%q: %d, want %d", list, got, want)
		}
	}
}

// Sessions run in real control groups with limits, beside processes that would use
// more. The tests are skipped where such groups cannot be created.
func TestRealGroups(t *testing.T) {
	if testing.Short() || !procfs {
		t.Skip("requires control groups")
	}
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip(err)
	}
	t.Parallel()
	t.Run("limit", func(t *testing.T) {
		g := makeGroup(t, "limit", 30, "")
		if used, throttled := readInGroup(t, g, g); used < 70 || throttled < 50 {
			t.Errorf("in a group at its limit: %v %v", used, throttled)
		}
	})
	t.Run("siblings", func(t *testing.T) {
		makeGroup(t, "parent", 50, "")
		child, sibling := makeGroup(t, "parent/child", 30, ""), makeGroup(t, "parent/sibling", 0, "")
		if used, throttled := readInGroup(t, child, sibling); used > 50 || throttled < 50 {
			t.Errorf("beside a group that uses up the limit of the parent: %v %v", used, throttled)
		}
	})
	t.Run("cpuset", func(t *testing.T) {
		g := makeGroup(t, "cpuset", 150, "0")
		if used, throttled := readInGroup(t, g, g); used < 80 || throttled > 50 {
			t.Errorf("in a group that uses all of its only CPU: %v %v", used, throttled)
		}
	})
	t.Run("named", func(t *testing.T) {
		g := makeGroup(t, "named", 30, "")
		h, err := findHierarchies()
		if err != nil {
			t.Fatal(err)
		}
		own, _, err := h.group("cpuacct")
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(g[len(g)-1], own.top)
		var used, throttled float64
		out, err := inGroup(t, nil, g, "cpunc -l --cgroup '"+name+"' - <words")
		if n, _ := fmt.Sscanf(out, "%f %f\n", &used, &throttled); err != nil || n != 2 || used < 70 || throttled < 50 {
			t.Errorf("of a named group at its limit: %q, %v", out, err)
		}
		out, err = inGroup(t, nil, nil, "cpunc -l --cgroup '"+name+"/none' - <words 2>&1")
		if want := fmt.Sprintf("cpunc: cgroup: no group %q in /sys/fs/cgroup (systemd-cgls lists them)\n", name+"/none"); err == nil || out != want {
			t.Errorf("of a group that does not exist: %q, %v, want %q", out, err, want)
		}
	})
	t.Run("namespace", func(t *testing.T) {
		if err := exec.Command("unshare", "-C", "true").Run(); err != nil {
			t.Skip(err)
		}
		g := makeGroup(t, "namespace", 30, "")
		out, err := inGroup(t, g, nil, "unshare -C cpunc -l - <words")
		if want := "error: cgroup: the group of this process is not visible in /sys/fs/cgroup\n"; err != nil || out != want {
			t.Errorf("in a namespace without its own mounts: %q, %v, want %q", out, err, want)
		}
	})
}

// readInGroup returns the reading of a process in the group own, while another one in
// the group busy computes.
func readInGroup(t *testing.T, own, busy []string) (used, throttled float64) {
	out, err := inGroup(t, own, busy, "cpunc -l - <words")
	if n, _ := fmt.Sscanf(out, "%f %f\n", &used, &throttled); err != nil || n != 2 {
		t.Errorf("reading %q, %v", out, err)
	}
	return used, throttled
}

// inGroup runs a command of a shell in the group own, and a process that computes in
// the group busy.
func inGroup(t *testing.T, own, busy []string, command string) (out string, err error) {
	dir := t.TempDir()
	program, err := os.Executable()
	if err == nil {
		err = os.Symlink(program, filepath.Join(dir, "cpunc"))
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "words"), []byte("cgroup\n"), 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
	script := `enter() { for group; do echo 0 >"$group/cgroup.procs" || exit; done; }
[ "$BUSY" ] && { enter $BUSY; while :; do :; done; } &
trap "kill $! 2>/dev/null" EXIT
enter $OWN
` + command
	cmd := exec.Command("sh", "-c", script)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "OWN="+strings.Join(own, " "), "BUSY="+strings.Join(busy, " "))
	text, err := cmd.CombinedOutput()
	return string(text), err
}

// makeGroup creates a control group below that of this process, in all hierarchies it
// needs, and removes it at the end of the test. It may use that many percent of a CPU,
// if that is not 0, and only these CPUs, if there are any.
func makeGroup(t *testing.T, name string, percent int, cpus string) (dirs []string) {
	h, err := findHierarchies()
	if err != nil {
		t.Skip(err)
	}
	controllers := []string{"cpu", "cpuacct"}
	if cpus != "" {
		controllers = append(controllers, "cpuset")
	}
	for _, controller := range controllers {
		g, exists, err := h.group(controller)
		if err != nil || !exists {
			t.Skip(controller, ": ", err)
		}
		dir := filepath.Join(g.dir, fmt.Sprintf("cpunc-test-%d-%s", os.Getpid(), name))
		set := func(file, value string) {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0o666); err != nil {
				t.Skip(err)
			}
		}
		if !slices.Contains(dirs, dir) { // a hierarchy may have several controllers
			if g.v2 && strings.Contains(name, "/") {
				os.WriteFile(filepath.Join(dir, "..", "cgroup.subtree_control"), []byte("+cpu"), 0o666)
			}
			if err := os.Mkdir(dir, 0o777); err != nil {
				t.Skip(err)
			}
			t.Cleanup(func() { until(t, dir+" removed", func() bool { return os.Remove(dir) == nil }) })
			dirs = append(dirs, dir)
		}
		// With the highest weight, the group reaches its limit even on a busy machine.
		switch {
		case controller == "cpu" && percent > 0 && g.v2:
			set("cpu.max", fmt.Sprintf("%d 100000", 1000*percent))
			set("cpu.weight", "10000")
		case controller == "cpu" && percent > 0:
			set("cpu.cfs_quota_us", strconv.Itoa(1000*percent))
			set("cpu.shares", "262144")
		case controller == "cpuset":
			if !g.v2 {
				set("cpuset.mems", g.file("cpuset.mems"))
			}
			set("cpuset.cpus", cpus)
		}
	}
	return dirs
}
