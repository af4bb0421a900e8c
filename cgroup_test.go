package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rogpeppe/go-internal/txtar"
)

// TestControlGroups reads the control groups of many kinds of machines and
// containers, from testdata/cgroup. It checks the group that is found at the end,
// and the reply.
func TestControlGroups(t *testing.T) {
	eachFixture(t, "testdata/cgroup/*.txtar", 20, func(t *testing.T, dir string, before, after func()) string {
		t.Setenv("HOST_PROC", filepath.Join(dir, "proc"))
		t.Setenv("HOST_SYS", filepath.Join(dir, "sys"))
		before()
		smp := newSampler()
		smp.record(context.Background())
		c := connect(t, smp)
		c.ask("cgroup")
		after()
		found := ""
		if u, _, err := readGroup(); err == nil {
			found = fmt.Sprintf("%s has %g CPUs\n", u.group, u.limit)
		}
		return found + c.ask("cgroup") + "\n"
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

// A session runs in a real control group with a CPU limit, together with a process
// that would use more. The test is skipped where such a group cannot be created.
func TestLimitedGroup(t *testing.T) {
	if testing.Short() || !procfs {
		t.Skip("requires control groups")
	}
	t.Parallel()
	groups := limitedGroups(t)
	bin := t.TempDir()
	program, err := os.Executable()
	if err == nil {
		err = os.Symlink(program, filepath.Join(bin, "cpunc"))
	}
	if err != nil {
		t.Fatal(err)
	}
	const script = `for group; do echo $$ >"$group/cgroup.procs"; done
while :; do :; done &
echo cgroup | cpunc -l -
kill $!`
	cmd := exec.Command("sh", append([]string{"-c", script, "sh"}, groups...)...)
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	var used, throttled float64
	if n, _ := fmt.Sscanf(string(out), "%f %f\n", &used, &throttled); err != nil || n != 2 || used < 70 || throttled < 50 {
		t.Errorf("readings of a group at its limit: %q, %v", out, err)
	}
}

// limitedGroups creates control groups that together may use 0.3 CPUs, and removes
// them at the end of the test.
func limitedGroups(t *testing.T) (dirs []string) {
	h, err := findHierarchies()
	if err != nil {
		t.Skip(err)
	}
	for _, controller := range []string{"cpu", "cpuacct"} {
		g, ok := h.group(controller)
		if !ok {
			t.Skip("no ", controller)
		}
		dir := filepath.Join(g.dir, fmt.Sprintf("cpunc-test-%d", os.Getpid()))
		if slices.Contains(dirs, dir) { // one hierarchy has both controllers
			continue
		}
		if err := os.Mkdir(dir, 0o777); err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { eventuallyTrue(t, dir+" removed", 5*time.Second, func() bool { return os.Remove(dir) == nil }) })
		dirs = append(dirs, dir)
		// With the highest weight, the group reaches its limit even on a busy machine.
		limit := map[string]string{"cpu.cfs_quota_us": "30000", "cpu.shares": "262144"}
		if g.v2 {
			limit = map[string]string{"cpu.max": "30000 100000", "cpu.weight": "10000"}
		}
		for file, value := range limit {
			if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0o666); err != nil && controller == "cpu" {
				t.Skip(err)
			}
		}
	}
	return dirs
}
