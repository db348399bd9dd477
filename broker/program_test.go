package broker

import (
	"strings"
	"testing"
)

func TestProgramOf(t *testing.T) {
	proc := func(exe string, args ...string) Process { return Process{Exe: exe, Args: args} }
	gatepass := proc("/home/a/.local/bin/gatepass", "gatepass", "credential-process", "ops")
	line := "/home/a/.local/bin/gatepass credential-process ops"
	bash := proc("/usr/bin/bash", "-bash")
	terminal := proc("/usr/libexec/gnome-terminal-server", "/usr/libexec/gnome-terminal-server")
	in := func(cwd string, p Process) Process { p.Cwd = cwd; return p }
	for _, tt := range []struct {
		name  string
		want  string
		chain []Process
	}{
		{"nobody", "", []Process{{}}},
		{"only gatepass", "", []Process{gatepass}},
		{"typed into a shell", "/usr/bin/bash", []Process{gatepass, bash, terminal}},
		{"aws version 2", "/usr/local/bin/aws", []Process{gatepass, proc("/usr/local/bin/aws", "aws", "s3", "ls"), bash}},
		{"aws version 1", "/usr/local/bin/aws", []Process{gatepass, proc("/usr/bin/python3.11", "/usr/bin/python3", "/usr/local/bin/aws", "s3", "ls"), bash}},
		{"through sh", "/usr/bin/terraform", []Process{gatepass, proc("/usr/bin/dash", "sh", "-c", line), proc("/usr/bin/terraform", "terraform", "plan"), bash}},
		{"through sh with options", "/usr/bin/terraform", []Process{gatepass, proc("/bin/bash", "bash", "-o", "pipefail", "-ec", line), proc("/usr/bin/terraform")}},
		{"through cmd.exe", `C:\tools\app.exe`, []Process{gatepass, proc(`C:\Windows\System32\CMD.EXE`, "cmd.exe", "/d", "/C", line), proc(`C:\tools\app.exe`)}},
		{"a shell of one's own", "/usr/bin/dash", []Process{gatepass, proc("/usr/bin/dash", "sh", "-c", "gatepass export ops; make"), bash}},
		{"an upgraded gatepass", "/usr/bin/bash", []Process{proc("/usr/bin/gatepass (deleted)", "gatepass"), bash}},
		{"an upgraded program", "/usr/bin/tofu", []Process{gatepass, proc("/usr/bin/tofu (deleted)", "tofu")}},
		{"not through gatepass", "/usr/bin/curl", []Process{proc("/usr/bin/curl", "curl"), bash}},
		{"gatepass-sandbox is not gatepass", "/x/gatepass-sandbox", []Process{gatepass, proc("/x/gatepass-sandbox")}},
		{"unreadable", "/usr/sbin/sshd", []Process{gatepass, proc("", "/usr/sbin/sshd")}},
		{"an unreadable gatepass", "/usr/bin/bash", []Process{proc("", "/opt/gatepass", "credential-process"), bash}},
		{"unknown ancestor", "/usr/bin/bash", []Process{gatepass, {PID: 7}, bash}},

		{"python script", "/home/a/deploy.py", []Process{gatepass, proc("/usr/bin/python3.11", "python3", "-u", "/home/a/deploy.py", "-m", "x")}},
		{"script from a pipe", "/usr/bin/bash", []Process{gatepass, proc("/usr/bin/bash", "bash", "/dev/fd/63")}},
		{"python script, relative", "deploy.py", []Process{proc("/usr/bin/python3", "python3", "deploy.py")}},
		{"python script, relative to a directory", "/home/a/tools/deploy.py", []Process{in("/home/a", proc("/usr/bin/python3", "python3", "./tools/deploy.py"))}},
		{"python module", "python -m http.server", []Process{proc("/usr/bin/python3.11", "python3", "-m", "http.server", "8000")}},
		{"python module, clustered", "python -m pytest", []Process{proc("/usr/bin/python3.11", "python3", "-Bum", "pytest")}},
		{"python module, attached", "python -m pytest", []Process{proc("/usr/bin/python3.11", "python3", "-mpytest", "x.py")}},
		{"python options with values", "/a.py", []Process{proc("/usr/bin/python3", "python3", "-W", "error", "-Xdev", "-X", "utf8", "/a.py")}},
		{"python code", "/usr/bin/python3", []Process{proc("/usr/bin/python3", "python3", "-c", "import boto3", "/a.py")}},
		{"python terminal", "/usr/bin/python3", []Process{proc("/usr/bin/python3", "python3")}},
		{"python from a pipe", "/usr/bin/python3", []Process{proc("/usr/bin/python3", "python3", "-", "/a.py")}},
		{"python without its module", "/usr/bin/python3", []Process{proc("/usr/bin/python3", "python3", "-m")}},
		{"python after --", "/a.py", []Process{proc("/usr/bin/python3", "python3", "--", "/a.py")}},
		{"no interpreter by its script", "/usr/bin/pythonesque", []Process{proc("/usr/bin/pythonesque", "python", "/a.py")}},

		{"node script", "/srv/app.js", []Process{proc("/usr/bin/node", "node", "--require", "./hook.js", "--enable-source-maps", "/srv/app.js")}},
		{"node code", "/usr/bin/node", []Process{proc("/usr/bin/node", "node", "-e", "1", "/srv/app.js")}},
		{"node code, long", "/usr/bin/node", []Process{proc("/usr/bin/node", "node", "--eval", "1")}},
		{"deno script", "/srv/app.ts", []Process{proc("/usr/bin/deno", "deno", "run", "--allow-net", "/srv/app.ts")}},
		{"ruby script", "/srv/app.rb", []Process{proc("/usr/bin/ruby3.1", "ruby", "-I", "lib", "-rjson", "-W0", "/srv/app.rb")}},
		{"perl script", "/srv/app.pl", []Process{proc("/usr/bin/perl5.36.0", "perl", "-MJSON", "-w", "/srv/app.pl")}},
		{"perl code", "/usr/bin/perl", []Process{proc("/usr/bin/perl", "perl", "-wne", "print", "/srv/app.pl")}},
		{"java archive", "/srv/app.jar", []Process{proc("/usr/lib/jvm/17/bin/java", "java", "-Xmx1g", "-Da=b", "-jar", "/srv/app.jar", "-cp", "x")}},
		{"java class", "java com.example.Main", []Process{proc("/usr/lib/jvm/17/bin/java", "java", "-cp", "/a.jar:/b.jar", "com.example.Main")}},
		{"java source", "/srv/Main.java", []Process{proc("/usr/lib/jvm/17/bin/java", "java", "/srv/Main.java")}},
		{"shell script", "/home/a/deploy.sh", []Process{gatepass, proc("/usr/bin/bash", "bash", "-e", "-o", "pipefail", "/home/a/deploy.sh", "-c", line), bash}},
		{"shell script by its first line", "/home/a/deploy.sh", []Process{gatepass, proc("/usr/bin/bash", "/bin/sh", "/home/a/deploy.sh")}},
		{"busybox script", "/home/a/deploy.sh", []Process{gatepass, proc("/bin/busybox", "sh", "/home/a/deploy.sh")}},
		{"powershell script", `C:\deploy.ps1`, []Process{proc(`C:\pwsh.exe`, "pwsh", "-NoProfile", "-ExecutionPolicy", "Bypass", "-File", `C:\deploy.ps1`)}},
		{"powershell code", `C:\pwsh.exe`, []Process{proc(`C:\pwsh.exe`, "pwsh", "-Command", `C:\deploy.ps1`)}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := ProgramOf(tt.chain[0], tt.chain[1:]); got != tt.want {
				t.Errorf("ProgramOf = %q, want %q", got, tt.want)
			}
		})
	}
}

