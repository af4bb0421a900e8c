package main

import (
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// If several listeners start at the same time on one path, new or stale, one serves
// and the others report that it is in use. Each removes only its own socket.
func TestListenersAtOnce(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("requires the Unix sockets of Linux")
	}
	dir := shortDir(t)
	path := filepath.Join(dir, "sock")
	for round := range 30 {
		if round%2 == 1 { // a stale socket
			old, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			old.SetUnlinkOnClose(false)
			old.Close()
		}
		listeners := make([]net.Listener, 8)
		var starting sync.WaitGroup
		for i := range listeners {
			starting.Go(func() {
				ln, err := listenUnix(t.Context(), path)
				if err == nil {
					listeners[i] = ln
				} else if err.Error() != "address already in use" {
					t.Error(err)
				}
			})
		}
		starting.Wait()
		winners := slices.DeleteFunc(listeners, func(ln net.Listener) bool { return ln == nil })
		if len(winners) != 1 {
			t.Fatalf("%d of 8 serve", len(winners))
		}
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatalf("the winner does not answer: %v", err)
		}
		conn.Close()
		if round%3 == 2 { // another file takes its place, in one of two ways
			other := filepath.Join(dir, "other")
			os.WriteFile(other, nil, 0o600)
			os.Remove(path)
			if round%2 == 1 {
				os.Symlink(other, path)
			} else {
				os.Rename(other, path)
			}
			winners[0].Close()
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("removed a file that was not its own: %v", err)
			}
			os.Remove(path)
			os.Remove(other)
		}
		winners[0].Close()
		if left, _ := os.ReadDir(dir); len(left) > 0 {
			t.Fatalf("left behind: %v", left)
		}
	}
}

// A socket is never open to others, not even while it is created. A directory that
// somebody else has locked delays a listener for a second.
func TestPrivateSocket(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere the umask of the process counts")
	}
	dir := shortDir(t)
	path := filepath.Join(dir, "s")
	var watching sync.WaitGroup
	stop := make(chan struct{})
	watching.Go(func() {
		for {
			if now, err := os.Lstat(path); err == nil && now.Mode() != os.ModeSocket|0o600 {
				t.Errorf("the socket has mode %v", now.Mode())
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	for range 200 {
		ln, err := listenUnix(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		ln.Close()
	}
	close(stop)
	watching.Wait()
	other, err := os.Open(dir)
	if err != nil || isLocked(other) {
		t.Fatal("cannot lock a directory", err)
	}
	defer other.Close()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		ln, err := listenUnix(t.Context(), path)
		if err != nil || time.Since(begin).Round(100*time.Millisecond) != lockTime {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		ln.Close()
		if took := time.Since(begin); took > 2*lockTime {
			t.Errorf("ended after %v", took)
		}
	})
}
