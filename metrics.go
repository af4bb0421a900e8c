package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"
)

// writeMetrics writes the counters in the Prometheus text format. Names and help
// texts are those of node_exporter, if it has the metric. If the counters
// cannot be read, it returns an error and writes nothing. It does not build the
// whole text first, because that of a large machine is long, and a client may
// not read it.
func writeMetrics(ctx context.Context, out io.Writer, smp *sampler, ratchet *ratchet, connections int64) error {
	cores, load := smp.sample(ctx, perCPU), smp.sample(ctx, averages)
	if err := cmp.Or(cores.err, load.err); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	text := bufio.NewWriter(out)
	family := func(name, kind, help string) {
		fmt.Fprintf(text, "# HELP %s %s\n# TYPE %[1]s %[3]s\n", name, help, kind)
	}
	gauge := func(name, help string, value any) {
		family(name, "gauge", help)
		fmt.Fprintf(text, "%s %v\n", name, value)
	}
	family("node_cpu_seconds_total", "counter", "Seconds the CPUs spent in each mode.")
	ratchet.hold(cores.rows)
	for cpu := range len(cores.rows) {
		r := ratchet.row(cpu)
		if !r.online {
			continue
		}
		for mode, name := range modeNames {
			fmt.Fprintf(text, "node_cpu_seconds_total{cpu=\"%d\",mode=%q} %g\n", cpu, name, r.seconds(mode))
		}
	}
	if load.err == nil { // otherwise, the system has no load averages
		for i, minutes := range []int{1, 5, 15} {
			gauge(fmt.Sprintf("node_load%d", minutes), fmt.Sprintf("%dm load average.", minutes), load.load[i])
		}
	}
	if pressure := smp.sample(ctx, pressures); pressure.err == nil {
		family("node_pressure_cpu_waiting_seconds_total", "counter", "Total time in seconds that processes have waited for CPU time.")
		fmt.Fprintf(text, "node_pressure_cpu_waiting_seconds_total %g\n", pressure.waited.Seconds())
	}
	if labels, ok := unameLabels(); ok {
		family("node_uname_info", "gauge", "Labeled system information as provided by the uname system call.")
		fmt.Fprintf(text, "node_uname_info{%s} 1\n", labels)
	}
	stat, _ := readText(procFile("stat"))
	if n := value(stat, "btime"); n > 0 {
		gauge("node_boot_time_seconds", "Node boot time, in unixtime.", int64(n))
	}
	if n := value(stat, "procs_running"); n >= 0 {
		gauge("node_procs_running", "Number of processes in runnable state.", n)
	}
	gauge("cpunc_connections", "Open connections.", connections)
	family("cpunc_answers_total", "counter", "Replies to each word.")
	for word := range requests {
		fmt.Fprintf(text, "cpunc_answers_total{word=%q} %d\n", word.String(), smp.replies[word].Load())
	}
	family("cpunc_build_info", "gauge", "Always 1; the labels are the versions of cpunc and Go.")
	fmt.Fprintf(text, "cpunc_build_info{version=%q,goversion=%q} 1\n", version(), runtime.Version())
	text.Flush() // an error means that the client has disconnected
	return nil
}

// unameLabels returns the labels of node_uname_info. Dashboards list their hosts
// by it. Where HOST_PROC is set, they describe that host.
func unameLabels() (labels string, ok bool) {
	var list []string
	for _, l := range []struct{ name, file string }{
		{"domainname", "domainname"}, {"nodename", "hostname"}, {"release", "osrelease"}, {"sysname", "ostype"}, {"version", "version"},
	} {
		value, err := readText(procFile("sys/kernel/" + l.file))
		if err != nil {
			return "", false
		}
		list = append(list, fmt.Sprintf("%s=%q", l.name, value))
	}
	list = append(list, fmt.Sprintf("machine=%q", machine()))
	return strings.Join(list, ","), true
}

// A ratchet keeps counters from decreasing, because the rate function of
// Prometheus takes every decrease for a reset.
type ratchet struct {
	mu   sync.Mutex
	held []row // by CPU number
}

// hotplugged is the decrease of idle, in seconds, after which a CPU is taken
// for one that was offline, and whose counters start again. The rule is that of
// node_exporter.
const hotplugged = 3

// hold takes the newest counters. A counter that decreased keeps its value.
func (r *ratchet) hold(rows []row) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for cpu, now := range rows {
		if cpu == len(r.held) {
			r.held = append(r.held, row{})
		}
		held := &r.held[cpu]
		if !now.online || held.seconds(modeIdle)-now.seconds(modeIdle) >= hotplugged {
			*held = row{}
		}
		held.online = now.online
		for mode, n := range now.counts {
			held.counts[mode] = max(held.counts[mode], n)
		}
	}
}

// row returns the counters of a CPU. A scrape gets one row at a time, so that no
// copy of all rows is kept for a client that does not read.
func (r *ratchet) row(cpu int) row {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.held[cpu]
}
