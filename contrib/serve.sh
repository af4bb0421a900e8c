# serve.sh: replies to cpu, load and bye as cpunc does. Needs only sh, sleep and the /proc of Linux.
set -f; proc=${HOST_PROC:-/proc}
counters() { # The last nine digits of a number fit into the integers of every shell.
    total='' cpus=0 up=0.00 now=''
    while read -r row rest; do
        case $row in cpu) total=$rest ;; cpu*) cpus=$((cpus + 1)) ;; *) break ;; esac
    done <"$proc/stat"
    [ "$total" ] || { echo "error: cannot read CPU counters in $proc/stat"; exit 1; }
    [ ! -r "$proc/uptime" ] || read -r up _ <"$proc/uptime"
    for n in ${up%.*}${up#*.} $total; do n=00000000$n; now="$now 1${n#"${n%?????????}"}"; done
}
cpu() { # Guest time, the columns after the eighth, is already included in user and nice.
    old=$now was=$cpus elapsed=''; counters; set -- $old
    sum=0 idle=0 back=0 column=0
    for n in $now; do
        d=$((n - $1)); shift
        [ $d -gt -900000000 ] || d=$((d + 1000000000))
        [ "$elapsed" ] || { elapsed=$d; continue; }
        column=$((column + 1)); [ $column -le 8 ] || break
        [ $d -ge -100000000 ] && [ $d -le 100000000 ] || { echo nan; return; }
        [ $d -ge 0 ] || { back=$((back - d)); continue; } # iowait often decreases a little
        sum=$((sum + d)); case $column in 4 | 5) idle=$((idle + d)) ;; esac
    done
    # The counters must have gained more than others lost, and at least a tenth of the time.
    [ $cpus = $was ] && [ $sum -gt $back ] && [ $sum -ge $((elapsed / 10 * cpus)) ] || { echo nan; return; }
    while [ $sum -gt 2000000 ]; do sum=$((sum / 10)) idle=$((idle / 10)); done
    tenths=$(((1000 * (sum - idle) + sum / 2) / sum)); echo $((tenths / 10)).$((tenths % 10))
}
load() { read -r a b c _ <"$proc/loadavg" && echo "$a $b $c" || echo "error: cannot read $proc/loadavg"; }
counters; sleep 1 # The first reply covers at least a second.
while read -r line || [ "$line" ]; do
    for word in $line; do case $word in
        cpu | load) $word ;;
        bye) exit ;;
        *) printf 'error: unknown word "%s" (known: cpu, load, bye)\n' "$word"; break ;;
    esac; done
done
