#!/bin/sh
# Builds gatepass from this directory and installs it, shows it at work, or
# removes it again. See usage below. Runs in any POSIX shell.
set -eu

usage() {
	cat <<'USAGE'
usage: ./install.sh                        build and install to ~/.local/bin
       ./install.sh --demo                 see gatepass at work; installs nothing
       ./install.sh --uninstall [--force]  remove what was installed

PREFIX=/usr/local ./install.sh installs to /usr/local/bin instead; DESTDIR is
put before that, for packagers. Go is needed to build; your AWS files, stored
keys and audit log are never touched.

--uninstall stops the daemon and leaves keys and audit log alone. It refuses
while a profile in your AWS config still runs the installed gatepass; --force
removes it all the same.
USAGE
}

programs="gatepass gatepassd gatepass-sandbox"

say() { printf '%s\n' "$*"; }
fail() {
	printf 'install.sh: %s\n' "$1" >&2
	shift
	for line; do printf '            %s\n' "$line" >&2; done
	exit 1
}

# have_go fails unless the Go on PATH is as new as go.mod asks.
have_go() {
	need=$(sed -n 's/^go //p' "$source_dir/go.mod")
	command -v go >/dev/null 2>&1 || fail "Go is needed to build gatepass, and there is no go on PATH." \
		"Get Go $need or newer from https://go.dev/dl/ or your package manager, then run this again."
	have=$(GOTOOLCHAIN=local go env GOVERSION 2>/dev/null) || have=unknown
	older=$(printf '%s\n%s\n' "${have#go}" "$need" | awk -F'[.a-z-]+' '
		NR == 1 { a = $1 * 1000000 + $2 * 1000 + $3 }
		NR == 2 { print (a < $1 * 1000000 + $2 * 1000 + $3) ? "yes" : "no" }')
	[ "$older" = no ] || fail "Go $need or newer is needed to build gatepass, and this is ${have#go}." \
		"Get a newer one from https://go.dev/dl/ or your package manager, then run this again."
}

# build puts the programs into the directory $1. The client is static and
# leaves out the CLI library's manual-page writer, a third of its start-up; the
# daemon is built as the platform's keychain needs it.
build() {
	(
		cd "$source_dir"
		CGO_ENABLED=0 go build -trimpath -tags urfave_cli_no_docs -o "$1/gatepass" ./cmd/gatepass
		CGO_ENABLED=0 go build -trimpath -o "$1/gatepass-sandbox" ./cmd/gatepass-sandbox
		if [ "$(uname -s)" = Darwin ]; then
			go build -trimpath -o "$1/gatepassd" ./cmd/gatepassd
		else
			CGO_ENABLED=0 go build -trimpath -o "$1/gatepassd" ./cmd/gatepassd
		fi
	) || fail "the build failed; what Go said is above."
}

install_programs() {
	have_go
	if ! mkdir -p "$target" 2>/dev/null || [ ! -w "$target" ]; then
		fail "cannot write to $target." \
			"Choose another place with PREFIX=DIR ./install.sh, or run this as a user who may write there."
	fi
	work=$(mktemp -d)
	trap 'rm -rf "$work"' EXIT
	say "Building with $(go env GOVERSION) ..."
	build "$work"
	for p in $programs; do
		# Beside the target, then renamed: a running program keeps its file,
		# and nobody sees half a new one.
		if ! { cp "$work/$p" "$target/.$p.new" && chmod 755 "$target/.$p.new" && mv -f "$target/.$p.new" "$target/$p"; }; then
			rm -f "$target/.$p.new"
			fail "cannot write $target/$p."
		fi
	done
	say "Installed $programs to $target."
	[ -z "${DESTDIR:-}" ] || return 0

	if "$target/gatepass" daemon status >/dev/null 2>&1; then
		"$target/gatepass" daemon restart || fail "the running daemon could not be restarted." "Try: $target/gatepass daemon restart"
		say "Restarted the running daemon."
	fi
	next="gatepass"
	case ":$PATH:" in
	*":$target:"*) ;;
	*)
		next="$target/gatepass"
		say "$target is not on your PATH. To put it there, add this line to your shell's profile:"
		say "    export PATH=\"$target:\$PATH\""
		;;
	esac
	say "Next: store the access key of an IAM user:"
	say "    $next keys add NAME"
}

