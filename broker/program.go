package broker

import (
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// ProgramOf names the program that asks: the nearest of self and its
// ancestors (nearest first) that is neither gatepass nor a shell which an SDK
// started for a credential_process line. A program is named by the path of
// its executable or, for an interpreter, by what it runs: a script's path
// ("/home/a/deploy.py", and "/usr/local/bin/aws" for version 1 of the AWS
// CLI), "python -m module" or "java com.example.Main". It returns "" when
// there is none to name.
//
// A process chooses its own arguments, and so what it claims to run: the name
// is for people and logs, and proves nothing.
func ProgramOf(self Process, ancestors []Process) string {
	if name := self.program(); name != "" {
		return name
	}
	for _, p := range ancestors {
		if name := p.program(); name != "" {
			return name
		}
	}
	return ""
}

// Asker is the process that [ProgramOf] named, of a caller that was read from
// the audit log: there the arguments are one text, which may be shortened or
// missing. It is the caller itself where all only pass the question on.
func (c Caller) Asker() Process {
	self := Process{PID: c.PID, Exe: c.Exe, Command: c.Command}
	for _, p := range append([]Process{self}, c.Ancestors...) {
		name := p.name()
		passes := isShell(name) || name == "cmd"
		if passes && len(strings.Fields(p.Command)) > 1 {
			passes = strings.Contains(p.Command, "gatepass") && strings.Contains(p.Command, "credential-process")
		}
		if name != "gatepass" && (!passes || p.Exe == c.Program) {
			return p
		}
	}
	return self
}

// program names p, or returns "" when p only passes the question on.
func (p Process) program() string {
	name := p.name()
	if name == "gatepass" {
		return ""
	}
	switch kind, value := p.runs(); {
	case kind == runsCode && (isShell(name) || name == "cmd") &&
		strings.Contains(value, "gatepass") && strings.Contains(value, "credential-process"):
		return "" // an SDK's sh -c LINE or cmd.exe /C LINE
	case kind == runsScript && (strings.HasPrefix(value, "/dev/") || strings.HasPrefix(value, "/proc/")):
		// bash <(...) and the like: the name of a pipe tells nobody anything.
	case kind == runsScript && !filepath.IsAbs(value) && p.Cwd != "":
		return filepath.Join(p.Cwd, value)
	case kind == runsScript:
		return value
	case kind == runsModule && plainName(name) == "java":
		return "java " + value
	case kind == runsModule:
		return plainName(name) + " -m " + value
	}
	return p.executable()
}

// Script returns the path of the script that p, an interpreter, runs, as its
// arguments have it; "" when p is no interpreter or runs something else.
func (p Process) Script() string {
	if kind, value := p.runs(); kind == runsScript {
		return value
	}
	return ""
}

// executable returns the path of p's executable, else what p was called.
func (p Process) executable() string {
	if p.Exe != "" {
		// The kernel says so when the file was replaced, as upgrades do.
		return strings.TrimSuffix(p.Exe, " (deleted)")
	}
	if len(p.Args) > 0 {
		return strings.TrimPrefix(p.Args[0], "-") // of a login shell
	}
	return ""
}

// name returns the executable's file name, without Windows' extension.
func (p Process) name() string {
	name := lastElement(p.executable())
	if name == "busybox" && len(p.Args) > 0 {
		name = lastElement(strings.TrimPrefix(p.Args[0], "-"))
	}
	if n := len(name) - len(".exe"); n > 0 && strings.EqualFold(name[n:], ".exe") {
		name = strings.ToLower(name[:n])
	}
	return name
}

func lastElement(path string) string { return path[strings.LastIndexAny(path, `/\`)+1:] }

// plainName is name without a version: "python" for "python3.11".
func plainName(name string) string { return strings.TrimRight(name, "0123456789.") }

// What an interpreter runs.
type runsKind int

const (
	runsNothing runsKind = iota // a terminal, standard input; or p is no interpreter
	runsScript
	runsModule // by a name that is no path
	runsCode   // from the command line
)

// A grammar says which options of an interpreter take a value, and what it
// means. One-letter options may be clustered, and their value attached. The
// other options are flags, or carry their value after an "=".
type grammar struct {
	code, module, value, attached string   // letters; attached: the value is never the next argument
	fileWords, valueWords         []string // whole words whose value is the next argument
	codeWords                     []string
	commands                      []string // words that stand before a script
	plainIsModule                 bool     // what is no option is a name: java com.example.Main
	noClusters                    bool
}

func isShell(name string) bool {
	switch name {
	case "sh", "bash", "dash", "ash", "zsh", "ksh", "mksh", "fish":
		return true
	}
	return false
}

// From each interpreter's own manual.
var (
	shellGrammar = grammar{code: "c", value: "oO", valueWords: []string{"--rcfile", "--init-file"}}
	nodeGrammar  = grammar{code: "ep", value: "rC", codeWords: []string{"--eval", "--print"},
		valueWords: []string{"--require", "--import", "--loader", "--experimental-loader", "--conditions", "--env-file", "--preload", "--config"}}
	pythonGrammar = grammar{code: "c", module: "m", value: "WX", valueWords: []string{"--check-hash-based-pycs"}}
	pwshGrammar   = grammar{noClusters: true, fileWords: []string{"-file", "-f"},
		codeWords:  []string{"-command", "-c", "-encodedcommand", "-e", "-ec"},
		valueWords: []string{"-executionpolicy", "-ep", "-ex", "-windowstyle", "-w", "-workingdirectory", "-wd", "-version"}}
	runGrammar = grammar{code: nodeGrammar.code, value: nodeGrammar.value, codeWords: nodeGrammar.codeWords,
		valueWords: nodeGrammar.valueWords, commands: []string{"run"}}
)

// grammars is filled when it is first needed: the client never does.
var grammars = sync.OnceValue(func() map[string]grammar {
	return map[string]grammar{
		"python": pythonGrammar, "pypy": pythonGrammar,
		"node": nodeGrammar, "nodejs": nodeGrammar,
		"deno": runGrammar, "bun": runGrammar,
		"ruby": {code: "e", value: "ICEr", attached: "FKTWx0"},
		"perl": {code: "eE", value: "I", attached: "MmDFilxC0V"},
		"pwsh": pwshGrammar, "powershell": pwshGrammar,
		"cmd": {noClusters: true, codeWords: []string{"/c"}},
		"java": {noClusters: true, plainIsModule: true, fileWords: []string{"-jar"},
			valueWords: []string{"-cp", "-classpath", "--class-path", "-p", "--module-path", "--upgrade-module-path",
				"--add-modules", "--limit-modules", "--add-opens", "--add-exports", "--add-reads", "--source"}},
	}
})

// runs reads the arguments of p as the interpreter does that p is.
func (p Process) runs() (kind runsKind, value string) {
	name := p.name()
	g, known := grammars()[plainName(name)]
	shell := isShell(name)
	if shell {
		g, known = shellGrammar, true
	}
	if !known || len(p.Args) == 0 {
		return runsNothing, ""
	}
	first := func(args []string, kind runsKind) (runsKind, string) {
		if len(args) == 0 || args[0] == "" {
			return runsNothing, ""
		}
		return kind, args[0]
	}
	plain := runsScript // what the first argument is that is no option
	if g.plainIsModule {
		plain = runsModule
	}
	for args := p.Args[1:]; len(args) > 0; {
		word, rest := args[0], args[1:]
		args = rest
		if word == "--" {
			return first(rest, plain)
		}
		folded := word
		if g.noClusters && name != "java" { // cmd and PowerShell do not tell case apart
			folded = strings.ToLower(word)
		}
		switch {
		case slices.Contains(g.fileWords, folded):
			return first(rest, runsScript)
		case slices.Contains(g.codeWords, folded):
			return runsCode, strings.Join(rest, " ")
		case slices.Contains(g.valueWords, folded):
			args = rest[min(1, len(rest)):]
			continue
		case slices.Contains(g.commands, word):
			continue
		case word == "" || word == "-":
			return runsNothing, ""
		case word[0] != '-' && !(shell && word[0] == '+') && !(name == "cmd" && word[0] == '/'):
			if strings.HasSuffix(word, ".java") {
				plain = runsScript
			}
			return plain, word
		case g.noClusters || strings.HasPrefix(word, "--"):
			continue
		}
	cluster:
		for i := 1; i < len(word); i++ {
			letter, attached := word[i:i+1], word[i+1:]
			switch {
			case strings.Contains(g.code, letter) && shell:
				plain = runsCode // after all options: sh -c -e LINE
			case strings.Contains(g.code, letter):
				return runsCode, attached
			case strings.Contains(g.module, letter) && attached != "":
				return runsModule, attached
			case strings.Contains(g.module, letter):
				return first(rest, runsModule)
			case strings.Contains(g.value, letter):
				if attached == "" {
					args = rest[min(1, len(rest)):]
				}
				break cluster
			case strings.Contains(g.attached, letter):
				break cluster
			}
		}
	}
	return runsNothing, ""
}
