package main

import (
	"fmt"
	"strings"
)

const completionShells = "bash zsh fish"

// completeArg returns what completes an argument of an option: a command for
// bash, an action for zsh, and options of the command complete for fish.
func completeArg(arg string) (bash, zsh, fish string) {
	list := strings.Join(words[:readings], " ")
	switch arg {
	case "WORDS": // separated by commas: only the last word is completed
		bash = `COMPREPLY=($(compgen -P "${cur%"${cur##*,}"}" -W "` + list + `" -- "${cur##*,}"))`
		return bash, "_values -s , reading " + list, " -x -a '(__fish_append , " + list + ")'"
	case "PATH": // in bash by readline, which quotes spaces; bash 3.2 has no compopt
		return "compopt -o default 2>/dev/null", "_files", " -r -F"
	case "COMMAND":
		return `COMPREPLY=($(compgen -c -- "$cur"))`, "_command_names -e", " -x -a '(__fish_complete_command)'"
	case "SHELL":
		bash = `COMPREPLY=($(compgen -W "` + completionShells + `" -- "$cur"))`
		return bash, "(" + completionShells + ")", " -x -a '" + completionShells + "'"
	}
	return ":", " ", " -x" // no completion
}

// completion returns the completion script for a shell. Where no argument of an
// option is expected, the script completes host names.
func completion(shell string) (string, error) {
	script := map[string]func() string{"bash": bashCompletion, "zsh": zshCompletion, "fish": fishCompletion}[shell]
	if script == nil {
		return "", fmt.Errorf("unknown shell %q (choose from %s)", shell, strings.ReplaceAll(completionShells, " ", ", "))
	}
	return script(), nil
}

func bashCompletion() string {
	var names []string
	var cases strings.Builder
	for _, o := range optionTable() {
		names = append(names, o.names...)
		pattern := strings.Join(o.names, " | ")
		if short := o.names[0]; len(short) == len("-i") {
			pattern += " | -[!-]*" + short[1:] // the last of joined options
		}
		if o.arg != "" {
			code, _, _ := completeArg(o.arg)
			fmt.Fprintf(&cases, "    %s) %s ;;\n", pattern, code)
		}
	}
	// Bash splits --read=cpu and web1:5000 into three words each.
	return fmt.Sprintf(`_cpunc() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}
    if [[ $cur == = ]]; then cur=
    elif [[ $prev == = ]]; then prev=${COMP_WORDS[COMP_CWORD-2]}; fi
    COMPREPLY=()
    case $prev in
%s    *)
        if [[ $cur == -* ]]; then COMPREPLY=($(compgen -W "%s" -- "$cur"))
        elif [[ $cur == :* || $prev == : ]]; then :
        elif declare -F _known_hosts_real >/dev/null; then _known_hosts_real -- "$cur"
        else COMPREPLY=($(compgen -A hostname -- "$cur")); fi ;;
    esac
}
complete -F _cpunc cpunc
`, &cases, strings.Join(names, " "))
}

func zshCompletion() string {
	var specs strings.Builder
	for _, o := range optionTable() {
		exclusions, arg := "("+strings.Join(o.names, " ")+")", ""
		if strings.Contains(o.usage, "repeatable") {
			exclusions = "*"
		}
		if o.arg != "" {
			_, action, _ := completeArg(o.arg)
			arg = ":" + o.arg + ":" + action
		}
		usage := strings.NewReplacer("'", `'\''`, "[", `\[`, "]", `\]`).Replace(o.usage)
		for _, name := range o.names {
			if o.arg != "" && strings.HasPrefix(name, "--") {
				name += "=" // the argument follows after = or as the next word
			} else if o.arg != "" {
				name += "+" // the argument follows at once or as the next word
			}
			fmt.Fprintf(&specs, " \\\n        '%s%s[%s]%s'", exclusions, name, usage, arg)
		}
	}
	return fmt.Sprintf(`#compdef cpunc
_cpunc() {
    _arguments -s -S%s \
        '*:host:_hosts'
}
if [ "$funcstack[1]" = _cpunc ]; then _cpunc "$@"; else compdef _cpunc cpunc; fi
`, &specs)
}

func fishCompletion() string {
	script := "complete -c cpunc -f -a '(__fish_print_hostnames)'\n"
	for _, o := range optionTable() {
		script += "complete -c cpunc"
		for _, name := range o.names {
			if long, ok := strings.CutPrefix(name, "--"); ok {
				script += " -l " + long
			} else {
				script += " -s " + name[1:]
			}
		}
		if o.arg != "" {
			_, _, options := completeArg(o.arg)
			script += options
		}
		script += " -d '" + strings.NewReplacer(`\`, `\\`, "'", `\'`).Replace(o.usage) + "'\n"
	}
	return script
}
