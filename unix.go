package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// A unixListener removes its socket when it is closed, if that is still the one
// at path.
type unixListener struct {
	net.Listener
	path   string
	socket os.FileInfo
}

// listenUnix listens on a socket at path that only its owner can use. It
// replaces a stale socket. If several processes start at once with the same
// path, one succeeds and the others fail.
func listenUnix(ctx context.Context, path string) (net.Listener, error) {
	defer lockDir(filepath.Dir(path), lockTime)()
	if old, err := os.Lstat(path); err == nil {
		if err := checkStale(path, old); err != nil {
			return nil, err
		}
		if err := removeSame(path, old); err != nil {
			return nil, err // of another user, in a directory like /tmp
		}
	}
	public := func() {}
	config := net.ListenConfig{Control: func(_, _ string, socket syscall.RawConn) error {
		return socket.Control(func(fd uintptr) { public = makePrivate(fd) })
	}}
	ln, err := config.Listen(ctx, "unix", path)
	public()
	if err != nil {
		return nil, err
	}
	if ln, ok := ln.(interface{ SetUnlinkOnClose(bool) }); ok { // Plan 9 has no such method
		ln.SetUnlinkOnClose(false)
	}
	now, err := os.Lstat(path)
	if err == nil && now.Mode().Perm()&0o077 != 0 { // makePrivate has no effect, as in some sandboxes
		err = os.Chmod(path, 0o600)
	}
	if err != nil {
		ln.Close()
		return nil, err
	}
	return &unixListener{ln, path, now}, nil
}

// checkStale fails if old, the file at path, is not a socket, or if a process
// listens on it.
func checkStale(path string, old os.FileInfo) error {
	if old.Mode().Type() != os.ModeSocket {
		return errors.New("exists and is not a socket")
	}
	for _, kind := range []string{"unix", "unixgram", "unixpacket"} {
		conn, err := net.DialTimeout(kind, path, time.Second)
		if err == nil {
			conn.Close()
		}
		busy, ok := err.(net.Error)
		switch {
		case err == nil, ok && busy.Timeout():
			return errors.New("address already in use")
		case errors.Is(err, os.ErrPermission):
			return err
		}
	}
	return nil
}

const lockTime = time.Second // for another process that creates or removes a socket

// lockDir waits until no other process is creating or removing a socket in a
// directory, and prevents that until unlock. If the directory cannot be locked,
// or not within the timeout, it goes on without, because anybody could prevent
// it. It locks the directory and no file, because any other name in it may be
// that of a user's file, or of a link that leads elsewhere.
func lockDir(dir string, timeout time.Duration) (unlock func()) {
	f, err := os.Open(dir)
	if err != nil {
		return func() {}
	}
	for deadline := time.Now().Add(timeout); isLocked(f) && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	return func() { f.Close() }
}

func (l *unixListener) Close() error {
	defer lockDir(filepath.Dir(l.path), grace)()
	removeSame(l.path, l.socket)
	return l.Listener.Close()
}

// removeSame removes the socket at path if it is still the same one. A new
// socket there may have the same inode number, so the times are compared, too.
func removeSame(path string, socket os.FileInfo) error {
	now, err := os.Lstat(path)
	if err == nil && os.SameFile(now, socket) && now.ModTime().Equal(socket.ModTime()) {
		return os.Remove(path)
	}
	return nil
}