// What a process says of itself may be anything.
func FuzzProgramOf(f *testing.F) {
	f.Add("/usr/bin/python3", "python3\x00-m\x00x", "/")
	f.Add("/bin/sh", "sh\x00-c\x00gatepass credential-process x", "")
	f.Add("", "\x00\x00--\x00-", "")
	f.Add("java.exe", "java\x00-jar", `\`)
	f.Add("cmd.exe", "cmd\x00/C", "")
	f.Fuzz(func(t *testing.T, exe, args, cwd string) {
		p := Process{Exe: exe, Args: strings.Split(args, "\x00"), Cwd: cwd}
		got := ProgramOf(p, []Process{p})
		if other := ProgramOf(Process{}, []Process{p}); other != got {
			t.Errorf("%q as the caller, %q as its parent", got, other)
		}
		if got == "" && p.name() != "gatepass" && !strings.Contains(args, "credential-process") && p.executable() != "" {
			t.Errorf("no name for %q %q", exe, args)
		}
		p.Script()
	})
}

// What the log keeps of a caller is enough to find the process that asked.
func TestAsker(t *testing.T) {
	gatepass := Caller{PID: 9, Exe: "/usr/bin/gatepass", Command: "gatepass credential-process ops"}
	sh := Process{PID: 8, Exe: "/usr/bin/dash", Command: "sh -c /usr/bin/gatepass credential-process ops"}
	zsh := Process{PID: 6, Exe: "/usr/bin/zsh", Command: "-zsh"}
	for _, tt := range []struct {
		name      string
		program   string
		caller    Caller
		ancestors []Process
		want      int
	}{
		{"through an SDK's shell", "/usr/bin/tf", gatepass, []Process{sh, {PID: 7, Exe: "/usr/bin/tf", Command: "tf apply"}, zsh}, 7},
		{"without a shell", "/usr/bin/tf", gatepass, []Process{{PID: 7, Exe: "/usr/bin/tf"}, zsh}, 7},
		{"a script", "/home/a/deploy.sh", gatepass, []Process{sh, {PID: 7, Exe: "/usr/bin/bash", Command: "bash deploy.sh"}, zsh}, 7},
		{"typed", "/usr/bin/zsh", gatepass, []Process{zsh, {PID: 5, Exe: "/usr/bin/tmux"}}, 6},
		{"a lease's endpoint", "/usr/bin/tf", Caller{PID: 9, Exe: "/usr/bin/tf", Command: "tf"}, []Process{zsh}, 9},
		{"command lines that are not recorded", "/usr/bin/tf", Caller{PID: 9, Exe: "/usr/bin/gatepass"},
			[]Process{{PID: 8, Exe: "/usr/bin/dash", Command: "sh"}, {PID: 7, Exe: "/usr/bin/tf"}}, 7},
		{"nobody else", "", gatepass, []Process{sh}, 9},
		{"nothing known", "", Caller{}, nil, 0},
	} {
		tt.caller.Program, tt.caller.Ancestors = tt.program, tt.ancestors
		if got := tt.caller.Asker(); got.PID != tt.want {
			t.Errorf("%s: %+v, want %d", tt.name, got, tt.want)
		}
	}
}