uninstall_programs() {
	config=${AWS_CONFIG_FILE:-$HOME/.aws/config}
	if [ -z "$force" ] && [ -r "$config" ]; then
		# A bare name counts too if it is ours that PATH finds.
		found=$(command -v gatepass || true)
		used=$(awk -v path="$target/gatepass" -v bare="$found" '
			/^[ \t]*\[/ { section = $0 }
			/^[ \t]*credential_process[ \t]*[=:]/ {
				command = $0
				sub(/^[^=:]*[=:][ \t]*/, "", command)
				gsub(/"/, "", command)
				if (index(command, path " ") == 1 || (bare == path && index(command, "gatepass ") == 1)) print "    " section
			}' "$config")
		[ -z "$used" ] || fail "these profiles in $config still run $target/gatepass:" "$used" \
			"Take their credential_process lines out first, or insist with --force."
	fi
	removed=
	if [ -x "$target/gatepass" ] && [ -z "${DESTDIR:-}" ]; then
		if "$target/gatepass" daemon stop >/dev/null 2>&1; then say "Stopped the daemon."; fi
	fi
	for p in $programs; do
		[ -e "$target/$p" ] || continue
		rm -f "$target/$p" 2>/dev/null || fail "cannot remove $target/$p." "Run this as a user who may write there."
		removed="$removed $p"
	done
	if [ -n "$removed" ]; then
		say "Removed$removed from $target. Stored keys and the audit log are where they were."
	else
		say "Nothing to remove in $target."
	fi
}

# --- the demonstration -----------------------------------------------------

heading() { printf '\n%s\n' "$*"; }
# show prints a command as one would type it, runs it, and indents what it
# says. A pipe would lose its exit status.
show() {
	printf '  $ %s\n' "$*"
	shown=0
	"$@" >"$work/shown" 2>&1 || shown=$?
	sed 's/^/    /' "$work/shown"
	return "$shown"
}

end_demo() {
	status=$?
	trap - EXIT INT TERM HUP
	[ -z "${work:-}" ] || "$work/bin/gatepass" daemon stop >/dev/null 2>&1 || true
	[ -z "${sandbox:-}" ] || { kill "$sandbox" && wait "$sandbox"; } 2>/dev/null || true
	[ -z "${work:-}" ] || rm -rf "$work"
	if [ "$status" -eq 0 ]; then
		heading "That was all of it; the throw-away home is gone. To install: ./install.sh"
	else
		printf '\ninstall.sh: the demonstration failed (status %s).\n' "$status" >&2
	fi
	exit "$status"
}

demo() {
	have_go
	work=$(mktemp -d)
	trap end_demo EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
	say "Building with $(go env GOVERSION) ..."
	mkdir "$work/bin" "$work/home" "$work/run"
	chmod 700 "$work/home" "$work/run"
	build "$work/bin"

	# From here on nothing of the user's is in reach.
	for v in $(env | sed -n 's/^\(\(AWS\|GATEPASS\|XDG\)_[A-Za-z0-9_]*\)=.*/\1/p'); do unset "$v"; done
	unset DBUS_SESSION_BUS_ADDRESS
	export HOME="$work/home" XDG_RUNTIME_DIR="$work/run" PATH="$work/bin:$PATH"
	GATEPASS_FILE_PASSPHRASE=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
	export GATEPASS_FILE_PASSPHRASE
	mkdir -p "$HOME/.aws" "$HOME/.config/gatepass"

	heading "1. A stand-in for AWS, on this machine only."
	gatepass-sandbox --quiet --addr-file "$work/addr" >"$work/sandbox.log" 2>&1 &
	sandbox=$!
	tries=0
	while [ ! -s "$work/addr" ]; do
		tries=$((tries + 1))
		if [ "$tries" -gt 100 ] || ! kill -0 "$sandbox" 2>/dev/null; then
			cat "$work/sandbox.log" >&2
			fail "the sandbox did not start."
		fi
		sleep 0.1
	done
	endpoint=$(cat "$work/addr")
	say "   The sandbox checks signatures, keys and trust as AWS does; it listens on $endpoint."
	cat >"$HOME/.config/gatepass/gatepass.toml" <<-TOML
		keychain = "file"   # no OS keychain needed for the demonstration

		[aws]
		endpoint_url = "$endpoint"
	TOML
	cat >"$HOME/.aws/config" <<-CONFIG
		[profile deploy]
		gatepass_key = alice
		gatepass_role_arn = arn:aws:iam::111122223333:role/Deploy
		credential_process = $work/bin/gatepass credential-process deploy
		region = eu-west-1
		endpoint_url = $endpoint
		[profile operator]
		gatepass_key = alice
		gatepass_role_arn = arn:aws:iam::111122223333:role/Operator
	CONFIG

	heading "2. A key goes in. It is proved with AWS first, then kept by the daemon, which starts by itself."
	say "  \$ gatepass keys add alice --stdin      # the key of IAM user alice, through a pipe"
	gatepass-sandbox --print-key alice | gatepass keys add alice --stdin
	show gatepass keys list

	heading "3. A role's session comes out. The profile names the role; no key stands in any file:"
	sed -n '1,4p' "$HOME/.aws/config" | sed 's/^/    /'
	say "  \$ gatepass credential-process deploy   # what SDKs run; the secrets are masked here"
	document=$(gatepass credential-process deploy) # in memory alone, as an SDK has it
	printf '%s\n' "$document" |
		sed 's/\("SecretAccessKey":"\)[^"]*/\1.../; s/\("SessionToken":"\)[^"]*/\1.../; s/^/    /'
	document=

	if command -v aws >/dev/null 2>&1; then
		heading "4. The AWS CLI uses it like any profile."
		show aws --profile deploy sts get-caller-identity
	else
		heading "4. Who is it at AWS? (The AWS CLI is not installed here; gatepass asks itself.)"
		show gatepass whoami deploy
	fi

	heading "5. A lease: a command that has one role, and no way to another."
	show gatepass exec deploy -- gatepass status --prompt
	if show gatepass exec deploy -- gatepass credential-process operator; then fail "a lease let in another profile."; fi

	heading "6. The book: who asked, which process, which role. Each entry was written before the credentials left."
	show gatepass audit list
	show gatepass audit verify
	show gatepass status
}

# --- main ------------------------------------------------------------------

source_dir=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
action=install
force=
for arg; do
	case "$arg" in
	--demo) action=demo ;;
	--uninstall) action=uninstall ;;
	--force) force=yes ;;
	-h | --help)
		usage
		exit 0
		;;
	*)
		usage >&2
		exit 64
		;;
	esac
done
if [ -n "$force" ] && [ "$action" != uninstall ]; then
	usage >&2
	exit 64
fi
[ -n "${PREFIX:-}" ] || [ -n "${HOME:-}" ] || fail "HOME is not set." "Say where to install: PREFIX=DIR ./install.sh"
target=${DESTDIR:-}${PREFIX:-$HOME/.local}/bin

case "$action" in
install) install_programs ;;
uninstall) uninstall_programs ;;
demo) demo ;;
esac
